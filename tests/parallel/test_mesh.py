"""Meshes on real processes against the arithmetic of ranks, written out here."""

import itertools

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from coursekit.errors import InputError
from coursekit.parallel import MESH_AXES, axis_groups, launch, make_mesh, merge_axes

from .sharded_gpt import error_of


def where_am_i(sizes):
    """Return this rank's place on each axis, and the ranks with which it shares each axis."""
    mesh = make_mesh(**sizes)
    places = {axis: mesh.get_local_rank(axis) for axis in MESH_AXES}
    return places, {axis: dist.get_process_group_ranks(mesh[axis].get_group()) for axis in MESH_AXES}


@pytest.mark.parametrize("sizes", [{"dp": 2, "tp": 2}, {"pp": 2, "dp": 1, "cp": 2}])
def test_ranks_are_numbered_from_the_innermost_axis(sizes):
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    expected = list(itertools.product(*map(range, shape)))
    for rank, (places, groups) in enumerate(launch(where_am_i, 4, sizes)):
        assert tuple(places[axis] for axis in MESH_AXES) == expected[rank]
        for position, axis in enumerate(MESH_AXES):
            others = drop(expected[rank], position)
            assert groups[axis] == [r for r, place in enumerate(expected) if drop(place, position) == others]
            assert groups[axis] in axis_groups(axis, **sizes)


def drop(place, position):
    return place[:position] + place[position + 1 :]


def one_rank():
    mesh = make_mesh()
    return tuple(mesh.shape), mesh["tp"].size(), merge_axes(mesh, "dp", "cp").size()


def test_one_rank_has_all_axes():
    assert launch(one_rank, 1) == [((1, 1, 1, 1, 1), 1, 1)]


def sum_over_tokens():
    mesh = make_mesh(dp=2, cp=2)
    merged = merge_axes(mesh, "dp", "cp")
    assert merge_axes(mesh, "dp", "cp").get_group() is merged.get_group()  # made once
    total = torch.tensor(1 << dist.get_rank())
    dist.all_reduce(total, group=merged.get_group())
    pair = torch.tensor(1 << dist.get_rank())
    dist.all_reduce(pair, group=mesh["cp"].get_group())
    return total.item(), pair.item()


def test_merged_axes_reach_every_rank_once_and_a_single_axis_does_not():
    assert launch(sum_over_tokens, 4) == [(15, 3), (15, 3), (15, 12), (15, 12)]


@given(st.lists(st.integers(1, 3), min_size=5, max_size=5), st.sampled_from(MESH_AXES))
def test_groups_of_an_axis_cover_every_rank_once(shape, axis):
    groups = axis_groups(axis, **dict(zip(MESH_AXES, shape, strict=True)))
    size = shape[MESH_AXES.index(axis)]
    assert {len(group) for group in groups} == {size}
    ranks = sorted(itertools.chain(*groups))
    assert ranks == list(range(len(groups) * size))


WRONG_SIZES = [
    ({"tp": 3}, "sizes that multiply to the 4 ranks, got tp=3 = 3, which does not divide them; tp=4 would"),
    ({"dp": 2}, "got dp=2 = 2; dp=4 would, and so would 2 ranks"),
    ({"dp": 2, "tp": 4}, "got dp=2 × tp=4 = 8; dp=1 would, and so would 8 ranks"),
    ({"pp": 3, "tp": 3}, "got pp=3 × tp=3 = 9, which does not divide them; 9 ranks would"),
    ({"tp": 0}, "wrong size of the axis tp: expected a whole number >= 1, got 0"),
    ({"pp": 2.0}, "wrong size of the axis pp: expected a whole number >= 1, got 2.0"),
]
WRONG_AXES = [("cp", "dp"), ("dp", "xx"), ()]


def errors():
    mesh = make_mesh()
    of_sizes = [error_of(make_mesh, **sizes) for sizes, _ in WRONG_SIZES]
    return of_sizes, [error_of(merge_axes, mesh, *axes) for axes in WRONG_AXES]


def test_sizes_and_axes_that_do_not_fit_are_told_what_would():
    for of_sizes, of_axes in launch(errors, 4):
        for (_, message), error in zip(WRONG_SIZES, of_sizes, strict=True):
            assert message in error
        assert all("some of pp, dp, cp, ep, tp, in this order" in error for error in of_axes)


def test_an_unknown_axis_is_an_error():
    with pytest.raises(InputError, match="pp, dp, cp, ep, tp, got xp"):
        axis_groups("xp")
    with pytest.raises(InputError, match=">= 1, got 0"):
        axis_groups("tp", tp=0)


def test_without_a_process_group_the_error_names_launch():
    with pytest.raises(InputError, match="launch"):
        make_mesh()
