"""An untrained ``ave_bert`` release: attributes alone, for a claimed category."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.ave_bert import (
    AveBertConfig,
    AveBertNet,
    AveBertPreparer,
    ClassifierRows,
    Classifiers,
    predictor_of,
)
from models.encoders import last_layers, load_pretrained
from models.labels import LabelSpace
from models.product import Product
from models.release import Release
from models.release_writing import write_release
from models.self_check import make_examples
from models.taxonomy import Taxonomy
from models.tokens import TOKENIZER_FILE, TextTokenizer
from tests.tiny_encoder import save_tiny_bert

_MAX_TOKENS = 32


def tiny_ave_bert(directory: Path, taxonomy: Taxonomy, classifiers: Classifiers) -> Release:
    """Write release ``tiny-ave/1``; seeded, every relevant label is above its threshold."""
    labels = LabelSpace(taxonomy.label_ids())
    pretrained = load_pretrained(
        str(save_tiny_bert(directory / "encoder")),
        layers=lambda count: last_layers(count, 3),
        pooling="concat",
    )
    config = AveBertConfig(
        encoder=pretrained.encoder.config, max_tokens=_MAX_TOKENS, classifiers=classifiers
    )
    rows = ClassifierRows(taxonomy, labels, classifiers, ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        net = AveBertNet(config, len(rows), pretrained.encoder)
        with torch.no_grad():
            # Scores that differ from label to label and from classifier to classifier.
            net.attribute.weight.normal_(std=0.3)
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    thresholds = np.zeros(len(labels), dtype=np.float32)
    preparer = AveBertPreparer(TextTokenizer(pretrained.tokenizer, _MAX_TOKENS))
    predictor = predictor_of(
        net, config, preparer, taxonomy=taxonomy, labels=labels, thresholds=thresholds
    )
    products: Sequence[Product] = [
        Product("1", None, "en", "Red boots", "warm", (), (), taxonomy.leaves[0])
    ]
    return write_release(
        directory / "release",
        name="tiny-ave",
        version="1",
        architecture="ave_bert",
        config=config.to_json(),
        taxonomy=taxonomy,
        categories=None,
        labels=labels,
        category_thresholds=None,
        label_thresholds=thresholds,
        weights=weights,
        files={TOKENIZER_FILE: preparer.tokenizer.serialised},
        examples=make_examples(predictor, products, taxonomy),
        metrics={},
    )
