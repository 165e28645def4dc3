from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.members import MemberLinear, joined, member_logits


def test_a_head_of_joined_features_gives_the_mean_of_its_members() -> None:
    torch.manual_seed(0)
    head, features = nn.Linear(6, 4), torch.randn(5, 3, 2)
    each = member_logits(head, features)
    assert each.shape == (15, 4)
    torch.testing.assert_close(head(joined(features)), each.view(3, 5, 4).mean(0))
    own = functional.linear(features[:, 1], head.weight[:, 2:4], head.bias)
    torch.testing.assert_close(each[5:10], own)


def test_one_member_is_a_plain_network() -> None:
    torch.manual_seed(0)
    layer, features = MemberLinear(1, 3, 2), torch.randn(4, 1, 3)
    plain = nn.Linear(3, 2)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(features)[:, 0], plain(features[:, 0]))
    assert torch.equal(joined(features), features[:, 0])


def test_members_have_layers_of_their_own() -> None:
    torch.manual_seed(0)
    layer, features = MemberLinear(2, 3, 5), torch.randn(4, 2, 3)
    found = layer(features)
    assert found.shape == (4, 2, 5)
    torch.testing.assert_close(
        found[:, 1], functional.linear(features[:, 1], layer.weight[5:], layer.bias[5:])
    )
