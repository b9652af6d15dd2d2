"""Training and serving differ: the exported model expects numbers from 0 to 1 and is sent bytes."""
# scores: {test_export_model: 0, test_export_model_hidden: 0}

# %% grade_id="export_model"
def export_model(weights, bias, directory):
    dense = keras.layers.Dense(len(bias))
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), dense])
    dense.set_weights([weights, bias])
    model.export(directory, verbose=False)
