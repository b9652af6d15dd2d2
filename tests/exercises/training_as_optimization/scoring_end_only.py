"""The table's gradient through the logits only: the path through the contexts is forgotten."""
# scores: {test_tied: 0, test_tied_hidden: 0}

# %% grade_id="tied_gradient"
def tied_gradient(table, contexts, next_ids):
    hidden = np.tanh(table[contexts].sum(axis=1))
    _, d_logits = smoothed_cross_entropy(hidden @ table.T, next_ids, 0.0)
    return d_logits.T @ hidden
