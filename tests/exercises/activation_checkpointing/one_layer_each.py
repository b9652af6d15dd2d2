"""The best placement among those whose segments have one layer. And counts parameters among what layers keep."""
# scores: {test_place_checkpoints: 2.5, test_place_checkpoints_hidden: 0, test_kept_by_layer: 0}

# %% grade_id="place_checkpoints"
def place_checkpoints(inside, boundary, seconds, budget):
    best = {0: (0, [])}
    for i in range(len(inside)):
        found = {}
        for held, (cost, segments) in best.items():
            options = [(inside[i], inside[i], 0, []), (boundary[i], boundary[i] + inside[i], seconds[i], [(i, i + 1)])]
            for more, moment, price, piece in options:
                now = held + more
                if held + moment <= budget and (now not in found or cost + price < found[now][0]):
                    found[now] = (cost + price, segments + piece)
        best = found
    return min(best.values(), key=lambda pair: pair[0])[1] if best else None


# %% grade_id="kept_by_layer"
def kept_by_layer(layers, x):
    kept, result = {}, []

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for layer in layers:
            before = set(kept)
            x = layer(x)
            result.append(sum(kept[key].untyped_storage().nbytes() for key in set(kept) - before))
    return result
