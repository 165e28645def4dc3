from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from models.attention import aligned_attention
from models.encoders import (
    EncoderConfig,
    TextEncoder,
    every_other_layer,
    load_pretrained,
    pad,
    serve_in,
)
from models.prepare import Ragged
from tests.tiny_encoder import save_tiny_bert

LENGTHS = (3, 7, 16, 21, 33, 50)


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    where = save_tiny_bert(tmp_path, hidden=64)
    found = load_pretrained(str(where), layers=every_other_layer, pooling="mean")
    return found.encoder.eval()


def features(encoder: TextEncoder, rows: list[int]) -> torch.Tensor:
    """Of texts with seeded tokens, so many as their number says, batched together."""
    tokens = [np.random.default_rng(row).integers(5, 60, LENGTHS[row]) for row in rows]
    ends = np.cumsum([0, *map(len, tokens)])
    with torch.inference_mode():
        found: torch.Tensor = encoder(*pad(Ragged(np.concatenate(tokens), ends), 0))
    return found


SMALL = {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48}
OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    # Its layers attend to neighbours and to all in turn.
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(**SMALL, num_attention_heads=2, local_attention=8, pad_token_id=0)
    ),
    # It has names of its own for its sizes.
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=80, dim=32, n_layers=3, n_heads=2, hidden_dim=48)
    ),
    # It attends in a way of its own.
    "mpnet": lambda: MPNetModel(MPNetConfig(**SMALL, num_attention_heads=2)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_encoders_are_rebuilt_and_read_alike(tmp_path: Path, kind: str) -> None:
    PreTrainedTokenizerFast.from_pretrained(save_tiny_bert(tmp_path)).save_pretrained(tmp_path)
    torch.manual_seed(0)
    OTHERS[kind]().save_pretrained(tmp_path)
    found = load_pretrained(str(tmp_path), layers=every_other_layer, pooling="concat").encoder
    rebuilt = TextEncoder(EncoderConfig.from_json(found.config.to_json()))
    rebuilt.load_state_dict(found.state_dict())
    rows = list(range(len(LENGTHS)))
    before = features(found.eval(), rows)
    serve_in(rebuilt.eval(), torch.float32)
    torch.testing.assert_close(features(rebuilt, rows), before, atol=2e-6, rtol=0)
    for row in rows:
        alone = features(rebuilt, [row])[0]
        torch.testing.assert_close(alone, before[row], atol=5e-6, rtol=0)


def test_attention_is_what_it_was(encoder: TextEncoder) -> None:
    rows = list(range(len(LENGTHS)))
    before = features(encoder, rows), features(encoder, [3])
    serve_in(encoder, torch.float32)
    for was, now in zip(before, (features(encoder, rows), features(encoder, [3])), strict=True):
        torch.testing.assert_close(now, was, atol=2e-6, rtol=0)


@pytest.mark.parametrize("length", [*LENGTHS, 180, 300])
def test_in_bf16_a_text_is_attended_alike_whatever_it_is_padded_to(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    shape = (3, 32, 4, length, 32)
    query, key, value = torch.randn(shape, generator=generator).to(torch.bfloat16)
    alone, _ = aligned_attention(torch.nn.Module(), query, key, value, None, is_causal=False)
    for more in (1, 9, 40, 150):
        padded = [functional.pad(each, (0, 0, 0, more)) for each in (query, key, value)]
        real = torch.arange(length + more) < length
        mask = real.expand(32, 1, length + more, length + more)
        found, _ = aligned_attention(torch.nn.Module(), *padded, mask, is_causal=False)
        # Hardly a value is rounded otherwise: unaligned, some 4e-5 of those of short texts are, and
        # in bfloat16 throughout some tenths.
        differ = (found[:, :length] != alone).double().mean()
        assert differ <= (2e-5 if length < 128 else 1e-3)
        torch.testing.assert_close(found[:, :length], alone, atol=1e-3, rtol=8e-3)


def test_a_transformer_without_sdpa_is_left_alone(encoder: TextEncoder) -> None:
    encoder.transformer.set_attn_implementation("eager")  # type: ignore[operator]
    serve_in(encoder, torch.bfloat16)
    assert encoder.transformer.config._attn_implementation == "eager"  # type: ignore[union-attr]
