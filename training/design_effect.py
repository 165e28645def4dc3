"""How much less products say that share a text: they are right or wrong together.

Variants of an article are often uploaded with one text. A model answers them alike, so a hundred
products of ten texts are nearer to ten trials than to a hundred.

Legend: N products, T distinct texts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["design_effect", "text_rows"]


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

    Kish (1965), estimated from the residuals ``r`` of the mean, summed by text:
    ``T / (T - 1) * (N - 1) / N * sum_t (sum_{i in t} r_i)^2 / sum_i r_i^2``. Where all values are
    the same, or there is one text, nothing is known of how alike a text's products are: they count
    as one, ``sum_t m_t^2 / N`` for m_t products of a text.

    Args:
        values: [N], bool or float: what the mean is of. texts: [N], int64, as in ``text_rows``.

    Returns:
        From 1, each product has a text of its own, to N. N products say what N by this would, had
        each a text of its own. 1 for no products.
    """
    count = len(values)
    if count == 0:
        return 1.0
    rows = text_rows(texts)
    sizes = np.bincount(rows)
    of_values = values.astype(np.float64)
    residuals = of_values - of_values.mean()
    spread = float((residuals**2).sum())
    if spread == 0 or len(sizes) == 1:
        return float((sizes**2).sum()) / count
    sums = np.bincount(rows, residuals)
    found = float((sums**2).sum()) / spread
    found *= len(sizes) / (len(sizes) - 1) * (count - 1) / count
    # Below 1 is an accident of the sample: sharing a text never makes products say more.
    return min(max(1.0, found), float(count))
