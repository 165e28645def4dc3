from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.loading import load_predictor
from models.noop import noop_release
from models.predictor import Predictor
from models.product import Product
from models.release import Release
from tests.releases import TAXONOMY
from training.data import LabelledProduct
from training.predictions import plan, predict_products

CPU = torch.device("cpu")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return noop_release(tmp_path / "r", TAXONOMY)


def items(*categories: str) -> list[LabelledProduct]:
    return [
        LabelledProduct(Product(str(row), None, "en", "x", "", (), (), None), category, ())
        for row, category in enumerate(categories)
    ]


@given(st.lists(st.integers(1, 20_000), max_size=600))
def test_every_product_is_in_one_batch_within_bounds(costs: list[int]) -> None:
    batches = plan(np.array(costs, dtype=np.int32))
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(costs)))
    for batch in batches:
        assert 1 <= len(batch) <= 256
        assert len(batch) == 1 or max(costs[row] for row in batch) * len(batch) <= 16_384


def test_labels_are_masked_by_the_predicted_and_by_the_true_category(release: Release) -> None:
    predictor = load_predictor(release, CPU, "float32")
    advanced: list[int] = []
    found = predict_products(
        release,
        predictor,
        items("boots", "bags", "sneakers", "hats"),
        CPU,
        advance=advanced.append,
    )
    assert sum(advanced) == 4
    assert found.categories is not None
    assert found.scores.tolist() == pytest.approx([0.9] * 4)
    assert found.assigned.tolist() == [True] * 4
    assert found.labels is not None
    assert found.labels_of_true is not None
    true = ["boots", "bags", "sneakers", found.categories[3]]
    for labels, categories in ((found.labels, found.categories), (found.labels_of_true, true)):
        for own, category in zip(labels, categories, strict=True):
            relevant = TAXONOMY.relevant_label_ids(category)
            assert set(own) <= set(relevant)
            assert len(own) == min(3, len(relevant))


def test_one_encoder_pass_serves_both_masks(release: Release) -> None:
    predictor = load_predictor(release, CPU, "float32")
    assert predictor.category is not None
    assert predictor.attribute is not None
    encode = predictor.category.encoder.encode
    sizes: list[int] = []

    class Counting:
        def encode(self, batch):  # type: ignore[no-untyped-def]
            sizes.append(len(batch))
            return encode(batch)

    predictor.category.encoder = predictor.attribute.encoder = Counting()
    predict_products(release, predictor, items(*["boots"] * 300), CPU)
    assert sizes == [256, 44]


def test_releases_with_one_model(release: Release) -> None:
    both = load_predictor(release, CPU, "float32")
    only_labels = Predictor(both.preparer, None, both.attribute)
    found = predict_products(release, only_labels, items("boots", "hats"), CPU)
    assert found.categories is None
    assert found.labels is None
    assert found.labels_of_true is not None
    assert [len(labels) for labels in found.labels_of_true] == [3, 0]
    only_categories = Predictor(both.preparer, both.category, None)
    found = predict_products(release, only_categories, items("boots"), CPU)
    assert found.categories == ["boots"]
    assert found.labels is None
    assert found.labels_of_true is None
