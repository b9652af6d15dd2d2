"""The famous bug: outputs right, and every gradient below a divided region wrong."""
# scores: {test_operators: 0, test_operators_hidden: 1}

# %% grade_id="operators"
def enter_region(x):
    return x


def leave_region(term):
    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, term):
            total = term.clone()
            dist.all_reduce(total)
            return total

        @staticmethod
        def backward(ctx, grad):
            return grad

    return Sum.apply(term)
