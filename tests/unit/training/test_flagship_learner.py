from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.encoders import load_pretrained
from models.flagship import FlagshipConfig, FlagshipNet
from models.flagship_preparer import HASHED_IDS, REST_IDS, WHOLE_IDS
from models.hashing import HashingConfig
from models.labels import Masks
from models.prepare import Prepared, Ragged
from models.tokens import INPUT_IDS
from tests.tiny_encoder import save_tiny_bert
from training.flagship_learner import FlagshipLearner, Split, positive_labels
from training.recipe import Rates
from training.targets import Targets

RATES = Rates(heads=1.0, bag=2.0, encoder=0.5, layer_decay=0.5)


def split(encoded: np.ndarray | None = None) -> Split:
    indptr = np.array([0, 3, 6])
    tokens = Ragged(np.array([2, 9, 3, 2, 8, 3], dtype=np.int32), indptr)
    hashed = Ragged(np.array([0, 1, 2], dtype=np.int32), np.array([0, 2, 3]))
    masks = Masks.from_rows([np.array([0, 1], dtype=np.uint32)] * 2, 3)
    return Split(
        Prepared({INPUT_IDS: tokens, HASHED_IDS: hashed}, np.array([3, 3], dtype=np.int32)),
        Targets(
            np.array([0, 1]),
            np.array([0, -1]),
            Ragged(np.array([1]), np.array([0, 1, 1])),
            np.array([0, 1]),
            masks,
        ),
        encoded,
    )


@pytest.fixture
def net(tmp_path: Path) -> FlagshipNet:
    encoder = load_pretrained(str(save_tiny_bert(tmp_path)), pooling="concat").encoder
    config = FlagshipConfig(
        encoder=encoder.config, hashing=HashingConfig(buckets=7), max_tokens=8, bag_dim=4
    )
    return FlagshipNet(config, departments=[0, 1], num_labels=3, encoder=encoder)


def test_lower_layers_learn_more_slowly(net: FlagshipNet) -> None:
    learner = FlagshipLearner(net, split(), split(), RATES, torch.device("cpu"))
    dense, sparse = learner.optimizers()
    name_of = {id(parameter): name for name, parameter in learner.model.named_parameters()}
    rate_of = {name_of[id(group["params"][0])]: group["lr"] for group in dense.param_groups}
    layer = "encoder.transformer.encoder.layer.{}.output.dense.weight"
    assert [rate_of[layer.format(number)] for number in range(4)] == [0.0625, 0.125, 0.25, 0.5]
    assert rate_of["encoder.transformer.embeddings.word_embeddings.weight"] == 0.03125
    assert rate_of["category.leaf.weight"] == 1.0
    assert [name_of[id(p)] for p in sparse.param_groups[0]["params"]] == ["mixer.bag.weight"]
    decays = {
        name_of[id(group["params"][0])]: group["weight_decay"] for group in dense.param_groups
    }
    assert decays["category.leaf.weight"] == 0.01
    assert decays["category.leaf.bias"] == 0
    assert len(rate_of) == len(name_of) - 1


def test_a_frozen_encoder_is_not_trained(net: FlagshipNet) -> None:
    encoded = np.zeros((2, 32), dtype=np.float16)
    learner = FlagshipLearner(net, split(encoded), split(encoded), RATES, torch.device("cpu"))
    assert learner.frozen
    assert not any(name.startswith("encoder") for name, _ in learner.model.named_parameters())
    learner.loss_of(np.array([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in net.encoder.parameters())
    assert all(parameter.grad is not None for parameter in learner.model.parameters())


def test_pieces_of_a_step_make_its_loss(net: FlagshipNet) -> None:
    """The second product has no labels."""
    learner = FlagshipLearner(net, split(), split(), RATES, torch.device("cpu"))
    learner.model.eval()
    step = np.array([0, 1])
    with torch.inference_mode():
        whole = learner.loss_of(step)
        pieces = [learner.loss_of(np.array([row]), step) for row in step]
    torch.testing.assert_close(torch.stack(pieces).sum(), whole)


def test_fine_tuning_reaches_the_encoder(net: FlagshipNet) -> None:
    learner = FlagshipLearner(net, split(), split(), RATES, torch.device("cpu"))
    learner.loss_of(np.array([1, 0])).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in learner.model.parameters())


def test_cached_and_fresh_features_agree(net: FlagshipNet) -> None:
    net.eval()
    fresh = FlagshipLearner(net, split(), split(), RATES, torch.device("cpu"))
    rows = np.array([1, 0])
    with torch.inference_mode():
        wanted = fresh.features(fresh.train_split, rows)
        ids = torch.tensor([[2, 9, 3], [2, 8, 3]])
        encoded = net.encoder(ids, torch.ones_like(ids)).half().numpy()
        cached = FlagshipLearner(net, split(encoded), split(encoded), RATES, torch.device("cpu"))
        found = cached.features(cached.train_split, rows)
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=1e-3)


