from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from models.ave_bert import AveBertConfig, AveBertNet
from models.dhpc import DhpcConfig, DhpcNet
from models.encoders import EncoderConfig, load_pretrained
from models.flagship import FlagshipConfig, FlagshipNet
from models.segments import grow_segments
from models.undrawn import Undrawn
from tests.tiny_encoder import save_tiny_bert

_DEPARTMENTS = np.array([0, 0, 1])
Make = Callable[[EncoderConfig], nn.Module]


def flagship(encoder: EncoderConfig) -> nn.Module:
    config = FlagshipConfig(encoder=encoder, hidden=True, category_dim=4, members=2)
    return FlagshipNet(config, departments=[0, 1, 1], num_labels=5)


def dhpc(encoder: EncoderConfig) -> nn.Module:
    return DhpcNet(DhpcConfig(encoder=encoder, head_width=8), _DEPARTMENTS)


def views(_: EncoderConfig) -> nn.Module:
    return DhpcNet(DhpcConfig(encoder=None, vocabulary=50, embedding=6, head_width=8), _DEPARTMENTS)


def ave_bert(encoder: EncoderConfig) -> nn.Module:
    return AveBertNet(AveBertConfig(encoder=encoder), 5)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderConfig:
    place = save_tiny_bert(tmp_path_factory.mktemp("encoder"))
    pretrained = load_pretrained(str(place), pooling="max")
    return grow_segments(pretrained.encoder).config


@pytest.mark.parametrize("make", [flagship, dhpc, views, ave_bert])
def test_no_network_draws_weights_that_a_release_fills(make: Make, encoder: EncoderConfig) -> None:
    before = torch.random.get_rng_state()
    with Undrawn():
        undrawn = make(encoder)
    assert torch.equal(torch.random.get_rng_state(), before)
    drawn = make(encoder)
    assert not torch.equal(torch.random.get_rng_state(), before)
    shapes = {name: tensor.shape for name, tensor in drawn.state_dict().items()}
    assert {name: tensor.shape for name, tensor in undrawn.state_dict().items()} == shapes
    # What a release does not hold is there.
    kept = [dict(net.named_buffers()) for net in (drawn, undrawn)]
    for name in kept[0].keys() - shapes.keys():
        assert torch.equal(kept[0][name], kept[1][name]), name
