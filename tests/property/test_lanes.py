"""Whatever the order in which results come back, a lane gives each once, in offset order."""

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import record
from worker.lanes import Lane, Result


def result(offset):
    return Result(record(offset=offset), b"k", 0, "r/1", b"{}", None)


@st.composite
def histories(draw):
    """Window sizes, gaps between offsets, and an order of completion."""
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    total = sum(sizes)
    gaps = draw(st.lists(st.integers(1, 3), min_size=total, max_size=total))
    return sizes, gaps, draw(st.permutations(range(total)))


@given(histories(), st.integers(1, 5))
def test_results_come_out_once_in_offset_order_and_never_early(history, chunk):
    sizes, gaps, order = history
    lane = Lane(TopicPartition("products", 0), epoch=1)
    slots: list[int] = []
    for size in sizes:
        first = lane.admit(size)
        slots += range(first, first + size)
    offsets = [sum(gaps[: index + 1]) for index in range(len(slots))]
    released: list[int] = []
    done: set[int] = set()
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        lane.complete([slots[i] for i in part], [result(offsets[i]) for i in part])
        done.update(part)
        run = lane.release()
        if run is not None:
            released += [outcome.record.offset for outcome in run.outcomes]
            assert run.next_offset == released[-1] + 1
        contiguous = next((i for i in range(len(slots)) if i not in done), len(slots))
        assert released == offsets[:contiguous]
    assert released == offsets
    assert lane.num_waiting == 0
    assert lane.release() is None


@given(st.integers(1, 20), st.integers(0, 19))
def test_a_closed_lane_holds_nothing(admitted, completed):
    lane = Lane(TopicPartition("products", 0), epoch=1)
    first = lane.admit(admitted)
    completed = min(completed, admitted)
    slots = list(range(first, first + completed))
    lane.complete(slots, [result(slot) for slot in slots])
    released = lane.release()
    dropped = lane.close()
    assert not lane.is_open
    assert dropped + (len(released.outcomes) if released else 0) == admitted
    assert lane.num_waiting == 0
