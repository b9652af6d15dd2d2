# ---
# coursekit:
#   title: Adding
#   forbidden: [statistics]
# ---

# %% [markdown]
# # Adding numbers

# %% nbgrader="locked" grade_id="setup"
from coursekit.notebooks import expect_close, points_for


# %% nbgrader="solution" grade_id="add"
def add(left, right):
    """The sum of two numbers."""
    ### BEGIN SOLUTION
    return left + right
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_add" points=2
expect_close(add(2, 3), 5, hint="add the two numbers")

# %% nbgrader="tests" grade_id="test_add_hidden" points=1
# Graded with tests that you do not see: negative numbers.
### BEGIN HIDDEN TESTS
expect_close(add(-2, 1), -1, hint="negative numbers as well")
### END HIDDEN TESTS


# %% nbgrader="solution" grade_id="mean"
def mean(numbers):
    """The mean of a list of numbers."""
    ### BEGIN SOLUTION
    return sum(numbers) / len(numbers)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_mean" points=3
points_for(
    [
        (1, lambda: expect_close(mean([4.0]), 4.0, hint="one number is its own mean")),
        (2, lambda: expect_close(mean([1.0, 2.0, 6.0]), 3.0, hint="divide by how many there are")),
    ]
)

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# Why is the mean of means not the mean?
#
# ### BEGIN SOLUTION
# Because groups differ in size.
# ### END SOLUTION
