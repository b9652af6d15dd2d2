"""Finds no plan for any step."""
# scores: {test_plan_step: 0, test_plan_step_hidden: 0}

# %% grade_id="plan_step"
def plan_step(global_batch_size, dp_size, seq_len, bytes_per_token, other_bytes, memory_bytes):
    return None
