"""Equally many layers in each stage, as far as it goes, without a look at costs or memory."""
# scores: {test_place_layers: 0, test_place_layers_hidden: 0}

# %% grade_id="place_layers"
def place_layers(costs, weights, kept, p, m, memory):
    return [len(costs) // p + (stage < len(costs) % p) for stage in range(p)]
