"""Finds that no model fits, whatever the budget."""
# scores: {test_choose_run: 0, test_choose_run_hidden: 0}

# %% grade_id="choose_run"
def choose_run(sizes, n, days, flops_per_second, memory_bytes, bytes_per_param, corpus_tokens):
    return None
