from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from numpy.typing import NDArray

from models.calibration import BELOW_ONE, calibrated
from models.errors import ReleaseError
from models.heads import CascadeHead
from models.noop import noop_release
from models.release import read_release
from tests.releases import TAXONOMY, reseal
from training.abstention import (
    CALIBRATION_FILE,
    MIN_TEXTS,
    Abstention,
    DepartmentThreshold,
    Promise,
    calibrated_shares,
    fit_abstention,
    lowest_score,
    read_abstention,
)

EXPECTED = Promise(0.9, "department", 0.5)
SURELY = Promise(0.9, "department", 0.95)


def drawn(
    count: int, seed: int, *, sharper: float = 1.0, variants: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """Scores, answers that are right as often as the scores say, or not quite, and texts.

    Args:
        variants: products of each text, which are answered alike.
    """
    random = np.random.default_rng(seed)
    scores = random.beta(2, 1, count // variants)
    odds = (scores / (1 - scores)) ** sharper
    right = random.random(len(scores)) < odds / (1 + odds)
    texts = np.arange(len(scores))
    return tuple(np.repeat(each, variants) for each in (scores.astype(np.float32), right, texts))


@pytest.mark.parametrize("sharper", [0.6, 1.0, 1.5])
def test_the_target_is_kept_on_other_products(sharper: float) -> None:
    other, right, _ = drawn(200_000, 0, sharper=sharper)
    realised = []
    for seed in range(1, 21):
        threshold = lowest_score(*drawn(2_000, seed, sharper=sharper), EXPECTED)
        realised.append(right[other >= threshold].mean())
    assert np.mean(realised) == pytest.approx(0.9, abs=0.004)


@pytest.mark.parametrize(("count", "variants"), [(300, 1), (2_000, 1), (4_000, 8)])
def test_the_target_is_kept_as_surely_as_promised(count: int, variants: int) -> None:
    """Of products that share texts too, which say less than as many that do not."""
    other, right, _ = drawn(200_000, 0)
    kept = {EXPECTED: 0, SURELY: 0}
    for promise in kept:
        for seed in range(1, 101):
            assigned = other >= lowest_score(*drawn(count, seed, variants=variants), promise)
            kept[promise] += not assigned.any() or bool(right[assigned].mean() >= 0.9)
    assert 35 <= kept[EXPECTED] <= 65
    assert 89 <= kept[SURELY] <= 100


@pytest.mark.parametrize(("count", "variants"), [(2_000, 1), (16_000, 8)])
def test_the_bound_takes_no_more_than_it_has_to(count: int, variants: int) -> None:
    other, _, _ = drawn(200_000, 0)
    found = [lowest_score(*drawn(count, seed, variants=variants), SURELY) for seed in range(20)]
    # 36 % could be assigned by one who knew the odds.
    assert np.mean([(other >= each).mean() for each in found]) > 0.25


def test_only_the_texts_above_a_cut_matter_to_it() -> None:
    """What few sure products show is not less for the many variants among the unsure ones."""
    scores, right, texts = drawn(2_000, 4)
    sure = lowest_score(scores, right, texts, SURELY)
    below = scores < sure
    assert 100 < below.sum() < 1_900
    again = np.where(below, 50, 1)
    of_variants = (np.repeat(each, again) for each in (scores, right, texts))
    assert lowest_score(*of_variants, SURELY) == pytest.approx(sure, abs=0.02)


def test_a_confidence_of_nine_tenths_wants_fifteen_texts() -> None:
    """As docs/training.md has it."""
    usual = Promise(0.9, "department", 0.9)
    for count, threshold in ((14, 1), (15, 0)):
        scores = np.full(count, 0.5, dtype=np.float32)
        assert lowest_score(scores, scores > 0, np.arange(count), usual) == threshold


@pytest.mark.parametrize(
    ("right", "target", "assigned"),
    [
        # 1 / (1 + 2.7055 / 25) = 0.9023
        (25, 0.9022, True),
        (25, 0.9024, False),
        # (0.95 + 2.7055 / 200 - 1.6449 * sqrt(0.95 * 0.05 / 100 + 2.7055 / 40000)) / 1.027055
        # = 0.9008, for 95 right of 100
        (95, 0.9007, True),
        (95, 0.9010, False),
    ],
)
def test_wilsons_bound(right: int, target: float, assigned: bool) -> None:
    """Of equal scores all are taken or none."""
    count = 25 if right == 25 else 100
    found = lowest_score(
        np.full(count, 0.5, dtype=np.float32),
        np.arange(count) < right,
        np.arange(count),
        Promise(target, "overall", 0.95),
    )
    assert found == (0 if assigned else 1)


def test_one_refuses_every_score_that_is_given() -> None:
    head = CascadeHead(2, [0, 0, 1])
    assert float(np.nextafter(np.float32(1), np.float32(0))) == BELOW_ONE
    sure = calibrated(torch.tensor([1.0, 0.999999]), torch.tensor([50.0, 9.0]))
    assert (sure < 1).all() and (sure > 0.9999).all()
    with torch.no_grad():
        head.leaf.bias[1] = head.department.bias[0] = 99.0
    assert head.best(torch.zeros(1, 2), 1).scores[0, 0] == BELOW_ONE


def test_calibrated_shares_never_fall_as_the_score_rises() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        scores = random.random(300).astype(np.float32)
        right = random.random(300) < random.random()
        shares = calibrated_shares(scores, right)
        assert (np.diff(shares[np.argsort(scores)]) >= -1e-12).all()
        assert shares.mean() == pytest.approx(right.mean(), abs=1e-3)


def test_scores_of_nought_and_one_are_taken() -> None:
    scores = np.array([0, 0, 1, 1, 0.5], dtype=np.float32)
    shares = calibrated_shares(scores, np.array([False, True, True, False, True]))
    assert np.isfinite(shares).all()


def test_all_right_all_wrong_and_nothing() -> None:
    scores, texts = np.array([0.9, 0.8], dtype=np.float32), np.arange(2)
    assert lowest_score(scores, np.array([True, True]), texts, EXPECTED) == 0
    assert lowest_score(scores, np.array([True, True]), texts, SURELY) == 1
    assert lowest_score(scores, np.array([False, False]), texts, EXPECTED) == 1
    one = np.ones(1, dtype=np.float32), np.zeros(1, dtype=bool), texts[:1]
    assert lowest_score(*one, EXPECTED) == 1
    assert lowest_score(*(each[:0] for each in one), EXPECTED) == 1


def test_equal_scores_are_taken_together() -> None:
    scores = np.repeat([0.9, 0.5, 0.1], 100).astype(np.float32)
    right = np.tile(np.arange(100), 3) < np.repeat([99, 70, 10], 100)
    threshold = lowest_score(scores, right, np.arange(300), EXPECTED)
    assert (scores >= threshold).sum() in (100, 200)


def test_products_of_a_text_show_no_more_than_it() -> None:
    """30 products that are right show 0.9 as surely as wanted; ten texts of three each do not."""
    scores, right = np.full(30, 0.5, dtype=np.float32), np.ones(30, dtype=bool)
    assert lowest_score(scores, right, np.arange(30), SURELY) == 0
    assert lowest_score(scores, right, np.arange(30) // 3, SURELY) == 1


def test_small_departments_share_a_threshold() -> None:
    sizes = {"large": 5 * MIN_TEXTS, "small": MIN_TEXTS - 1, "tiny": 30, "unseen": 0}
    scores, right, texts = drawn(sum(sizes.values()), 7)
    departments = list(sizes)
    rows = np.repeat(np.arange(4), list(sizes.values()))
    found = fit_abstention(scores, rows, np.where(right, rows, -1), departments, texts, EXPECTED)
    own = {name: each.own for name, each in found.departments.items()}
    assert own == {"large": True, "small": False, "tiny": False, "unseen": False}
    assert {name: each.products for name, each in found.departments.items()} == sizes
    pooled = rows > 0
    shared = lowest_score(scores[pooled], right[pooled], texts[pooled], EXPECTED)
    assert [found.departments[name].threshold for name in departments[1:]] == [shared] * 3
    of_large = rows == 0
    assert found.departments["large"].threshold == lowest_score(
        scores[of_large], right[of_large], texts[of_large], EXPECTED
    )
    assert found.overall == lowest_score(scores, right, texts, EXPECTED)
    leaves = found.of_leaves(["tiny", "large", "tiny"])
    assert leaves.dtype == np.float32
    assert (
        leaves.tolist()
        == np.float32([shared, found.departments["large"].threshold, shared]).tolist()
    )


def test_a_department_of_few_texts_is_small() -> None:
    scores, right, texts = drawn(4 * MIN_TEXTS, 2)
    rows = np.repeat([0, 1], 2 * MIN_TEXTS)
    given = scores, rows, np.where(right, rows, -1), ["many", "few"]
    found = fit_abstention(*given, texts, EXPECTED)
    assert found.departments["few"].own
    found = fit_abstention(*given, np.where(rows == 0, texts, texts // 4 + len(texts)), EXPECTED)
    assert found.departments["many"].own
    assert not found.departments["few"].own


def test_too_few_products_share_the_threshold_of_all() -> None:
    scores, right, texts = drawn(MIN_TEXTS + 40, 1)
    rows = np.repeat([0, 1], [MIN_TEXTS, 40])
    promise = Promise(0.9, "overall", 0.5)
    found = fit_abstention(scores, rows, np.where(right, rows, -1), ["a", "b"], texts, promise)
    assert found.departments["b"].threshold == found.overall
    assert found.of_leaves(["a", "b"]).tolist() == np.float32([found.overall] * 2).tolist()


def test_a_release_says_what_its_thresholds_stand_for(tmp_path: Path) -> None:
    of_bags = DepartmentThreshold(0.5, True, 300, 0.8)
    said = Abstention(0.9, "department", 0.4, {"bags": of_bags}, confidence=0.8)
    directory = noop_release(tmp_path / "release", TAXONOMY).directory
    assert read_abstention(read_release(directory)) is None
    (directory / CALIBRATION_FILE).write_bytes(said.to_json())
    reseal(directory)
    assert read_abstention(read_release(directory)) == said


def said_with(**changed: Any) -> bytes:
    said = {"schema": "sortiment.calibration.v1", "target": 0.9, "overall": 0.5, "departments": {}}
    return orjson.dumps(said | {"by": "overall"} | changed)


def test_what_does_not_say_how_surely_took_what_was_expected(tmp_path: Path) -> None:
    directory = noop_release(tmp_path / "release", TAXONOMY).directory
    (directory / CALIBRATION_FILE).write_bytes(said_with())
    reseal(directory)
    said = read_abstention(read_release(directory))
    assert said is not None and said.confidence == 0.5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[", "cannot be read"),
        (b"[]", "cannot be read"),
        (orjson.dumps({"schema": "sortiment.calibration.v2"}), "update the project"),
        (orjson.dumps({"schema": "sortiment.calibration.v1", "target": 0.9}), "cannot be read"),
        (said_with(by="leaf"), "cannot be read"),
        (said_with(confidence=1.0), "cannot be read"),
        (said_with(departments={"shoes": {"threshold": 0.5}}), "cannot be read"),
    ],
)
def test_what_is_said_otherwise_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    directory = noop_release(tmp_path / "release", TAXONOMY).directory
    (directory / CALIBRATION_FILE).write_bytes(content)
    reseal(directory)
    with pytest.raises(ReleaseError, match=told):
        read_abstention(read_release(directory))
