"""Averages the micro-batches' means: right for equal sizes, wrong for the rest."""
# scores: {test_train_step: 0, test_train_step_hidden: 0}

# %% grade_id="train_step"
def train_step(weights, bias, micro_batches, lr):
    kernel, offset = tf.Variable(weights), tf.Variable(bias)
    gradients, loss = [0.0, 0.0], 0.0
    for x, y in micro_batches:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, x @ kernel + offset)
            part = tf.reduce_mean(losses) / len(micro_batches)
        loss += float(part)
        gradients = [g + new.numpy() for g, new in zip(gradients, tape.gradient(part, [kernel, offset]))]
    return weights - lr * gradients[0], bias - lr * gradients[1], loss
