"""The order of samples is the same however often it is interrupted, whoever reads ahead."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from coursekit.errors import InputError
from coursekit.train import ResumableSampler, preserve_rng


@pytest.fixture(autouse=True)
def _leave_global_randomness_alone():
    with preserve_rng():
        yield


def loader_of(sampler, batch_size, **options):
    return DataLoader(
        TensorDataset(torch.arange(sampler.num_samples)), batch_size=batch_size, sampler=sampler, **options
    )


def read(sampler, loader, num_epochs):
    for _ in range(sampler.epoch, num_epochs):
        for (batch,) in sampler.consume(loader):
            yield batch.tolist()


@given(
    num_samples=st.integers(1, 30),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
    stops=st.lists(st.integers(0, 12), max_size=3),
)
@settings(deadline=None, max_examples=60)
def test_any_number_of_restarts_leaves_the_order_as_it_was(num_samples, batch_size, drop_last, stops):
    def make():
        sampler = ResumableSampler(num_samples, seed=4)
        return sampler, loader_of(sampler, batch_size, drop_last=drop_last)

    whole = list(read(*make(), num_epochs=3))
    seen, state = [], None
    for stop in [*stops, None]:
        sampler, loader = make()
        if state is not None:
            sampler.load_state_dict(state)
        seen += itertools.islice(read(sampler, loader, num_epochs=3), stop)
        state = sampler.state_dict()
    assert seen == whole


def test_each_epoch_holds_every_sample_once_in_an_order_of_its_own():
    sampler = ResumableSampler(50, seed=0)
    loader = loader_of(sampler, 50)
    epochs = list(read(sampler, loader, num_epochs=3))
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 3
    assert len(set(map(tuple, epochs))) == 3
    assert list(ResumableSampler(50, seed=1)) not in epochs
    assert list(ResumableSampler(4, seed=0, shuffle=False)) == [0, 1, 2, 3]


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}], ids=["", "persistent"])
def test_with_workers_the_position_counts_what_was_consumed_not_what_was_fetched(options):
    def make():
        sampler = CountingSampler(40, seed=2)
        return sampler, loader_of(sampler, 2, num_workers=1, prefetch_factor=6, **options)

    whole = list(read(*make(), num_epochs=1))
    sampler, loader = make()
    start = list(itertools.islice(read(sampler, loader, num_epochs=1), 3))
    assert sampler.position == 6
    assert sampler.handed_out > 6  # the control: what a sampler that counts for itself would save
    second, second_loader = make()
    second.load_state_dict(sampler.state_dict())
    assert start + list(read(second, second_loader, num_epochs=1)) == whole


class CountingSampler(ResumableSampler):
    handed_out = 0

    def __iter__(self):
        for index in super().__iter__():
            self.handed_out += 1
            yield index


def test_a_loop_that_is_left_goes_on_where_it_was():
    sampler = ResumableSampler(10, seed=0)
    loader = loader_of(sampler, 2)
    order = list(sampler)
    first = list(itertools.islice(sampler.consume(loader), 2))
    assert len(loader) == 3
    second = list(sampler.consume(loader))
    assert [index for (batch,) in first + second for index in batch.tolist()] == order
    assert (sampler.epoch, sampler.position) == (1, 0)


def test_starting_the_loader_draws_no_random_number_though_torchs_own_iterator_does():
    sampler = ResumableSampler(10, seed=0)
    loader = loader_of(sampler, 2)
    state = torch.get_rng_state()
    list(sampler.consume(loader))
    assert torch.equal(torch.get_rng_state(), state)
    iter(loader)
    assert not torch.equal(torch.get_rng_state(), state)


@given(num_samples=st.integers(4, 40), before=st.sampled_from([1, 2, 4]), after=st.sampled_from([1, 2, 3]))
@settings(deadline=None, max_examples=40)
def test_another_number_of_ranks_goes_on_with_the_samples_that_are_left(num_samples, before, after):
    def ranks(dp_size, state=None):
        samplers = [
            ResumableSampler(num_samples, seed=1, dp_rank=rank, dp_size=dp_size) for rank in range(dp_size)
        ]
        for sampler in samplers:
            if state is not None:
                sampler.load_state_dict(state)
        return samplers

    first = ranks(before)
    seen = []
    for sampler in first:
        batches = itertools.islice(sampler.consume(loader_of(sampler, 2)), 2)
        seen += [index for (batch,) in batches for index in batch.tolist()]
    states = [sampler.state_dict() for sampler in first]
    assert all(state == states[0] for state in states)
    if states[0]["epoch"] == 0:
        rest = [list(sampler) for sampler in ranks(after, states[0])]
        assert len({len(indices) for indices in rest}) == 1
        seen += itertools.chain(*rest)
    assert len(seen) == len(set(seen))
    assert num_samples - len(seen) < max(before, after)


def test_a_position_in_another_order_is_refused():
    state = ResumableSampler(10, seed=0).state_dict()
    with pytest.raises(InputError, match="another order of samples: expected num_samples 10, seed 0, got"):
        ResumableSampler(11, seed=1).load_state_dict(state)


@pytest.mark.parametrize("options", [{"batch_size": None}, {"sampler": RandomSampler(range(10))}])
def test_a_loader_whose_samples_are_not_counted_is_refused(options):
    sampler = ResumableSampler(10, seed=0)
    loader = DataLoader(range(10), **{"batch_size": 2, "sampler": sampler, **options})
    with pytest.raises(InputError, match="counts another loader's samples"):
        sampler.consume(loader)


@pytest.mark.parametrize(
    "options",
    [{"num_samples": 0}, {"num_samples": 1, "dp_size": 2}, {"dp_rank": 2, "dp_size": 2}, {"dp_size": 0}],
)
def test_a_rank_without_samples_is_refused(options):
    with pytest.raises(InputError, match="no samples"):
        ResumableSampler(**{"num_samples": 5, "seed": 0, **options})
