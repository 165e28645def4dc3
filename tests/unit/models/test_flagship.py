from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.device_masks import DeviceMasks
from models.encoders import load_pretrained
from models.errors import ModelError
from models.flagship import FlagshipConfig, FlagshipNet, predictor_of
from models.flagship_preparer import BULLETS_IDS, WHOLE_IDS, FlagshipPreparer
from models.hashing import HashingConfig
from models.labels import LabelSpace
from models.loading import load_predictor
from models.predictor import Predictor
from models.product import Product
from models.release import read_release
from models.release_writing import write_release
from models.self_check import make_examples, run_self_check
from models.taxonomy import Taxonomy, compile_masks
from models.tokens import TOKENIZER_FILE, TextTokenizer
from tests.releases import reseal
from tests.tiny_encoder import save_tiny_bert
from tests.tiny_flagship import tiny_flagship

CPU = torch.device("cpu")
TAXONOMY = Taxonomy.from_json(
    json.dumps(
        {
            "name": "shop",
            "version": "1",
            "categories": [
                {"id": "home", "name": "Home", "parent": None},
                {"id": "home/lamp", "name": "Lamp", "parent": "home"},
                {"id": "wear", "name": "Wear", "parent": None},
                {"id": "wear/dress", "name": "Dress", "parent": "wear"},
                {"id": "wear/shoe", "name": "Shoe", "parent": "wear"},
            ],
            "attributes": [
                {"name": "Color", "values": ["red", "blue"]},
                {"name": "Power", "values": ["5 W"]},
            ],
            "relevant": {
                "home/lamp": {"Color": ["red"], "Power": ["5 W"]},
                "wear/dress": {"Color": ["red", "blue"]},
                "wear/shoe": {"Color": ["blue"]},
            },
        }
    ).encode()
)
# What a config held before there were second bags, vocabularies, hidden layers and told categories.
FIRST_LAYOUT = ("encoder", "hashing", "max_tokens", "bag_dim")
FIRST_HASHING = ("buckets", "ngrams", "words", "max_chars", "max_ids", "seed")
FIRST_WEIGHTS = {
    *(f"attribute.{name}" for name in ("weight", "bias")),
    *(f"category.{name}.{part}" for name in ("department", "leaf") for part in ("weight", "bias")),
    "category.temperatures",
    *(f"mixer.{name}.{part}" for name in ("norm", "bag_norm") for part in ("weight", "bias")),
    "mixer.bag.weight",
}
PRODUCTS = [
    Product("1", None, "en", "Red dress", "long and soft", ("cotton",), (), None),
    Product("2", None, "ja", "革の手袋", "", (), (), None),
    Product("3", None, "", "", "lamp " * 40, (), (), None),
]


class Made:
    """A flagship with random weights over the small taxonomy."""

    def __init__(self, directory: Path, members: int) -> None:
        pretrained = load_pretrained(str(save_tiny_bert(directory)), pooling="concat")
        self.config = FlagshipConfig(
            encoder=pretrained.encoder.config,
            hashing=HashingConfig(buckets=101),
            max_tokens=16,
            bag_dim=5,
            members=members,
        )
        self.categories = LabelSpace(TAXONOMY.leaves)
        self.labels = LabelSpace(TAXONOMY.label_ids())
        torch.manual_seed(0)
        self.net = FlagshipNet(
            self.config, departments=[0, 1, 1], num_labels=3, encoder=pretrained.encoder
        )
        self.preparer = FlagshipPreparer(
            TextTokenizer(pretrained.tokenizer, 16), self.config.hashings
        )
        self.category_thresholds = np.array([0.5, 0.6, 0.7], dtype=np.float32)
        self.label_thresholds = np.zeros(3, dtype=np.float32)
        self.predictor = predictor_of(
            self.net,
            self.preparer,
            categories=self.categories,
            labels=self.labels,
            category_thresholds=self.category_thresholds,
            label_thresholds=self.label_thresholds,
        )

    def write(self, directory: Path) -> Path:
        write_release(
            directory,
            name="tiny",
            version="1",
            architecture="flagship",
            config=self.config.to_json(),
            taxonomy=TAXONOMY,
            categories=self.categories,
            labels=self.labels,
            category_thresholds=self.category_thresholds,
            label_thresholds=self.label_thresholds,
            weights=self.net.state_dict(),
            files={TOKENIZER_FILE: self.preparer.tokenizer.serialised},
            examples=make_examples(self.predictor, PRODUCTS, TAXONOMY),
            metrics={},
        )
        return directory


