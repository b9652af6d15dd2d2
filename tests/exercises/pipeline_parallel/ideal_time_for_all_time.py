"""The Playbook's fraction for the share of the step: idle over busy taken for idle over all."""
# scores: {test_bubbles: 0, test_bubbles_hidden: 0}

# %% grade_id="bubbles"
def bubbles(p, m):
    return (p - 1) / m, (p - 1) / m


def fewest_micro_batches(p, most_idle):
    m = 1
    while (p - 1) / m > most_idle:
        m += 1
    return m
