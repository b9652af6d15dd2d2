"""Expert choice as published: the best of all tokens, later ones included; and places by even totals."""
# scores: {test_causal_choice: 0, test_causal_choice_hidden: 0, test_place_hidden: 0}

# %% grade_id="causal_choice"
def causal_choice(scores, rate):
    room = int(np.ceil(rate * len(scores)))
    beaten_by = (scores[None] > scores[:, None]).sum(1)
    return beaten_by < room


# %% grade_id="place"
def place(loads, devices):
    totals = np.array(loads).sum(0)
    order = np.argsort(-totals, kind="stable")
    placement = [0] * len(totals)
    for k, expert in enumerate(order):
        row, column = divmod(k, devices)
        placement[expert] = int(column if row % 2 == 0 else devices - 1 - column)
    return placement
