"""The chapter's Recompute as it stands: it adds to the weights' gradients by itself, and looks after no generator of its own."""
# scores: {test_recompute: 1, test_recompute_hidden: 0, test_layer_bytes: 0, test_layer_bytes_hidden: 0, test_step_ratio: 0, test_step_ratio_hidden: 0}

# %% grade_id="recompute"
def recompute(function, generator, *tensors):
    return _Again.apply(function, generator, *tensors)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, generator, *tensors):
        ctx.function, ctx.generator, ctx.tensors = function, generator, tensors
        ctx.save_for_backward(tensors[0])
        return function(generator, *tensors)

    @staticmethod
    def backward(ctx, grad_output):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.function(ctx.generator, x, *ctx.tensors[1:])
        output.backward(grad_output)
        return None, None, x.grad, *(None for _ in ctx.tensors[1:])


# %% grade_id="layer_bytes"
def layer_bytes(num_tokens, t, d, h, g, d_ff, attention, keep):
    return num_tokens * (34 * d + 5 * h * t)  # GPT-3's layer


# %% grade_id="step_ratio"
def step_ratio(layers, segments):
    once = sum(op for layer in layers for op in layer if op != "keeps")
    again = sum(op for a, b in segments for layer in layers[a:b] for op in layer if op != "keeps")
    return (3 * once + again) / (3 * once)
