"""PECOS XR-Linear on a data set, for comparison: its predictions for the test split as JSON lines.

Run in an environment of its own (``requirements.txt`` beside this file); it imports nothing of
Sortiment. Title, bullets and description as one text; TF-IDF of words 1 to 2 and characters 2 to 4,
each half scaled to length one; PIFA clusters. Attributes: labels that are irrelevant to the true
category are discarded, and the one threshold is the best for micro F1 on valid; with ``--scores``
the relevant ones of the 100 best stand with their scores, none cut. ``--limit`` takes the training
products that a recipe with this ``limit`` takes.

    python benchmarks/pecos/xr_linear.py DATA OUT.jsonl [--threads 1] [--scores] [--limit N]
"""

from __future__ import annotations

import argparse
import gzip
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

__all__ = [
    "KEPT",
    "arguments",
    "features",
    "labels_of",
    "relevant_pairs",
    "scored",
    "splits_of",
    "text_of",
]

# Labels of a product that are scored.
KEPT = 100

Splits = dict[str, list[dict[str, Any]]]
Scored = list[list[tuple[tuple[str, str], float]]]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        yield from map(orjson.loads, file)


def text_of(row: dict[str, Any]) -> str:
    """A product's fields as one text, normalised as Sortiment's models read it."""
    joined = " ".join([row["title"], *row["bullets"], row["description"]])
    return unicodedata.normalize("NFKC", joined).lower()


def _matrix(labels: list[list[int]], num_labels: int) -> sparse.csr_matrix:
    indptr = np.cumsum([0, *map(len, labels)])
    indices = np.array([each for row in labels for each in row], dtype=np.int32)
    shape = (len(labels), num_labels)
    return sparse.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape)


def _fitted(x: sparse.csr_matrix, y: sparse.csr_matrix, threads: int) -> XLinearModel:
    embeddings = LabelEmbeddingFactory.create(y, x, method="pifa")
    clusters = Indexer.gen(embeddings, threads=threads)
    return XLinearModel.train(x, y, C=clusters, threads=threads)


def arguments() -> argparse.ArgumentParser:
    """What both programs of this folder are given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-features", type=int, default=400_000)
    parser.add_argument("--limit", type=int, default=None, help="training products at most")
    parser.add_argument("--limit-seed", type=int, default=1)
    return parser


def splits_of(data: Path, limit: int | None, seed: int) -> Splits:
    """The products; of training a random sample where there is a limit."""
    splits = {name: list(_rows(data / f"{name}.jsonl.gz")) for name in ("train", "valid", "test")}
    train = splits["train"]
    if limit is not None and limit < len(train):
        chosen = np.random.default_rng([seed, 0]).permutation(len(train))[:limit]
        splits["train"] = [train[row] for row in sorted(chosen.tolist())]
    return splits


def features(splits: Splits, max_features: int) -> dict[str, sparse.csr_matrix]:
    """TF-IDF of each split, learned from training."""
    vectorizers = [
        TfidfVectorizer(
            analyzer=analyzer,
            ngram_range=ngrams,
            min_df=2,
            max_features=max_features,
            sublinear_tf=True,
            dtype=np.float32,
            token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,
        )
        for analyzer, ngrams in (("word", (1, 2)), ("char_wb", (2, 4)))
    ]
    texts = {name: list(map(text_of, rows)) for name, rows in splits.items()}
    for each in vectorizers:
        each.fit(texts["train"])
    return {
        name: normalize(sparse.hstack([each.transform(of) for each in vectorizers]).tocsr())
        for name, of in texts.items()
    }


def _main() -> None:
    parser = arguments()
    parser.add_argument("--scores", action="store_true")
    given = parser.parse_args()
    splits = splits_of(given.data, given.limit, given.limit_seed)
    x = features(splits, given.max_features)
    train = splits["train"]
    names = sorted({row["category"] for row in train})
    row_of = {name: row for row, name in enumerate(names)}
    y = _matrix([[row_of[row["category"]]] for row in train], len(names))
    model = _fitted(x["train"], y, given.threads)
    best = model.predict(x["test"], only_topk=1, beam_size=20, threads=given.threads)
    answers = [names[best[row].indices[0]] for row in range(best.shape[0])]
    labels = _attributes(splits, given.data, x, given.threads, with_scores=given.scores)
    with given.out.open("wb") as file:
        for row, category, pairs in zip(splits["test"], answers, labels, strict=True):
            made = {"product_id": row["product_id"], "category": category, "attributes": pairs}
            file.write(orjson.dumps(made) + b"\n")


def labels_of(splits: Splits) -> tuple[list[tuple[str, str]], sparse.csr_matrix]:
    """The pairs of (name, value) that training has, and which of its products have them."""
    of_rows = [_pairs(row) for row in splits["train"]]
    labels = sorted({pair for row in of_rows for pair in row})
    row_of = {pair: row for row, pair in enumerate(labels)}
    return labels, _matrix([[row_of[pair] for pair in row] for row in of_rows], len(labels))


def relevant_pairs(data: Path) -> dict[str, set[tuple[str, str]]]:
    """By category, the pairs that its products can have."""
    taxonomy = orjson.loads(gzip.decompress((data / "taxonomy.json.gz").read_bytes()))
    return {
        category: {(name, value) for name, values in of.items() for value in values}
        for category, of in taxonomy["relevant"].items()
    }


def scored(
    found: sparse.csr_matrix,
    labels: list[tuple[str, str]],
    products: list[dict[str, Any]],
    relevant: dict[str, set[tuple[str, str]]],
) -> Scored:
    """Pairs with scores, without those that are irrelevant to the true category."""
    return [
        [
            (labels[label], float(score))
            for label, score in zip(found[row].indices, found[row].data, strict=True)
            if labels[label] in relevant.get(product["category"], set())
        ]
        for row, product in enumerate(products)
    ]


def _pairs(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["name"], each["value"]) for each in row["attributes"]]


def _attributes(
    splits: Splits,
    data: Path,
    x: dict[str, sparse.csr_matrix],
    threads: int,
    *,
    with_scores: bool,
) -> list[list[list[Any]]]:
    labels, y = labels_of(splits)
    if not labels:
        return [[] for _ in splits["test"]]
    model = _fitted(x["train"], y, threads)
    relevant = relevant_pairs(data)

    def answers(name: str) -> Scored:
        found = model.predict(x[name], only_topk=KEPT, beam_size=50, threads=threads)
        return scored(found, labels, splits[name], relevant)

    if with_scores:
        return [[[*pair, score] for pair, score in row] for row in answers("test")]
    threshold = _best(answers("valid"), list(map(_pairs, splits["valid"])))
    return [[list(pair) for pair, score in row if score >= threshold] for row in answers("test")]


def _best(found: Scored, true: list[list[tuple[str, str]]]) -> float:
    """The threshold with the highest micro F1."""
    scores = np.array([score for row in found for _, score in row])
    hits = np.array(
        [
            pair in wanted
            for row, wanted in zip(found, map(set, true), strict=True)
            for pair, _ in row
        ]
    )
    order = np.argsort(-scores)
    of_hits = np.cumsum(hits[order])
    total = np.arange(1, len(order) + 1) + sum(map(len, true))
    return float(scores[order][int(np.argmax(2 * of_hits / total))])


if __name__ == "__main__":
    _main()
