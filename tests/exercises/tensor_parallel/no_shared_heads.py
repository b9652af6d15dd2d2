"""Divides the key heads by the ranks, which leaves none where there are more ranks; no copies."""
# scores: {test_fused_rows_hidden: 1}

# %% grade_id="fused_rows"
def fused_rows(n_heads, n_kv_heads, head_dim, rank, tp_size):
    rows, first = [], 0
    for heads in (n_heads, n_kv_heads, n_kv_heads):
        own = heads * head_dim // tp_size
        rows += range(first + rank * own, first + (rank + 1) * own)
        first += heads * head_dim
    return rows
