"""Two probes and the line, unchecked: right where memory is a line, elsewhere a failure waits."""
# scores: {test_next_trial: 0, test_next_trial_hidden: 0}

# %% grade_id="next_trial"
def next_trial(trials, memory_bytes, max_size, margin):
    goal = (1 - margin) * memory_bytes
    if len(trials) < 2:
        return "try", len(trials) + 1
    (a, at_a), (b, at_b) = trials[:2]
    if at_a is None or at_a > goal:
        return "none", 0
    m = (at_b - at_a) / (b - a)
    return "use", min(max_size, int((goal - at_a) // m) + a)
