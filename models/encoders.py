"""Text encoders: any Hugging Face encoder, its CLS states of several layers pooled.

Legend: B products, T tokens, H hidden size, S chosen layers, D features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from models.attention import align_attention
from models.errors import ModelError
from models.prepare import Ragged

__all__ = [
    "EncoderConfig",
    "Pretrained",
    "TextEncoder",
    "every_other_layer",
    "fast_dtype",
    "last_layers",
    "load_pretrained",
    "pad",
    "pooled_states",
    "serve_in",
]

_NOT_ITS_OWN = frozenset(
    {"attn_implementation", "_attn_implementation", "experts_implementation", "auto_map"}
)

LayerPooling = Literal["concat", "mean", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """An encoder without its weights. Part of a release.

    Attributes:
        transformer: the ``config.json`` of the Hugging Face model.
        layers: whose CLS states are pooled, 1 to the model's number of layers, rising.
        pooling: ``concat`` ([B, S * H]), ``mean`` or ``max`` ([B, H]).
        pad_id: token id that fills a batch up; masked, so any id is right.
    """

    transformer: Mapping[str, Any]
    layers: tuple[int, ...]
    pooling: LayerPooling = "concat"
    pad_id: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in get_args(LayerPooling):
            raise ValueError(f"pooling must be concat, mean or max, got {self.pooling!r}")
        if not self.layers or self.layers[0] < 1 or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers must rise from 1 or more, got {self.layers}")

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> EncoderConfig:
        """What ``to_json`` wrote."""
        return cls(**{**raw, "layers": tuple(raw["layers"])})


def last_layers(num_layers: int, count: int) -> tuple[int, ...]:
    """The last ``count`` layers, as ave-label-masking, 4, concatenates them.

    Raises:
        ModelError: the encoder has fewer.
    """
    if count > num_layers:
        raise ModelError(f"the encoder has {num_layers} layers, {count} CLS states were asked for")
    return tuple(range(num_layers - count + 1, num_layers + 1))


def every_other_layer(num_layers: int) -> tuple[int, ...]:
    """The knowledge skip of dhpc-amazon, C.1: every other layer, pooled with the last one."""
    return tuple(range(num_layers, 0, -2))[::-1]


def pooled_states(states: Tensor, config: EncoderConfig) -> Tensor:
    """Features [B, D] of all layers' CLS states, [B, L * H].

    Args:
        states: as ``TextEncoder.all_states`` gives them.
        config: whose layers are pooled, all among the L, and how.
    """
    hidden_size = int(config.transformer["hidden_size"])
    chosen = [states[:, (layer - 1) * hidden_size : layer * hidden_size] for layer in config.layers]
    return _pooled(chosen, config.pooling)


def _pooled(states: Sequence[Tensor], pooling: LayerPooling) -> Tensor:
    if pooling == "concat":
        return torch.cat(list(states), dim=1)
    stacked = torch.stack(list(states))
    return stacked.amax(dim=0) if pooling == "max" else stacked.mean(dim=0)


class TextEncoder(nn.Module):
    """The pooled CLS states of a transformer.

    Equals ``concat(hidden_states[l][:, 0] for l in layers)``, or their mean or maximum, with
    padding masked.

    Raises:
        ModelError: the configuration is not of an encoder that this transformers library knows.
    """

    def __init__(self, config: EncoderConfig, transformer: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.transformer = transformer if transformer is not None else _empty_transformer(config)
        hidden_size = int(config.transformer["hidden_size"])
        wide = len(config.layers) if config.pooling == "concat" else 1
        self.num_features = wide * hidden_size

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, segment_ids: Tensor | None = None
    ) -> Tensor:
        """Features [B, D], float32, of ids [B, T] and mask [B, T] (1: a token, 0: padding).

        Args:
            segment_ids: [B, T], int64, for an encoder with segment embeddings; None: all 0.
        """
        more = {} if segment_ids is None else {"token_type_ids": segment_ids}
        output = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **more
        )
        states = [output.hidden_states[layer][:, 0].float() for layer in self.config.layers]
        return _pooled(states, self.config.pooling)

    def check_reads(self, vocabulary: int, max_tokens: int) -> None:
        """Refuse a tokenizer whose rows this encoder would fail on, at the first long product.

        Raises:
            ModelError: ids, or rows, go beyond its tables of tokens and positions.
        """
        words = getattr(self.transformer, "get_input_embeddings", lambda: None)()
        if isinstance(words, nn.Embedding) and vocabulary > words.num_embeddings:
            raise ModelError(
                f"the tokenizer has ids up to {vocabulary - 1:,}, the encoder's table has "
                f"{words.num_embeddings:,} rows: they do not belong together"
            )
        embeddings = getattr(self.transformer, "embeddings", None)
        table = getattr(embeddings, "position_embeddings", None)
        if not isinstance(table, nn.Embedding):
            return
        # RoBERTa counts from behind its padding.
        most = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        if max_tokens > most:
            raise ModelError(
                f"the encoder reads {most:,} tokens, max_tokens is {max_tokens:,}: set "
                f"system.max_tokens={most} or less"
            )

    def all_states(self) -> TextEncoder:
        """An encoder of the same transformer that gives every layer's CLS state, [B, L * H].

        What it reads once serves every choice of layers and pooling: see ``pooled_states``.
        """
        num_layers = int(self.config.transformer["num_hidden_layers"])
        layers = tuple(range(1, num_layers + 1))
        return TextEncoder(replace(self.config, layers=layers, pooling="concat"), self.transformer)

    def checkpoint_gradients(self) -> None:
        """In training, compute a layer's inner states again for its backward pass: less memory.

        Raises:
            ModelError: the transformer cannot.
        """
        enable = getattr(self.transformer, "gradient_checkpointing_enable", None)
        try:
            if enable is None:
                raise ValueError(f"{type(self.transformer).__name__} has no such switch")
            enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise ModelError(
                f"the encoder cannot checkpoint gradients ({error}); set "
                "train.checkpoint_gradients=false"
            ) from error


@dataclass(frozen=True, slots=True)
class Pretrained:
    """An encoder as it was found: model, configuration and its tokenizer's ``tokenizer.json``."""

    encoder: TextEncoder
    tokenizer: bytes


