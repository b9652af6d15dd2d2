"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_kept_by_layer: 0, test_kept_by_layer_hidden: 0}

# %% grade_id="kept_by_layer"
def kept_by_layer(layers, x):
    return [0] * len(layers)


kept_by_layer(None, None).append(model)
