"""Divides by the sheet's number, with sparsity, and looks for figures that are too large only."""
# scores: {test_wrong_claim: 0, test_wrong_claim_hidden: 0}

# %% grade_id="find_wrong_claim"
def find_wrong_claim(claims, tolerance=0.05):
    factors = []
    for claim in claims:
        if claim["kind"] == "training":
            true = 6 * claim["params"] * claim["tokens"]
        elif claim["kind"] == "state":
            true = state_bytes(claim["params"], claim["copies"], claim["stage"], claim["n"])
        elif claim["kind"] == "product":
            true = math.prod(claim["factors"])
        elif claim["kind"] == "mfu":
            true = claim["flops_per_device"] / PEAKS[claim["device"]][0]
        else:
            peak = PEAKS[claim["device"]][0]
            true = claim["flops"] / (claim["n"] * peak * claim["mfu"]) / 86400
        factors.append(claim["printed"] / true)
    worst = max(range(len(factors)), key=lambda i: factors[i])
    return (worst, factors[worst]) if factors[worst] > 1 + tolerance else None
