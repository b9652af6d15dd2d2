"""Shuffles once, decodes and augments, and caches the lot: one order and one augmentation for ever."""
# scores: {test_epochs: 0, test_epochs_hidden: 0}

# %% grade_id="epochs"
def epochs(values, batch_size, num_epochs, seed):
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(values, dtype=np.int64))
    dataset = dataset.shuffle(len(values), seed=seed).map(decode).map(augment).cache().batch(batch_size)
    return [[batch.tolist() for batch in dataset.as_numpy_iterator()] for _ in range(num_epochs)]
