"""Divides the norms among the tensor-parallel ranks as well, and forgets that there are several micro-batches."""
# scores: {test_axis_bytes: 0, test_axis_bytes_hidden: 0}

# %% grade_id="axis_bytes"
def axis_bytes(d, num_blocks, dp, tp, micro_batches, tokens, number_bytes=2):
    gradients = num_blocks * (12 * d * d + 2 * d) / tp * number_bytes
    hidden = tokens * d * number_bytes
    return {"dp": 2 * (dp - 1) / dp * gradients, "tp": 2 * (tp - 1) / tp * hidden * 4 * num_blocks}
