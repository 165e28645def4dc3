"""From a release to models that are ready to run.

An architecture is one function ``(release, device, dtype) -> Predictor``, named here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from models.errors import ModelError, ReleaseError
from models.predictor import Predictor
from models.release import Release

__all__ = ["Dtype", "load_predictor"]

Dtype = Literal["auto", "float32", "bfloat16"]


def _ave_bert(release: Release, device: torch.device, dtype: Dtype) -> Predictor:
    from models.ave_bert import load_ave_bert

    return load_ave_bert(release, device, dtype)


def _dhpc(release: Release, device: torch.device, dtype: Dtype) -> Predictor:
    from models.dhpc import load_dhpc

    return load_dhpc(release, device, dtype)


def _flagship(release: Release, device: torch.device, dtype: Dtype) -> Predictor:
    from models.flagship import load_flagship

    return load_flagship(release, device, dtype)


def _noop(release: Release, device: torch.device, dtype: Dtype) -> Predictor:
    from models.noop import load_noop

    return load_noop(release, device, dtype)


# Imported when used: an architecture's libraries take seconds to import.
_ARCHITECTURES: Mapping[str, Callable[[Release, torch.device, Dtype], Predictor]] = {
    "ave_bert": _ave_bert,
    "dhpc": _dhpc,
    "flagship": _flagship,
    "noop": _noop,
}


def load_predictor(release: Release, device: torch.device, dtype: Dtype) -> Predictor:
    """The release's models on ``device``.

    Args:
        dtype: of the heavy part; ``auto`` is bfloat16 where the device is fast at it.

    Raises:
        ModelError: the architecture is unknown here, or its weights or settings do not fit.
        ReleaseError: the release was altered since it was read.
    """
    load = _ARCHITECTURES.get(release.architecture)
    if load is None:
        raise ModelError(
            f"release {release.id} is of architecture {release.architecture!r}; known here are "
            f"{', '.join(sorted(_ARCHITECTURES))}: update the project or choose another release"
        )
    try:
        predictor = load(release, device, dtype)
    except ReleaseError:
        raise
    except Exception as error:
        # A config comes from outside, and the libraries that take it raise whatever they like.
        why = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        raise ModelError(
            f"release {release.id} cannot be loaded: {why}; where another version of the project "
            "made it, use that version or make the release anew"
        ) from error
    made = (
        None if predictor.category is None else predictor.category.categories,
        None if predictor.attribute is None else predictor.attribute.labels,
    )
    if made != (release.categories, release.labels):
        raise ModelError(
            f"release {release.id}: the models that {release.architecture} made are not those "
            "that the manifest names"
        )
    return predictor
