from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.encoders import (
    EncoderConfig,
    TextEncoder,
    every_other_layer,
    fast_dtype,
    last_layers,
    load_pretrained,
    pad,
    pooled_states,
)
from models.errors import ModelError
from models.prepare import Ragged
from tests.tiny_encoder import save_tiny_bert

IDS = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize(
    ("num_layers", "layers"), [(1, (1,)), (4, (2, 4)), (5, (1, 3, 5)), (12, (2, 4, 6, 8, 10, 12))]
)
def test_knowledge_skip_takes_every_other_layer_and_the_last(
    num_layers: int, layers: tuple[int, ...]
) -> None:
    assert every_other_layer(num_layers) == layers


def test_pooled_cls_states(directory: Path) -> None:
    """Against the transformer asked directly, one product at a time, without padding."""
    encoder = load_pretrained(str(directory), pooling="concat").encoder.eval()
    with torch.inference_mode():
        found = encoder(IDS, MASK)
        for row, length in ((0, 4), (1, 3)):
            states = encoder.transformer(
                input_ids=IDS[row : row + 1, :length], output_hidden_states=True
            ).hidden_states
            wanted = torch.cat([states[2][0, 0], states[4][0, 0]])
            torch.testing.assert_close(found[row], wanted, atol=1e-6, rtol=1e-5)
    assert encoder.num_features == 32


@pytest.mark.parametrize("pooling", ["concat", "mean", "max"])
def test_states_read_once_serve_every_pooling(directory: Path, pooling: Any) -> None:
    whole = load_pretrained(str(directory), pooling="concat").encoder.eval()
    first = load_pretrained(
        str(directory), pooling=pooling, first_layers=3, layers=lambda count: last_layers(count, 2)
    ).encoder.eval()
    assert len(first.transformer.encoder.layer) == 3  # type: ignore[union-attr,arg-type]
    with torch.inference_mode():
        states = whole.all_states()(IDS, MASK)
        torch.testing.assert_close(pooled_states(states, first.config), first(IDS, MASK))
        torch.testing.assert_close(pooled_states(states, whole.config), whole(IDS, MASK))


def test_mean_of_layers(directory: Path) -> None:
    concat = load_pretrained(
        str(directory), pooling="concat", layers=lambda _count: (1, 4)
    ).encoder.eval()
    mean = load_pretrained(
        str(directory), pooling="mean", layers=lambda _count: (1, 4)
    ).encoder.eval()
    with torch.inference_mode():
        first, last = concat(IDS, MASK).chunk(2, dim=1)
        torch.testing.assert_close(mean(IDS, MASK), (first + last) / 2)
    assert mean.num_features == 16


def test_maximum_of_layers(directory: Path) -> None:
    both = [
        load_pretrained(str(directory), pooling=pooling).encoder.eval()
        for pooling in ("concat", "max")
    ]
    with torch.inference_mode():
        first, last = both[0](IDS, MASK).chunk(2, dim=1)
        torch.testing.assert_close(both[1](IDS, MASK), torch.maximum(first, last))
    assert both[1].num_features == 16


def test_first_layers_are_those_of_the_whole(directory: Path) -> None:
    whole = load_pretrained(
        str(directory), pooling="concat", layers=lambda _count: (1, 2)
    ).encoder.eval()
    pruned = load_pretrained(
        str(directory),
        pooling="concat",
        layers=lambda count: tuple(range(1, count + 1)),
        first_layers=2,
    ).encoder.eval()
    with torch.inference_mode():
        torch.testing.assert_close(pruned(IDS, MASK), whole(IDS, MASK), atol=0, rtol=0)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (whole, pruned)]
    assert sizes[1] < sizes[0]
    assert pruned.config.transformer["num_hidden_layers"] == 2
    for count in (0, 5):
        with pytest.raises(ModelError, match=f"its first {count} cannot be kept"):
            load_pretrained(str(directory), pooling="concat", first_layers=count)


def test_an_encoder_is_rebuilt_from_its_config_and_weights(directory: Path) -> None:
    loaded = load_pretrained(str(directory), pooling="concat").encoder.eval()
    config = EncoderConfig.from_json(json.loads(json.dumps(loaded.config.to_json())))
    assert str(directory) not in json.dumps(config.to_json())
    rebuilt = TextEncoder(config).eval()
    rebuilt.load_state_dict(loaded.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(IDS, MASK), loaded(IDS, MASK), atol=0, rtol=0)


def test_a_place_without_an_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded.*config\.json"):
        load_pretrained(str(tmp_path), pooling="concat")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    directory = save_tiny_bert(tmp_path)
    (directory / "model.safetensors").unlink()
    torch.save({}, directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_pretrained(str(directory), pooling="concat")


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    directory = save_tiny_bert(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(ModelError):
        load_pretrained(str(directory), pooling="concat")
    assert not (tmp_path / "ran").exists()


def test_a_layer_that_is_not_there_is_refused(directory: Path) -> None:
    with pytest.raises(ModelError, match="has 4 layers"):
        load_pretrained(str(directory), pooling="concat", layers=lambda _count: (5,))


def test_a_config_that_transformers_does_not_know_is_refused() -> None:
    config = EncoderConfig(transformer={"model_type": "none", "hidden_size": 4}, layers=(1,))
    with pytest.raises(ModelError, match="can build"):
        TextEncoder(config)


@pytest.mark.parametrize("layers", [(), (0,), (2, 1), (1, 1)])
def test_layers_must_rise(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="layers must rise"):
        EncoderConfig(transformer={}, layers=layers)


def test_the_dtype_of_a_cpu_follows_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert fast_dtype(cpu) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert fast_dtype(cpu) == torch.bfloat16


def test_padding() -> None:
    tokens = Ragged(np.array([5, 6, 7], dtype=np.int32), np.array([0, 1, 1, 3]))
    ids, mask = pad(tokens, 9)
    assert ids.tolist() == [[5, 9], [9, 9], [6, 7]]
    assert mask.tolist() == [[1, 0], [0, 0], [1, 1]]
    empty, _ = pad(Ragged(np.empty(0, dtype=np.int32), np.array([0])), 9)
    assert empty.shape == (0, 1)


@pytest.mark.parametrize("offset", [0, 2])
def test_a_tokenizer_that_goes_beyond_the_tables_is_refused(tmp_path: Path, offset: int) -> None:
    encoder = load_pretrained(str(save_tiny_bert(tmp_path)), pooling="concat").encoder
    rows = encoder.transformer.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if offset:
        # As RoBERTa's: positions are counted from behind the padding.
        encoder.transformer.embeddings.position_embeddings.padding_idx = 1  # type: ignore[union-attr]
    encoder.check_reads(rows, 64 - offset)
    with pytest.raises(
        ModelError, match=f"reads {64 - offset} tokens, max_tokens is {65 - offset}"
    ):
        encoder.check_reads(rows, 65 - offset)
    with pytest.raises(ModelError, match="do not belong together"):
        encoder.check_reads(rows + 1, 16)
