"""How many tokens a model of a given size is worth, and what loss to expect."""

from __future__ import annotations


def compute_optimal_tokens(num_params: float) -> float:
    """Return the tokens with which a model of N parameters makes the most of its compute.

        D = 8.0e9 (N / 4e8)^1.0077

    a line through the first and the last row of the paper's table (approach 1): 20 tokens a parameter at
    400 million parameters, 21.6 at ten trillion. "Twenty tokens a parameter" is this, rounded.

    Source: Hoffmann et al. 2022, table 3 (https://arxiv.org/abs/2203.15556).
    """
    return 8.0e9 * (num_params / 4e8) ** 1.0077


def parametric_loss(num_params: float, num_tokens: float) -> float:
    """Return L(N, D) = E + A / N^α + B / D^β in nats a token, E 1.69, A 406.4, B 410.7, α 0.34, β 0.28.

    Source: Hoffmann et al. 2022, equation 10 (https://arxiv.org/abs/2203.15556). Besiroglu et al. 2024
        (https://arxiv.org/abs/2404.10102) fit the same data anew and find other numbers: the difference
        is a warning about what such a fit is worth outside its data.
    """
    return 1.69 + 406.4 / num_params**0.34 + 410.7 / num_tokens**0.28


def parametric_optimal_params(flops: float) -> float:
    """Return the N that minimises `parametric_loss` where 6 N D is given.

        N = G (C / 6)^a,  a = β / (α + β),  G = (α A / (β B))^(1 / (α + β))

    Where:
        flops: C.
    Source: Hoffmann et al. 2022, equation 4 (https://arxiv.org/abs/2203.15556).
    """
    scale = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / (0.34 + 0.28))
    return scale * (flops / 6) ** (0.28 / (0.34 + 0.28))
