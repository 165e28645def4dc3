from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoders import EncoderConfig, TextEncoder, load_pretrained
from models.errors import ModelError
from models.product import Product
from models.segments import SegmentPreparer, SegmentTokenizer, grow_segments, letters_only
from tests.tiny_encoder import save_tiny_bert

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def serialised(encoder: Path) -> bytes:
    return (encoder / "tokenizer.json").read_bytes()


def product(title: str, description: str = "", *bullets: str) -> Product:
    return Product("1", None, "", title, description, bullets, (), None)


def test_each_text_has_its_segment(serialised: bytes) -> None:
    tokens, segments = SegmentTokenizer(serialised, 32).encode(
        [product("ab", "c", "d", "e"), product("a", "", "b"), product("", "a"), product("[SEP]")]
    )
    rows = [
        (tokens.take(np.array([row])).values.tolist(), segments.take(np.array([row])).values)
        for row in range(4)
    ]
    assert rows[0][0].count(SEP) == 3
    assert rows[0][1].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert rows[1][1].tolist() == [0, 0, 0, 2, 2]
    assert rows[2][0][:2] == [CLS, SEP]
    assert rows[2][1].tolist() == [0, 0, 1, 1]
    assert rows[3][0].count(SEP) == 1


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.tuples(*[st.integers(0, 60)] * 3),
    most=st.integers(8, 40),
)
def test_the_title_is_kept_and_the_length_is_used(
    serialised: bytes, lengths: tuple[int, int, int], most: int
) -> None:
    title, description, bullets = (" ".join("a" * count) for count in lengths)
    tokens, segments = SegmentTokenizer(serialised, most).encode(
        [product(title, description, bullets)]
    )
    assert len(tokens.values) == len(segments.values) <= most
    wanted = 2 + lengths[0] + sum(count + 1 for count in lengths[1:] if count)
    # What is left may be too short for a token and its [SEP].
    assert len(tokens.values) >= min(wanted, most) - 2
    assert np.sum(segments.values == 0) == min(lengths[0] + 2, most)
    assert (np.diff(segments.values) >= 0).all()


def test_only_letters_are_read(serialised: bytes) -> None:
    assert letters_only("iPhone-13_Pro (256 GB)") == "iPhone Pro GB"
    assert letters_only("革の手袋 12cm、黒") == "革の手袋 cm 黒"
    assert letters_only("हिन्दी 5") == "हिन्दी"
    assert letters_only("12 -") == ""
    plain = SegmentTokenizer(serialised, 32)
    letters = SegmentTokenizer(serialised, 32, letters=True)
    np.testing.assert_array_equal(
        letters.encode([product("a1b", "2")])[0].values, plain.encode([product("a b")])[0].values
    )


def test_a_tokenizer_of_another_kind_is_refused(serialised: bytes) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        SegmentTokenizer(b"{}", 32)
    with pytest.raises(ValueError, match="at least 8"):
        SegmentTokenizer(serialised, 7)
    bare = json.dumps({**json.loads(serialised), "post_processor": None}).encode()
    with pytest.raises(ModelError, match="0 special tokens"):
        SegmentTokenizer(bare, 32)


def test_the_type_table_is_grown(encoder: Path, serialised: bytes) -> None:
    pretrained = load_pretrained(str(encoder), pooling="concat").encoder
    tokens = torch.tensor([[CLS, 7, SEP, 8, SEP]])
    mask = torch.ones_like(tokens)
    segments = torch.tensor([[0, 0, 0, 1, 1]])
    with torch.inference_mode():
        before = pretrained.eval()(tokens, mask, segments)
        grown = grow_segments(pretrained).eval()
        assert torch.equal(grown(tokens, mask, segments), before)
        # A third text begins as a second one, and not as a first.
        assert torch.equal(grown(tokens, mask, 2 * segments), before)
        assert not torch.equal(grown(tokens, mask, 0 * segments), before)
        assert torch.equal(grown(tokens, mask), grown(tokens, mask, 0 * segments))
    assert grown.config.transformer["type_vocab_size"] == 3
    again = TextEncoder(EncoderConfig.from_json(grown.config.to_json()))
    again.load_state_dict(grown.state_dict())
    assert grow_segments(again) is again
    prepared = SegmentPreparer(SegmentTokenizer(serialised, 16)).prepare([])
    assert len(prepared) == 0
