from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from models.hashing import HashingConfig, hash_fields

CONFIG = HashingConfig(buckets=2**18)


def ids(*fields: str, config: HashingConfig = CONFIG) -> set[int]:
    return set(hash_fields([fields], config).values.tolist())


def test_the_same_ids_as_when_releases_were_trained() -> None:
    """Pinned: other values mean that every trained bag is noise."""
    assert hash_fields([("ab",)], CONFIG).values.tolist() == PINNED


PINNED = [31439, 65687, 85170, 109688, 152075]


def test_another_process_with_another_hash_seed_gives_the_same_ids() -> None:
    code = (
        "from models.hashing import *; "
        "print(hash_fields([('Rotes Kleid', 'カラー')], HashingConfig()).values.tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert "[]" not in printed.pop()


def test_ids_are_of_ngrams_and_words_and_of_nothing_else() -> None:
    words = HashingConfig(ngrams=(), words=True)
    pairs = HashingConfig(ngrams=(2,), words=False)
    assert len(ids("", "red dress", config=words)) == 2
    # re ed dr re es ss: "re" twice.
    assert len(ids("red dress", config=pairs)) == 5
    # _re red ed_: the gap marks where a word begins and ends.
    assert len(ids("red", config=HashingConfig(ngrams=(3,), words=False))) == 3


def test_case_signs_and_spaces_do_not_count() -> None:
    assert ids("Red  -- Dress!") == ids(" red dress")
    assert ids("red dress") != ids("reddress")


def test_a_title_word_has_an_id_that_it_lacks_elsewhere() -> None:
    title, body = ids("dress", ""), ids("", "dress")
    assert body < title
    assert len(title - body) == 1


def test_words_of_japanese_are_runs_of_one_script() -> None:
    words = HashingConfig(ngrams=(), words=True)
    assert ids("", "革の手袋", config=words) == ids("", "手袋 の 革", config=words)
    assert len(ids("", "レザーのバッグ", config=words)) == 3


def test_a_product_does_not_depend_on_its_window() -> None:
    products = [("Red dress", "soft"), ("", ""), ("革の手袋", " x "), ("a", "b c"), ("", "--")]
    window = hash_fields(products, CONFIG)
    for row, product in enumerate(products):
        alone = hash_fields([product], CONFIG).values
        of_row = window.values[window.indptr[row] : window.indptr[row + 1]]
        np.testing.assert_array_equal(of_row, alone)
    assert window.lengths[1] == 0
    assert window.lengths[4] == 0


def test_separators_surrogates_and_rare_planes_are_data() -> None:
    assert ids("a\x00b", "c") == ids("a b", "c")
    assert ids("\ud800x", "")
    assert ids("𠮷野家", "") != ids("𠮷野", "")


def test_caps_hold() -> None:
    short = HashingConfig(max_chars=5)
    assert ids("abcdefgh", "", config=short) == ids("abcde", "", config=short)
    capped = HashingConfig(max_ids=3)
    window = hash_fields([("abcdefgh",), ("a",)], capped)
    assert window.lengths.tolist()[0] == 3
    assert set(window.values[:3].tolist()) < ids("abcdefgh")


def test_ids_are_distinct_rising_and_below_the_number_of_buckets() -> None:
    values = hash_fields([("the quick brown fox " * 20,)], HashingConfig(buckets=97)).values
    assert values.dtype == np.int32
    assert bool((np.diff(values) > 0).all())
    assert values.max() < 97


def test_no_products_no_rows() -> None:
    assert len(hash_fields([], CONFIG)) == 0


def test_another_seed_is_another_hash() -> None:
    assert ids("red dress") != ids("red dress", config=HashingConfig(seed=2))


def test_settings_survive_json() -> None:
    config = HashingConfig(buckets=5, ngrams=(3,), words=False, max_chars=9, max_ids=4, seed=2)
    assert HashingConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"buckets": 0}, "buckets must be"),
        ({"ngrams": (9,)}, "ngrams must each"),
        ({"ngrams": (), "words": False}, "nothing is left"),
        ({"max_chars": 0}, "must be positive"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashingConfig(**wrong)  # type: ignore[arg-type]
