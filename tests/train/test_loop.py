"""fit() against the loop in its own docstring, and against bare torch: the same bits."""

import copy
import inspect
import re
import textwrap

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import launch
from coursekit.train import (
    IGNORE_INDEX,
    JsonLines,
    LossScaler,
    Monitor,
    accumulate_gradients,
    all_reduce_count,
    autocast,
    clip_gradients,
    count_valid,
    fit,
    group_micro_batches,
    read_json_lines,
    set_lr,
)

STEPS = 6


def tiny_model():
    torch.manual_seed(0)
    layers = nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3)
    return nn.Sequential(*layers).double()


def tiny_steps(num_steps=STEPS):
    """Two micro-batches a step, of unequal size, some labels ignored."""
    generator = torch.Generator().manual_seed(1)
    micro_batches = []
    for index in range(2 * num_steps):
        inputs = torch.randn(3 + index % 3, 5, generator=generator, dtype=torch.float64)
        labels = torch.randint(3, (len(inputs),), generator=generator)
        labels[0] = IGNORE_INDEX
        micro_batches.append((inputs, labels))
    return list(group_micro_batches(micro_batches, 2))


def loss_sum_of(model):
    def loss_sum(micro_batch):
        inputs, labels = micro_batch
        return nn.functional.cross_entropy(model(inputs), labels, reduction="sum", ignore_index=IGNORE_INDEX)

    return loss_sum


def count(micro_batches):
    return count_valid(*(labels for _, labels in micro_batches))


def schedule(step):
    return 1 / (1 + step)


def trained(run, steps=None):
    """Return the parameters after `run` has trained a fresh model, dropout and all."""
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    torch.manual_seed(7)
    run(model=model, optimizer=optimizer, steps=tiny_steps() if steps is None else steps)
    return [parameter.detach() for parameter in model.parameters()]


def with_fit(*, model, optimizer, steps, **options):
    options = {"schedule": schedule, "max_grad_norm": 0.5, **options}
    return fit(loss_sum_of(model), steps, model=model, optimizer=optimizer, count=count, **options)


def with_the_loop_of_the_docstring(*, model, optimizer, steps):
    code = re.search(r"```python\n(.*?)```", inspect.getdoc(fit), re.DOTALL)[1]
    functions = {f.__name__: f for f in (accumulate_gradients, clip_gradients, set_lr)}
    given = {"loss_sum": loss_sum_of(model), "count": count, "schedule": schedule, "max_grad_norm": 0.5}
    rest = {"monitor": Monitor(), "on_step_end": lambda step: None, "first_step": 0}
    exec(textwrap.dedent(code), functions | given | rest | locals())


def with_bare_torch(*, model, optimizer, steps):
    """The oracle: no coursekit in it; the joined counts, one division, torch's own clipping."""
    model.train()
    for step, micro_batches in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 / (1 + step))
        num_valid = sum(int((labels != -100).sum()) for _, labels in micro_batches)
        optimizer.zero_grad()
        for inputs, labels in micro_batches:
            loss = nn.functional.cross_entropy(model(inputs), labels, reduction="sum")
            (loss / num_valid).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()


def equal(parameters, others):
    return all(torch.equal(a, b) for a, b in zip(parameters, others, strict=True))


@pytest.mark.parametrize("oracle", [with_the_loop_of_the_docstring, with_bare_torch])
def test_fit_ends_in_the_same_bits_as(oracle):
    assert equal(trained(with_fit), trained(oracle))


def test_control_the_bits_differ_without_clipping_schedule_or_a_step():
    reference = trained(with_bare_torch)
    assert not equal(trained(lambda **given: with_fit(**given, max_grad_norm=float("inf"))), reference)
    assert not equal(trained(lambda **given: with_fit(**given, schedule=None)), reference)
    assert not equal(trained(with_fit, steps=tiny_steps()[:-1]), reference)


def test_a_monitor_with_every_sink_changes_no_bit(tmp_path):
    with Monitor([JsonLines(tmp_path / "run.jsonl")], every=2) as monitor:
        watched = trained(lambda **given: with_fit(**given, monitor=monitor))
    assert equal(watched, trained(with_fit))
    records = read_json_lines(tmp_path / "run.jsonl")
    assert [record["step"] for record in records] == [1, 3, 5]
    assert records[0]["lr"] == 0.1 * schedule(1)
    assert {f"{name}_seconds" for name in ("data", "forward", "backward", "optimizer")} <= records[0].keys()


