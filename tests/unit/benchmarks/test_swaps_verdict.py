"""That the verdict on swaps can fail: every wrong is found, and what is right is not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.swaps.outputs import Outputs
from benchmarks.swaps.probe import Batches, batch_in_hand_s
from benchmarks.swaps.verdict import (
    Swap,
    gaps_of_swaps,
    ordinary_gaps_ms,
    unlike_once,
    wrong_release,
)

PARTITIONS = 2
EACH = 100
EVERY_MS = 100
SWAPS = [Swap(0, 0.0, 0.0, 0.1), Swap(1, 3.0, 3.4, 3.5), Swap(2, 6.0, 6.9, 7.0)]


def outputs() -> Outputs:
    """Each partition's event every 100 ms; what a release has in hand at a swap is two events."""
    offset = np.repeat(np.arange(EACH), PARTITIONS)
    at_ms = offset * EVERY_MS
    release = np.select([at_ms <= 3_700, at_ms <= 7_200], [0, 1], 2)
    return Outputs(np.tile(np.arange(PARTITIONS), EACH), offset, release, at_ms)


def changed(**columns: np.ndarray) -> Outputs:
    right = outputs()
    names = ("partition", "offset", "release", "at_ms")
    return Outputs(*(columns.get(name, getattr(right, name)) for name in names))


def ends() -> dict[int, int]:
    return dict.fromkeys(range(PARTITIONS), EACH)


def test_each_once_is_right() -> None:
    assert unlike_once(outputs(), ends()) == (0, 0)


def test_an_event_without_an_output_is_lost_and_a_second_one_is_twice() -> None:
    offset = outputs().offset.copy()
    offset[7] = offset[9]
    assert unlike_once(changed(offset=offset), ends()) == (1, 1)
    assert unlike_once(outputs(), ends() | {1: EACH + 3}) == (3, 0)


def test_releases_that_were_active_are_right() -> None:
    assert wrong_release(outputs(), SWAPS, max_in_flight=20) == 0


def test_a_release_that_was_never_announced_is_wrong() -> None:
    release = outputs().release.copy()
    release[-1] = -1
    assert wrong_release(changed(release=release), SWAPS, max_in_flight=20) == 1


def test_a_release_before_it_was_active_is_wrong() -> None:
    release = outputs().release.copy()
    release[outputs().at_ms == 3_300] = 1
    # So are the outputs behind it that are older releases' again.
    assert wrong_release(changed(release=release), SWAPS, max_in_flight=20) >= PARTITIONS


def test_a_release_after_a_later_one_in_its_partition_is_wrong() -> None:
    release = outputs().release.copy()
    release[outputs().at_ms == 8_000] = 1
    assert wrong_release(changed(release=release), SWAPS, max_in_flight=20) == PARTITIONS


def test_more_of_an_old_release_than_can_have_been_in_hand_is_wrong() -> None:
    release = np.where(outputs().at_ms <= 5_500, 0, outputs().release)
    assert wrong_release(changed(release=release), SWAPS, max_in_flight=4) > 0
    assert wrong_release(outputs(), SWAPS, max_in_flight=3) > 0


def test_a_pause_at_a_swap_is_found_and_the_batch_in_hand_taken_off() -> None:
    at_ms = np.where(outputs().at_ms >= 3_200, outputs().at_ms + 900, outputs().at_ms)
    batches = [Batches(0.0, 0, 0.0), Batches(4.0, 10, 1.0), Batches(4.2, 11, 1.3)]
    gaps = gaps_of_swaps([changed(at_ms=at_ms)], SWAPS[1:], batches)
    assert [gap.gap_ms for gap in gaps] == [1_000, 100]
    assert gaps[0].in_hand_ms == pytest.approx(300)
    assert gaps[0].beyond_ms == pytest.approx(700)


def test_a_pause_that_begins_before_the_announcement_counts_whole() -> None:
    at_ms = outputs().at_ms
    kept = (at_ms <= 2_500) | (at_ms >= 3_600)
    right = outputs()
    thinned = Outputs(right.partition[kept], right.offset[kept], right.release[kept], at_ms[kept])
    assert gaps_of_swaps([thinned], SWAPS[1:], [])[0].gap_ms == 1_100


def test_ordinary_gaps_are_those_of_quiet_spans() -> None:
    found = ordinary_gaps_ms([outputs()], [(1.0, 1.5), (8.0, 8.2)])
    assert found.tolist() == [EVERY_MS] * 7


def test_the_batch_in_hand_is_the_longest_that_ended_around_the_gap() -> None:
    looks = [
        Batches(1.0, 1, 0.2),
        Batches(1.1, 1, 0.2),
        Batches(1.2, 2, 0.7),
        Batches(1.3, 4, 0.9),
        Batches(9.0, 5, 5.0),
    ]
    assert batch_in_hand_s(looks, 1.05, 1.25) == pytest.approx(0.5)
    assert batch_in_hand_s(looks, 3.0, 4.0) == pytest.approx(4.1)
    assert batch_in_hand_s(looks, 20.0, 21.0) == 0.0
