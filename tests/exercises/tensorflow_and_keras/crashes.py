"""A cell that raises while it is run: its function does not exist, the other tasks keep their points."""
# scores: {test_epochs: 0, test_epochs_hidden: 0}

# %% grade_id="epochs"
dataset = tf.data.Dataset.range(8).suffle(8)


def epochs(values, batch_size, num_epochs, seed):
    return [list(dataset.as_numpy_iterator())] * num_epochs
