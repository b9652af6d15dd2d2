"""Experts in the order of their numbers, as frameworks place them: loads are not looked at."""
# scores: {test_place: 0, test_place_hidden: 0}

# %% grade_id="place"
def place(loads, devices):
    room = len(loads[0]) // devices
    return [expert // room for expert in range(len(loads[0]))]
