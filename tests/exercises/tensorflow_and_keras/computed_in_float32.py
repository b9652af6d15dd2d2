"""The right step in the wrong type: what TensorFlow makes of a Python number is float32."""
# scores: {test_train_step: 0, test_train_step_hidden: 0}

# %% grade_id="train_step"
def train_step(weights, bias, micro_batches, lr):
    kernel, offset = tf.Variable(weights, dtype=tf.float32), tf.Variable(bias, dtype=tf.float32)
    x = np.concatenate([x for x, _ in micro_batches]).astype("float32")
    y = np.concatenate([y for _, y in micro_batches])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, x @ kernel + offset))
    steps = tape.gradient(loss, [kernel, offset])
    return weights - lr * steps[0].numpy(), bias - lr * steps[1].numpy(), float(loss)
