"""Overwrites the gradient instead of adding to it, and changes the caller's weights in place."""
# scores: {test_train_step: 0, test_train_step_hidden: 0}

# %% grade_id="train_step"
def train_step(weights, bias, micro_batches, lr):
    kernel, offset = tf.Variable(weights), tf.Variable(bias)
    total = sum(len(y) for _, y in micro_batches)
    loss = 0.0
    for x, y in micro_batches:
        with tf.GradientTape() as tape:
            part = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, x @ kernel + offset)) / total
        loss += float(part)
        gradients = tape.gradient(part, [kernel, offset])
    weights -= lr * gradients[0].numpy()
    bias -= lr * gradients[1].numpy()
    return weights, bias, loss
