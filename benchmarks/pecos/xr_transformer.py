"""PECOS XR-Transformer for attributes, for comparison: the test split's scored labels, JSON lines.

Run in an environment of its own (``requirements-xr-transformer.txt`` beside this file); it imports
nothing of Sortiment. Texts, TF-IDF and which labels are dropped are XR-Linear's (``xr_linear.py``).
The encoder, a folder that transformers can read, is tuned level by level on the tree of label
clusters; its embeddings beside the TF-IDF train the linear ranker. On a CPU: take few products.

    python benchmarks/pecos/xr_transformer.py DATA OUT.jsonl --encoder DIR --limit 8000
"""

from __future__ import annotations

from pathlib import Path

import orjson
import torch
from pecos.xmc.xtransformer.model import XTransformer
from pecos.xmc.xtransformer.module import MLProblemWithText
from xr_linear import (
    KEPT,
    arguments,
    features,
    labels_of,
    relevant_pairs,
    scored,
    splits_of,
    text_of,
)


def _main() -> None:
    parser = arguments()
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1, help="of each level of the tree")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    splits = splits_of(given.data, given.limit, given.limit_seed)
    x = features(splits, given.max_features)
    labels, y = labels_of(splits)
    texts = {name: list(map(text_of, rows)) for name, rows in splits.items()}
    train = XTransformer.TrainParams.from_dict(
        {
            "matcher_params_chain": {
                "model_shortcut": str(given.encoder),
                "batch_size": given.batch_size,
                "num_train_epochs": given.epochs,
                "learning_rate": given.learning_rate,
                "batch_gen_workers": given.threads,
                "use_gpu": False,
            },
        },
        recursive=True,
    )
    pred = XTransformer.PredParams.from_dict(
        {"matcher_params_chain": {"truncate_length": given.tokens}}, recursive=True
    )
    problem = MLProblemWithText(texts["train"], y, X_feat=x["train"])
    model = XTransformer.train(problem, train_params=train, pred_params=pred, threads=given.threads)
    found = model.predict(
        texts["test"],
        X_feat=x["test"],
        only_topk=KEPT,
        beam_size=50,
        batch_size=given.batch_size,
        batch_gen_workers=given.threads,
        use_gpu=False,
        threads=given.threads,
    )
    answers = scored(found, labels, splits["test"], relevant_pairs(given.data))
    with given.out.open("wb") as file:
        for row, pairs in zip(splits["test"], answers, strict=True):
            made = [[*pair, score] for pair, score in pairs]
            file.write(orjson.dumps({"product_id": row["product_id"], "attributes": made}) + b"\n")


if __name__ == "__main__":
    _main()