@pytest.fixture(scope="module", params=[1, 3])
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Made:
    return Made(tmp_path_factory.mktemp("flagship"), request.param)


def features(predictor: Predictor, products: list[Product]) -> torch.Tensor:
    assert predictor.category is not None
    return predictor.category.encoder.encode(predictor.preparer.prepare(products))


def test_a_product_does_not_depend_on_its_batch(made: Made) -> None:
    together = features(made.predictor, PRODUCTS)
    for row, product in enumerate(PRODUCTS):
        torch.testing.assert_close(
            together[row], features(made.predictor, [product])[0], atol=1e-5, rtol=1e-4
        )
    assert together.dtype == torch.float32


def test_both_models_share_one_encoder(made: Made) -> None:
    category, attribute = made.predictor.category, made.predictor.attribute
    assert category is not None
    assert attribute is not None
    assert category.encoder is attribute.encoder


def test_scores_of_leaves_and_of_relevant_labels(made: Made) -> None:
    category, attribute = made.predictor.category, made.predictor.attribute
    assert category is not None
    assert attribute is not None
    encoded = features(made.predictor, PRODUCTS)
    found = category.score_categories(encoded, 5)
    assert found.rows.shape == (3, 3)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-5)
    masks = DeviceMasks.from_masks(compile_masks(TAXONOMY, made.categories.ids, made.labels), CPU)
    labels = attribute.score_labels(encoded, masks, np.array([0, -1, 2]), np.array([0, -1, 2]))
    assert labels.indptr.tolist() == [0, 2, 2, 3]
    assert [made.labels.ids[row] for row in sorted(labels.rows[:2])] == [
        "Color=red",
        "Power=5 W",
    ]


def test_a_release_answers_as_the_network_did(made: Made, tmp_path: Path) -> None:
    release = read_release(made.write(tmp_path / "release"))
    predictor = load_predictor(release, CPU, "float32")
    run_self_check(release, predictor)
    torch.testing.assert_close(
        features(predictor, PRODUCTS), features(made.predictor, PRODUCTS), atol=0, rtol=0
    )


def test_bfloat16_stays_within_the_self_check(made: Made, tmp_path: Path) -> None:
    release = read_release(made.write(tmp_path / "release"))
    predictor = load_predictor(release, CPU, "bfloat16")
    assert features(predictor, PRODUCTS).dtype == torch.float32
    run_self_check(release, predictor)


def test_a_config_of_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="not a flagship's"):
        FlagshipConfig.from_json({"encoder": {}})


def test_settings_survive_json(made: Made) -> None:
    raw = json.loads(json.dumps(made.config.to_json()))
    assert FlagshipConfig.from_json(raw).to_json() == made.config.to_json()


def test_a_release_of_the_first_layout_answers_as_it_did(tmp_path: Path) -> None:
    release = tiny_flagship(tmp_path, TAXONOMY)
    config = {key: release.config[key] for key in FIRST_LAYOUT}
    config["hashing"] = {key: config["hashing"][key] for key in FIRST_HASHING}
    reseal(release.directory, config=config)
    old = read_release(release.directory)
    names = {name for name in old.weights() if not name.startswith("encoder.")}
    assert names == FIRST_WEIGHTS
    predictor = load_predictor(old, CPU, "float32")
    run_self_check(old, predictor)
    now = load_predictor(release, CPU, "float32")
    assert make_examples(predictor, PRODUCTS, TAXONOMY) == make_examples(now, PRODUCTS, TAXONOMY)


