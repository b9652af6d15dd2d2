"""Does next to nothing: asks the device once, fits everything with two, tries two sizes, packs in pairs."""
# scores: {test_robust_step: 0, test_robust_step_hidden: 0, test_agreed_step: 0, test_agreed_step_hidden: 0, test_next_trial: 0, test_next_trial_hidden: 0, test_pack: 0, test_pack_hidden: 0}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    device(rows[:size])
    return size


# %% grade_id="agreed_step"
def agreed_step(attempt, size):
    attempt(2)
    return 2


# %% grade_id="next_trial"
def next_trial(trials, memory_bytes, max_size, margin):
    fits = [size for size, peak in trials if peak is not None and peak <= (1 - margin) * memory_bytes]
    if fits:
        return "use", fits[-1]
    return ("try", 1 if trials else max_size) if len(trials) < 2 else ("none", 0)


# %% grade_id="pack"
def pack(lengths, linear, quadratic, budget):
    return [list(range(len(lengths)))[i : i + 2] for i in range(0, len(lengths), 2)], []
