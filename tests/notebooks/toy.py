# ---
# coursekit:
#   title: A toy exercise
#   forbidden: [torch.optim, statistics]
# ---

# %% [markdown]
# # A toy exercise
# Two small tasks, as short as an exercise can be and still use every kind of cell.

# %% nbgrader="locked" grade_id="setup"
from coursekit.notebooks import expect_close, expect_equal, points_for, probe

LOSS_SUMS = [3.0, 5.0]


# %% nbgrader="solution" grade_id="token_mean"
def token_mean(loss_sums, num_valid):
    """Return the mean loss in nats per valid token."""
    ### BEGIN SOLUTION
    total_of_the_losses = sum(loss_sums)
    return total_of_the_losses / sum(num_valid)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_token_mean" points=2
expect_close(token_mean(LOSS_SUMS, [1, 5]), 8 / 6, hint="divide by all valid tokens of the step")

# %% nbgrader="tests" grade_id="test_token_mean_hidden" points=1
# Graded with tests that you do not see: a micro-batch without a valid token.
### BEGIN HIDDEN TESTS
expect_close(token_mean([2.0, 0.0], [4, 0]), 0.5, hint="an empty micro-batch adds nothing")
### END HIDDEN TESTS

# %%
# A cell of the learner's own, to try things.


# %% nbgrader="solution" grade_id="append_squares"
def append_squares(values, count):
    """Append the first `count` square numbers to `values`, in place, and return how many were appended."""
    ### BEGIN SOLUTION
    for number in range(count):
        values.append(number * number)
    return count
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_append_squares" points=3
def values_after(values, count):
    appended = append_squares(values, count)
    return values, appended


expected = [number**2 for number in range(4)]
points_for(
    [
        (2, lambda: expect_equal(probe(values_after, [], 4)[0], expected, hint="start at 0 * 0")),
        (1, lambda: expect_equal(probe(values_after, [], 4)[1], 4, hint="return the count")),
    ]
)

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# Why is a mean of means wrong? Two sentences.
#
# ### BEGIN SOLUTION
# Because it weighs each micro-batch the same however many tokens it holds.
# One point for the weight, one for the tokens.
# ### END SOLUTION
