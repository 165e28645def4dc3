"""From which score on a category is assigned rather than sent to review: thresholds from valid.

dhpc-amazon (E.1) lets one threshold on the product of department and leaf score reach an accuracy
of 90 % among the products that are left. Here each department may have its own, so that all keep
the same promise; and as valid is a sample, the promise says how surely it is kept.

Legend: N products, C leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sklearn.linear_model import LogisticRegression

from models.errors import ReleaseError
from models.release import Release
from training.design_effect import alikeness, running_sizes
from training.recipe import By, Confidence, DhpcSettings, FlagshipSettings

__all__ = [
    "CALIBRATION_FILE",
    "MIN_TEXTS",
    "Abstention",
    "DepartmentThreshold",
    "Promise",
    "calibrated_shares",
    "fit_abstention",
    "lowest_score",
    "read_abstention",
]

CALIBRATION_FILE = "calibration.json"
_SCHEMA = "sortiment.calibration.v1"
# A department that is predicted for fewer texts of valid shares a threshold with all such
# departments: at 200 the standard error of an accuracy of 0.9 is 0.02, the distance that the
# overall one may have.
MIN_TEXTS = 200
# Against answers that a line parts exactly; at 200 products it moves a slope by some hundredths.
_INVERSE_PENALTY = 10.0
# Keeps logarithms finite; float32 has no scores between this and 1 below it.
_CLOSEST = 1e-7


@dataclass(frozen=True, slots=True)
class Promise:
    """What thresholds are to keep.

    Attributes:
        target: accuracy that is wanted among what is assigned.
        by: who keeps it: each department by a threshold of its own, or all products together.
        confidence: that a threshold reaches it, valid being a sample of what comes; 0.5: it falls
            short as often as not.
    """

    target: float
    by: By
    confidence: float

    @classmethod
    def of(cls, settings: FlagshipSettings | DhpcSettings) -> Promise:
        """What a recipe asks for."""
        return cls(settings.target_accuracy, settings.abstention, settings.target_confidence)

    def unkept(self, products: float) -> str:
        """What to tell people where no threshold keeps it on so many valid products."""
        return (
            f"nothing is assigned, all goes to review: {products:,.0f} valid products show no "
            f"score from which {self.target:g} are right with a confidence of {self.confidence:g}; "
            "give more of them (of other texts: those that share one count little), a lower "
            "target, or a confidence of 0.5 (the expected accuracy)"
        )


@dataclass(frozen=True, slots=True)
class DepartmentThreshold:
    """A department's threshold.

    Attributes:
        own: fitted on the department's products; else the one shared by the small departments.
        products: of valid, predicted to be of this department. accuracy: among them, unthresholded.
        texts: different ones of these products; None: a release that does not say.
    """

    threshold: float
    own: bool
    products: int
    accuracy: float
    texts: int | None = None


@dataclass(frozen=True, slots=True)
class Abstention:
    """Thresholds of a release, and what they stand for.

    Attributes:
        target, by: as in ``Promise``.
        overall: one threshold for all products, as the paper has it.
        departments: by department id.
        confidence: as in ``Promise``. Releases that do not say took the expected accuracy.
    """

    target: float
    by: By
    overall: float
    departments: Mapping[str, DepartmentThreshold]
    confidence: Confidence = 0.5

    def of_leaves(self, departments: Sequence[str]) -> NDArray[np.float32]:
        """The threshold of each leaf, [C], float32, in [0, 1].

        Args:
            departments: [C], department id of each leaf row.
        """
        if self.by == "overall":
            return np.full(len(departments), self.overall, dtype=np.float32)
        return np.array([self.departments[each].threshold for each in departments], np.float32)

    def to_json(self) -> bytes:
        """The release's ``calibration.json``; ``read_abstention`` reads it."""
        return orjson.dumps({"schema": _SCHEMA, **asdict(self)}, option=orjson.OPT_INDENT_2)


