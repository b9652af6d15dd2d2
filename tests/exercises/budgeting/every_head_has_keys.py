"""Forgets that heads share keys and values, and counts a tied head twice."""
# scores: {test_count_parameters: 1, test_count_parameters_hidden: 0}

# %% grade_id="count_parameters"
def count_parameters(vocab_size, d, n_layers, n_heads, n_kv_heads, d_ff, tied):
    layer = 4 * d * d + 3 * d * d_ff + 2 * d
    return 2 * vocab_size * d + n_layers * layer + d
