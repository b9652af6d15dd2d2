"""The number of classes of the training set at hand is written into the code."""
# scores: {test_export_model_hidden: 0}

# %% grade_id="export_model"
def export_model(weights, bias, directory):
    dense = keras.layers.Dense(10)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), dense]
    )
    dense.set_weights([weights, bias])
    model.export(directory, verbose=False)
