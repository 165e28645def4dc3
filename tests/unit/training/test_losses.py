from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from models.device_masks import DeviceMasks
from models.heads import AttributeHead, CascadeHead
from models.labels import Masks
from training.losses import attribute_loss, cascade_loss


def test_cascade_loss_is_a_cross_entropy_by_level() -> None:
    torch.manual_seed(0)
    head = CascadeHead(3, [0, 0, 1])
    features = torch.randn(3, 3)
    department, leaf = head.logits(features)
    wanted = (
        functional.cross_entropy(department[:1], torch.tensor([0]))
        + functional.cross_entropy(leaf[:1, :2], torch.tensor([1]))
        + functional.cross_entropy(department[1:2], torch.tensor([1]))
    ) / 2
    found = cascade_loss(head, features[:, None], torch.tensor([1, 2, -1]), labelled=2)
    torch.testing.assert_close(found, wanted)


def test_offsets_are_added_to_leaves() -> None:
    torch.manual_seed(0)
    head = CascadeHead(3, [0, 0, 1])
    features, offsets = torch.randn(1, 3), torch.tensor([-3.0, -1.0, -2.0])
    department, leaf = head.logits(features)
    wanted = functional.cross_entropy(department, torch.tensor([0])) + functional.cross_entropy(
        leaf[:, :2] + offsets[:2], torch.tensor([0])
    )
    found = cascade_loss(head, features[:, None], torch.tensor([0]), offsets, labelled=1)
    torch.testing.assert_close(found, wanted)


def test_no_leaf_no_loss() -> None:
    head = CascadeHead(3, [0, 0, 1])
    none = torch.tensor([-1, -1])
    assert cascade_loss(head, torch.randn(2, 1, 3), none, labelled=0).item() == 0


def test_attribute_loss_is_masked_and_over_labelled_products() -> None:
    torch.manual_seed(0)
    head = AttributeHead(2, 4)
    features = torch.randn(3, 2)
    masks = DeviceMasks.from_masks(
        Masks.from_rows([np.array([1, 3], dtype=np.uint32), np.array([0], dtype=np.uint32)], 4),
        torch.device("cpu"),
    )
    found = attribute_loss(
        head,
        features,
        masks,
        torch.tensor([0, -1, 1]),
        torch.tensor([0, 1, 1, 2]),
        torch.tensor([3, 0]),
        labelled=2,
    )
    logits = functional.linear(features, head.weight, head.bias)
    picked = torch.stack([logits[0, 1], logits[0, 3], logits[2, 0]])
    wanted = functional.binary_cross_entropy_with_logits(
        picked, torch.tensor([0.0, 1.0, 1.0]), reduction="sum"
    )
    torch.testing.assert_close(found, wanted / 2)


def test_each_member_has_a_loss_of_its_own() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4)
    leaves, labelled = torch.tensor([1, 0]), torch.tensor([0, -1])
    positives = torch.tensor([0, 1, 1]), torch.tensor([3])
    masks = DeviceMasks.from_masks(
        Masks.from_rows([np.array([1, 3], dtype=np.uint32)], 4), torch.device("cpu")
    )
    category, attribute = CascadeHead(12, [0, 1]), AttributeHead(12, 4)
    of_leaves, of_labels = [], []
    for member in range(3):
        own, own_labels = CascadeHead(4, [0, 1]), AttributeHead(4, 4)
        columns = slice(4 * member, 4 * member + 4)
        with torch.no_grad():
            for mine, whole in (
                (own.department, category.department),
                (own.leaf, category.leaf),
                (own_labels, attribute),
            ):
                mine.weight.copy_(whole.weight[:, columns])
                mine.bias.copy_(whole.bias)
        of_leaves.append(cascade_loss(own, features[:, member : member + 1], leaves, labelled=2))
        of_labels.append(
            attribute_loss(own_labels, features[:, member], masks, labelled, *positives, labelled=1)
        )
    torch.testing.assert_close(
        cascade_loss(category, features, leaves, labelled=2), torch.stack(of_leaves).mean()
    )
    torch.testing.assert_close(
        attribute_loss(attribute, features, masks, labelled, *positives, labelled=1),
        torch.stack(of_labels).mean(),
    )
