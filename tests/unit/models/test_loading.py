import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ModelError, ReleaseError
from models.labels import LabelSpace
from models.loading import load_predictor
from models.noop import noop_release
from models.predictor import Predictor
from models.product import Product
from models.release import Release
from models.self_check import make_examples, run_self_check
from tests.releases import TAXONOMY
from tests.tiny_flagship import tiny_flagship

CPU = torch.device("cpu")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return noop_release(tmp_path / "r", TAXONOMY)


def test_an_unknown_architecture_is_refused(release: Release) -> None:
    with pytest.raises(ModelError, match="'lsan'; known here are ave_bert, dhpc, flagship, noop"):
        load_predictor(replace(release, architecture="lsan"), CPU, "auto")


def test_models_that_are_not_the_manifests_are_refused(release: Release) -> None:
    """The spaces of a release are never changed so: this is an architecture with a fault."""
    less = replace(release, label_thresholds=None)
    with pytest.raises(ModelError, match="are not those that the manifest names"):
        load_predictor(less, CPU, "auto")


def test_self_check_passes_on_what_was_released(release: Release) -> None:
    run_self_check(release, load_predictor(release, CPU, "float32"))


def test_self_check_allows_the_tolerance_and_no_more(release: Release) -> None:
    predictor = load_predictor(release, CPU, "float32")
    example = release.examples[0]
    best, score = example.categories[0]
    near = replace(example, categories=((best, score - 0.04), *example.categories[1:]))
    run_self_check(replace(release, examples=(near,)), predictor)
    far = replace(example, categories=((best, score - 0.06), *example.categories[1:]))
    with pytest.raises(ReleaseError, match=rf"example 0 .*'example-0'.*{best} scored 0\.84"):
        run_self_check(replace(release, examples=(far,)), predictor)


def test_a_label_near_its_threshold_may_come_and_go(release: Release) -> None:
    predictor = load_predictor(release, CPU, "float32")
    example = release.examples[0]
    label, score = example.labels[0]
    without = replace(release, examples=(replace(example, labels=example.labels[1:]),))
    assert release.labels is not None
    near = np.full(len(release.labels), score - 0.04, dtype=np.float32)
    run_self_check(replace(without, label_thresholds=near), predictor)
    with pytest.raises(ReleaseError, match=f"{label} scored"):
        run_self_check(without, predictor)


def test_another_category_is_caught(release: Release) -> None:
    predictor = load_predictor(release, CPU, "float32")
    example = release.examples[0]
    swapped = (*reversed([name for name, _ in example.categories]),)
    scores = [score for _, score in example.categories]
    wrong = replace(example, categories=tuple(zip(swapped, scores, strict=True)))
    with pytest.raises(ReleaseError, match="self-check example 0"):
        run_self_check(replace(release, examples=(wrong,)), predictor)


def test_a_score_that_is_no_number_is_caught(release: Release) -> None:
    predictor = load_predictor(release, CPU, "float32")
    example = release.examples[0]
    nan = replace(example, categories=((example.categories[0][0], float("nan")),))
    with pytest.raises(ReleaseError, match="scored nan"):
        run_self_check(replace(release, examples=(nan,)), predictor)


def test_examples_without_a_category_model_use_the_claim(release: Release) -> None:
    both = load_predictor(release, CPU, "float32")
    alone = Predictor(both.preparer, None, both.attribute)
    products = [
        Product(claim or "none", None, "en", "A product", "", (), (), claim)
        for claim in ("boots", "hats", None)
    ]
    boots, unknown, none = make_examples(alone, products, TAXONOMY)
    assert boots.mask_category == "boots"
    assert {label for label, _ in boots.labels} <= set(TAXONOMY.relevant_label_ids("boots"))
    assert (unknown.mask_category, unknown.labels) == (None, ())
    assert (none.mask_category, none.labels) == (None, ())
    run_self_check(replace(release, categories=None, examples=(boots, unknown, none)), alone)


def test_examples_without_an_attribute_model(release: Release) -> None:
    both = load_predictor(release, CPU, "float32")
    alone = Predictor(both.preparer, both.category, None)
    (example,) = make_examples(alone, [release.examples[0].product], TAXONOMY)
    assert example.mask_category is None
    assert example.labels == ()
    assert example.categories == release.examples[0].categories
    assert isinstance(release.labels, LabelSpace)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 200},
        {"max_tokens": 8.5},
        {"bag_dim": 10**12},
        {"encoder.hidden_size": None},
        {"encoder.num_hidden_layers": "x"},
        {"encoder.model_type": "t5"},
    ],
)
def test_a_config_that_does_not_fit_is_refused_whatever_libraries_raise(
    tmp_path: Path, change: dict[str, object]
) -> None:
    release = tiny_flagship(tmp_path / "r", TAXONOMY)
    config = copy.deepcopy(dict(release.config))
    for key, value in change.items():
        inside, _, name = key.rpartition(".")
        part = config["encoder"]["transformer"] if inside else config
        part[name] = value
        if value is None:
            del part[name]
    with pytest.raises(ModelError, match="release tiny/1 cannot be loaded"):
        load_predictor(replace(release, config=config), CPU, "float32")


def test_how_attention_is_computed_is_not_the_releases_to_say(tmp_path: Path) -> None:
    release = tiny_flagship(tmp_path / "r", TAXONOMY)
    config = copy.deepcopy(dict(release.config))
    config["encoder"]["transformer"]["attn_implementation"] = "somebody/kernels"
    changed = replace(release, config=config)
    run_self_check(release, load_predictor(changed, CPU, "float32"))
