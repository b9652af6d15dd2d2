# ---
# coursekit:
#   title: Light work
# ---

# %% [markdown]
# # Light work
#
# An exercise whose cells take a tenth of a second, all together: what is measured is the grading around it.

# %% nbgrader="locked" grade_id="setup"
# ruff: noqa: D100
import time

import torch

from coursekit.notebooks import expect_close, points_for


def work(seconds):
    """Keep a processor busy."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


# %% nbgrader="solution" grade_id="double"
def double(x):
    """Twice a tensor."""
    ### BEGIN SOLUTION
    work(0.02)
    return 2 * x
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_double" points=2
expect_close(double(torch.ones(3)), torch.full((3,), 2.0), hint="each number twice")

# %% nbgrader="tests" grade_id="test_double_hidden" points=2
# Graded with tests that you do not see: other shapes.
### BEGIN HIDDEN TESTS
expect_close(double(torch.ones(2, 2)), torch.full((2, 2), 2.0), hint="any shape")
### END HIDDEN TESTS


# %% nbgrader="solution" grade_id="mean"
def mean(numbers):
    """The mean of a list of numbers."""
    ### BEGIN SOLUTION
    work(0.02)
    return sum(numbers) / len(numbers)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_mean" points=3
points_for(
    [
        (1, lambda: expect_close(mean([4.0]), 4.0, hint="one number is its own mean")),
        (2, lambda: expect_close(mean([1.0, 2.0, 6.0]), 3.0, hint="divide by how many there are")),
    ]
)


# %% nbgrader="solution" grade_id="largest"
def largest(numbers):
    """The largest of a list of numbers."""
    ### BEGIN SOLUTION
    work(0.02)
    return max(numbers)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_largest" points=1
expect_close(largest([3.0, 7.0, 5.0]), 7.0, hint="look at all of them")
