"""Draws the augmentation with numpy: the draw happens once, while tf.data traces the stage."""
# scores: {test_epochs: 2, test_epochs_hidden: 0}

# %% grade_id="epochs"
def epochs(values, batch_size, num_epochs, seed):
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(values, dtype=np.int64))
    dataset = dataset.map(decode).cache().shuffle(len(values), seed=seed)
    dataset = dataset.map(lambda value: value + np.random.randint(10)).batch(batch_size)
    return [[batch.tolist() for batch in dataset.as_numpy_iterator()] for _ in range(num_epochs)]
