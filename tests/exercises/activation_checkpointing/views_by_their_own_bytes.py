"""Counts a view by its own bytes, not by its storage's; wants gradients of tensors of whole numbers."""
# scores: {test_recompute_hidden: 1, test_kept_by_layer_hidden: 0}

# %% grade_id="recompute"
def recompute(function, generator, *tensors):
    state = generator.get_state()

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return function(generator, *tensors)

        @staticmethod
        def backward(ctx, grad_output):
            tensors = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            now = generator.get_state()
            generator.set_state(state)
            with torch.enable_grad():
                output = function(generator, *tensors)
            generator.set_state(now)
            output.backward(grad_output)
            return tuple(t.grad for t in tensors)

    return Again.apply(*tensors)


# %% grade_id="kept_by_layer"
def kept_by_layer(layers, x):
    seen, result = {p.data_ptr(): p for layer in layers for p in layer.parameters()}, []

    def pack(tensor):
        if tensor.data_ptr() not in seen:
            seen[tensor.data_ptr()] = tensor.detach()
            result[-1] += tensor.nbytes
        return tensor

    for layer in layers:
        result.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            x = layer(x)
    return result
