"""Attention whose answer to a product does not depend on what the product was batched with.

Keys are padded to a multiple of 16. A vectorised softmax adds what is left over after its last full
vector in another order, so in bfloat16 the same product, padded to another length by its batch,
had another score.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["align_attention", "aligned_attention"]

_NAME = "sortiment_aligned_sdpa"
# float32 lanes of the widest vectors of a CPU (AVX-512).
_MULTIPLE = 16


def align_attention(transformer: nn.Module) -> None:
    """Let a transformer that attends by torch's ``scaled_dot_product_attention`` do so aligned.

    One that attends in another way is left as it is.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    config: Any = transformer.config
    if config._attn_implementation != "sdpa":  # noqa: SLF001  # it has no public name
        return
    AttentionInterface.register(_NAME, aligned_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    transformer.set_attn_implementation(_NAME)  # type: ignore[operator]


def aligned_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **more: Any,
) -> tuple[Tensor, None]:
    """As transformers calls attention: query, key and value [B, H, T, D], mask [B, 1, T, T]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    missing = -key.shape[2] % _MULTIPLE
    if missing and more.get("position_bias") is None:
        if attention_mask is None:
            attention_mask = torch.ones(
                1, 1, query.shape[2], key.shape[2], dtype=torch.bool, device=key.device
            )
        nothing = False if attention_mask.dtype == torch.bool else float("-inf")
        attention_mask = functional.pad(attention_mask, (0, missing), value=nothing)
        key = functional.pad(key, (0, 0, 0, missing))
        value = functional.pad(value, (0, 0, 0, missing))
    attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    return attended, None
