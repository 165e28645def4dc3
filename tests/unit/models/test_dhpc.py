from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.cascade import CascadeOutputs
from models.dhpc import DhpcConfig, DhpcNet, dhpc_categories
from models.dhpc_head import ClassifierHead
from models.encoders import load_pretrained
from models.errors import ModelError
from models.pooled_views import PooledViews
from models.predictor import Predictor
from models.product import Product
from models.segments import SegmentPreparer, SegmentTokenizer, grow_segments
from tests.tiny_encoder import save_tiny_bert

# Department 0 has leaves 0, 1 and 4, department 1 leaf 2 alone, department 2 leaves 3 and 5.
DEPARTMENTS = np.array([0, 0, 1, 2, 0, 2])
PRODUCTS = [
    Product(str(row), None, "", title, description, (), (), None)
    for row, (title, description) in enumerate(
        [("red boots", "warm"), ("lamp", ""), ("a b c d e", "f g"), ("z", "long " * 9)]
    )
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


def made(encoder: Path, /, **changes: Any) -> tuple[DhpcNet, SegmentPreparer]:
    torch.manual_seed(3)
    pretrained = load_pretrained(str(encoder), pooling="max")
    body = grow_segments(pretrained.encoder)
    config = replace(DhpcConfig(encoder=body.config, max_tokens=24, head_width=8), **changes)
    net = DhpcNet(config, DEPARTMENTS, body if config.encoder is not None else None)
    for name in net.names:
        nn.init.normal_(net.head(name).last.weight, std=2.0)
    tokenizer = SegmentTokenizer(pretrained.tokenizer, config.max_tokens)
    return net.eval(), SegmentPreparer(tokenizer)


def test_a_single_leaf_needs_no_classifier_and_networks_are_apart(encoder: Path) -> None:
    net, _ = made(encoder)
    assert net.names == ("department", "leaf-0", "leaf-2")
    assert set(net.bodies) == set(net.names)
    first, second = (net.body(name).state_dict() for name in ("department", "leaf-2"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    pointers = {id(p) for name in net.names for p in net.body(name).parameters()}
    assert len(pointers) == 3 * len(first)
    shared, _ = made(encoder, bodies="shared")
    assert list(shared.bodies) == ["shared"]


@pytest.mark.parametrize("bodies", ["separate", "shared"])
@pytest.mark.parametrize("kind", ["encoder", "pooled"])
def test_scores_are_the_product_of_both_classifiers(encoder: Path, bodies: Any, kind: str) -> None:
    changes: dict[str, Any] = {"bodies": bodies, "beam": 2}
    if kind == "pooled":
        changes |= {"encoder": None, "vocabulary": 77, "embedding": 6}
    net, preparer = made(encoder, **changes)
    with torch.no_grad():
        net.temperatures.copy_(torch.tensor([1.5, 0.7]))
    model = dhpc_categories(Predictor(preparer, _model(net), None))
    batch = preparer.prepare(PRODUCTS)
    scores = model.encode(batch)
    outputs = model.outputs(batch)
    for row in range(len(PRODUCTS)):
        alone = model.encode(batch.take(np.array([row])))
        torch.testing.assert_close(alone[0], scores[row], rtol=1e-5, atol=1e-6)
        department = torch.sigmoid(outputs.department[row] / 1.5)
        best = set(department.topk(2).indices.tolist())
        for leaf, of in enumerate(DEPARTMENTS.tolist()):
            wanted = torch.tensor(0.0)
            if of in best:
                wanted = department[of]
                if of != 1:
                    wanted = wanted * torch.sigmoid(outputs.leaf[row, leaf] / 0.7)
            assert scores[row, leaf].item() == pytest.approx(wanted.item(), rel=1e-5)
    found = model.score_categories(scores, 9)
    assert found.rows.shape == (4, 6)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    # So steep that many scores are 1 in float32: the best stay the best.
    net.calibration.copy_(torch.tensor([50.0, 40.0]))
    steep = model.score_categories(scores, 9)
    np.testing.assert_array_equal(steep.rows, found.rows)
    odds = 50 * torch.logit(torch.from_numpy(found.scores).double()) + 40
    np.testing.assert_allclose(steep.scores, torch.sigmoid(odds).numpy(), rtol=1e-3, atol=1e-30)


def _model(net: DhpcNet) -> Any:
    from models.dhpc import DhpcCategories
    from models.labels import LabelSpace

    leaves = LabelSpace(tuple("abcdef"))
    return DhpcCategories(net, leaves, np.zeros(6, dtype=np.float32))


def test_a_further_department_is_asked_without_being_answered(encoder: Path) -> None:
    net, preparer = made(encoder)
    model = _model(net)
    batch = preparer.prepare(PRODUCTS)
    plain = model.outputs(batch)
    others = (plain.best_departments().numpy() + 1) % 3
    asked = model.outputs(batch, others)
    ones = torch.ones(2)
    assert torch.equal(plain.scores(ones), asked.scores(ones))
    best = asked.best_leaves(torch.from_numpy(others)).numpy()
    np.testing.assert_array_equal(DEPARTMENTS[best], others)


def test_best_of_a_given_department() -> None:
    outputs = CascadeOutputs(
        torch.tensor([[3.0, 1.0]]),
        torch.tensor([[0.0, 2.0, 5.0]]),
        torch.tensor([[True, False]]),
        torch.tensor([0, 0, 1]),
    )
    assert outputs.best_departments().tolist() == [0]
    assert outputs.best_leaves(torch.tensor([1])).tolist() == [2]
    scores = outputs.scores(torch.ones(2))[0]
    assert scores[2] == 0
    assert scores[1].item() == pytest.approx(1 / (1 + np.exp(-3)) / (1 + np.exp(-2)))


def test_views_are_pooled_apart() -> None:
    body = PooledViews(9, 4)
    table = body.bag.weight
    found = body(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 0, 2, 0, 1]), torch.tensor([3, 2]))
    nothing = torch.zeros(4)
    wanted = torch.stack(
        [
            torch.cat([(table[1] + table[2]) / 2, nothing, table[3]]),
            torch.cat([table[4], table[5], nothing]),
        ]
    )
    torch.testing.assert_close(found, wanted)


def test_a_head_normalises_batches_and_takes_one_product() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(5, 4, 2, 6, 0.0).train()
    features = torch.randn(7, 5)
    linear, norm = head.hidden[0], head.hidden[1]
    plain = nn.BatchNorm1d(6)
    torch.testing.assert_close(norm(linear(features)), plain(linear(features)))
    torch.testing.assert_close(norm.running_var, plain.running_var)
    before = norm.running_mean.clone()
    head(features[:1])
    assert torch.equal(norm.running_mean, before)
    assert torch.sigmoid(head.last.bias)[0].item() == pytest.approx(1 / 4)
    assert len(ClassifierHead(5, 4, 1, 6, 0.5).hidden) == 1
    assert "num_batches_tracked" not in " ".join(head.state_dict())


def test_a_config_is_read_back_and_checked(encoder: Path) -> None:
    net, _ = made(encoder)
    raw = net.config.to_json()
    assert DhpcConfig.from_json(raw) == net.config
    for change in ({"bodies": "two"}, {"beam": 0}, {"encoder": None}, {"more": 1}):
        with pytest.raises(ModelError, match="not a dhpc's"):
            DhpcConfig.from_json({**raw, **change})
    with pytest.raises(ModelError, match="cascade"):
        dhpc_categories(Predictor(made(encoder)[1], None, None))