@pytest.mark.parametrize(
    "changed",
    [{"towers": 2}, {"hidden": True}, {"category_dim": 4}, {"bag_rows": 9}, {"members": 2}],
)
def test_a_release_of_another_layout_says_what_to_do(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    release = tiny_flagship(tmp_path, TAXONOMY)
    reseal(release.directory, config={**release.config, **changed})
    with pytest.raises(ModelError, match=r"(?s)tiny/1 cannot be loaded.*make the release anew"):
        load_predictor(read_release(release.directory), CPU, "float32")


def test_each_bag_has_features_of_its_own() -> None:
    hashing = HashingConfig(buckets=101, mark_title=False)
    config = FlagshipConfig(
        encoder=None,
        hashing=hashing,
        rest_hashing=hashing,
        bullets_hashing=hashing,
        whole_hashing=HashingConfig(buckets=103),
        bag_dim=5,
    )
    assert FlagshipConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    net = FlagshipNet(config, departments=[0, 1], num_labels=0).eval()
    assert len(net.mixer.bags) == 4
    assert net.mixer.num_features == 20
    prepared = FlagshipPreparer(None, config.hashings).prepare(PRODUCTS)
    before = net.mixer(None, *net.bag_inputs(prepared.arrays, CPU))
    for place, name in ((2, BULLETS_IDS), (3, WHOLE_IDS)):
        bare = {**prepared.arrays, name: prepared.arrays[name].take(np.array([1, 1, 2]))}
        without = net.mixer(None, *net.bag_inputs(bare, CPU))
        changed = (before != without).any(dim=0)[0]
        assert changed.nonzero()[:, 0].tolist() == list(range(5 * place, 5 * place + 5))


@pytest.mark.parametrize("more", ["bullets_hashing", "whole_hashing"])
def test_no_further_bag_without_the_rest(more: str) -> None:
    hashing = HashingConfig(buckets=101)
    with pytest.raises(ValueError, match="only where the rest has one"):
        FlagshipConfig(encoder=None, hashing=hashing, **{more: hashing})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("whole_members", "whole_hashing", "said"),
    [
        (2, HashingConfig(), "fewer than members, got 2 of 2"),
        (-1, None, "-1"),
        (1, None, "need whole_hashing"),
    ],
)
def test_members_that_read_all_fields_alone_need_a_bag_and_others(
    whole_members: int, whole_hashing: HashingConfig | None, said: str
) -> None:
    hashing = HashingConfig()
    with pytest.raises(ValueError, match=said):
        FlagshipConfig(
            encoder=None,
            rest_hashing=hashing,
            whole_hashing=whole_hashing,
            members=2,
            whole_members=whole_members,
        )


def test_a_config_of_before_rivals_and_a_bag_of_all_fields() -> None:
    config = FlagshipConfig(encoder=None, hashing=HashingConfig(buckets=101))
    raw = {
        key: value
        for key, value in config.to_json().items()
        if key not in ("exclusive", "whole_hashing", "whole_members", "whole_rows")
    }
    assert FlagshipConfig.from_json(raw) == config
    assert FlagshipNet(config, departments=[0], num_labels=3).rivals is None
    with pytest.raises(ModelError, match="not a flagship's"):
        FlagshipConfig.from_json({**raw, "hashing": None})
    del raw["hashing"]
    with pytest.raises(ModelError, match="hashing"):
        FlagshipConfig.from_json(raw)


def test_labels_that_have_rivals_have_attributes() -> None:
    config = FlagshipConfig(encoder=None, hashing=HashingConfig(buckets=101), exclusive=())
    with pytest.raises(ValueError, match="3 labels have 0 attributes"):
        FlagshipNet(config, departments=[0], num_labels=3)