def read_abstention(release: Release) -> Abstention | None:
    """What a release says of its category thresholds; None where it says nothing (older ones).

    Raises:
        ReleaseError: it says it in a form that is unknown here.
    """
    if CALIBRATION_FILE not in release.files:
        return None
    where = f"release {release.directory}: {CALIBRATION_FILE}"
    try:
        raw: Any = orjson.loads(release.read(CALIBRATION_FILE))
        if raw["schema"] != _SCHEMA:
            raise ReleaseError(
                f"{where} is of format {raw['schema']!r}, this version reads {_SCHEMA!r}; update "
                "the project or make the release anew"
            )
        return TypeAdapter(Abstention).validate_python(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise ReleaseError(f"{where} cannot be read: {error}; make the release anew") from error


def fit_abstention(
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
    true_rows: NDArray[np.int64],
    departments: Sequence[str],
    texts: NDArray[np.int64],
    promise: Promise,
) -> Abstention:
    """Thresholds from the predictions on valid.

    A department that is predicted for fewer than ``MIN_TEXTS`` texts shares one threshold with all
    such departments, fitted on their products together; where even these are too few, on all.

    Args:
        scores: [N], of the best leaf; rows: [N], that leaf; true_rows: [N].
        departments: [C], department id of each leaf row.
        texts: [N], equal where the text is the same (``training.same_texts.text_keys``).
    """
    right = rows == true_rows
    names = list(dict.fromkeys(departments))
    row_of = {name: row for row, name in enumerate(names)}
    of_leaf = np.array([row_of[each] for each in departments], dtype=np.int64)
    predicted = of_leaf[rows]
    counts = np.bincount(predicted, minlength=len(names))
    hits = np.bincount(predicted[right], minlength=len(names))
    pairs = np.unique(np.stack([predicted, texts]), axis=1)
    num_texts = np.bincount(pairs[0], minlength=len(names))
    overall = lowest_score(scores, right, texts, promise)
    small = num_texts[predicted] < MIN_TEXTS
    shared = overall
    if len(np.unique(texts[small])) >= MIN_TEXTS:
        shared = lowest_score(scores[small], right[small], texts[small], promise)
    found = {}
    for row, name in enumerate(names):
        of_department = predicted == row
        own = bool(num_texts[row] >= MIN_TEXTS)
        mine = scores[of_department], right[of_department], texts[of_department]
        found[name] = DepartmentThreshold(
            lowest_score(*mine, promise) if own else shared,
            own,
            int(counts[row]),
            float(hits[row] / max(1, counts[row])),
            int(num_texts[row]),
        )
    return Abstention(promise.target, promise.by, overall, found, promise.confidence)


def lowest_score(
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    texts: NDArray[np.int64],
    promise: Promise,
) -> float:
    """The lowest score from which on the accuracy is at least the target, as surely as promised.

    The accuracy that is counted above a score wanders from product to product; its last crossing
    of the target is where it was lucky, and what comes next is worse. So the accuracy is that of
    the calibrated scores (``calibrated_shares``), which have three parameters and no luck. What a
    sample of that size may be off is taken from it: Wilson's one-sided lower bound. Products of
    one text are right or wrong together: the size is the products' number over their design effect.

    Args:
        scores: [N]; right: [N]; texts: [N], equal where the text is the same.

    Returns:
        In [0, 1]: 0 where all may be assigned; 1 where none may be, or nothing is known.
    """
    if len(scores) == 0:
        return 1.0
    order = np.argsort(-scores, kind="stable")
    scores, right, texts = scores[order], right[order], texts[order]
    counts = np.arange(1, len(right) + 1)
    shares = calibrated_shares(scores, right)
    expected = np.cumsum(shares) / counts
    # Alike in what the score does not say: that all of a text have one score is no luck.
    alike = alikeness(right - shares, texts)
    effective = counts / (1 + (running_sizes(texts) - 1) * alike)
    surely = _lower_bound(expected, effective, promise.confidence)
    # A threshold takes all products of its score: only the last of equal ones is a cut.
    cut = np.append(scores[1:] != scores[:-1], True)
    good = np.flatnonzero((surely >= promise.target) & cut)
    if len(good) == 0:
        return 1.0
    return 0.0 if good[-1] == len(scores) - 1 else float(scores[good[-1]])


def _lower_bound(
    shares: NDArray[np.float64], counts: NDArray[np.float64], confidence: float
) -> NDArray[np.float64]:
    """Wilson's bound that shares [N] of samples of ``counts`` [N] lie above so surely."""
    z = NormalDist().inv_cdf(confidence)
    reach = z * np.sqrt(shares * (1 - shares) / counts + (z / counts) ** 2 / 4)
    found: NDArray[np.float64] = (shares + z**2 / counts / 2 - reach) / (1 + z**2 / counts)
    return found


def calibrated_shares(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability that each product is right, given its score: beta calibration.

    ``logit p = a ln s - b ln(1 - s) + c`` with a, b >= 0 (Kull, Silva Filho and Flach 2017), so p
    never falls as the score s rises. Fitted on the very same products; where all or none of them
    are right, that share.

    Args:
        scores: [N], in [0, 1]; right: [N].

    Returns:
        [N], float64.
    """
    share = float(right.mean()) if len(right) else 0.0
    if share in (0.0, 1.0):
        return np.full(len(right), share)
    inside = np.clip(scores.astype(np.float64), _CLOSEST, 1 - _CLOSEST)
    features = np.stack([np.log(inside), -np.log1p(-inside)], axis=1)
    kept = [0, 1]
    while kept:
        fitted = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
        fitted.fit(features[:, kept], right)
        slopes = fitted.coef_[0]
        if (slopes >= 0).all():
            found: NDArray[np.float64] = fitted.predict_proba(features[:, kept])[:, 1]
            return found
        del kept[int(slopes.argmin())]
    return np.full(len(right), share)
