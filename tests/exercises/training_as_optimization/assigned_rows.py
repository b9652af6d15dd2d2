"""gradient[ids] += g: NumPy counts an id once however often it occurs in the index."""
# scores: {test_tied: 1, test_tied_hidden: 0}

# %% grade_id="tied_gradient"
def tied_gradient(table, contexts, next_ids):
    hidden = np.tanh(table[contexts].sum(axis=1))
    _, d_logits = smoothed_cross_entropy(hidden @ table.T, next_ids, 0.0)
    gradient = d_logits.T @ hidden
    d_sum = (d_logits @ table) * (1 - hidden**2)
    for position in range(contexts.shape[1]):
        gradient[contexts[:, position]] += d_sum
    return gradient
