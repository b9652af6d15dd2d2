"""Everything once too often: a bias on each rank, a gradient that was whole already, and in place."""
# scores: {test_mlp_term: 0, test_mlp_term_hidden: 0, test_operators: 0, test_operators_hidden: 0}

# %% grade_id="operators"
class SumBothWays(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        dist.all_reduce(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        dist.all_reduce(grad)
        return grad


class Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        dist.all_reduce(grad)
        return grad


def enter_region(x):
    return Copy.apply(x)


def leave_region(term):
    return SumBothWays.apply(term)


# %% grade_id="mlp_term"
def mlp_term(x, up, up_bias, down, down_bias, rank, tp_size):
    up, up_bias = up.chunk(tp_size, dim=0)[rank], up_bias.chunk(tp_size)[rank]
    return torch.tanh(x @ up.T + up_bias) @ down.chunk(tp_size, dim=1)[rank].T + down_bias
