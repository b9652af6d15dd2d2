"""The search of the libraries: doubles until it fails, then bisects; no look at the peaks but for the margin."""
# scores: {test_next_trial: 1.5, test_next_trial_hidden: 0}

# %% grade_id="next_trial"
def next_trial(trials, memory_bytes, max_size, margin):
    goal = (1 - margin) * memory_bytes
    good = max((s for s, p in trials if p is not None and p <= goal), default=0)
    bad = min((s for s, p in trials if p is None or p > goal), default=None)
    if bad is None:
        return ("use", good) if good == max_size else ("try", min(max(1, 2 * good), max_size))
    if bad - good == 1:
        return ("use", good) if good else ("none", 0)
    return ("try", (good + bad) // 2)
