"""A tiny GPT, its batches, and its training in one process: the oracle of every division of the model.

The oracle is the plain model with torch's own loss and optimizers; nothing of coursekit.parallel is in it.
Only the order of summation differs, so the tolerance is 1e-12 relative, with an absolute part for numbers
that cancel: without rotary positions the gradient of the keys' bias is zero up to rounding.
"""

import sys

import cloudpickle
import torch
from torch.nn.functional import cross_entropy

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # ranks do not have tests/ on their path

RTOL, ATOL = 1e-12, 1e-13
STEPS = 3
BATCH_SIZE, SEQ_LEN, VOCAB_SIZE, D_MODEL, N_LAYERS = 4, 8, 24, 16, 2

SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "max_seq_len": SEQ_LEN,
    "d_model": D_MODEL,
    "n_layers": N_LAYERS,
    "n_heads": 4,
    "d_ff": 32,
}
GPT2 = GPTConfig(**SHAPE)
LLAMA = GPTConfig(
    **SHAPE,
    n_kv_heads=4,
    norm="rmsnorm",
    activation="swiglu",
    position="rope",
    bias=False,
    tie_embeddings=False,
)
GROUPED = GPTConfig(**SHAPE, n_kv_heads=2, position="rope", tie_embeddings=False)


def make_model(config):
    """Return the same GPT in float64 on every call, with no norm or bias at its trivial start."""
    torch.manual_seed(0)
    model = GPT(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def make_batches():
    """Return `STEPS` pairs of input ids and labels (b, t)."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCAB_SIZE, (STEPS, BATCH_SIZE, SEQ_LEN + 1), generator=generator)
    return [(step[:, :-1], step[:, 1:].contiguous()) for step in ids]


def mean_loss(logits, labels):
    """Return the mean cross-entropy of logits (b, t, v)."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten())


def make_optimizer(model, **options):
    """Return AdamW, with an epsilon that keeps it from blowing up gradients that are rounding errors."""
    return torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3, **options)


def train_alone(config):
    """Return losses of `STEPS` steps, the first step's gradients, and the parameters after the last."""
    return train(make_model(config), loss_of=mean_loss)


def train(model, *, loss_of, batches=None, after_backward=lambda: None, **inputs):
    """Train `model`, in any layout, in a loop that knows nothing of it; see `train_alone`."""
    optimizer, losses, gradients = make_optimizer(model), [], None
    for input_ids, labels in batches or make_batches():
        optimizer.zero_grad()
        loss = loss_of(model(input_ids, **inputs), labels)
        loss.backward()
        after_backward()
        gradients = gradients or {name: whole(p.grad).clone() for name, p in model.named_parameters()}
        losses.append(whole(loss.detach()))
        optimizer.step()
    return losses, gradients, {name: whole(p.detach()) for name, p in model.named_parameters()}


def whole(tensor):
    """Return a DTensor gathered; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part_like(tensor, like, rank, size):
    """Return the part of `tensor` that rank `rank` of `size` holds, if `like` is one."""
    for dim, (mine, all_of_it) in enumerate(zip(like.shape, tensor.shape, strict=True)):
        if mine != all_of_it:
            return tensor.chunk(size, dim)[rank]
    return tensor


def wrong_names(mine, expected, *, rank=0, size=1):
    """Return the names of tensors that differ from this rank's part of the expected ones."""
    assert mine.keys() == expected.keys()
    return {
        name
        for name, tensor in mine.items()
        if not torch.allclose(tensor, part_like(expected[name], tensor, rank, size), rtol=RTOL, atol=ATOL)
    }


def error_of(function, *arguments, **options):
    """Return the message of the InputError that a call raises, None without one."""
    try:
        function(*arguments, **options)
    except InputError as error:
        return str(error)
