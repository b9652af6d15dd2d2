"""Turns the ranks round: the last one runs ahead, and all wait for each other."""
# scores: {test_order_1f1b: 0, test_order_1f1b_hidden: 0}

# %% grade_id="order_1f1b"
def order_1f1b(p, m):
    order = []
    for rank in range(p):
        ahead = min(rank, m)
        words = [f"F{k}" for k in range(ahead)]
        for k in range(ahead, m):
            words += [f"F{k}", f"B{k - ahead}"]
        order.append(words + [f"B{k}" for k in range(m - ahead, m)])
    return order
