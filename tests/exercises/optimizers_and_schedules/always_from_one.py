"""Takes each phase to start at 1, as if all schedules were warm-up and fall."""
# scores: {test_multiplier: 1.5, test_multiplier_hidden: 0}

# %% grade_id="multiplier"
def multiplier(step, phases):
    first, to = True, 0.0
    for kind, length, to in phases:
        a = 0.0 if first else 1.0
        if step < length:
            k = step / length
            if kind == "linear":
                return a + (to - a) * k
            if kind == "cosine":
                return to + (a - to) * (1 + math.cos(math.pi * k)) / 2
            return a * (to / a) ** k
        step, first = step - length, False
    return to
