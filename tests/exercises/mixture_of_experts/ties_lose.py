"""An earlier token of the same score counts as better."""
# scores: {test_causal_choice_hidden: 1}

# %% grade_id="causal_choice"
def causal_choice(scores, rate):
    n = len(scores)
    beats = scores[None, :, :] >= scores[:, None, :]
    earlier = torch.ones(n, n, dtype=torch.bool).tril(-1)
    places = torch.ceil(rate * torch.arange(1, n + 1, dtype=torch.float64))
    return (beats & earlier[:, :, None]).sum(1) < places[:, None]
