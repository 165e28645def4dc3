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
        self.release_id = release_id
        self._taxonomy = taxonomy
        self._leaves = categories.ids if categories is not None else ()
        self._thresholds = thresholds
        # An ancestor of the leaf is a claim that agrees: sellers often name the department alone.
        self._agreeing = [
            frozenset(category.id for category in taxonomy.path(leaf)) for leaf in self._leaves
        ]
        self._paths = [
            orjson.Fragment(
                orjson.dumps([{"id": node.id, "name": node.name} for node in taxonomy.path(leaf)])
            )
            for leaf in self._leaves
        ]
        self._labels = [
            (label.attribute, label.value, label.id)
            for label in map(taxonomy.label, labels.ids if labels is not None else ())
        ]

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
            Result(record, key, key_hash, self.release_id, None, None)
            for record, key, key_hash in zip(records, keys, hash_keys(keys), strict=True)
        ]
        if categories is not None:
            self._put_categories(results, records, products, categories)
        if labels is not None:
            self._put_attributes(results, records, products, categories, labels, claimed)
        return results

    def _put_categories(
        self,
        results: list[Result],
        records: Sequence[ConsumerRecord[bytes | None, bytes | None]],
        products: Sequence[Product],
        categories: CategoryScores,
    ) -> None:
        leaves, paths, agreeing = self._leaves, self._paths, self._agreeing
        dumps = orjson.dumps
        all_scores = _rounded(categories.scores)
        assigned = self._assigned(categories)
        for result, record, product, rows, scores, is_assigned in zip(
            results, records, products, categories.rows.tolist(), all_scores, assigned, strict=True
        ):
            best = rows[0]
            claim = product.claimed_category
            result.review = not is_assigned
            event = self._head("categories", record, product)
            event["category"] = {"id": leaves[best], "score": scores[0], "path": paths[best]}
            event["status"] = "assigned" if is_assigned else "review"
            event["top"] = [
                {"id": leaves[row], "score": score} for row, score in zip(rows, scores, strict=True)
            ]
            event["claimed"] = (
                None
                if claim is None
                else {
                    "id": claim,
                    "agrees": claim in agreeing[best]
                    if claim in self._taxonomy.categories
                    else None,
                }
            )
            result.categories = dumps(event)

    def _put_attributes(
        self,
        results: list[Result],
        records: Sequence[ConsumerRecord[bytes | None, bytes | None]],
        products: Sequence[Product],
        categories: CategoryScores | None,
        labels: LabelScores,
        claimed: Sequence[str | None],
    ) -> None:
        names = self._labels
        dumps = orjson.dumps
        starts = labels.indptr.tolist()
        rows = labels.rows.tolist()
        scores = _rounded(labels.scores)
        predicted = self._predicted(categories, len(results))
        for index, (result, record, product) in enumerate(
            zip(results, records, products, strict=True)
        ):
            start, end = starts[index], starts[index + 1]
            claim = claimed[index]
            event = self._head("attributes", record, product)
            event["category"] = (
                predicted[index]
                if claim is None
                else {"id": claim, "score": None, "status": "claimed"}
            )
            event["category_source"] = "predicted" if claim is None else "claimed"
            event["attributes"] = [
                {"attribute": name[0], "value": name[1], "label_id": name[2], "score": score}
                for name, score in zip(
                    map(names.__getitem__, rows[start:end]), scores[start:end], strict=True
                )
            ]
            result.num_labels = end - start
            result.attributes = dumps(event)

    def _head(
        self,
        kind: str,
        record: ConsumerRecord[bytes | None, bytes | None],
        product: Product,
    ) -> dict[str, Any]:
        topic, partition, offset = record.topic, record.partition, record.offset
        return {
            "schema": f"sortiment.{kind}.v1",
            "event_id": f"{kind}:{topic}:{partition}:{offset}",
            "product_id": product.product_id,
            "product_version": product.version,
            "locale": product.locale,
            "release": self.release_id,
            "taxonomy_version": self._taxonomy.version,
            "input": {"topic": topic, "partition": partition, "offset": offset},
        }

    def _assigned(self, categories: CategoryScores) -> list[bool]:
        if self._thresholds is None:
            return [True] * len(categories.rows)
        return (  # type: ignore[no-any-return]
            categories.scores[:, 0] >= self._thresholds[categories.rows[:, 0]]
        ).tolist()

    def _predicted(
        self, categories: CategoryScores | None, num_products: int
    ) -> list[dict[str, Any] | None]:
        if categories is None:
            return [None] * num_products
        return [
            {
                "id": self._leaves[row],
                "score": score,
                "status": "assigned" if is_assigned else "review",
            }
            for row, score, is_assigned in zip(
                categories.rows[:, 0].tolist(),
                _rounded(categories.scores[:, 0]),
                self._assigned(categories),
                strict=True,
            )
        ]


def _rounded(scores: NDArray[np.float32]) -> list[Any]:
    return np.round(scores.astype(np.float64), _SCORE_DIGITS).tolist()  # type: ignore[no-any-return]
