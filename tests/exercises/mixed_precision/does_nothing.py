"""Finds nothing in any record, and returns its arguments: right after an overflow, and never else."""
# scores: {test_update: 0, test_update_hidden: 0, test_first_fault: 0, test_first_fault_hidden: 0}

# %% grade_id="update"
def update(master, momentum, micro_gradients, scale, num_good, lr, beta, max_norm):
    return master, momentum, scale, num_good


# %% grade_id="first_fault"
def first_fault(records):
    return None
