"""Scores to output events. What a release fixes is encoded once, when the release is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from models.labels import LabelSpace
from models.predictor import CategoryScores, LabelScores
from models.product import Product
from models.taxonomy import Taxonomy
from worker.lanes import Result
from worker.partitioner import hash_keys

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["Assembler", "CategorySource"]

CategorySource = Literal["predicted", "claimed"]

# Scores are float32: beyond six digits there is only noise, and it costs bytes in every event.
_SCORE_DIGITS = 6


class Assembler:
    """Encodes the outputs of one release.

    Events are put together as text around fragments that were encoded when the release was loaded:
    encoding each event as a dictionary took about twice as long, and this is the worker's dearest
    step per product. What varies and is a seller's text goes through orjson.

    Args:
        release_id: name/version.
        taxonomy: the release's.
        categories: leaves in the model's order, or None where there is no category model.
        labels: labels in the model's order, or None where there is no attribute model.
        thresholds: [leaves], float32: ``assigned`` at or above, else ``review``.
    """

    def __init__(
        self,
        release_id: str,
        taxonomy: Taxonomy,
        categories: LabelSpace | None,
        labels: LabelSpace | None,
        thresholds: NDArray[np.float32] | None,
    ) -> None:
        self._release_id = release_id
        self._known = taxonomy.categories
        self._thresholds = thresholds
        leaves = categories.ids if categories is not None else ()
        # An ancestor of the leaf is a claim that agrees: sellers often name the department alone.
        self._agreeing = [frozenset(node.id for node in taxonomy.path(leaf)) for leaf in leaves]
        self._paths = [
            _json([{"id": node.id, "name": node.name} for node in taxonomy.path(leaf)])
            for leaf in leaves
        ]
        self._leaves = [f'{{"id":{_json(leaf)},"score":' for leaf in leaves]
        self._labels = [
            f'{{"attribute":{_json(label.attribute)},"value":{_json(label.value)},'
            f'"label_id":{_json(label.id)},"score":'
            for label in map(taxonomy.label, labels.ids if labels is not None else ())
        ]
        self._origin = (
            f'"release":{_json(release_id)},"taxonomy_version":{_json(taxonomy.version)},"input":'
        )

    def assemble(
        self,
        records: Sequence[ConsumerRecord[bytes | None, bytes | None]],
        products: Sequence[Product],
        categories: CategoryScores | None,
        labels: LabelScores | None,
        claimed: Sequence[str | None],
    ) -> list[Result]:
        """The results of a batch, in its order.

        Args:
            records: the input events.
            products: what they held.
            categories: of each product, or None where there is no category model.
            labels: of each product, or None where there is no attribute model.
            claimed: the claimed category whose mask was used, None where the predicted one was.
        """
        keys = [
            record.key if record.key is not None else product.product_id.encode()
            for record, product in zip(records, products, strict=True)
        ]
        results = [
            Result(record, key, key_hash, self._release_id, None, None)
            for record, key, key_hash in zip(records, keys, hash_keys(keys), strict=True)
        ]
        names = [f"{record.topic}:{record.partition}:{record.offset}" for record in records]
        heads = list(map(self._head, records, products))
        predicted: Sequence[str] = ()
        if categories is not None:
            predicted = self._put_categories(results, names, heads, products, categories)
        if labels is not None:
            self._put_attributes(results, names, heads, predicted, labels, claimed)
        return results

    def _head(self, record: ConsumerRecord[bytes | None, bytes | None], product: Product) -> str:
        """Fields that both outputs share, as JSON members."""
        version = product.version
        return (
            f'"product_id":{_json(product.product_id)},"product_version":'
            f'{"null" if version is None else _json(version)},"locale":{_json(product.locale)},'
            f'{self._origin}{{"topic":"{record.topic}","partition":{record.partition},'
            f'"offset":{record.offset}}}'
        )

    def _put_categories(
        self,
        results: list[Result],
        names: list[str],
        heads: list[str],
        products: Sequence[Product],
        categories: CategoryScores,
    ) -> list[str]:
        """Encode the ``categories`` events; returns what ``attributes`` events say of them."""
        leaves, paths = self._leaves, self._paths
        predicted = []
        for result, name, head, product, rows, scores, is_assigned in zip(
            results,
            names,
            heads,
            products,
            categories.rows.tolist(),
            _rounded(categories.scores),
            self._assigned(categories),
            strict=True,
        ):
            best = rows[0]
            status = "assigned" if is_assigned else "review"
            result.review = not is_assigned
            category = f"{leaves[best]}{scores[0]}"
            top = "},".join(
                [f"{leaves[row]}{score}" for row, score in zip(rows, scores, strict=True)]
            )
            claim = product.claimed_category
            claimed = "null" if claim is None else self._claim(claim, best)
            result.categories = (
                f'{{"schema":"sortiment.categories.v1","event_id":"categories:{name}",{head},'
                f'"category":{category},"path":{paths[best]}}},"status":"{status}",'
                f'"top":[{top}}}],"claimed":{claimed}}}'
            ).encode()
            predicted.append(f'{category},"status":"{status}"}},"category_source":"predicted"')
        return predicted

    def _put_attributes(
        self,
        results: list[Result],
        names: list[str],
        heads: list[str],
        predicted: Sequence[str],
        labels: LabelScores,
        claimed: Sequence[str | None],
    ) -> None:
        starts = labels.indptr.tolist()
        values = [
            f"{self._labels[row]}{score}}}"
            for row, score in zip(labels.rows.tolist(), _rounded(labels.scores), strict=True)
        ]
        for index, (result, name, head, claim) in enumerate(
            zip(results, names, heads, claimed, strict=True)
        ):
            start, end = starts[index], starts[index + 1]
            category = (
                predicted[index]
                if claim is None
                else f'{{"id":{_json(claim)},"score":null,"status":"claimed"}},'
                '"category_source":"claimed"'
            )
            result.num_labels = end - start
            result.attributes = (
                f'{{"schema":"sortiment.attributes.v1","event_id":"attributes:{name}",{head},'
                f'"category":{category},"attributes":[{",".join(values[start:end])}]}}'
            ).encode()

    def _claim(self, claim: str, best: int) -> str:
        agrees = _json(claim in self._agreeing[best]) if claim in self._known else "null"
        return f'{{"id":{_json(claim)},"agrees":{agrees}}}'

    def _assigned(self, categories: CategoryScores) -> list[bool]:
        if self._thresholds is None:
            return [True] * len(categories.rows)
        best = categories.rows[:, 0]
        return (categories.scores[:, 0] >= self._thresholds[best]).tolist()  # type: ignore[no-any-return]


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _rounded(scores: NDArray[np.float32]) -> list[Any]:
    return np.round(scores.astype(np.float64), _SCORE_DIGITS).tolist()  # type: ignore[no-any-return]
