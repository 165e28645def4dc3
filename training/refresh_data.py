"""The data set of a refresh: new labelled products, and old ones so that nothing is forgotten.

New products are dealt by a hash of their ids to training, valid and the comparison, so the same
product lies on the same side in every refresh. A product of the data set stays on the side of its
split and has its new label there: no product is both trained on and compared by, in this refresh or
in a later one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from training.data import DataError, DataSet, LabelledProduct, read_products
from training.prepared import chosen_rows

__all__ = ["RefreshData", "write_refresh_data"]

_HASH_RANGE = 2**64
_SIDES = ("train", "valid", "test")
# Neither trained on nor compared by.
_APART = "apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshData:
    """What went where.

    Attributes:
        train_new, valid_new, test_new: new products by split; test is what is compared on.
        train_old, valid_old, test_old: those of the data set.
        replaced: products of the data set that have a new label.
        again: labels that a later one of the same product replaces.
        left_out: products whose category is no leaf of the taxonomy as it is now: no release can
            be right about them.
        apart: new labels of test products where another split is compared by.
    """

    train_new: int
    valid_new: int
    test_new: int
    train_old: int
    valid_old: int
    test_old: int
    replaced: int
    again: int
    left_out: int
    apart: int

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"training: {self.train_new:,} new and {self.train_old:,} old products",
            f"valid: {self.valid_new:,} new and {self.valid_old:,} old products",
            f"compared on: {self.test_new:,} new and {self.test_old:,} old products",
            f"{self.replaced:,} old labels replaced, {self.again:,} new ones by later ones",
            *([f"{self.apart:,} labels of test products kept apart"] if self.apart else []),
            f"{self.left_out:,} products left out: their category is no leaf of the taxonomy",
        ]


def write_refresh_data(
    data: DataSet,
    new: Sequence[Path],
    directory: Path,
    *,
    replay: int,
    hold: float,
    compare_on: str,
    seed: int,
) -> RefreshData:
    """Write a data set with the splits train, valid and test into a folder, new products last.

    Args:
        new: files of labelled products. Of one product the last label counts.
        directory: there, and empty.
        replay: old training products at most, chosen at random by ``seed``.
        hold: share of the products that ``data`` does not have which goes to valid, and the same
            to test.
        compare_on: split of ``data`` that test is made of.

    Raises:
        DataError: a file cannot be read, or there is no new product to train on.
    """
    taxonomy = data.taxonomy_file
    shutil.copyfile(taxonomy, directory / taxonomy.name)
    leaves = frozenset(data.taxonomy.leaves)
    left_out = 0
    last: dict[str, int] = {}
    count = 0
    for count, item in enumerate(_all(new), start=1):
        last[item.product.product_id] = count
    side_of: dict[str, str] = {}
    new_on, old_on = Counter[str](), Counter[str]()
    with ExitStack() as stack:
        opened = {
            side: stack.enter_context((directory / f"{side}.jsonl").open("wb")) for side in _SIDES
        }
        for split, side in _sides_of(data, compare_on).items():
            for item, is_drawn in _drawn(data, split, replay if side == "train" else None, seed):
                if item.product.product_id in last:
                    side_of[item.product.product_id] = side
                elif side == _APART or not is_drawn:
                    continue
                elif item.category not in leaves:
                    left_out += 1
                else:
                    old_on[side] += 1
                    opened[side].write(_line(item))
        for number, item in enumerate(_all(new), start=1):
            product_id = item.product.product_id
            if last[product_id] != number:
                continue
            side = side_of.get(product_id) or _dealt(product_id, hold)
            if side != _APART and item.category not in leaves:
                left_out += 1
                continue
            new_on[side] += 1
            if side != _APART:
                opened[side].write(_line(item))
    if not new_on["train"]:
        raise DataError(
            f"{', '.join(map(str, new))}: {count} labelled products, none of them to train on "
            f"({new_on['valid']} are of valid, {new_on['test']} are compared by, "
            f"{new_on[_APART]} stay apart, {left_out} products have a category that is no leaf of "
            "the taxonomy): give more"
        )
    return RefreshData(
        train_new=new_on["train"],
        valid_new=new_on["valid"],
        test_new=new_on["test"],
        train_old=old_on["train"],
        valid_old=old_on["valid"],
        test_old=old_on["test"],
        replaced=len(side_of),
        again=count - len(last),
        left_out=left_out,
        apart=new_on[_APART],
    )


def _sides_of(data: DataSet, compare_on: str) -> dict[str, str]:
    """Where the products of each split belong; of one in several splits the last one counts."""
    sides = {"train": "train", "valid": "valid", compare_on: "test"}
    if compare_on != "test" and data.has("test"):
        # Other refreshes compare by it.
        return {"test": _APART, **sides}
    return sides


def _drawn(
    data: DataSet, split: str, most: int | None, seed: int
) -> Iterator[tuple[LabelledProduct, bool]]:
    """All products of a split, and whether each is in a random sample of at most ``most``."""
    rows = None if most is None else chosen_rows(data.count(split), most, seed)
    chosen = None if rows is None else frozenset(rows.tolist())
    for place, item in enumerate(data.products(split)):
        yield item, chosen is None or place in chosen


def _all(paths: Iterable[Path]) -> Iterator[LabelledProduct]:
    for path in paths:
        yield from read_products(path)


def _dealt(product_id: str, hold: float) -> str:
    digest = hashlib.sha256(f"refresh {product_id}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / _HASH_RANGE
    if share < hold:
        return "test"
    return "valid" if share < 2 * hold else "train"


def _line(item: LabelledProduct) -> bytes:
    attributes = [{"name": name, "value": value} for name, value in item.attributes]
    line = asdict(item.product) | {"category": item.category, "attributes": attributes}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
