"""A release of the flagship with random weights: small, and it tells products apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.encoders import load_pretrained
from models.flagship import FlagshipConfig, FlagshipNet, predictor_of
from models.flagship_preparer import FlagshipPreparer
from models.hashing import HashingConfig
from models.labels import LabelSpace
from models.product import Product
from models.release import Release
from models.release_writing import write_release
from models.self_check import make_examples
from models.taxonomy import Taxonomy
from models.tokens import TOKENIZER_FILE, TextTokenizer
from tests.tiny_encoder import save_tiny_bert

_MAX_TOKENS = 32
_EXAMPLES = [
    Product("1", None, "en", "Red dress", "long and soft", ("cotton",), (), None),
    Product("2", None, "ja", "革の手袋", "", (), (), None),
]


def tiny_flagship(directory: Path, taxonomy: Taxonomy) -> Release:
    """Write release ``tiny/1`` for all leaves and labels of ``taxonomy``; seeded.

    Leaves and scores differ from product to product; about half are assigned, and every relevant
    label is above its threshold.
    """
    categories, labels = LabelSpace(taxonomy.leaves), LabelSpace(taxonomy.label_ids())
    pretrained = load_pretrained(str(save_tiny_bert(directory / "encoder")), pooling="concat")
    config = FlagshipConfig(
        encoder=pretrained.encoder.config,
        hashing=HashingConfig(buckets=1_009),
        max_tokens=_MAX_TOKENS,
        bag_dim=16,
    )
    departments = [
        taxonomy.departments.index(taxonomy.department_of(leaf)) for leaf in categories.ids
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        net = FlagshipNet(
            config, departments=departments, num_labels=len(labels), encoder=pretrained.encoder
        )
        with torch.no_grad():
            # The encoder's features are nearly the same for all products, the words' bag is not.
            net.mixer.norm.weight.fill_(0.1)
            net.mixer.bag_norm.weight.fill_(3.0)
    category_thresholds = np.full(len(categories), 0.4, dtype=np.float32)
    label_thresholds = np.full(len(labels), 0.0, dtype=np.float32)
    preparer = FlagshipPreparer(TextTokenizer(pretrained.tokenizer, _MAX_TOKENS), config.hashings)
    predictor = predictor_of(
        net,
        preparer,
        categories=categories,
        labels=labels,
        category_thresholds=category_thresholds,
        label_thresholds=label_thresholds,
    )
    return write_release(
        directory / "release",
        name="tiny",
        version="1",
        architecture="flagship",
        config=config.to_json(),
        taxonomy=taxonomy,
        categories=categories,
        labels=labels,
        category_thresholds=category_thresholds,
        label_thresholds=label_thresholds,
        weights=net.state_dict(),
        files={TOKENIZER_FILE: preparer.tokenizer.serialised},
        examples=make_examples(predictor, _EXAMPLES, taxonomy),
        metrics={},
    )
