"""Importers of taxonomies: each reads one format, reports every problem, and makes a Taxonomy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.errors import TaxonomyError
from models.taxonomies.google import import_google
from models.taxonomies.native import import_native
from models.taxonomies.shopify import import_shopify
from models.taxonomy import Taxonomy

__all__ = ["FORMATS", "detect_format", "import_taxonomy"]

FORMATS = ("native", "shopify", "google")


def detect_format(source: Path) -> str:
    """The format of a source, by its looks: a folder, a ``.txt`` or a ``.json(.gz)`` file.

    Raises:
        TaxonomyError: none of these.
    """
    if source.is_dir():
        return "shopify"
    if source.suffix == ".txt":
        return "google"
    if source.name.endswith((".json", ".json.gz")):
        return "native"
    raise TaxonomyError(
        [
            f"{source}: not a taxonomy that can be read; "
            "give the Shopify repository's folder, Google's .txt, or a .json or .json.gz file"
        ]
    )


def import_taxonomy(form: str, sources: Sequence[Path], locales: Sequence[str] = ()) -> Taxonomy:
    """Read a taxonomy.

    Args:
        form: one of ``FORMATS``.
        sources: one path; for Google, one file per locale, the first one giving the tree.
        locales: for Shopify: take names in these locales only, besides English; empty: in all.

    Raises:
        TaxonomyError: with every problem found.
        ValueError: an unknown format, several sources where one is read, or locales for another
            format than Shopify's.
    """
    if form not in FORMATS:
        raise ValueError(f"unknown taxonomy format {form!r}; known: {', '.join(FORMATS)}")
    if locales and form != "shopify":
        raise ValueError(f"locales are chosen for shopify only, not for {form}")
    if form == "google":
        return import_google(sources)
    if len(sources) != 1:
        raise ValueError(f"the format {form} is read from one source, got {len(sources)}")
    if form == "shopify":
        return import_shopify(sources[0], locales)
    return import_native(sources[0])
