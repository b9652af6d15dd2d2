"""The right step, but the caller's weights and bias are moved in place."""
# scores: {test_train_step: 1, test_train_step_hidden: 0}


# %% grade_id="train_step"
def train_step(weights, bias, micro_batches, lr):
    kernel, offset = tf.Variable(weights), tf.Variable(bias)
    x = np.concatenate([x for x, _ in micro_batches])
    y = np.concatenate([y for _, y in micro_batches])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, x @ kernel + offset))
    steps = tape.gradient(loss, [kernel, offset])
    weights -= lr * steps[0].numpy()
    bias -= lr * steps[1].numpy()
    return weights, bias, float(loss)
