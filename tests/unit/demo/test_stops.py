"""Signals end the demo wherever it is: in plain code, and in the event loop after its clean-up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from demo.stops import Stopped, Stops


@pytest.fixture
def stops() -> Iterator[Stops]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    with Stops() as active:
        yield active
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_in_plain_code(stops: Stops, number: signal.Signals, exit_code: int) -> None:
    with pytest.raises(Stopped) as stopped:
        signal.raise_signal(number)
    assert stopped.value.exit_code == exit_code
    assert str(stopped.value) == number.name


def test_the_same_press_twice_is_one(stops: Stops) -> None:
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_a_signal_cancels_the_work_and_lets_it_clean_up(stops: Stops) -> None:
    cleaned = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(Stopped) as stopped:
        stops.run(work())
    assert cleaned == [True]
    assert stopped.value.exit_code == 143


def test_work_returns_its_value(stops: Stops) -> None:
    async def work() -> int:
        return 7

    assert stops.run(work()) == 7


def test_after_the_work_a_signal_raises_again(stops: Stops) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    stops.run(work())
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)


def test_failing_work_raises_its_error(stops: Stops) -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        stops.run(work())