def test_positive_labels() -> None:
    found = positive_labels(np.array([0, 0]), np.array([0, 1]), split().targets, num_labels=3)
    assert found.tolist() == [False, True]


def test_measures(net: FlagshipNet) -> None:
    net.eval()
    learner = FlagshipLearner(net, split(), split(), RATES, torch.device("cpu"))
    found = learner.measure()
    assert set(found) == {"accuracy", "attribute_f1", "quality"}
    assert found["quality"] == pytest.approx((found["accuracy"] + found["attribute_f1"]) / 2)


def wide(**settings: Any) -> FlagshipLearner:
    """No encoder; two members; the attribute head is told the category."""
    config = FlagshipConfig(
        encoder=None,
        hashing=HashingConfig(buckets=7),
        bag_dim=4,
        hidden=True,
        category_dim=2,
        members=2,
    )
    net = FlagshipNet(config, departments=[0, 1], num_labels=3)
    return FlagshipLearner(net, split(), split(), RATES, torch.device("cpu"), **settings)


def test_without_an_encoder_the_bag_reads_alone() -> None:
    learner = wide(ngram_dropout=0.5)
    assert learner.lengths is None
    learner.loss_of(np.array([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    learner.model.eval()
    assert set(learner.measure()) == {"accuracy", "attribute_f1", "quality"}


@pytest.mark.parametrize(("masking", "reached"), [(True, False), (False, True)])
def test_irrelevant_labels_count_without_masking_only(masking: bool, reached: bool) -> None:
    learner = wide(masking=masking)
    learner.loss_of(np.array([0])).backward()  # type: ignore[no-untyped-call]
    head = learner.net.attribute
    assert head is not None
    assert head.bias.grad is not None
    assert bool(head.bias.grad[2] != 0) == reached


def test_a_text_that_is_read_once_weighs_as_all_its_products() -> None:
    torch.manual_seed(1)
    each = wide()
    once = wide(texts=Ragged(np.array([1, 0]), np.array([0, 1, 2])))
    once.net.load_state_dict(each.net.state_dict())
    for learner in (each, once):
        learner.model.eval()
    assert once.num_rows == 2
    torch.testing.assert_close(
        once.loss_of(np.array([0, 1])), each.loss_of(np.array([1, 0])), rtol=1e-6, atol=0
    )
    same = wide(texts=Ragged(np.array([0, 1]), np.array([0, 2])))
    assert same.num_rows == 1
    same.net.load_state_dict(each.net.state_dict())
    same.model.eval()
    hashed = each.train_split.prepared.arrays[HASHED_IDS]
    twice = {HASHED_IDS: hashed.take(np.array([0, 0]))}
    each.train_split = Split(
        Prepared(twice, np.array([3, 3], dtype=np.int32)), each.train_split.targets, None
    )
    torch.testing.assert_close(
        same.loss_of(np.array([0])), each.loss_of(np.array([0, 1])), rtol=1e-6, atol=0
    )


def test_members_leave_out_different_ngrams() -> None:
    torch.manual_seed(4)
    learner = wide(ngram_dropout=0.5)
    hashed = Ragged(np.arange(7, dtype=np.int32), np.array([0, 7]))
    (thin,) = learner._bag_inputs({HASHED_IDS: hashed})
    ends = thin.offsets[1]
    members = thin.rows[:ends], thin.rows[ends:]
    assert [sorted({int(row) % 2 for row in rows}) for rows in members] == [[0], [1]]
    first, second = ({int(row) // 2 for row in rows} for rows in members)
    assert first != second
    learner.model.eval()
    (whole,) = learner._bag_inputs({HASHED_IDS: hashed})
    assert whole.is_shared
    assert whole.rows.tolist() == list(range(7))


def test_a_bag_is_given_to_those_members_that_read_it() -> None:
    torch.manual_seed(4)
    hashing = HashingConfig(buckets=7)
    config = FlagshipConfig(
        encoder=None,
        hashing=hashing,
        rest_hashing=hashing,
        whole_hashing=hashing,
        bag_dim=4,
        members=3,
        whole_members=2,
    )
    data = split()
    hashed = data.prepared.arrays[HASHED_IDS]
    arrays = dict.fromkeys((HASHED_IDS, REST_IDS, WHOLE_IDS), hashed)
    data = Split(Prepared(arrays, data.prepared.costs), data.targets, None)
    net = FlagshipNet(config, departments=[0, 1], num_labels=3)
    learner = FlagshipLearner(net, data, data, RATES, torch.device("cpu"), ngram_dropout=0.3)
    given = learner._bag_inputs(arrays)
    assert [len(each.offsets) for each in given] == [2, 2, 6]
    assert learner.features(data, np.array([0, 1])).shape == (2, 3, 12)
    learner.model.eval()
    before = learner.features(data, np.array([0, 1])).detach()
    learner.model.train()
    dense, of_bags = learner.optimizers()
    learner.loss_of(np.array([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    dense.step()
    of_bags.step()
    learner.model.eval()
    moved = learner.features(data, np.array([0, 1])) != before
    assert moved.any(dim=2).all()
