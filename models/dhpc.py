"""DHPC (dhpc-amazon): a department classifier, then a leaf classifier of that department.

    title, description, bullets -> body -> head -> sigmoid: a score for each department
                                -> body -> head -> sigmoid: a score for each leaf of a department
    score of a leaf = score of its department * its own score among the department's leaves,
                      calibrated on valid

The body is a transformer with segment embeddings, CLS states of every other layer pooled
(knowledge skip, C.1), or the pooled embeddings of the DNN that the paper compares with
(``models.pooled_views``). Each classifier is a network of its own, or all share one body. A
department with one leaf needs no classifier: its leaf scores 1.

Legend: B products, E features, P departments, C leaves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.calibration import UNCALIBRATED, calibrated
from models.cascade import CascadeOutputs, cascade_outputs
from models.dhpc_head import ClassifierHead
from models.encoders import EncoderConfig, TextEncoder, fast_dtype, pad, serve_in
from models.errors import ModelError
from models.heads import best_rows
from models.labels import LabelSpace
from models.pooled_views import PooledViews
from models.predictor import CategoryScores, Encoder, Predictor
from models.prepare import Prepared
from models.release import Release
from models.segments import SEGMENT_IDS, SegmentPreparer, SegmentTokenizer
from models.taxonomy import Taxonomy
from models.tokens import INPUT_IDS, TOKENIZER_FILE

__all__ = [
    "DEPARTMENT",
    "DhpcCategories",
    "DhpcConfig",
    "DhpcNet",
    "body_features",
    "department_rows",
    "dhpc_categories",
    "load_dhpc",
    "predictor_of",
]

DEPARTMENT = "department"
_SHARED = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class DhpcConfig:
    """Everything that makes a ``dhpc`` but its weights. Part of a release.

    Attributes:
        encoder: with the chosen CLS states pooled; None: the DNN's pooled embeddings.
        vocabulary, embedding: rows and width of the DNN's embeddings.
        max_tokens: no further is read. letters: digits and signs are not read.
        segments: the encoder is told which text a token comes from.
        bodies: one for each classifier, or one for all.
        head_layers: linear layers of a head; head_width: between them.
        beam: leaf classifiers of so many best departments are asked; leaves of others score 0.
    """

    encoder: EncoderConfig | None
    vocabulary: int = 0
    embedding: int = 0
    max_tokens: int = 256
    letters: bool = True
    segments: bool = True
    bodies: Literal["separate", "shared"] = "separate"
    head_layers: int = 2
    head_width: int = 512
    beam: int = 1

    def __post_init__(self) -> None:
        if self.bodies not in ("separate", "shared"):
            raise ValueError(f"bodies must be separate or shared, got {self.bodies!r}")
        counts = (self.head_layers, self.head_width, self.beam)
        if min(counts) < 1 or (self.encoder is None and min(self.vocabulary, self.embedding) < 1):
            raise ValueError(f"head, beam and embeddings must be at least 1, got {self}")

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "encoder": None if self.encoder is None else self.encoder.to_json()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DhpcConfig:
        """What ``to_json`` wrote.

        Raises:
            ModelError: fields missing, unknown or out of range.
        """
        try:
            encoder = raw["encoder"]
            return cls(
                **{
                    **raw,
                    "encoder": None if encoder is None else EncoderConfig.from_json(encoder),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the release's config is not a dhpc's: {error!r}") from error


def department_rows(taxonomy: Taxonomy, leaves: LabelSpace) -> NDArray[np.int64]:
    """Row of each leaf's department in ``taxonomy.departments``, [C], int64."""
    row_of = {name: row for row, name in enumerate(taxonomy.departments)}
    return np.array([row_of[taxonomy.department_of(leaf)] for leaf in leaves.ids], dtype=np.int64)


