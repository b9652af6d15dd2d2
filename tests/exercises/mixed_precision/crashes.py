"""A cell that raises: its function is not there; the other tasks keep their marks."""
# scores: {test_first_fault: 0, test_first_fault_hidden: 0}

# %% grade_id="first_fault"
raise RuntimeError("left over from debugging")
