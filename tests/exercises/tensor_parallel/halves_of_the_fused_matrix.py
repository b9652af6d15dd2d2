"""Cuts the fused matrix into equal parts: the first rank has queries alone, the last one no query."""
# scores: {test_fused_rows: 0, test_fused_rows_hidden: 0}

# %% grade_id="fused_rows"
def fused_rows(n_heads, n_kv_heads, head_dim, rank, tp_size):
    own = (n_heads + 2 * n_kv_heads) * head_dim // tp_size
    return list(range(rank * own, (rank + 1) * own))
