"""Takes the master weights for weights: they are divided in stage 3 only."""
# scores: {test_state_bytes: 1, test_state_bytes_hidden: 0}

# %% grade_id="state_bytes"
def state_bytes(num_params, copies, stage, n):
    divided_from = {"weight": 3, "gradient": 2, "master": 3, "moment": 1}
    return num_params * sum(size / (n if stage >= divided_from[kind] else 1) for kind, size in copies)


# %% grade_id="find_wrong_claim"
def find_wrong_claim(claims, tolerance=0.05):
    # Ours as it was, but for the state, which task 2 would get wrong here.
    def true_value(claim):
        kind = claim["kind"]
        if kind == "training":
            return 6 * claim["params"] * claim["tokens"]
        if kind == "state":
            since = {"weight": 3, "gradient": 2, "master": 1, "moment": 1}
            n, stage = claim["n"], claim["stage"]
            return claim["params"] * sum(b / (n if stage >= since[k] else 1) for k, b in claim["copies"])
        if kind == "product":
            return math.prod(claim["factors"])
        printed, is_sparse = PEAKS[claim["device"]]
        peak = printed / 2 if is_sparse else printed
        if kind == "mfu":
            return claim["flops_per_device"] / peak
        return claim["flops"] / (claim["n"] * peak * claim["mfu"]) / 86400

    factors = [claim["printed"] / true_value(claim) for claim in claims]
    worst = max(range(len(factors)), key=lambda i: abs(math.log(factors[i])))
    return (worst, factors[worst]) if abs(math.log(factors[worst])) > math.log(1 + tolerance) else None
