"""What a recipe may say: typed settings, checked when they are made, each with its default.

Nothing here imports torch: recipes are listed and checked without waiting for it.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = [
    "CACHE",
    "FETCHED_RELEASES",
    "AveBertSettings",
    "By",
    "ChangeSettings",
    "Confidence",
    "DhpcSettings",
    "FlagshipSettings",
    "LoopSettings",
    "Precision",
    "Rates",
    "Recipe",
    "Strategy",
    "SystemSettings",
]

# `version: 2` in YAML is a number; a release's version is text.
SETTINGS = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
# Where nothing else is said: of all commands, so that none fetches or computes what another has.
CACHE = Path.home() / ".cache" / "sortiment"
FETCHED_RELEASES = CACHE / "releases"


def local_folder(value: Any) -> Any:
    """A folder may be called 2026, and is no address.

    Raises:
        ValueError: it is one; which is not repeated, it may hold a password.
    """
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            "must be a folder of this machine, not an address (`sortiment-train upload` copies a "
            "release to one)"
        )
    return str(value) if isinstance(value, int | float) else value


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Confidence = Annotated[float, Field(ge=0.5, lt=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
NgramLength = Annotated[int, Field(ge=1, le=8)]
Rate = Annotated[float, Field(gt=0)]
Folder = Annotated[Path, BeforeValidator(local_folder)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Gear = Literal["frozen", "finetune"]
By = Literal["department", "overall"]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class LoopSettings:
    """How long and in which steps to train.

    Attributes:
        epochs: passes over the training products.
        batch_size: products of one process in one forward pass.
        accumulate: such batches to one step of the optimiser, which so sees
            ``batch_size * accumulate * processes`` products.
        min_steps: epochs are added until there are so many steps: a small data set has few a pass.
        patience: epochs without a better quality on valid before the run stops with its best
            weights; None: all epochs are run and the last weights are kept.
        warmup: share of all steps over which the learning rates rise from 0.
        schedule: how they fall afterwards.
        clip_norm: of the gradient; None: it is not clipped.
        average_from: share of all steps from which on weights are averaged (SWA, Izmailov et al.
            2018); None: they are not.
        average_every: steps between two sets of weights that are averaged; the last ones of an
            epoch always are.
        precision: of the encoder's arithmetic where it is trained; ``auto`` is bf16 where the
            device multiplies it in hardware.
        checkpoint_gradients: compute the encoder's inner states again in the backward pass
            instead of keeping them.
        checkpoint_s: seconds between checkpoints; one is also written when interrupted.
    """

    epochs: Count
    batch_size: Count
    accumulate: Count = 1
    min_steps: Annotated[int, Field(ge=0)] = 0
    patience: Count | None = 3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: Rate | None = 1.0
    average_from: Share | None = None
    average_every: Count = 100
    precision: Precision = "auto"
    checkpoint_gradients: bool = False
    checkpoint_s: float = 120.0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Rates:
    """Peak learning rates of a flagship and their like.

    Attributes:
        heads: of heads and norms. bag: of the hashed bags. encoder: of the encoder's last layer,
            where it is trained.
        bag_optimizer: ``adam`` (of touched rows only) or ``adagrad`` (one state a row: less
            memory, and a row that comes often slows down).
        layer_decay: a layer's rate as a share of the next one's: lower layers know the language,
            which the products do not change.
        weight_decay: of the encoder's and the heads' matrices.
        attribute_weight: of the attribute loss beside the category loss.
    """

    heads: Rate = 1e-3
    bag: Rate = 1e-2
    bag_optimizer: Literal["adam", "adagrad"] = "adam"
    encoder: Rate = 5e-5
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    attribute_weight: Annotated[float, Field(ge=0)] = 0.5


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class FlagshipSettings:
    """The flagship: one encoder pass for department, leaf and attributes.

    Attributes:
        encoder: a directory or hub id; ``bundled``: the small one of the ``local`` extra;
            ``none``: the hashed bags read alone.
        gear: ``frozen`` trains mixer and heads on cached features, ``finetune`` all.
        layer_pooling: of every other layer's CLS state and the last one's.
        hash_buckets, bag_dim: of the bag of hashed words and n-grams.
        members: networks side by side, whose mean answers; each has ``bag_dim``.
        whole_members: so many of them read, of the bags, that of all fields alone
            (``whole_bag``).
        word_pairs: neighbouring words are hashed as one too.
        views: ``one`` bag for all fields; ``two``: the title's, and one of bullets and
            description; ``three``: title's, description's and bullets'.
        whole_bag: all fields have one more bag together, beside those of ``views``.
        title_ngrams, rest_ngrams: lengths of the character n-grams of each; ``title_ngrams`` are
            all fields' where there is one bag.
        min_count: buckets that fewer training products have get no row, and rows are weighted by
            inverse document frequency; 0: every bucket has a row, all weigh the same.
        texts_once: products whose texts are the same share a step and one pass, and count once
            for ``min_count`` and the weights; ``batch_size`` then counts texts.
        ngram_dropout: share of a product's ids left out in training.
        hidden: a hidden layer before the heads.
        category_dim: width of the category's embedding that the attribute head is told; 0: none.
        leaf_prior: t of ``t * log(share of the leaf)``, added to the leaf logits in training, so
            that rare leaves are not held back.
        masking: the attribute loss counts a product's relevant labels only; False: all labels.
        label_thresholds: ``pooled``, but for labels with enough products on valid, which have
            their own; or by ``bands`` of labels that were trained alike often.
        rivals: labels' scores are calibrated on valid, and know the other values of an attribute
            of which no training product has two.
        target_accuracy: of what is assigned rather than sent to review, on valid.
        target_confidence: that a threshold reaches that target, valid being a sample; 0.5: it
            falls short as often as not, and more is assigned.
        abstention: whether each department keeps that target by a threshold of its own, or all
            products together by one, as in dhpc-amazon.
        served_tables: what the bags' tables are in the release; training is in float32.
    """

    kind: Literal["flagship"]
    encoder: str = "bundled"
    gear: Gear = "frozen"
    max_tokens: Annotated[int, Field(ge=8)] = 96
    layer_pooling: Literal["concat", "mean"] = "concat"
    hash_buckets: Annotated[int, Field(ge=1, le=2**31)] = 2**18
    bag_dim: Count = 128
    members: Count = 1
    whole_members: Annotated[int, Field(ge=0)] = 0
    word_pairs: bool = False
    views: Literal["one", "two", "three"] = "one"
    whole_bag: bool = False
    title_ngrams: tuple[NgramLength, ...] = (2, 3, 4)
    rest_ngrams: tuple[NgramLength, ...] = ()
    min_count: Annotated[int, Field(ge=0)] = 0
    texts_once: bool = False
    ngram_dropout: Dropout = 0.0
    hidden: bool = False
    category_dim: Annotated[int, Field(ge=0)] = 0
    leaf_prior: Annotated[float, Field(ge=0)] = 0.0
    masking: bool = True
    label_thresholds: Literal["pooled", "bands"] = "pooled"
    rivals: bool = False
    dropout: Dropout = 0.2
    rates: Rates = field(default_factory=Rates)
    target_accuracy: Share = 0.9
    target_confidence: Confidence = 0.9
    abstention: By = "department"
    served_tables: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.views == "one" and self.whole_bag:
            further = " and whole_members=0" if self.whole_members else ""
            raise ValueError(
                f"views=one has a bag of all fields already: set whole_bag=false{further}"
            )
        if self.whole_members and not self.whole_bag:
            raise ValueError(
                f"whole_members={self.whole_members} read a bag that whole_bag=false leaves out: "
                "set whole_members=0"
            )
        if self.whole_members >= self.members:
            raise ValueError(
                f"whole_members={self.whole_members} of members={self.members} leave nobody to "
                f"read the other bags: set whole_members to at most {self.members - 1}"
            )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AveBertSettings:
    """BERT with label masking (ave-label-masking), and the rows beside it.

    Attributes:
        encoder, gear: as the flagship's.
        max_tokens: of title and description together.
        cls_layers: l of the paper: so many last CLS states are concatenated.
        dropout: of the concatenated states; the encoder keeps its own.
        masking: the loss counts a product's relevant labels only; False: all labels.
        classifiers: one for all products, or one for each leaf or top category (department),
            with batches of one category each.
        learning_rate, weight_decay: of all that is trained; several classifiers have no decay,
            since it would move those that a batch is not of.
        thresholds: 0.5 for every label as in the paper, or per label, tuned on valid.
    """

    kind: Literal["ave_bert"]
    encoder: str
    gear: Gear = "finetune"
    max_tokens: Annotated[int, Field(ge=8)] = 512
    cls_layers: Count = 5
    dropout: Dropout = 0.1
    masking: bool = True
    classifiers: Literal["one", "leaf", "top"] = "one"
    learning_rate: Rate = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    thresholds: Literal["half", "tuned"] = "half"

    def __post_init__(self) -> None:
        if self.classifiers != "one" and self.weight_decay:
            raise ValueError(f"classifiers={self.classifiers} has no weight_decay: set it to 0")


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Strategy:
    """How a classifier of dhpc-amazon is kept from learning noise (its section D).

    Attributes:
        bootstrap: beta of equation 6; 1: plain cross-entropy. bootstrap_from: T_gate of equation
            7, in steps of the classifier.
        negatives: sigma of equation 8, the share of a product's negatives that is drawn for each
            step; 0: all of them count.
        temperature: epsilon of equation 10, in training; where the fit of the served one begins.
        smoothing: epsilon of equation 9, with u = 1/N.
        per_leaf: training products of each leaf, drawn once; None: all as they are.
        replace: a leaf with fewer gives some of them more than once.
    """

    bootstrap: Share = 1.0
    bootstrap_from: Annotated[int, Field(ge=0)] = 0
    negatives: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Rate = 1.0
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    per_leaf: Count | None = None
    replace: bool = False


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class DhpcSettings:
    """A department classifier and a leaf classifier for each department (dhpc-amazon).

    Attributes:
        encoder: a directory or hub id, or ``bundled``. With ``body: pooled`` its tokenizer alone
            is used.
        body: the encoder, or the DNN's embeddings from scratch, pooled by text.
        embedding: width of these.
        gear: ``frozen`` trains heads on cached features of one shared encoder.
        bodies: one for each classifier, as in the paper, or one for all.
        first_layers: keep the first layers of the encoder only and pool all their CLS states
            (PruneBERT, E.2.2); None: every other layer's and the last one's (knowledge skip).
        skip: with False the last layer's CLS state alone is read.
        pooling: of CLS states. segments: tell the encoder which text a token comes from.
        letters: leave digits and signs out, as the paper does.
        head_layers, head_width: linear layers of a head, and the width between them.
        beam: leaf classifiers of so many best departments are asked.
        department, leaf: against noise, for each kind of classifier.
        learning_rate: of encoders. head_rate: of heads. embedding_rate: of the DNN's embeddings.
        target_accuracy, target_confidence: as the flagship's.
        abstention: as the flagship's; here all products together keep the target, as in the paper.
    """

    kind: Literal["dhpc"]
    encoder: str
    body: Literal["encoder", "pooled"] = "encoder"
    embedding: Count = 128
    gear: Gear = "finetune"
    bodies: Literal["separate", "shared"] = "separate"
    first_layers: Count | None = None
    skip: bool = True
    pooling: Literal["concat", "mean", "max"] = "concat"
    max_tokens: Annotated[int, Field(ge=8)] = 256
    segments: bool = True
    letters: bool = True
    head_layers: Count = 2
    head_width: Count = 512
    dropout: Dropout = 0.1
    beam: Count = 1
    department: Strategy = field(default_factory=Strategy)
    leaf: Strategy = field(default_factory=Strategy)
    learning_rate: Rate = 5e-5
    head_rate: Rate = 1e-3
    embedding_rate: Rate = 1e-2
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    target_accuracy: Share = 0.9
    target_confidence: Confidence = 0.9
    abstention: By = "overall"

    def __post_init__(self) -> None:
        if self.gear == "frozen" and (self.bodies != "shared" or self.body != "encoder"):
            raise ValueError(
                "gear=frozen is for one shared encoder: set bodies=shared and body=encoder"
            )


SystemSettings = Annotated[
    FlagshipSettings | AveBertSettings | DhpcSettings, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class ChangeSettings:
    """What is done to the products of a data set before a system sees them, by the seed.

    Attributes:
        wrong_labels: share of training products whose category becomes another leaf.
        dropped_texts: share of products, in every split, that lose description and bullets.
        label_names: share of training products of which a copy is added whose title is shuffled
            and holds the name of its leaf, without description and bullets (dhpc-amazon, D.4).
    """

    wrong_labels: Share = 0.0
    dropped_texts: Share = 0.0
    label_names: Share = 0.0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Recipe:
    """Everything that decides a run.

    Attributes:
        about: a line for ``sortiment-train recipes``.
        data: folder of a data set. out: folder of the release, not there yet.
        name, version: of the release.
        changes: noise and additions, to be measured by.
        limit: training products at most, chosen at random by ``limit_seed``, whatever ``seed`` is;
            valid is limited in proportion.
        cache: prepared products, encoder's features and interrupted runs.
        resume: go on from an interrupted run of the same settings and data.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...; several processes choose their own.
        tensorboard: folder for TensorBoard's files; None: none are written.
        progress: bars on standard error; None: where that is a terminal.
    """

    about: str
    system: SystemSettings
    train: LoopSettings
    data: Folder
    out: Folder
    name: str
    version: str = "1"
    changes: ChangeSettings = field(default_factory=ChangeSettings)
    limit: Count | None = None
    limit_seed: Annotated[int, Field(ge=0)] = 1
    seed: Annotated[int, Field(ge=0)] = 1
    cache: Folder = CACHE
    resume: bool = True
    device: str = "auto"
    tensorboard: Folder | None = None
    progress: bool | None = None
