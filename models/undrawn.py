"""Networks whose first weights are not drawn: those that a release fills.

A catalog's tables have hundreds of millions of weights; drawing them takes seconds of the processor
and their memory once more, beside a model that is serving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

__all__ = ["Undrawn"]

# Names, for transformers puts functions of its own in the place of torch.nn.init's.
_DRAWS = frozenset(
    {
        "kaiming_normal_",
        "kaiming_uniform_",
        "normal_",
        "trunc_normal_",
        "uniform_",
        "xavier_normal_",
        "xavier_uniform_",
    }
)


class Undrawn(TorchFunctionMode):
    """While it is entered, in this thread, what draws weights leaves them as memory has them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
