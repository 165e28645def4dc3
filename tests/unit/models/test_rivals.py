from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.device_masks import DeviceMasks
from models.heads import AttributeHead
from models.labels import LabelSpace, Masks
from models.masked_attributes import MaskedAttributes
from models.rivals import Rivals

# Two exclusive attributes of two and three values; labels 5 and 6 may be held together.
ATTRIBUTE_OF = [0, 0, 2, 2, 2, -1, -1]
LINES = torch.tensor([[0.5, 0.0, -0.25], [0.8, 0.6, 0.1]])


def fitted() -> Rivals:
    rivals = Rivals(ATTRIBUTE_OF)
    rivals.lines.copy_(LINES)
    return rivals


def by_hand(scores: list[float], owners: list[int], labels: list[int]) -> list[float]:
    found = []
    for at, label in enumerate(labels):
        attribute = ATTRIBUTE_OF[label]
        others = sum(
            math.sqrt(scores[k] / (1 - scores[k]))
            for k in range(len(labels))
            if k != at and owners[k] == owners[at] and ATTRIBUTE_OF[labels[k]] == attribute
        )
        r = math.log(0.1 + others) if attribute >= 0 else 0.0
        a, b, c = LINES[int(attribute >= 0)].tolist()
        logit = math.log(scores[at] / (1 - scores[at]))
        found.append(1 / (1 + math.exp(-(a * logit - b * r + c))))
    return found


pairs = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 6)),
    st.integers(1, 999).map(lambda thousandths: thousandths / 1000),
    max_size=20,
)


def tensors(chosen: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    flat = torch.tensor(chosen, dtype=torch.int64).view(-1, 2)
    return flat[:, 0], flat[:, 1]


@given(pairs)
@settings(deadline=None)
def test_the_formula(drawn: dict[tuple[int, int], float]) -> None:
    chosen = sorted(drawn)
    owners, labels = tensors(chosen)
    scores = [drawn[each] for each in chosen]
    found = fitted()(torch.tensor(scores), owners, labels)
    wanted = by_hand(scores, owners.tolist(), labels.tolist())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_unfitted_it_changes_nothing() -> None:
    scores = torch.tensor([0.2, 0.9999, 0.5, 1e-4])
    owners, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 4, 5])
    torch.testing.assert_close(Rivals(ATTRIBUTE_OF)(scores, owners, labels), scores)


def test_a_strong_rival_weighs_and_a_neighbour_of_another_attribute_does_not() -> None:
    rivals = fitted()
    owners, labels = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2])
    alone = rivals(torch.tensor([0.6, 0.01, 0.01]), owners, labels)
    rivalled = rivals(torch.tensor([0.6, 0.9, 0.01]), owners, labels)
    beside = rivals(torch.tensor([0.6, 0.01, 0.9]), owners, labels)
    assert rivalled[0] < alone[0] - 0.1
    assert beside[0] == alone[0]


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_scores_of_0_and_1_stay_finite(extreme: float) -> None:
    owners, labels = torch.tensor([0, 0]), torch.tensor([0, 1])
    found = fitted()(torch.tensor([extreme, 1.0]), owners, labels)
    assert bool(found.isfinite().all())


def test_what_is_served_is_cut_after_it_is_calibrated() -> None:
    torch.manual_seed(3)
    head = AttributeHead(2, 7)
    torch.nn.init.normal_(head.weight)
    rows = [np.array([0, 1, 2, 5], dtype=np.uint32), np.array([3, 4, 6], dtype=np.uint32)]
    masks = DeviceMasks.from_masks(Masks.from_rows(rows, 7), torch.device("cpu"))
    features = torch.tensor([[1.0, -1.0], [0.5, 2.0], [-1.0, 0.3]])
    mask_rows = np.array([1, -1, 0])
    labels = LabelSpace(tuple("abcdefg"))
    every = np.zeros(7, dtype=np.float32)

    def served(thresholds: np.ndarray, rivals: Rivals | None) -> dict[tuple[int, int], float]:
        model = MaskedAttributes(head, None, labels, thresholds, rivals)  # type: ignore[arg-type]
        found = model.score_labels(features, masks, mask_rows, mask_rows)
        owners = np.repeat(np.arange(3), np.diff(found.indptr))
        for row in range(3):
            of_row = found.scores[found.indptr[row] : found.indptr[row + 1]]
            assert (np.diff(of_row) <= 0).all()
        keys = zip(owners.tolist(), found.rows.tolist(), strict=True)
        return dict(zip(keys, found.scores.tolist(), strict=True))

    raw, calibrated = served(every, None), served(every, fitted())
    assert list(raw) != []
    assert {owner for owner, _ in raw} == {0, 2}
    assert raw.keys() == calibrated.keys()
    chosen = sorted(raw)
    wanted = by_hand(
        [raw[key] for key in chosen], [owner for owner, _ in chosen], [row for _, row in chosen]
    )
    np.testing.assert_allclose([calibrated[key] for key in chosen], wanted, atol=1e-5)
    cut = np.full(7, np.median(wanted), dtype=np.float32)
    assert served(cut, fitted()).keys() == {
        key for key, score in calibrated.items() if score >= cut[0]
    }


def test_pairs_stand_in_the_order_of_scores() -> None:
    rows = [np.array([2, 6], dtype=np.uint32), np.array([], dtype=np.uint32)]
    masks = DeviceMasks.from_masks(Masks.from_rows(rows, 7), torch.device("cpu"))
    owners, labels = masks.pairs(torch.tensor([0, -1, 1, 0]))
    assert owners.tolist() == [0, 0, 3, 3]
    assert labels.tolist() == [2, 6, 2, 6]
    assert [each.tolist() for each in masks.pairs(torch.empty(0, dtype=torch.int64))] == [[], []]
    empty = DeviceMasks.from_masks(Masks.from_rows([], 7), torch.device("cpu"))
    assert [each.tolist() for each in empty.pairs(torch.tensor([-1, -1]))] == [[], []]


def test_labels_of_an_attribute_lie_together() -> None:
    Rivals([-1, 0, -1, 1, 1])
    with pytest.raises(ValueError, match="do not lie together"):
        Rivals([0, 1, 0])
