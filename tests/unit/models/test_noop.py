from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from models.loading import load_predictor
from models.noop import noop_release
from models.predict import CompiledMasks, leaf_rows, predict
from models.product import Product
from models.release import Release
from models.taxonomy import Taxonomy
from tests.releases import TAXONOMY

CPU = torch.device("cpu")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return noop_release(tmp_path / "r", TAXONOMY)


@pytest.mark.parametrize("num_products", [0, 1, 300])
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_answers_look_like_a_models(release: Release, num_products: int, top_k: int) -> None:
    predictor = load_predictor(release, CPU, "auto")
    assert predictor.attribute is not None
    product = Product("p", None, "en", "Boots", "", (), (), None)
    batch = predictor.preparer.prepare([product] * num_products)
    assert batch.costs.tolist() == [1] * num_products
    assert release.categories is not None
    leaves = leaf_rows(TAXONOMY, release.categories)
    masks = CompiledMasks(TAXONOMY, predictor.attribute.labels, CPU)
    categories, labels = predict(predictor, batch, masks, leaves, top_k=top_k)

    assert categories is not None
    assert categories.rows.shape == categories.scores.shape == (num_products, min(top_k, 3))
    assert categories.rows.dtype == np.int64
    assert categories.scores.dtype == np.float32
    assert all(len(set(row)) == len(row) for row in categories.rows.tolist())
    assert (np.diff(categories.scores, axis=1) < 0).all()
    if num_products == 300:
        assert set(categories.rows[:, 0].tolist()) == {0, 1, 2}

    assert labels is not None
    assert labels.scores.dtype == np.float32
    for product_row, leaf in enumerate(categories.rows[:, 0].tolist()):
        rows = labels.rows[labels.indptr[product_row] : labels.indptr[product_row + 1]].tolist()
        relevant = TAXONOMY.relevant_label_ids(TAXONOMY.leaves[leaf])
        assert {predictor.attribute.labels.ids[row] for row in rows} <= set(relevant)
        assert len(set(rows)) == len(rows) == min(3, len(relevant))


def test_a_given_category_without_labels_gives_none(release: Release) -> None:
    predictor = load_predictor(release, CPU, "auto")
    assert predictor.attribute is not None
    batch = predictor.preparer.prepare([release.examples[0].product] * 2)
    masks = CompiledMasks(TAXONOMY, predictor.attribute.labels, CPU)
    _, labels = predict(
        predictor,
        batch,
        masks,
        np.array([1, 2, 3]),
        top_k=1,
        given_rows=np.array([3, 1]),  # bags, which have no labels; boots
    )
    assert labels is not None
    assert labels.indptr.tolist() == [0, 0, 3]


def test_a_taxonomy_without_attributes(tmp_path: Path) -> None:
    raw = {
        "name": "bare",
        "version": "1",
        "categories": [{"id": "a", "name": "A", "parent": None}],
        "attributes": [],
        "relevant": {},
    }
    bare = Taxonomy.from_json(orjson.dumps(raw))
    release = noop_release(tmp_path / "r", bare, version="2026-01")
    assert release.id == "noop/2026-01"
    assert load_predictor(release, CPU, "auto").attribute is None
