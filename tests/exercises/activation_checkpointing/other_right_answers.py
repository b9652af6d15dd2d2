"""Right in other ways: the state saved as a tensor, placement by recursion from the front, storages by id."""
# scores: {}

# %% grade_id="recompute"
def recompute(function, generator, *tensors):
    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(generator.get_state(), *tensors)
            return function(generator, *tensors)

        @staticmethod
        def backward(ctx, grad_output):
            state, *given = ctx.saved_tensors
            own = torch.Generator()
            own.set_state(state)
            inputs = [t.detach().requires_grad_(need) for t, need in zip(given, ctx.needs_input_grad)]
            with torch.enable_grad():
                output = function(own, *inputs)
            wanted = [t for t in inputs if t.requires_grad]
            found = dict(zip(map(id, wanted), torch.autograd.grad(output, wanted, grad_output)))
            return tuple(found.get(id(t)) for t in inputs)

    return Again.apply(*tensors)


# %% grade_id="kept_by_layer"
def kept_by_layer(layers, x):
    alive, seen = [], {p.untyped_storage()._cdata for layer in layers for p in layer.parameters()}
    result = [0] * len(layers)
    for number, layer in enumerate(layers):

        def pack(tensor, number=number):
            storage = tensor.untyped_storage()
            alive.append(storage)
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                result[number] += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            x = layer(x)
    return result


# %% grade_id="place_checkpoints"
def place_checkpoints(inside, boundary, seconds, budget):
    from functools import lru_cache

    n = len(inside)

    @lru_cache(None)
    def best(layer, held):
        """(cost, segments) of the layers from this one on, or None."""
        if held > budget:
            return None
        if layer == n:
            return 0, ()
        found = [best(layer + 1, held + inside[layer])]
        for stop in range(layer + 1, n + 1):
            if held + boundary[layer] + sum(inside[layer:stop]) <= budget:
                rest = best(stop, held + boundary[layer])
                if rest is not None:
                    found.append((rest[0] + sum(seconds[layer:stop]), ((layer, stop), *rest[1])))
        return min((f for f in found if f is not None), default=None, key=lambda pair: pair[0])

    answer = best(0, 0)
    return None if answer is None else list(answer[1])