def test_the_monitor_gets_the_loss_and_norm_that_bare_torch_computes(tmp_path):
    model = tiny_model()
    (micro_batches,) = tiny_steps(1)
    joined = [torch.cat(parts) for parts in zip(*micro_batches, strict=True)]
    reference = copy.deepcopy(model)
    torch.manual_seed(7)
    reference[2].p = model[2].p = 0.0
    loss = nn.functional.cross_entropy(reference(joined[0]), joined[1])
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in reference.parameters()]).norm()
    with Monitor([JsonLines(tmp_path / "run.jsonl")], every=1) as monitor:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with_fit(model=model, optimizer=optimizer, steps=[micro_batches], schedule=None, monitor=monitor)
    (record,) = read_json_lines(tmp_path / "run.jsonl")
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert record["grad_norm"] == pytest.approx(norm.item(), rel=1e-12)
    assert record["lr"] == 0.1


def test_a_run_cut_in_two_ends_in_the_same_bits():
    def in_two(*, model, optimizer, steps):
        middle = with_fit(model=model, optimizer=optimizer, steps=steps[:2])
        assert middle == 2
        end = with_fit(model=model, optimizer=optimizer, steps=steps[2:], first_step=middle)
        assert end == STEPS

    assert equal(trained(in_two), trained(with_fit))


def test_no_steps_left_is_no_error_and_changes_nothing():
    assert equal(trained(with_fit, steps=[]), list(tiny_model().parameters()))


def test_on_step_end_is_called_when_the_step_is_done():
    seen = []
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def look(step):
        seen.append((step, model[0].weight.detach().clone()))

    with_fit(model=model, optimizer=optimizer, steps=tiny_steps(2), on_step_end=look)
    assert [step for step, _ in seen] == [0, 1]
    assert not torch.equal(seen[0][1], tiny_model()[0].weight)
    assert torch.equal(seen[1][1], model[0].weight)


def test_several_losses_are_monitored_whole_and_by_name(tmp_path):
    model = tiny_model().eval()

    def loss_sums(micro_batch):
        return {"token": loss_sum_of(model)(micro_batch), "l2": 0.1 * model[0].weight.square().sum()}

    with Monitor([JsonLines(tmp_path / "run.jsonl")], every=1) as monitor:
        fit(
            loss_sums,
            tiny_steps(1),
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            count=lambda micro_batches: {"token": count(micro_batches), "l2": len(micro_batches)},
            monitor=monitor,
        )
    (record,) = read_json_lines(tmp_path / "run.jsonl")
    assert record["loss"] == pytest.approx(record["token"] + record["l2"], rel=1e-12)
    assert record["l2"] == pytest.approx(0.1 * tiny_model()[0].weight.square().sum().item(), rel=1e-12)


def test_a_loss_scale_of_a_power_of_two_changes_no_bit_and_an_overflow_skips_the_step():
    scaler = LossScaler("cpu", init_scale=2.0**10)
    assert equal(trained(lambda **given: with_fit(**given, scaler=scaler)), trained(with_fit))
    steps = tiny_steps(1)
    steps[0][0][0][0, 0] = float("inf")
    assert equal(
        trained(lambda **given: with_fit(**given, scaler=scaler), steps=steps),
        list(tiny_model().parameters()),
    )
    assert scaler.num_skipped == 1


def test_autocast_goes_around_the_loss_function():
    model = tiny_model().float()
    dtypes = []
    model[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    steps = [[(inputs.float(), labels) for inputs, labels in group] for group in tiny_steps(1)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_sum = autocast("cpu", torch.bfloat16)(loss_sum_of(model))
    fit(loss_sum, steps, model=model, optimizer=optimizer, count=count)
    assert dtypes == [torch.bfloat16] * 2


def test_an_optimizer_of_another_model_is_an_error():
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"holds no parameter of the model: .* after the model is complete"):
        with_fit(model=tiny_model(), optimizer=optimizer, steps=tiny_steps())


def wide_steps():
    """Four micro-batches a step, so that four ranks have one each, and three have unequal shares."""
    return list(group_micro_batches([each for group in tiny_steps() for each in group], 4))


def trained_on_rank():
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = nn.parallel.DistributedDataParallel(tiny_model().eval())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.module[2].p = 0.0
    fit(
        loss_sum_of(model),
        [group[rank::world_size] for group in wide_steps()],
        model=model,
        optimizer=optimizer,
        count=lambda group: all_reduce_count(count(group)),
        schedule=schedule,
        max_grad_norm=0.5,
        scaler=LossScaler("cpu"),
        dp_size=world_size,
    )
    return [parameter.detach() for parameter in model.module.parameters()]


@pytest.mark.parametrize("world_size", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_with_unequal_shares_train_as_one_process_does(world_size):
    def without_dropout(**given):
        given["model"][2].p = 0.0
        with_bare_torch(**given)

    expected = trained(without_dropout, steps=wide_steps())
    for parameters in launch(trained_on_rank, world_size, timeout_seconds=120):
        # Adam divides by the root of squared gradients: the order of their sums shows a little more.
        for a, b in zip(parameters, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
