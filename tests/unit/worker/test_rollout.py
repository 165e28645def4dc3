"""Which release answers which product, and what is counted for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from models.noop import noop_release
from models.taxonomy import Taxonomy
from tests.catalog import small_taxonomy
from tests.factories import record
from tests.hot_path_runs import load_serving
from worker.canary import CanaryConfig
from worker.events import Window
from worker.lanes import Lane, Result
from worker.metrics import Metrics
from worker.rollout import Rollout
from worker.serving import Serving

CONFIG = CanaryConfig(max_failed_share=0.1, min_products=10, window_products=100)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Serving]:
    taxonomy: Taxonomy = small_taxonomy()
    root: Path = tmp_path_factory.mktemp("rollout")
    made: dict[str, Serving] = {}

    def make(version: str) -> Serving:
        if version not in made:
            made[version] = load_serving(
                noop_release(root / version, taxonomy, version=version).directory
            )
        return made[version]

    return make


@pytest.fixture
def rollout(serving: Callable[[str], Serving]) -> Rollout:
    made = Rollout(CONFIG, Metrics())
    made.set_active(serving("1"))
    made.set_canary(serving("2"), 0.5)
    return made


def window_of(num: int, lane: Lane) -> Window:
    records = [record(key=b"key-%d" % number, offset=number) for number in range(num)]
    return Window(records, [lane] * num, list(range(num)), 0.0)


def results(num: int, *, review: bool = False) -> list[Result]:
    return [Result(record(), b"k", 0, "r/1", b"{}", None, review=review) for _ in range(num)]


@pytest.fixture
def lane() -> Lane:
    return Lane(TopicPartition("in", 0), epoch=1)


def test_every_event_has_one_release(rollout: Rollout, lane: Lane) -> None:
    parts = rollout.route(window_of(100, lane))
    assert [serving.release.id for serving, _ in parts] == ["noop/1", "noop/2"]
    offsets = [each.offset for _, part in parts for each in part.records]
    assert sorted(offsets) == list(range(100))
    assert all(len(part) > 20 for _, part in parts)


def test_what_was_in_hand_at_a_death_is_kept_from_the_canary(rollout: Rollout, lane: Lane) -> None:
    lane.deaths.update(dict.fromkeys(range(100), 1))
    ((answering, part),) = rollout.route(window_of(100, lane))
    assert (answering.release.id, len(part)) == ("noop/1", 100)


def test_without_a_canary_all_is_the_active_releases(rollout: Rollout, lane: Lane) -> None:
    rollout.set_canary(None, 0)
    ((answering, part),) = rollout.route(window_of(10, lane))
    assert (answering.release.id, len(part)) == ("noop/1", 10)
    assert rollout.status() is None


def test_a_canary_that_was_promoted_is_judged_no_more(
    rollout: Rollout, serving: Callable[[str], Serving], lane: Lane
) -> None:
    ended: list[str] = []
    rollout.on_return = lambda serving, why: ended.append(why)
    promoted = serving("2")
    rollout.set_active(promoted)
    rollout.failed(promoted, 50)
    rollout.answered(promoted, results(50, review=True))
    assert not ended
    assert len(rollout.route(window_of(10, lane))) == 1
    assert rollout.instead_of(promoted) is None
    assert rollout.instead_of(serving("1")) is promoted


def test_only_the_present_releases_are_compared(
    rollout: Rollout, serving: Callable[[str], Serving]
) -> None:
    rollout.answered(serving("1"), results(5))
    rollout.answered(serving("2"), results(3))
    rollout.answered(serving("3"), results(90, review=True))  # late, of a release before
    rollout.failed(serving("3"), 90)
    status = rollout.status()
    assert status is not None
    assert (status["active_products"], status["products"], status["failed"]) == (5, 3, 0)
    rollout.set_active(serving("3"))
    assert rollout.status() == {
        "release": "noop/2", "share": 0.5, "products": 0, "failed": 0, "review": 0,
        "active_products": 0, "active_review": 0,
    }  # fmt: skip


def test_a_canary_out_of_bounds_is_given_up_once(
    rollout: Rollout, serving: Callable[[str], Serving]
) -> None:
    ended: list[tuple[Serving, str]] = []
    rollout.on_return = lambda canary, why: ended.append((canary, why))
    rollout.failed(serving("2"), 1)
    assert rollout.is_canary(serving("2"))
    rollout.failed(serving("2"), 1)
    rollout.failed(serving("2"), 1)
    assert [canary.release.id for canary, _ in ended] == ["noop/2"]
    assert not rollout.is_canary(serving("2"))
