"""Calls the function and nothing more: right gradients, nothing saved. And looks at tensors, not at storages."""
# scores: {test_recompute: 0, test_recompute_hidden: 0, test_kept_by_layer: 0, test_kept_by_layer_hidden: 0}

# %% grade_id="recompute"
def recompute(function, generator, *tensors):
    return function(generator, *tensors)


# %% grade_id="kept_by_layer"
def kept_by_layer(layers, x):
    result = []
    for layer in layers:
        sizes = []

        def pack(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            x = layer(x)
        result.append(sum(sizes))
    return result
