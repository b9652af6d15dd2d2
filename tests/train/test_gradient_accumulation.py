"""Accumulated gradients against one backward pass over the joined batch, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coursekit.errors import InputError
from coursekit.train import (
    IGNORE_INDEX,
    accumulate_gradients,
    accumulate_gradients_naive,
    all_reduce_count,
    count_valid,
    gradient_sync,
    group_micro_batches,
    mark_last,
    measure_saved_tensors,
    split_into_micro_batches,
)

SEQ_LEN, VOCAB_SIZE = 6, 7


def tiny_model(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(VOCAB_SIZE, 5), nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, VOCAB_SIZE))
    return model.double()


def batch_of(num_valid_per_row, seed=0):
    """Return (input_ids, labels) with so many valid labels in each row."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(num_valid_per_row), SEQ_LEN)
    input_ids = torch.randint(VOCAB_SIZE, shape, generator=generator)
    labels = torch.randint(VOCAB_SIZE, shape, generator=generator)
    for row, num_valid in enumerate(num_valid_per_row):
        labels[row, num_valid:] = IGNORE_INDEX
    return input_ids, labels


def loss_sum_of(model):
    def loss_sum(micro_batch):
        input_ids, labels = micro_batch
        logits = model(input_ids)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )

    return loss_sum


def grads(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def full_batch_gradient(input_ids, labels):
    """The oracle: one pass, the mean written out from log-probabilities over the valid positions alone."""
    model = tiny_model()
    logits = model(input_ids)[labels != IGNORE_INDEX]
    targets = labels[labels != IGNORE_INDEX]
    log_probs = logits - logits.exp().sum(-1, keepdim=True).log()
    loss = -log_probs[torch.arange(len(targets)), targets].mean()
    loss.backward()
    return grads(model), loss.detach()


def assert_equal_to_full_batch(gradient, loss, batch):
    expected_gradient, expected_loss = full_batch_gradient(*batch)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.as_tensor(loss, dtype=torch.float64), expected_loss, rtol=1e-12, atol=0)


rows = st.lists(st.integers(0, SEQ_LEN), min_size=1, max_size=9).filter(lambda counts: sum(counts) > 0)


@settings(deadline=None, max_examples=60)
@given(rows, st.integers(1, 10))
def test_any_split_equals_one_pass_over_the_full_batch(num_valid_per_row, micro_batch_size):
    batch, model = batch_of(num_valid_per_row), tiny_model()
    micro_batches = split_into_micro_batches(batch, micro_batch_size)
    loss = accumulate_gradients(loss_sum_of(model), micro_batches, num_valid=sum(num_valid_per_row))
    assert_equal_to_full_batch(grads(model), loss, batch)


@settings(deadline=None, max_examples=20)
@given(rows, st.integers(1, 10))
def test_the_naive_version_equals_one_pass_as_well(num_valid_per_row, micro_batch_size):
    batch, model = batch_of(num_valid_per_row), tiny_model()
    micro_batches = split_into_micro_batches(batch, micro_batch_size)
    loss = accumulate_gradients_naive(loss_sum_of(model), micro_batches, num_valid=sum(num_valid_per_row))
    assert_equal_to_full_batch(grads(model), loss, batch)


def mean_of_means(model, micro_batches):
    for input_ids, labels in micro_batches:
        loss = loss_sum_of(model)((input_ids, labels)) / count_valid(labels)
        (loss / len(micro_batches)).backward()


def test_control_the_oracle_rejects_the_mean_of_means():
    batch, model = batch_of([1, SEQ_LEN]), tiny_model()
    mean_of_means(model, split_into_micro_batches(batch, 1))
    expected, _ = full_batch_gradient(*batch)
    assert (grads(model) - expected).norm() > 0.1 * expected.norm()


def test_control_the_mean_of_means_is_right_where_counts_are_equal():
    batch, model = batch_of([SEQ_LEN] * 4), tiny_model()
    mean_of_means(model, split_into_micro_batches(batch, 2))
    torch.testing.assert_close(grads(model), full_batch_gradient(*batch)[0], rtol=1e-12, atol=1e-14)


def test_control_the_oracle_rejects_dividing_a_remainder_by_the_full_number_of_steps():
    grad_accum_steps, batch, model = 4, batch_of([SEQ_LEN] * 3), tiny_model()  # three left of four
    for input_ids, labels in split_into_micro_batches(batch, 1):
        (loss_sum_of(model)((input_ids, labels)) / SEQ_LEN / grad_accum_steps).backward()
    expected, _ = full_batch_gradient(*batch)
    torch.testing.assert_close(grads(model) / expected, torch.full_like(expected, 3 / 4))


