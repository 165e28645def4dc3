from __future__ import annotations

import numpy as np
import pytest

from training.batches import epoch_batches, shares


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 500])
def test_an_epoch_holds_every_row_once(num_rows: int, with_lengths: bool) -> None:
    lengths = np.arange(num_rows)[::-1].copy() if with_lengths else None
    batches = epoch_batches(num_rows, 7, seed=1, epoch=0, lengths=lengths)
    assert all(0 < len(batch) <= 7 for batch in batches)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(num_rows))


def test_batches_follow_seed_and_epoch() -> None:
    one = [batch.tolist() for batch in epoch_batches(50, 7, seed=1, epoch=0)]
    assert one == [batch.tolist() for batch in epoch_batches(50, 7, seed=1, epoch=0)]
    assert one != [batch.tolist() for batch in epoch_batches(50, 7, seed=1, epoch=1)]
    assert one != [batch.tolist() for batch in epoch_batches(50, 7, seed=2, epoch=0)]


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    sorted_spread = [
        np.ptp(lengths[batch])
        for batch in epoch_batches(1000, 10, seed=1, epoch=0, lengths=lengths)
    ]
    assert np.mean(sorted_spread) < 10


def test_only_rows_of_one_group_share_a_batch() -> None:
    groups = np.random.default_rng(0).integers(0, 9, 500)
    batches = epoch_batches(500, 8, seed=1, epoch=0, groups=groups, lengths=groups)
    assert all(len(np.unique(groups[batch])) == 1 for batch in batches)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(500))
    order = [int(groups[batch[0]]) for batch in batches]
    assert order != sorted(order)


def test_batches_of_groups_by_length_change_with_the_epoch() -> None:
    """A group longer than a pool is not cut the same way each time."""
    random = np.random.default_rng(0)
    groups, lengths = random.integers(0, 3, 2000), random.permutation(2000)
    of_epochs = [
        {
            frozenset(batch.tolist())
            for batch in epoch_batches(2000, 8, seed=1, epoch=epoch, groups=groups, lengths=lengths)
        }
        for epoch in range(2)
    ]
    assert len(of_epochs[0] & of_epochs[1]) < 10


@pytest.mark.parametrize(("size", "accumulate", "processes"), [(16, 2, 2), (5, 3, 2), (1, 2, 3)])
def test_shares_and_weights_make_the_mean_of_the_batch(
    size: int, accumulate: int, processes: int
) -> None:
    batch = np.arange(10, 10 + size)
    losses = np.random.default_rng(0).random(100)
    found = [
        shares(batch, accumulate=accumulate, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    assert all(pieces for pieces, _ in found)
    seen = sorted(row for pieces, weight in found if weight for rows in pieces for row in rows)
    assert seen == batch.tolist()
    parts = [losses[rows].sum() / size * weight for pieces, weight in found for rows in pieces]
    assert sum(parts) / processes == pytest.approx(losses[batch].mean())
