"""Our ops as contenders: as they choose, and with each variant forced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.contenders import Call, Contender
from benchmarks.kernels.problems import Batch
from kernels import masked_bce, masked_scores
from kernels._logits_torch import force_way, taken_way
from kernels._ways_torch import WAYS

__all__ = ["LOSSES", "scores", "taken"]


def scores(device: torch.device) -> tuple[Contender, ...]:
    """``auto`` and each variant of ``masked_scores`` on a device."""
    auto = Contender("auto", _scores, capturable=True)
    forced = _forced_triton if device.type == "cuda" else _forced_twin
    names: tuple[str, ...] = _triton_variants() if device.type == "cuda" else WAYS
    return (
        auto,
        *(Contender(name, _scores, scope=_scope(forced, name), capturable=True) for name in names),
    )


def taken(device: torch.device) -> str | None:
    """The variant by which our last call on a device went."""
    if device.type != "cuda":
        return taken_way()
    from kernels._logits_triton import taken_variant  # triton is needed on a GPU only

    return taken_variant()


def _scope(
    forced: Callable[[str], AbstractContextManager[None]], name: str
) -> Callable[[], AbstractContextManager[None]]:
    return partial(forced, name)


def _triton_variants() -> tuple[str, ...]:
    from kernels._variants import VARIANTS

    return VARIANTS


@contextmanager
def _forced_triton(name: str) -> Iterator[None]:
    from kernels._logits_triton import force_variant  # triton is needed on a GPU only
    from kernels._variants import VARIANTS

    force_variant(next(variant for variant in VARIANTS if variant == name))
    try:
        yield
    finally:
        force_variant(None)


@contextmanager
def _forced_twin(name: str) -> Iterator[None]:
    force_way(next(way for way in WAYS if way == name))
    try:
        yield
    finally:
        force_way(None)


def _scores(batch: Batch) -> Call:
    num_entries, num_categories = batch.num_entries, batch.num_categories

    def call() -> tuple[Tensor, ...]:
        return (
            masked_scores(
                batch.features,
                batch.heads.weight,
                batch.heads.bias,
                batch.mask_indptr,
                batch.mask_indices,
                batch.mask_rows,
                num_entries=num_entries,
                num_categories=num_categories,
            )[1],
        )

    return call


def _loss(sparse_grad: bool, batch: Batch) -> Call:
    features = batch.features.detach().requires_grad_()
    weight = batch.heads.weight.detach().requires_grad_()
    bias = batch.heads.bias.detach().requires_grad_()
    num_entries, num_categories = batch.num_entries, batch.num_categories

    def call() -> tuple[Tensor, ...]:
        loss = masked_bce(
            features,
            weight,
            bias,
            batch.mask_indptr,
            batch.mask_indices,
            batch.mask_rows,
            batch.positive_indptr,
            batch.positive_indices,
            sparse_grad=sparse_grad,
            num_entries=num_entries,
            num_categories=num_categories,
        )
        return loss.detach(), *torch.autograd.grad(loss, [features, weight, bias])

    return call


LOSSES = (
    Contender("auto", partial(_loss, False)),
    Contender("auto_sparse_grad", partial(_loss, True)),
)
