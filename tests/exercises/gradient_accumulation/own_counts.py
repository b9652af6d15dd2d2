"""Each rank divides by its own labels: the mean of means again, between ranks."""
# scores: {test_hand_over: 0, test_hand_over_hidden: 0}

# %% grade_id="hand_over"
def hand_over(gradient_sums, num_valid):
    return [sum(sums) / sum(counts) for sums, counts in zip(gradient_sums, num_valid)]
