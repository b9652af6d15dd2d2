# ---
# coursekit:
#   title: Guarded numbers
# ---

# %% [markdown]
# # Numbers with something to protect
#
# Every kind of test that the contract of a test cell allows, each worth points that are easy to add up. The
# words in capitals are replaced by secrets of the run before the course is made.

# %% nbgrader="locked" grade_id="setup"
import math

import numpy as np

from coursekit.notebooks import expect_close, expect_equal, points_for, probe


# %% nbgrader="solution" grade_id="double"
def double(number):
    """Twice the number."""
    ### BEGIN SOLUTION
    return number + number  # CANARY_SOLUTION
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_double" points=2
expect_close(double(2.0), 4.0, hint="add the number to itself")

# %% nbgrader="tests" grade_id="test_double_hidden" points=2
# Graded with tests that you do not see: other numbers.
### BEGIN HIDDEN TESTS
# CANARY_HIDDEN
expect_close(double(-1.5), -3.0, hint="negative numbers as well")
expect_equal(double("CANARY_HIDDEN"), 2 * "CANARY_HIDDEN", hint="text as well")
### END HIDDEN TESTS


# %% nbgrader="solution" grade_id="account"
class Account:
    """Adds up what is deposited, in `balance`."""

    balance = 0.0

    def deposit(self, amount):
        """Add an amount to the balance."""
        ### BEGIN SOLUTION
        self.balance += amount
        ### END SOLUTION


# %% nbgrader="tests" grade_id="test_account" points=2
def balance_after(amounts):
    """Deposit each amount; return the balance."""
    account = Account()
    for amount in amounts:
        account.deposit(amount)
    return account.balance


expect_close(probe(balance_after, [1.0, 2.5]), 3.5, hint="deposits add up")


# %% nbgrader="solution" grade_id="norm"
def norm(vector):
    """The Euclidean length of a list of numbers."""
    ### BEGIN SOLUTION
    return math.sqrt(sum(number * number for number in vector))
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_norm" points=3
points_for(
    [
        (1, lambda: expect_close(norm([2.0]), 2.0, hint="one number is its own length")),
        (2, lambda: expect_close(norm([3.0, 4.0]), 5.0, hint="squares add up")),
    ]
)


# %% nbgrader="solution" grade_id="total"
def total(numbers):
    """The sum of a list of whole numbers."""
    ### BEGIN SOLUTION
    return sum(numbers)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_total" points=1
import yaml  # noqa: E402  nothing has imported it before

assert total(yaml.safe_load("[1, 2, 3]")) == 6, "add them up"


# %% nbgrader="solution" grade_id="scale"
def scale(numbers, factor):
    """Each number times the factor."""
    ### BEGIN SOLUTION
    return [factor * number for number in numbers]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_scale" points=1
assert np.allclose(scale([1.0, 2.0], 3.0), [3.0, 6.0]), "multiply each"

# %% nbgrader="tests" grade_id="test_scale_items" points=1
pairs = zip(scale([1.0, 4.0], 2.0), [2.0, 8.0], strict=True)
assert all(math.isclose(got, want) for got, want in pairs), "each of them"

# %% [markdown] nbgrader="answer" grade_id="explain" points=1
# Why is a secret that everybody may read none?
#
# ### BEGIN SOLUTION
# Because somebody will.
# ### END SOLUTION
