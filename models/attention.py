"""Attention in bfloat16 on a CPU that hardly depends on what a product is batched with.

The batch decides how far a product is padded, and with that in which order torch's kernels sum. In
float32 that is noise of 1e-6, in bfloat16 the same product had another score. So attention alone is
computed in float32 (a tenth more time at 256 tokens, none at 96), over keys padded to a multiple of
16: what is left over after the last full vector is summed in another order.
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
    """As transformers calls attention: query, key and value [B, H, T, D], mask [B, 1, T, T].

    What is in float32, on another device, causal or biased by position is attended as it comes.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dtype = query.dtype
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", False) if causal is None else causal
    plain = query.device.type != "cpu" or dtype == torch.float32
    if plain or causal or more.get("position_bias") is not None:
        found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return found, None
    if attention_mask is None:
        shape = (1, 1, query.shape[2], key.shape[2])
        attention_mask = torch.ones(shape, dtype=torch.bool, device=key.device)
    is_bool = attention_mask.dtype == torch.bool
    missing = -key.shape[2] % _MULTIPLE
    mask = attention_mask if is_bool else attention_mask.float()
    mask = functional.pad(mask, (0, missing), value=False if is_bool else float("-inf"))
    key, value = (functional.pad(each.float(), (0, 0, 0, missing)) for each in (key, value))
    found, _ = sdpa_attention_forward(module, query.float(), key, value, mask, **more)
    return found.to(dtype), None
