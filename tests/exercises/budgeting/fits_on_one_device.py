"""Fills the whole device with state, and never looks at the size of the corpus."""
# scores: {test_choose_run: 1, test_choose_run_hidden: 0}

# %% grade_id="choose_run"
def choose_run(sizes, n, days, flops_per_second, memory_bytes, bytes_per_param, corpus_tokens):
    runs = []
    for size in sizes:
        if size * bytes_per_param <= n * memory_bytes:
            tokens = n * flops_per_second * days * 86400 / (6 * size)
            runs.append((1.69 + 406.4 / size**0.34 + 410.7 / tokens**0.28, size, tokens))
    return min(runs)[1:] if runs else None
