"""Sets the generator back for the second run and leaves it there: the next step draws numbers it had already."""
# scores: {test_recompute: 2, test_recompute_hidden: 1}

# %% grade_id="recompute"
def recompute(function, generator, *tensors):
    return _Again.apply(function, generator, *tensors)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, generator, *tensors):
        ctx.function, ctx.generator, ctx.state = function, generator, generator.get_state()
        ctx.save_for_backward(*tensors)
        return function(generator, *tensors)

    @staticmethod
    def backward(ctx, grad_output):
        needed = ctx.needs_input_grad[2:]
        tensors = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed)]
        ctx.generator.set_state(ctx.state)
        with torch.enable_grad():
            output = ctx.function(ctx.generator, *tensors)
        gradients = iter(torch.autograd.grad(output, [t for t in tensors if t.requires_grad], grad_output))
        return None, None, *(next(gradients) if n else None for n in needed)