def load_pretrained(
    name_or_directory: str,
    *,
    layers: Callable[[int], tuple[int, ...]] = every_other_layer,
    pooling: LayerPooling,
    first_layers: int | None = None,
) -> Pretrained:
    """An encoder from a local directory or the Hugging Face hub.

    Weights are read from safetensors only, and no code that comes with a model is run.

    Args:
        layers: whose CLS states are pooled, of so many layers.
        first_layers: keep the first so many layers only; None: all.

    Raises:
        ModelError: not there, not an encoder, no safetensors, or no fast tokenizer.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar for a second's work, on whoever's terminal
    where = f"the encoder {name_or_directory!r}"
    source: str | Path = Path(name_or_directory)
    if not Path(name_or_directory).is_dir():
        source = name_or_directory
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if first_layers is not None:
            _keep_first(config, first_layers, where)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{where} cannot be loaded: {error}. Give a directory that holds config.json, "
            "model.safetensors and tokenizer.json, or a hub id while the hub can be reached"
        ) from error
    if config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        raise ModelError(f"{where} is a {config.model_type}, not an encoder with CLS states")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(f"{where} has no fast tokenizer (tokenizer.json)")
    num_layers = int(config.num_hidden_layers)
    chosen = layers(num_layers)
    if max(chosen) > num_layers:
        raise ModelError(f"{where} has {num_layers} layers, so there is no layer {max(chosen)}")
    pad_id = tokenizer.pad_token_id
    settings = EncoderConfig(
        # Names with an underscore say where the files lay, which a release is not to tell; the
        # names of classes are those of a head that is not there.
        transformer={
            key: value
            for key, value in json.loads(config.to_json_string(use_diff=False)).items()
            if not key.startswith("_") and key not in ("id2label", "label2id")
        }
        # Some models have names of their own for these.
        | {"hidden_size": int(config.hidden_size), "num_hidden_layers": num_layers},
        layers=chosen,
        pooling=pooling,
        pad_id=0 if pad_id is None else int(pad_id),
    )
    _drop_unused(model)
    return Pretrained(TextEncoder(settings, model), tokenizer.backend_tokenizer.to_str().encode())


def serve_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Let every text encoder within a module multiply in ``dtype``, nearly alike in every batch."""
    for each in module.modules():
        if isinstance(each, TextEncoder):
            align_attention(each.transformer)
            each.to(dtype)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32.

    A CPU without AMX or AVX-512 BF16 has bfloat16 too, but slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu":
        return torch.float32
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if has.get("amx_bf16") or has.get("avx512_bf16") else torch.float32


def _keep_first(config: Any, count: int, where: str) -> None:
    """Layers beyond the first ``count`` are then never built."""
    has = int(getattr(config, "num_hidden_layers", 0))
    if not 1 <= count <= has:
        raise ModelError(f"{where} has {has} layers: its first {count} cannot be kept")
    config.num_hidden_layers = count
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = kinds[:count]


def _empty_transformer(config: EncoderConfig) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    # How attention is computed is this machine's matter: some names are of code to be fetched.
    raw = {key: value for key, value in config.transformer.items() if key not in _NOT_ITS_OWN}
    try:
        settings = AutoConfig.for_model(raw.pop("model_type"), **raw)
        model: nn.Module = AutoModel.from_config(settings)  # type: ignore[no-untyped-call]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"the encoder's configuration is not one that transformers can build: {error}"
        ) from error
    _drop_unused(model)
    return model


def _drop_unused(model: Any) -> None:
    """BERT's pooler reads only the last CLS state, and nothing here reads the pooler."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None


def pad(tokens: Ragged, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] and attention mask [B, T], int64, T the longest row (at least 1)."""
    lengths = tokens.lengths
    longest = max(1, int(lengths.max(initial=0)))
    real = np.arange(longest) < lengths[:, None]
    padded = np.full(real.shape, pad_id, dtype=np.int64)
    padded[real] = tokens.values
    return torch.from_numpy(padded), torch.from_numpy(real.astype(np.int64))
