"""Counts the embedding's look-up as a matrix product, as one handbook does."""
# scores: {test_flops: 0, test_flops_hidden: 0}

# %% grade_id="flops_per_token"
def flops_per_token(vocab_size, d, n_layers, d_ff, seq_len):
    layer = 2 * (4 * d * d + 2 * d * d_ff) + 4 * d * seq_len
    return 3 * (n_layers * layer + 4 * vocab_size * d)
