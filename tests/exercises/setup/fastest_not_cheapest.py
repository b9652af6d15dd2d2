"""Recommends the fastest machine that meets the target, whatever it costs."""
# scores: {test_cheapest_offer: 1, test_cheapest_offer_hidden: 0}

# %% grade_id="cheapest_offer"
def cheapest_offer(machine, workload, offers, target_seconds):
    def seconds(changes):
        new = machine | changes
        if new["memory_bytes"] < workload["resident_bytes"]:
            return float("inf")
        return sum(max(f / new["flops_per_second"], b / new["bytes_per_second"]) for f, b in workload["phases"])

    if seconds({}) <= target_seconds:
        return "nothing"
    best = min(offers, key=lambda name: seconds(offers[name]))
    return best if seconds(offers[best]) <= target_seconds else None
