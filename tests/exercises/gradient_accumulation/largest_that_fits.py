"""Takes the largest micro-batch that fits and rounds the passes up: the global batch is another one."""
# scores: {test_plan_step: 1.5, test_plan_step_hidden: 0}

# %% grade_id="plan_step"
def plan_step(global_batch_size, dp_size, seq_len, bytes_per_token, other_bytes, memory_bytes):
    micro_batch_size = (memory_bytes - other_bytes) // (seq_len * bytes_per_token)
    if micro_batch_size < 1:
        return None
    return micro_batch_size, -(-global_batch_size // (micro_batch_size * dp_size))
