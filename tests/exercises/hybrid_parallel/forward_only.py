"""Counts two all-reduces a block, those of the forward pass, in one micro-batch, and gradients of the whole model."""
# scores: {test_axis_bytes: 0, test_axis_bytes_hidden: 0}

# %% grade_id="axis_bytes"
def axis_bytes(d, num_blocks, dp, tp, micro_batches, tokens, number_bytes=2):
    gradients = num_blocks * (12 * d * d + 2 * d) * number_bytes
    hidden = tokens * d * number_bytes
    return {"dp": 2 * (dp - 1) / dp * gradients, "tp": 2 * (tp - 1) / tp * hidden * 2 * num_blocks}
