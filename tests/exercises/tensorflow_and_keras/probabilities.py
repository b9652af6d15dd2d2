"""The exported model ends in a softmax: probabilities where logits were asked for."""
# scores: {test_export_model: 0, test_export_model_hidden: 0}

# %% grade_id="export_model"
def export_model(weights, bias, directory):
    dense = keras.layers.Dense(len(bias), activation="softmax")
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), dense]
    model = keras.Sequential(layers)
    dense.set_weights([weights, bias])
    model.export(directory, verbose=False)
