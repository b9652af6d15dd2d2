"""Looks at forward passes only, so an applied overflow is blamed on the next step's activation."""
# scores: {test_first_fault: 1.25, test_first_fault_hidden: 1.25}

# %% grade_id="first_fault"
def first_fault(records):
    for step, phase, tensor, max_abs in records:
        if phase == "forward" and not math.isfinite(max_abs):
            return step, tensor, "activation"
    return None
