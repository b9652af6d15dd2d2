"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_cheapest_offer: 0, test_cheapest_offer_hidden: 0}

# %% grade_id="cheapest_offer"
def cheapest_offer(machine, workload, offers, target_seconds):
    return None


raise RuntimeError("a line that was tried out and left there")
