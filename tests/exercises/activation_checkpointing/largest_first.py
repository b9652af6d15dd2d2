"""Checkpoints one layer at a time, the largest first, until the sum fits. And forgets that heads share keys."""
# scores: {test_place_checkpoints: 1, test_place_checkpoints_hidden: 0, test_layer_bytes: 0.5, test_layer_bytes_hidden: 0, test_step_ratio: 1, test_step_ratio_hidden: 0}

# %% grade_id="place_checkpoints"
def place_checkpoints(inside, boundary, seconds, budget):
    chosen = []
    while True:
        segments = [(i, i + 1) for i in sorted(chosen)]
        if judge_placement(segments, inside, boundary, seconds)[0] <= budget:
            return segments
        rest = [i for i in range(len(inside)) if i not in chosen]
        if not rest:
            return None
        chosen.append(max(rest, key=lambda i: inside[i]))


# %% grade_id="layer_bytes"
def layer_bytes(num_tokens, t, d, h, g, d_ff, attention, keep):
    if keep == "input":
        return 2 * num_tokens * d
    scores = 2 * h * t if attention == "stored" else 4 * h
    numbers = 7 * d + 2 * d_ff if keep == "products" else 8 * d + 4 * d_ff
    return num_tokens * (2 * numbers + scores)


# %% grade_id="step_ratio"
def step_ratio(layers, segments):
    once = 3 * sum(op for layer in layers for op in layer if op != "keeps")
    again = 0
    for start, stop in segments:
        products = [op for layer in layers[start:stop] for op in layer if op != "keeps"]
        again += sum(products[:-1])  # the last product, whatever comes after it
    return (once + again) / once
