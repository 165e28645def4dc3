"""A failed batch is narrowed down: every good product gets its result, the bad one its error."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.poison import cut_to_poison, is_out_of_memory


class Numbers(list):
    def halves(self):
        middle = len(self) // 2
        return Numbers(self[:middle]), Numbers(self[middle:])


def runner(is_bad, most=1_000):
    calls: list[int] = []

    async def run(numbers):
        calls.append(len(numbers))
        if len(numbers) > most:
            raise torch.OutOfMemoryError("too many")
        for number in numbers:
            if is_bad(number):
                raise ValueError(number)
        return [number * 10 for number in numbers]

    return run, calls


async def parts_of(batch, run):
    try:
        return [(batch, await run(batch))]
    except (ValueError, RuntimeError) as error:
        return [part async for part in cut_to_poison(batch, run, error)]


@given(st.sets(st.integers(0, 99)), st.integers(1, 100))
async def test_only_the_poison_fails_and_all_come_back_in_order(bad, size):
    run, _ = runner(bad.__contains__)
    parts = await parts_of(Numbers(range(size)), run)
    assert [number for part, _ in parts for number in part] == list(range(size))
    for part, result in parts:
        if isinstance(result, Exception):
            assert len(part) == 1
            assert part[0] in bad
        else:
            assert result == [number * 10 for number in part]
            assert not bad & set(part)


async def test_one_poison_costs_two_runs_a_halving():
    run, calls = runner(lambda number: number == 700)
    parts = await parts_of(Numbers(range(1024)), run)
    assert [part for part, result in parts if isinstance(result, Exception)] == [[700]]
    assert len(calls) == 1 + 2 * 10


async def test_out_of_memory_is_halved_until_it_fits_and_loses_nothing():
    run, _ = runner(lambda _: False, most=100)
    parts = await parts_of(Numbers(range(1000)), run)
    assert all(len(part) <= 100 for part, _ in parts)
    assert [number for part, _ in parts for number in part] == list(range(1000))
    assert not any(isinstance(result, Exception) for _, result in parts)


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
