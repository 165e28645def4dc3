from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.errors import ModelError
from models.product import Product
from models.tokens import TextTokenizer, text_parts
from tests.tiny_encoder import save_tiny_bert

CLS, SEP, UNK = 2, 3, 1


def product(title: str, description: str = "", bullets: tuple[str, ...] = ()) -> Product:
    return Product("p", None, "en", title, description, bullets, (), None)


@pytest.fixture(scope="module")
def serialised(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = save_tiny_bert(tmp_path_factory.mktemp("encoder"))
    return (directory / "tokenizer.json").read_bytes()


def rows(serialised: bytes, *products: Product, max_tokens: int = 32) -> list[list[int]]:
    found = TextTokenizer(serialised, max_tokens).encode(products)
    return [
        found.values[found.indptr[i] : found.indptr[i + 1]].tolist() for i in range(len(products))
    ]


def test_parts_in_the_order_title_bullets_description() -> None:
    assert text_parts(product("t", "d", ("b", "c"))) == ("t", "b c d")
    assert text_parts(product("", "d")) == ("d", "")


def test_title_and_rest_are_two_segments(serialised: bytes) -> None:
    only, both = rows(serialised, product("a"), product("a", "c", ("b",)))
    assert only[0] == CLS
    assert only[-1] == SEP
    assert only.count(SEP) == 1
    assert both.count(SEP) == 2
    assert both[:3] == only


def test_names_of_special_tokens_in_a_text_are_text(serialised: bytes) -> None:
    (found,) = rows(serialised, product("[SEP] [CLS] a [MASK]"))
    assert found.count(SEP) == 1
    assert found.count(CLS) == 1


def test_no_row_is_longer_than_allowed_and_the_end_is_kept(serialised: bytes) -> None:
    found = rows(
        serialised,
        product("abc " * 500, "xyz " * 5000),
        product("abc " * 500),
        product("a", "xyz " * 5000),
        max_tokens=16,
    )
    assert [len(row) for row in found] == [16, 16, 16]
    assert all(row[-1] == SEP for row in found)
    assert found[2][:3] == [CLS, found[2][1], SEP]


def test_of_two_long_parts_each_keeps_half_and_a_short_one_is_whole(serialised: bytes) -> None:
    long, lengths = "a b c d e f g h i j k l m n o p q r s t", []
    for parts in ((long, long), (long[:9], long), (long, long[:3])):
        (found,) = rows(serialised, product(*parts), max_tokens=16)
        assert len(found) == 16
        first = found.index(SEP)
        lengths.append((first - 1, len(found) - first - 2))
    assert sorted(lengths[0]) == [6, 7]
    assert lengths[1:] == [(5, 8), (11, 2)]


def test_no_products_no_rows(serialised: bytes) -> None:
    assert len(TextTokenizer(serialised, 16).encode([])) == 0


def test_a_file_that_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer(b"{}", 16)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {
            "model": {
                "type": "BPE",
                "continuing_subword_prefix": "##",
                "vocab": {"a": 0, "漢": 1, "a漢": 2},
                "merges": ["a 漢"],
            }
        },
    ],
)
def test_a_file_that_the_library_panics_over_is_refused(
    serialised: bytes, change: dict[str, object]
) -> None:
    """The second one ends the process where the library sees it."""
    hostile = json.dumps(json.loads(serialised) | change).encode()
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer(hostile, 16)


def test_a_panic_over_a_text_is_an_error(serialised: bytes) -> None:
    change = {"pre_tokenizer": {"type": "FixedLength", "length": 0}}
    hostile = json.dumps(json.loads(serialised) | change).encode()
    with pytest.raises(ModelError, match="panicked"):
        TextTokenizer(hostile, 16).encode([product("red")])


def test_a_template_that_leaves_no_room_is_refused(serialised: bytes) -> None:
    document = json.loads(serialised)
    sign = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    document["post_processor"]["pair"] += [sign] * 20
    with pytest.raises(ModelError, match="23 special tokens around two texts"):
        TextTokenizer(json.dumps(document).encode(), 16)


def test_ids_are_below_the_vocabulary_though_it_has_holes(serialised: bytes) -> None:
    document = json.loads(serialised)
    document["model"]["vocab"]["zzz"] = 5_000
    tokenizer = TextTokenizer(json.dumps(document).encode(), 16)
    assert tokenizer.vocabulary == 5_001
    assert 5_000 in tokenizer.encode([product("zzz")]).values


def test_too_few_tokens_are_refused(serialised: bytes) -> None:
    with pytest.raises(ValueError, match="at least 8"):
        TextTokenizer(serialised, 7)


def test_padding_and_length_set_in_the_file_are_overruled(
    serialised: bytes, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    other = Tokenizer.from_str(serialised.decode())
    other.enable_padding(length=50)
    other.enable_truncation(4)
    found = rows(other.to_str().encode(), product("abc"), product("abcdef"))
    assert [len(row) for row in found] == [5, 8]
