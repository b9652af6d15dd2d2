"""Six operations a weight, and attention's scores forgotten."""
# scores: {test_flops: 1, test_flops_hidden: 0}

# %% grade_id="flops_per_token"
def flops_per_token(vocab_size, d, n_layers, d_ff, seq_len):
    return 6 * (n_layers * (4 * d * d + 2 * d * d_ff) + vocab_size * d)
