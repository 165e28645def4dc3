"""A real taxonomy's masks as a file for ``python -m benchmarks.kernels --masks FILE``.

The only part of this benchmark that needs the project's other packages.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.device_masks import DeviceMasks
from models.labels import LabelSpace
from models.taxonomies import detect_format, import_taxonomy
from models.taxonomy import compile_masks


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.export_masks", description=__doc__
    )
    parser.add_argument("taxonomy", type=Path, help="Shopify's repository, or taxonomy.json.gz")
    parser.add_argument("out", type=Path, help="the file to write")
    arguments = parser.parse_args()
    form = detect_format(arguments.taxonomy)
    locales = ("en",) if form == "shopify" else ()
    taxonomy = import_taxonomy(form, [arguments.taxonomy], locales)
    labels = LabelSpace(taxonomy.label_ids())
    masks = compile_masks(taxonomy, taxonomy.leaves, labels)
    table = DeviceMasks.from_masks(masks, torch.device("cpu"))
    torch.save(
        {"mask_indptr": table.indptr, "mask_indices": table.indices, "num_labels": len(labels)},
        arguments.out,
    )
    lengths = table.indptr.diff()
    print(
        f"{arguments.out}: {len(lengths):,} leaves, {len(labels):,} labels, "
        f"{lengths.float().mean():.0f} relevant on average, {int(lengths.max())} at most"
    )


if __name__ == "__main__":
    main()
