from __future__ import annotations

import torch

from models.bags import BagInput
from models.mixing import CategoryTold, FeatureMixer


def bag_input(*rows: int) -> BagInput:
    """One product that has these rows."""
    weights = torch.full((len(rows),), 1 / max(1, len(rows)))
    return BagInput(torch.tensor(rows), torch.tensor([0]), weights)


def test_each_part_may_be_absent() -> None:
    torch.manual_seed(0)
    encoded = torch.rand(1, 6)
    whole = FeatureMixer(encoder_features=6, bag_rows=5, rest_rows=7, bag_dim=4, hidden=True)
    assert whole.num_features == 14
    assert whole(encoded, bag_input(1, 4), bag_input(6)).shape == (1, 1, 14)
    assert len(whole.bags) == 2
    wide = FeatureMixer(encoder_features=0, bag_rows=5, rest_rows=0, bag_dim=4, hidden=False)
    assert wide.num_features == 4
    found = wide(None, bag_input(1, 4))
    torch.testing.assert_close(found[0], wide.bag_norm(wide.bag.weight[[1, 4]].mean(0)[None]))


def test_a_hidden_layer_adds_to_what_it_reads() -> None:
    torch.manual_seed(0)
    mixer = FeatureMixer(encoder_features=0, bag_rows=5, rest_rows=0, bag_dim=4, hidden=True)
    assert mixer.hidden is not None
    with torch.no_grad():
        mixer.hidden.weight.zero_()
        mixer.hidden.bias.zero_()
    torch.testing.assert_close(
        mixer(None, bag_input(2)), mixer.bag_norm(mixer.bag(bag_input(2))), atol=0, rtol=0
    )


def test_features_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    mixer = FeatureMixer(
        encoder_features=0, bag_rows=5, rest_rows=0, bag_dim=64, hidden=False, dropout=0.5
    )
    assert (mixer(None, bag_input(2)) == 0).any()
    mixer.eval()
    assert not (mixer(None, bag_input(2)) == 0).any()


def test_a_category_is_told() -> None:
    torch.manual_seed(0)
    told = CategoryTold(4, num_categories=3, dim=2)
    features = torch.rand(1, 1, 4).expand(3, 1, 4)
    found = told(features, torch.tensor([0, 2, -1]))
    assert found.shape == (3, 1, told.num_features)
    found = found[:, 0]
    assert not torch.equal(found[0], found[1])
    assert found[2, 4:].tolist() == [0, 0]
    torch.testing.assert_close(found[1, 4:], told.embedding.weight[3])


def test_members_do_not_meet() -> None:
    torch.manual_seed(0)
    mixer = FeatureMixer(
        encoder_features=3, bag_rows=5, rest_rows=7, bag_dim=4, hidden=True, members=2
    )
    told = CategoryTold(mixer.num_features, num_categories=3, dim=2, members=2)
    given = torch.rand(1, 3), bag_input(1, 4), bag_input(6)

    def features() -> torch.Tensor:
        found: torch.Tensor = told(mixer(*given), torch.tensor([1]))
        return found

    before = features()
    assert before.shape == (1, 2, told.num_features)
    assert not torch.equal(before[:, 0], before[:, 1])
    assert mixer.hidden is not None
    halves = (
        mixer.bag.weight[1::2],
        mixer.rest_bag.weight[1::2] if mixer.rest_bag is not None else None,
        mixer.hidden.weight[mixer.num_features :],
        told.hidden.weight[mixer.num_features :],
        told.embedding.weight[:, 2:],
    )
    with torch.no_grad():
        for half in halves:
            assert half is not None
            half.add_(1)
    after = features()
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_members_share_the_scales_of_norms_alone() -> None:
    torch.manual_seed(0)
    mixer = FeatureMixer(
        encoder_features=3, bag_rows=5, rest_rows=7, bag_dim=4, hidden=True, members=2
    )
    given = torch.rand(1, 3), bag_input(1, 4), bag_input(6)
    grads = []
    for member in range(2):
        mixer.zero_grad()
        mixer(*given)[:, member].square().sum().backward()
        grads.append(
            {
                name: parameter.grad.to_dense() != 0
                for name, parameter in mixer.named_parameters()
                if parameter.grad is not None
            }
        )
    shared = {name for name, moved in grads[0].items() if bool((moved & grads[1][name]).any())}
    assert shared == {
        f"{norm}.{part}"
        for norm in ("norm", "bag_norm", "rest_norm")
        for part in ("weight", "bias")
    }
    assert {"bag.weight", "rest_bag.weight", "hidden.weight", "hidden.bias"} <= grads[0].keys()


def test_the_last_members_read_the_bag_of_all_fields_alone() -> None:
    torch.manual_seed(0)
    mixer = FeatureMixer(
        encoder_features=0,
        bag_rows=5,
        rest_rows=7,
        whole_rows=9,
        bag_dim=4,
        hidden=True,
        members=3,
        whole_members=2,
    )
    assert [bag.members for bag in mixer.bags] == [1, 1, 3]
    assert [len(bag.weight) for bag in mixer.bags] == [5, 7, 27]
    given = bag_input(1, 4), bag_input(6), bag_input(2, 8)
    features = mixer(None, *given)
    assert features.shape == (1, 3, 12)
    for place, other in ((0, bag_input(2)), (1, bag_input(3))):
        changed = mixer(None, *given[:place], other, *given[place + 1 :]) != features
        assert changed.any(dim=2).tolist() == [[True, False, False]]
    changed = mixer(None, *given[:2], bag_input(3)) != features
    assert changed.any(dim=2).tolist() == [[True, True, True]]
    read = [features[:, member] for member in range(3)]
    assert not torch.equal(read[1], read[2])
