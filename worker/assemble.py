"""Scores to output events. What a release fixes is encoded once, when the release is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import TYPE_CHECKING, Literal

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
        heads = self._heads(records, products)
        predicted: Sequence[str] = ()
        if categories is not None:
            predicted = self._put_categories(results, names, heads, products, categories)
        if labels is not None:
            self._put_attributes(results, names, heads, predicted, labels, claimed)
        return results

    def _heads(
        self,
        records: Sequence[ConsumerRecord[bytes | None, bytes | None]],
        products: Sequence[Product],
    ) -> list[str]:
        """Fields that both outputs share, as JSON members."""
        origin = self._origin
        # Of these a batch holds few: the same text is encoded once.
        versions = {version: _json(version) for version in {each.version for each in products}}
        locales = {locale: _json(locale) for locale in {each.locale for each in products}}
        return [
            f'"product_id":{_json(product.product_id)},'
            f'"product_version":{versions[product.version]},"locale":{locales[product.locale]},'
            f'{origin}{{"topic":"{record.topic}","partition":{record.partition},'
            f'"offset":{record.offset}}}'
            for record, product in zip(records, products, strict=True)
        ]

    def _put_categories(
        self,
        results: list[Result],
        names: list[str],
        heads: list[str],
        products: Sequence[Product],
        categories: CategoryScores,
    ) -> list[str]:
        """Encode the ``categories`` events; returns what ``attributes`` events say of them."""
        paths = self._paths
        num_top = categories.rows.shape[1]
        # Flat, for all products at once: a fragment a category, in loops that run in C.
        fragments = list(
            map(
                add,
                map(self._leaves.__getitem__, categories.rows.ravel().tolist()),
                _encoded(categories.scores),
            )
        )
        best_rows = categories.rows[:, 0].tolist()
        predicted = []
        for index, (result, name, head, product, best, is_assigned) in enumerate(
            zip(
                results,
                names,
                heads,
                products,
                best_rows,
                self._assigned(categories),
                strict=True,
            )
        ):
            top = fragments[index * num_top : (index + 1) * num_top]
            category = top[0]
            status = "assigned" if is_assigned else "review"
            result.review = not is_assigned
            claim = product.claimed_category
            claimed = "null" if claim is None else self._claim(claim, best)
            result.categories = (
                f'{{"schema":"sortiment.categories.v1","event_id":"categories:{name}",{head},'
                f'"category":{category},"path":{paths[best]}}},"status":"{status}",'
                f'"top":[{"},".join(top)}}}],"claimed":{claimed}}}'
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
        values = list(
            map(add, map(self._labels.__getitem__, labels.rows.tolist()), _encoded(labels.scores))
        )
        for index, (result, name, head, claim) in enumerate(
            zip(results, names, heads, claimed, strict=True)
        ):
            emitted = values[starts[index] : starts[index + 1]]
            listed = "},".join(emitted) + "}" if emitted else ""
            category = (
                predicted[index]
                if claim is None
                else f'{{"id":{_json(claim)},"score":null,"status":"claimed"}},'
                '"category_source":"claimed"'
            )
            result.num_labels = len(emitted)
            result.attributes = (
                f'{{"schema":"sortiment.attributes.v1","event_id":"attributes:{name}",{head},'
                f'"category":{category},"attributes":[{listed}]}}'
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


def _encoded(scores: NDArray[np.float32]) -> list[str]:
    """JSON numbers of all scores, flat: a float object and its text for each took half the step."""
    if not scores.size:
        return []
    rounded = np.round(scores.ravel().astype(np.float64), _SCORE_DIGITS).astype(np.float32)
    return orjson.dumps(rounded, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")
