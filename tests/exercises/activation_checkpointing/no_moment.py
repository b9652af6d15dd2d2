"""Counts what is kept after the forward pass only, not the segment that is there in full while it runs again."""
# scores: {test_place_checkpoints: 0, test_place_checkpoints_hidden: 0}

# %% grade_id="place_checkpoints"
def place_checkpoints(inside, boundary, seconds, budget):
    best = {0: (0, [])}
    for i in range(len(inside)):
        found = {}
        for held, (cost, segments) in best.items():
            for more, price, piece in ((inside[i], 0, []), (boundary[i], seconds[i], [(i, i + 1)])):
                now = held + more
                if now <= budget and (now not in found or cost + price < found[now][0]):
                    found[now] = (cost + price, segments + piece)
        best = found
    return min(best.values(), key=lambda pair: pair[0])[1] if best else None