def test_gradients_are_added_to_what_is_there():
    batch, model = batch_of([2, 5]), tiny_model()
    for _ in range(2):
        accumulate_gradients(loss_sum_of(model), [batch], num_valid=7)
    torch.testing.assert_close(grads(model), 2 * full_batch_gradient(*batch)[0], rtol=1e-12, atol=1e-14)


def test_several_losses_are_each_divided_by_their_own_count():
    batch, model = batch_of([1, 6, 3]), tiny_model()

    def loss_sums(micro_batch):
        weights = model[1].weight
        return {"token": loss_sum_of(model)(micro_batch), "l2": 0.1 * weights.square().sum()}

    losses = accumulate_gradients(
        loss_sums, split_into_micro_batches(batch, 1), num_valid={"token": 10, "l2": 3}
    )
    expected, expected_loss = full_batch_gradient(*batch)
    reference = tiny_model()
    decay = torch.zeros_like(reference[1].weight).requires_grad_()
    start = sum(p.numel() for p in reference[0].parameters())
    expected[start : start + decay.numel()] += 0.2 * reference[1].weight.detach().flatten()
    torch.testing.assert_close(grads(model), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(losses["token"], expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(losses["l2"], 0.1 * reference[1].weight.detach().square().sum())


def test_a_loss_scaler_sees_every_micro_step():
    batch, model = batch_of([1, 6, 3]), tiny_model()
    accumulate_gradients(
        loss_sum_of(model),
        split_into_micro_batches(batch, 2),
        num_valid=10,
        backward=lambda loss: (loss * 1024).backward(),
    )
    torch.testing.assert_close(grads(model) / 1024, full_batch_gradient(*batch)[0], rtol=1e-12, atol=1e-14)


def test_the_count_may_be_a_tensor():
    batch, model = batch_of([4, 2]), tiny_model()
    loss = accumulate_gradients(loss_sum_of(model), [batch], num_valid=torch.tensor(6))
    assert_equal_to_full_batch(grads(model), loss, batch)


def test_the_result_holds_no_graph():
    batch, model = batch_of([4, 2]), tiny_model()
    assert not accumulate_gradients(loss_sum_of(model), [batch], num_valid=6).requires_grad


def test_only_one_micro_batch_of_activations_is_alive_at_a_time():
    peaks = []
    for num_micro_batches in (1, 8):
        model, micro_batches = tiny_model(), [batch_of([4, 2])] * num_micro_batches
        with measure_saved_tensors(exclude=model.parameters()) as saved:
            accumulate_gradients(loss_sum_of(model), micro_batches, num_valid=6 * num_micro_batches)
        assert saved.live_bytes == 0
        peaks.append(saved.peak_bytes)
    assert peaks[0] == peaks[1] > 0


def test_micro_batches_are_read_one_ahead_only():
    read, model = [], tiny_model()

    def stream():
        for index in range(4):
            read.append(index)
            yield batch_of([3], seed=index)

    def loss_sum(micro_batch):
        seen_when_computed.append(len(read))
        return loss_sum_of(model)(micro_batch)

    seen_when_computed = []
    accumulate_gradients(loss_sum, stream(), num_valid=12)
    assert seen_when_computed == [2, 3, 4, 4]


@pytest.mark.parametrize("num_valid", [0, torch.tensor(0)])
def test_a_step_without_targets_is_an_error_that_names_ignore_index(num_valid):
    with pytest.raises(InputError, match=r"num_valid > 0, got 0; are all labels IGNORE_INDEX \(-100\)"):
        accumulate_gradients(loss_sum_of(tiny_model()), [batch_of([0])], num_valid=num_valid)


def test_no_micro_batch_is_an_error():
    with pytest.raises(InputError, match="at least one micro-batch"):
        accumulate_gradients(loss_sum_of(tiny_model()), [], num_valid=1)


def test_a_loss_that_is_not_summed_is_an_error():
    with pytest.raises(InputError, match="reduction='sum'"):
        accumulate_gradients(lambda x: tiny_model()(x), [batch_of([3])[0]], num_valid=1)


@pytest.mark.parametrize("loss", [3.0, None, (torch.ones(()), 3)])
@pytest.mark.parametrize("num_valid", [1, {"token": 1}])
def test_what_is_no_loss_is_named(loss, num_valid):
    with pytest.raises(InputError, match=rf"no loss to go back from: .* got {type(loss).__name__}"):
        accumulate_gradients(lambda _: loss, [0], num_valid=num_valid)


@pytest.mark.parametrize("num_valid", [None, "6", torch.tensor([2, 4]), {"token": None}])
def test_what_is_no_count_is_named(num_valid):
    with pytest.raises(InputError, match="no count of items: expected a number, or a tensor of one"):
        accumulate_gradients(loss_sum_of(tiny_model()), [batch_of([3])], num_valid=num_valid)


def test_a_count_that_is_not_a_number_is_an_error_as_zero_is():
    with pytest.raises(InputError, match="num_valid > 0, got nan"):
        accumulate_gradients(loss_sum_of(tiny_model()), [batch_of([3])], num_valid=float("nan"))


def test_no_ranks_are_an_error_and_not_gradients_of_zero():
    with pytest.raises(InputError, match="dp_size >= 1, got 0"):
        accumulate_gradients(loss_sum_of(tiny_model()), [batch_of([3])], num_valid=3, dp_size=0)


def test_names_of_losses_and_counts_must_agree():
    with pytest.raises(InputError, match=r"expected \['token'\], got \['\(one loss\)'\]"):
        accumulate_gradients(loss_sum_of(tiny_model()), [batch_of([3])], num_valid={"token": 3})


def test_something_that_is_no_module_cannot_be_synchronised():
    with pytest.raises(InputError, match=r"nn\.Module or None"), gradient_sync(lambda x: x, enabled=True):
        pass


def test_mark_last_marks_the_last_alone_and_takes_empty_input():
    assert list(mark_last(iter([1, 2, 3]))) == [(1, False), (2, False), (3, True)]
    assert list(mark_last([])) == []


def test_count_valid_counts_over_all_tensors_and_takes_another_index():
    a, b = torch.tensor([[1, IGNORE_INDEX], [2, 3]]), torch.tensor([IGNORE_INDEX])
    assert count_valid(a, b) == 3
    assert count_valid(torch.tensor([0, 1]), ignore_index=0) == 1
    assert count_valid() == 0


def test_a_count_without_process_group_is_the_count():
    assert all_reduce_count(5) == 5


@given(st.integers(1, 12), st.integers(1, 14))
def test_a_split_loses_and_repeats_no_row(num_rows, micro_batch_size):
    x = torch.arange(num_rows)
    parts = split_into_micro_batches({"x": x, "y": 2 * x}, micro_batch_size)
    assert torch.cat([part["x"] for part in parts]).tolist() == list(range(num_rows))
    assert all(torch.equal(part["y"], 2 * part["x"]) for part in parts)
    assert [len(part["x"]) for part in parts[:-1]] == [micro_batch_size] * (len(parts) - 1)


def test_a_split_keeps_the_kind_of_batch():
    x = torch.arange(4)
    assert [type(part) for part in split_into_micro_batches((x, x), 2)] == [tuple, tuple]
    assert [type(part) for part in split_into_micro_batches([x, x], 2)] == [list, list]
    assert torch.equal(split_into_micro_batches(x, 3)[1], torch.tensor([3]))


@pytest.mark.parametrize(
    ("batch", "size", "message"),
    [
        (torch.arange(3), 0, "micro_batch_size >= 1, got 0"),
        (torch.arange(3), 1.5, "whole micro_batch_size >= 1, got 1.5"),
        ("abc", 2, "not a batch: expected tensors in a tuple, list or dict, got str"),
        ({"x": torch.arange(3), "name": "abc"}, 2, "not nested, got str"),
        ((torch.arange(3), {"y": torch.arange(3)}), 2, "not nested, got dict"),
        (torch.tensor(3.0), 2, "got a scalar"),
        (torch.arange(0), 2, r"equal, non-zero dim 0, got \[0\]"),
        ((torch.arange(3), torch.arange(2)), 2, r"got \[2, 3\]"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_an_error(batch, size, message):
    with pytest.raises(InputError, match=message):
        split_into_micro_batches(batch, size)


def test_a_remainder_is_a_step_of_its_own():
    assert list(group_micro_batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(InputError, match="grad_accum_steps >= 1"):
        list(group_micro_batches(range(7), 0))


def test_an_epoch_with_a_remainder_equals_full_batches_of_that_size():
    """Five rows, two a step: the third step holds one row, and is that row's gradient."""
    input_ids, labels = batch_of([6, 1, 3, 5, 2])
    model = tiny_model()
    for start, group in enumerate(group_micro_batches(split_into_micro_batches((input_ids, labels), 1), 2)):
        model.zero_grad()
        num_valid = count_valid(*(labels for _, labels in group))
        loss = accumulate_gradients(loss_sum_of(model), group, num_valid=num_valid)
        step_rows = slice(2 * start, 2 * start + 2)
        assert_equal_to_full_batch(grads(model), loss, (input_ids[step_rows], labels[step_rows]))
