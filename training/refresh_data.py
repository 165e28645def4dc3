"""The data set of a refresh: new labelled products, and old ones so that nothing is forgotten.

New products are dealt by a hash of their ids to training, valid and the comparison, so the same
product lies on the same side in every refresh. A product of the data set stays on the side of its
split and has its new label there: no product is both trained on and compared by, in this refresh or
in a later one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from training.data import DataError, DataSet, LabelledProduct, read_products
from training.prepared import sampled

__all__ = ["RefreshData", "write_refresh_data"]

_HASH_RANGE = 2**64


@dataclass(frozen=True, slots=True)
class RefreshData:
    """What went where.

    Attributes:
        train_new, valid_new, test_new: new products by split; test is what is compared on.
        train_old, valid_old, test_old: those of the data set.
        replaced: products of the data set that a new label replaces.
        again: labels that a later one of the same product replaces.
        left_out: products whose category is no leaf of the taxonomy as it is now: no release can
            be right about them.
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

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"training: {self.train_new:,} new and {self.train_old:,} old products",
            f"valid: {self.valid_new:,} new and {self.valid_old:,} old products",
            f"compared on: {self.test_new:,} new and {self.test_old:,} old products",
            f"{self.replaced:,} old labels replaced, {self.again:,} new ones by later ones",
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
    """Write a data set with the splits train, valid and test into a folder.

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
    split_of = {"train": "train", "valid": "valid", "test": compare_on}
    side_of = {
        item.product.product_id: side
        for side, split in split_of.items()
        for item in data.products(split)
        if item.product.product_id in last
    }
    sides = {"train": 0, "valid": 0, "test": 0}
    files = {side: directory / f"{side}.jsonl" for side in sides}
    opened = {side: path.open("wb") for side, path in files.items()}
    try:
        for number, item in enumerate(_all(new), start=1):
            if last[item.product.product_id] == number:
                if item.category not in leaves:
                    left_out += 1
                    continue
                product_id = item.product.product_id
                side = side_of.get(product_id) or _dealt(product_id, hold)
                sides[side] += 1
                opened[side].write(_line(item))
        if not sides["train"]:
            raise DataError(
                f"{', '.join(map(str, new))}: {count} labelled products, none of them to train on "
                f"({left_out} have a category that is no leaf of the taxonomy): give more"
            )
        old = dict.fromkeys(sides, 0)
        replaced = 0
        for side, products in (
            ("train", sampled(data, "train", replay, seed)),
            ("valid", data.products(split_of["valid"])),
            ("test", data.products(split_of["test"])),
        ):
            for item in products:
                if item.product.product_id in last:
                    replaced += 1
                    continue
                if item.category not in leaves:
                    left_out += 1
                    continue
                old[side] += 1
                opened[side].write(_line(item))
    finally:
        for file in opened.values():
            file.close()
    return RefreshData(
        sides["train"],
        sides["valid"],
        sides["test"],
        old["train"],
        old["valid"],
        old["test"],
        replaced,
        count - len(last),
        left_out,
    )


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
