"""A cell that raises, and a backward pass that nobody hands on: the other tasks keep their points."""
# scores: {test_pipeline_step: 0, test_pipeline_step_hidden: 0}

# %% grade_id="pipeline_step"
def pipeline_step(stage, micro_batches, hidden_size):
    return None


raise RuntimeError("a line that was tried out and left there")
