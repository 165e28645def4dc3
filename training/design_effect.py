"""How much less products say that share a text: they are right or wrong together.

Variants of an article are often uploaded with one text. A model answers them alike, so a hundred
products of ten texts are nearer to ten trials than to a hundred.

Legend: N products, T distinct texts, m_t products of a text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["alikeness", "design_effect", "running_sizes", "text_rows"]


def text_rows(texts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each product's text, [N], int64: 0 to T - 1, in the order of first products.

    Args:
        texts: [N], int64; equal where the text is the same (``training.same_texts.text_keys``).
    """
    _, first, rows = np.unique(texts, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[rows]


def design_effect(values: NDArray[np.generic], texts: NDArray[np.int64]) -> float:
    """Variance of a mean over products whose texts are drawn, by that of products drawn one by one.

    Kish (1965): ``1 + (sum_t m_t^2 / N - 1) rho``, rho as in ``alikeness``. The sizes are taken as
    they are: where few products are wrong, those of large texts may happen to be right, and an
    estimate from the errors alone would be far too sure.

    Args:
        values: [N], bool or float: what the mean is of. texts: [N], int64, as in ``text_rows``.

    Returns:
        From 1, each product has a text of its own, to N. N products say what N by this would, had
        each a text of its own. 1 for no products.
    """
    if len(values) == 0:
        return 1.0
    return float(1 + (running_sizes(texts)[-1] - 1) * alikeness(values, texts))


def alikeness(values: NDArray[np.generic], texts: NDArray[np.int64]) -> float:
    """Intraclass correlation of products of one text, rho: 0, the text says nothing; 1, all.

    By analysis of variance: ``(B - W) / (B + (m - 1) W)`` of the mean squares between and within
    texts, ``m = (N - sum_t m_t^2 / N) / (T - 1)``, within 0 and 1. 1 where nothing is known of it:
    all values are the same, or there is one text.

    Args:
        values: [N], bool or float. texts: [N], int64, as in ``text_rows``.
    """
    count = len(values)
    rows = text_rows(texts)
    sizes = np.bincount(rows)
    num_texts = len(sizes)
    of_values = values.astype(np.float64)
    if num_texts <= 1 or of_values.min() == of_values.max():
        return 1.0
    if num_texts == count:
        return 0.0
    mean = of_values.mean()
    means = np.bincount(rows, of_values) / sizes
    between = (sizes * (means - mean) ** 2).sum() / (num_texts - 1)
    within = ((of_values - means[rows]) ** 2).sum() / (count - num_texts)
    size = (count - (sizes**2).sum() / count) / (num_texts - 1)
    found = (between - within) / (between + (size - 1) * within)
    return float(np.clip(found, 0.0, 1.0))


def running_sizes(texts: NDArray[np.int64]) -> NDArray[np.float64]:
    """``sum_t m_t^2 / n`` of the first n products, for n from 1 to N: [N].

    The size of the text that a product is of, on average.
    """
    count = len(texts)
    rows = text_rows(texts)
    order = np.argsort(rows, kind="stable")
    starts = np.cumsum(np.bincount(rows)) - np.bincount(rows)
    # How many products of its text come before each.
    before = np.empty(count, dtype=np.int64)
    before[order] = np.arange(count) - starts[rows[order]]
    found: NDArray[np.float64] = np.cumsum(2 * before + 1) / np.arange(1, count + 1)
    return found
