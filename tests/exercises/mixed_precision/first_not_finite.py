"""Names the first tensor that is not finite, whatever came of it: a step that was left out counts as a fault."""
# scores: {test_first_fault: 1.25, test_first_fault_hidden: 0}

# %% grade_id="first_fault"
def first_fault(records):
    for step, phase, tensor, max_abs in records:
        if not math.isfinite(max_abs):
            return step, tensor, "activation" if phase == "forward" else "applied"
    return None
