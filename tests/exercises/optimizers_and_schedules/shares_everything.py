"""Divides weights and gradients by the ranks as well, as stage 3 would, and takes Muon for one number everywhere."""
# scores: {test_what_fits: 0.5, test_what_fits_hidden: 0}

# %% grade_id="what_fits"
def what_fits(num_params, num_hidden, dp_size, memory_bytes):
    result = {}
    for name, k in {"sgd": 0, "momentum": 1, "lion": 1, "adamw": 2, "muon": 1}.items():
        whole = (8 + 4 * k) * num_params
        result[name] = 0 if whole <= memory_bytes else 1 if whole / dp_size <= memory_bytes else None
    return result
