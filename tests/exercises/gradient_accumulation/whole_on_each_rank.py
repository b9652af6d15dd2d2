"""Every rank hands over the final result, as if it knew the others' gradients: the average is right, the ranks are not."""
# scores: {test_hand_over: 0.5, test_hand_over_hidden: 0}

# %% grade_id="hand_over"
def hand_over(gradient_sums, num_valid):
    total = sum(sum(counts) for counts in num_valid)
    result = sum(sum(sums) for sums in gradient_sums) / total
    return [result for _ in gradient_sums]
