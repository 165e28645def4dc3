"""A release made ready to serve: verified, loaded, self-checked and warm, with its masks.

Batches carry the serving they were prepared for, so a later release can take over between two.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.loading import load_predictor
from models.predict import leaf_rows, predict
from models.predictor import CategoryScores, LabelScores, Predictor
from models.prepare import Prepared
from models.product import Product
from models.release import Release, read_release
from models.release_store import fetch_release
from models.self_check import run_self_check
from worker.assemble import Assembler, CategorySource
from worker.errors import ModelError, ReleaseError
from worker.lanes import Result
from worker.masks import MaskCache, MaskCacheConfig, MaskMemory, RedisMasks
from worker.metrics import Metrics

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

__all__ = ["NO_CATEGORY", "InferenceConfig", "Scored", "Serving", "ServingLoader"]

_log = logging.getLogger(__name__)

NO_CATEGORY = "no_category"  # reason of a product without a claim, where that is needed
# Masks of more categories than this are fetched as they are met: warming must not delay readiness.
_WARM_CATEGORIES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How a release runs.

    Attributes:
        device: "auto" (CUDA where there is one), "cpu" or "cuda[:n]".
        dtype: "auto" (bfloat16 where the hardware has it), "float32" or "bfloat16".
        torch_threads: threads of a CPU model; 0: torch's default.
        top_k: categories in a ``categories`` event.
        category_source: whose category chooses the mask: the model's, or the seller's claim
            where it is one of the taxonomy's.
        release_cache: where releases from elsewhere are kept.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    torch_threads: int = 0
    top_k: int = 5
    category_source: CategorySource = "predicted"
    release_cache: Path = Path(".cache/releases")

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.torch_threads < 0:
            raise ValueError(f"torch_threads must not be negative, got {self.torch_threads}")

    def torch_device(self) -> torch.device:
        """The device that ``device`` means here."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


@dataclass(slots=True)
class Scored:
    """A batch that has been through the model, on its way to becoming events."""

    serving: Serving
    records: list[ConsumerRecord[bytes | None, bytes | None]]
    products: list[Product]
    categories: CategoryScores | None
    labels: LabelScores | None
    claimed: list[str | None]

    def assemble(self) -> list[Result]:
        """The results, in the batch's order."""
        return self.serving.assembler.assemble(
            self.records, self.products, self.categories, self.labels, self.claimed
        )


@dataclass(slots=True)
class Serving:
    """A release ready to serve. ``prepare`` may run on any thread, ``run`` on the model thread."""

    release: Release
    predictor: Predictor
    masks: MaskCache | None
    assembler: Assembler
    config: InferenceConfig
    _taxonomy_rows: dict[str, int]
    _leaf_rows: NDArray[np.int64]

    def prepare(self, products: list[Product]) -> Prepared:
        """Arrays and costs of products."""
        return self.predictor.preparer.prepare(products)

    @property
    def needs_claim(self) -> bool:
        """Whether a product without a known claimed category cannot be served at all."""
        return self.predictor.category is None

    def has_known_claim(self, product: Product) -> bool:
        """Whether the claimed category is one of the taxonomy's."""
        return product.claimed_category in self._taxonomy_rows

    def no_claim(self, product: Product) -> tuple[str, str]:
        """Reason and detail of the dead letter of a product that lacks a needed claim."""
        return (
            NO_CATEGORY,
            f"release {self.release.id} has no category model, so claimed_category must name a "
            f"category of taxonomy version {self.release.taxonomy.version}, "
            f"got {product.claimed_category!r}",
        )

    def claimed(self, products: list[Product]) -> list[str | None]:
        """The claimed category whose mask is to be used, None where the predicted one is.

        A claim counts by setting, or where the release has no category model; a claim that the
        taxonomy does not know never does.
        """
        if self.predictor.category is not None and self.config.category_source == "predicted":
            return [None] * len(products)
        known = self._taxonomy_rows
        return [
            product.claimed_category if product.claimed_category in known else None
            for product in products
        ]

    def run(
        self,
        records: list[ConsumerRecord[bytes | None, bytes | None]],
        products: list[Product],
        batch: Prepared,
    ) -> Scored:
        """Scores of a batch, on the model thread."""
        claimed = self.claimed(products)
        given = np.array(
            [-1 if claim is None else self._taxonomy_rows[claim] for claim in claimed],
            dtype=np.int64,
        )
        categories, labels = predict(
            self.predictor,
            batch,
            self.masks,
            self._leaf_rows,
            top_k=self.config.top_k,
            given_rows=given,
        )
        if not (_is_finite(categories) and _is_finite(labels)):
            raise ModelError(f"release {self.release.id} gave a score that is no number")
        return Scored(self, records, products, categories, labels, claimed)


def _is_finite(scores: CategoryScores | LabelScores | None) -> bool:
    return scores is None or bool(np.isfinite(scores.scores).all())


class ServingLoader:
    """Loads releases; keeps what outlives one: mask memory and the Redis connection."""

    def __init__(
        self, config: InferenceConfig, mask_config: MaskCacheConfig, metrics: Metrics
    ) -> None:
        self._config = config
        self._mask_config = mask_config
        self._metrics = metrics
        self._memory = MaskMemory(mask_config.max_memory_bytes)
        self.remote = RedisMasks(mask_config, metrics) if mask_config.redis_url else None

    def load(self, address: str, manifest_sha256: str | None = None) -> Serving:
        """Fetch, verify, load, self-check and warm a release. Blocks: run it on a thread.

        Args:
            address: a directory, or any address that fsspec reads.
            manifest_sha256: what the announcement says; None to take what is there.

        Raises:
            ReleaseError: the release is refused; the message says why.
        """
        started_s = time.monotonic()
        config = self._config
        if config.torch_threads:
            torch.set_num_threads(config.torch_threads)
        release = read_release(fetch_release(address, config.release_cache))
        if manifest_sha256 is not None and release.manifest_sha256 != manifest_sha256:
            raise ReleaseError(
                f"release at {address}: manifest has SHA-256 {release.manifest_sha256}, announced "
                f"was {manifest_sha256}: announce the release anew if the change was meant"
            )
        device = config.torch_device()
        predictor = load_predictor(release, device, config.dtype)
        run_self_check(release, predictor)
        serving = Serving(
            release,
            predictor,
            self._masks(release, predictor, device),
            Assembler(
                release.id,
                release.taxonomy,
                predictor.category.categories if predictor.category is not None else None,
                predictor.attribute.labels if predictor.attribute is not None else None,
                predictor.category.thresholds if predictor.category is not None else None,
            ),
            config,
            {category: row for row, category in enumerate(release.taxonomy.categories)},
            leaf_rows(release.taxonomy, predictor.category.categories)
            if predictor.category is not None
            else np.empty(0, dtype=np.int64),
        )
        _log.info(
            "release %s ready on %s after %.1f s", release.id, device, time.monotonic() - started_s
        )
        return serving

    def _masks(
        self, release: Release, predictor: Predictor, device: torch.device
    ) -> MaskCache | None:
        if predictor.attribute is None:
            return None
        masks = MaskCache(
            release.taxonomy,
            release.taxonomy_sha256,
            predictor.attribute.labels,
            device,
            self._memory,
            self.remote,
            self._mask_config,
            self._metrics,
        )
        masks.warm(release.taxonomy.leaves[:_WARM_CATEGORIES])
        return masks