class DhpcNet(nn.Module):
    """Bodies and heads by the name of their classifier.

    Attributes:
        names: of the classifiers: ``department``, then ``leaf-<row>`` of each department with
            more than one leaf.
        leaves_of: leaf rows of each department, in the order of its classifier's outputs.
        temperatures: [2], of department and leaf logits in serving. calibration: [2], of their
            product (``models.calibration``).

    Args:
        departments: [C], the department row of each leaf row.
        encoder: a trained one, copied for each classifier with a body of its own.
        dropout: inside the heads, in training.
    """

    temperatures: Tensor
    calibration: Tensor
    department_of: Tensor

    def __init__(
        self,
        config: DhpcConfig,
        departments: NDArray[np.int64],
        encoder: TextEncoder | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = config
        num_departments = int(departments.max()) + 1
        self.leaves_of: Sequence[NDArray[np.int64]] = [
            np.flatnonzero(departments == row) for row in range(num_departments)
        ]
        self.leaf_names: Mapping[int, str] = {
            row: f"leaf-{row}" for row, leaves in enumerate(self.leaves_of) if len(leaves) > 1
        }
        self.names = (DEPARTMENT, *self.leaf_names.values())
        sizes = {name: len(self.leaves_of[row]) for row, name in self.leaf_names.items()}
        sizes[DEPARTMENT] = num_departments
        of_bodies = self.names if config.bodies == "separate" else (_SHARED,)
        bodies: dict[str, nn.Module] = {}
        for place, name in enumerate(of_bodies):
            if encoder is not None:
                # The last one takes the encoder itself: a copy less in memory.
                is_last = place == len(of_bodies) - 1
                bodies[name] = encoder if is_last else copy.deepcopy(encoder)
            elif config.encoder is not None:
                bodies[name] = TextEncoder(config.encoder)
            else:
                bodies[name] = PooledViews(config.vocabulary, config.embedding)
        self.bodies = nn.ModuleDict(bodies)
        width = int(getattr(bodies[of_bodies[0]], "num_features"))  # noqa: B009 - either kind has it
        self.heads = nn.ModuleDict(
            {
                name: ClassifierHead(
                    width, sizes[name], config.head_layers, config.head_width, dropout
                )
                for name in self.names
            }
        )
        self.register_buffer("temperatures", torch.ones(2))
        self.register_buffer("calibration", torch.tensor(UNCALIBRATED))
        self.register_buffer("department_of", torch.from_numpy(departments), persistent=False)

    def body(self, name: str) -> nn.Module:
        """The body that a classifier reads."""
        return self.bodies[_SHARED if self.config.bodies == "shared" else name]

    def head(self, name: str) -> ClassifierHead:
        """A classifier's head."""
        return cast(ClassifierHead, self.heads[name])

    @property
    def beam(self) -> int:
        """Leaf classifiers of so many best departments are asked."""
        return self.config.beam


def body_features(
    body: nn.Module, batch: Prepared, device: torch.device, pad_id: int = 0
) -> Tensor:
    """Features [B, E], float32, of a batch; without segments where it has none."""
    tokens, segments = batch.arrays[INPUT_IDS], batch.arrays.get(SEGMENT_IDS)
    if isinstance(body, PooledViews):
        if segments is None:
            raise ModelError("a DNN reads segments, and the batch has none")
        flat = (tokens.values, segments.values, tokens.lengths)
        pooled: Tensor = body(
            *(torch.from_numpy(each.astype(np.int64)).to(device) for each in flat)
        )
        return pooled
    input_ids, mask = pad(tokens, pad_id)
    given = [input_ids, mask]
    if segments is not None:
        given.append(pad(segments, 0)[0])
    features: Tensor = body(*(each.to(device, non_blocking=True) for each in given))
    return features


class DhpcCategories:
    """The category model of a release. Its features are the scores of all leaves, [B, C]."""

    def __init__(
        self,
        net: DhpcNet,
        categories: LabelSpace,
        thresholds: NDArray[np.float32],
    ) -> None:
        self.net = net
        self.encoder: Encoder = self
        self.categories = categories
        self.thresholds = thresholds
        self._device = net.department_of.device

    @torch.inference_mode()
    def shared_features(self, batch: Prepared) -> Tensor:
        """Features [B, E] of the body that all classifiers share."""
        return self._features(DEPARTMENT, batch)

    @torch.inference_mode()
    def outputs(
        self,
        batch: Prepared,
        also: NDArray[np.int64] | None = None,
        shared: Tensor | None = None,
    ) -> CascadeOutputs:
        """Logits of a batch; see ``models.cascade.cascade_outputs``.

        Args:
            shared: the batch's ``shared_features`` where they are known.
        """
        if self.net.config.bodies == "shared":
            known = self.shared_features(batch) if shared is None else shared
            return cascade_outputs(
                self.net,
                lambda _, rows: known[torch.from_numpy(rows).to(self._device)],
                len(batch),
                also,
            )
        return cascade_outputs(
            self.net, lambda name, rows: self._features(name, batch.take(rows)), len(batch), also
        )

    def shared_reader(self) -> TextEncoder:
        """All layers' CLS states of the encoder that all classifiers share.

        Raises:
            ModelError: there is none: each has its own, or the DNN's embeddings.
        """
        config = self.net.config
        if config.bodies != "shared" or config.encoder is None:
            raise ModelError("the classifiers share no encoder")
        return cast(TextEncoder, self.net.body(DEPARTMENT)).all_states()

    @torch.inference_mode()
    def read(self, body: nn.Module, batch: Prepared) -> Tensor:
        """What a body, or a reader of one, says of a batch, [B, E]."""
        encoder = self.net.config.encoder
        if encoder is None:
            return body_features(body, batch, self._device)
        if not self.net.config.segments:
            batch = Prepared({INPUT_IDS: batch.arrays[INPUT_IDS]}, batch.costs)
        return body_features(body, batch, self._device, encoder.pad_id)

    def _features(self, name: str, batch: Prepared) -> Tensor:
        return self.read(self.net.body(name), batch)

    def encode(self, batch: Prepared) -> Tensor:
        """Scores of all leaves, [B, C], float32, before they are calibrated."""
        return self.outputs(batch).scores(self.net.temperatures)

    @torch.inference_mode()
    def score_categories(self, features: Tensor, top_k: int) -> CategoryScores:
        """As ``models.predictor.CategoryModel``."""
        rows = best_rows(features, top_k)
        scores = self.calibrated(features.gather(1, rows))
        return CategoryScores(rows.cpu().numpy(), scores.cpu().numpy())

    def calibrated(self, scores: Tensor) -> Tensor:
        """Scores as they are served, of ``encode``'s; ranked before."""
        return calibrated(scores, self.net.calibration.to(scores.device))


def predictor_of(
    net: DhpcNet,
    preparer: SegmentPreparer,
    *,
    categories: LabelSpace,
    thresholds: NDArray[np.float32],
    dtype: torch.dtype = torch.float32,
) -> Predictor:
    """A predictor of a network in evaluation mode, which it takes over.

    Args:
        dtype: of transformers; embeddings from scratch and heads stay in float32.
    """
    net.eval().requires_grad_(False)
    serve_in(net, dtype)
    return Predictor(preparer, DhpcCategories(net, categories, thresholds), None)


def load_dhpc(
    release: Release, device: torch.device, dtype: Literal["auto", "float32", "bfloat16"]
) -> Predictor:
    """A release's model on ``device``.

    Args:
        dtype: of the encoder; ``auto`` is bfloat16 where the device multiplies it in hardware.

    Raises:
        ModelError: its config, label space or weights are not a ``dhpc``'s.
    """
    config = DhpcConfig.from_json(release.config)
    categories, thresholds = release.categories, release.category_thresholds
    if categories is None or thresholds is None:
        raise ModelError(f"release {release.id}: a dhpc has categories, this one has none")
    net = release.filled(lambda: DhpcNet(config, department_rows(release.taxonomy, categories)))
    tokenizer = SegmentTokenizer(
        release.read(TOKENIZER_FILE), config.max_tokens, letters=config.letters
    )
    for body in net.bodies.values():
        if isinstance(body, TextEncoder | PooledViews):
            body.check_reads(tokenizer.vocabulary, tokenizer.max_tokens)
    return predictor_of(
        net.to(device),
        SegmentPreparer(tokenizer),
        categories=categories,
        thresholds=thresholds,
        dtype=fast_dtype(device) if dtype == "auto" else getattr(torch, dtype),
    )


def dhpc_categories(predictor: Predictor) -> DhpcCategories:
    """The predictor's category model, where it is a ``dhpc``'s.

    Raises:
        ModelError: it is another one's.
    """
    if not isinstance(predictor.category, DhpcCategories):
        raise ModelError("a cascade of departments and leaves was expected: a dhpc's release")
    return predictor.category
