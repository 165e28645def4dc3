"""PECOS XR-Linear on a data set, for comparison: its predictions for the test split as JSON lines.

Run in an environment of its own (``requirements.txt`` beside this file); it imports nothing of
Sortiment. Title, bullets and description as one text; TF-IDF of words 1 to 2 and characters 2 to 4,
each half scaled to length one; PIFA clusters. Attributes: labels that are irrelevant to the true
category are discarded, and the one threshold is the best for micro F1 on valid.

    python benchmarks/pecos/xr_linear.py DATA OUT.jsonl [--threads 1]
"""

from __future__ import annotations

import argparse
import gzip
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

_KEPT = 100


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        yield from map(orjson.loads, file)


def _text(row: dict[str, Any]) -> str:
    return " ".join([row["title"], *row["bullets"], row["description"]]).lower()


def _matrix(labels: list[list[int]], num_labels: int) -> sparse.csr_matrix:
    indptr = np.cumsum([0, *map(len, labels)])
    indices = np.array([each for row in labels for each in row], dtype=np.int32)
    shape = (len(labels), num_labels)
    return sparse.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape)


def _fitted(x: sparse.csr_matrix, y: sparse.csr_matrix, threads: int) -> XLinearModel:
    embeddings = LabelEmbeddingFactory.create(y, x, method="pifa")
    clusters = Indexer.gen(embeddings, threads=threads)
    return XLinearModel.train(x, y, C=clusters, threads=threads)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-features", type=int, default=400_000)
    given = parser.parse_args()
    splits = {
        name: list(_rows(given.data / f"{name}.jsonl.gz")) for name in ("train", "valid", "test")
    }
    taxonomy = orjson.loads(gzip.decompress((given.data / "taxonomy.json.gz").read_bytes()))
    vectorizers = [
        TfidfVectorizer(
            analyzer=analyzer,
            ngram_range=ngrams,
            min_df=2,
            max_features=given.max_features,
            sublinear_tf=True,
            dtype=np.float32,
            token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,
        )
        for analyzer, ngrams in (("word", (1, 2)), ("char_wb", (2, 4)))
    ]
    texts = {name: list(map(_text, rows)) for name, rows in splits.items()}
    for each in vectorizers:
        each.fit(texts["train"])
    x = {
        name: normalize(sparse.hstack([each.transform(of) for each in vectorizers]).tocsr())
        for name, of in texts.items()
    }
    train = splits["train"]
    names = sorted({row["category"] for row in train})
    row_of = {name: row for row, name in enumerate(names)}
    y = _matrix([[row_of[row["category"]]] for row in train], len(names))
    model = _fitted(x["train"], y, given.threads)
    best = model.predict(x["test"], only_topk=1, beam_size=20, threads=given.threads)
    answers = [names[best[row].indices[0]] for row in range(best.shape[0])]
    labels = _attributes(splits, taxonomy, x, given.threads)
    with given.out.open("wb") as file:
        for row, category, pairs in zip(splits["test"], answers, labels, strict=True):
            made = {"product_id": row["product_id"], "category": category, "attributes": pairs}
            file.write(orjson.dumps(made) + b"\n")


def _attributes(
    splits: dict[str, list[dict[str, Any]]],
    taxonomy: dict[str, Any],
    x: dict[str, sparse.csr_matrix],
    threads: int,
) -> list[list[list[str]]]:
    pairs = {
        name: [[(each["name"], each["value"]) for each in row["attributes"]] for row in rows]
        for name, rows in splits.items()
    }
    labels = sorted({pair for row in pairs["train"] for pair in row})
    if not labels:
        return [[] for _ in splits["test"]]
    row_of = {pair: row for row, pair in enumerate(labels)}
    y = _matrix([[row_of[pair] for pair in row] for row in pairs["train"]], len(labels))
    model = _fitted(x["train"], y, threads)
    relevant = {
        category: {(name, value) for name, values in of.items() for value in values}
        for category, of in taxonomy["relevant"].items()
    }
    found = {}
    for name in ("valid", "test"):
        scored = model.predict(x[name], only_topk=_KEPT, beam_size=50, threads=threads)
        found[name] = [
            [
                (labels[label], score)
                for label, score in zip(scored[row].indices, scored[row].data, strict=True)
                if labels[label] in relevant.get(product["category"], set())
            ]
            for row, product in enumerate(splits[name])
        ]
    threshold = _best(found["valid"], pairs["valid"])
    return [
        [[name, value] for (name, value), score in row if score >= threshold]
        for row in found["test"]
    ]


def _best(
    found: list[list[tuple[tuple[str, str], float]]], true: list[list[tuple[str, str]]]
) -> float:
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
