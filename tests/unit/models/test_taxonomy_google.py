from pathlib import Path

import pytest

from models.errors import TaxonomyError
from models.taxonomies import import_taxonomy

ENGLISH = """# Google_Product_Taxonomy_Version: 2021-09-21
1 - Animals & Pet Supplies
3237 - Animals & Pet Supplies > Live Animals
166 - Apparel
8 - Apparel > Clothing > Dresses
7 - Apparel > Clothing
"""
JAPANESE = """# Google_Product_Taxonomy_Version: 2015-02-19\r
1 - ペット・ペット用品\r
3237 - ペット・ペット用品 > 生き物\r
99999 - 昔のもの\r
"""


def write(folder: Path, locale: str, text: str) -> Path:
    path = folder / f"taxonomy-with-ids.{locale}.txt"
    path.write_bytes(text.encode())
    return path


def test_locales_are_merged_by_id(tmp_path: Path) -> None:
    sources = [write(tmp_path, "en-US", ENGLISH), write(tmp_path, "ja-JP", JAPANESE)]
    taxonomy = import_taxonomy("google", sources)
    assert (taxonomy.name, taxonomy.version, taxonomy.locale) == ("google", "2021-09-21", "en-us")
    assert list(taxonomy.categories) == ["1", "3237", "166", "8", "7"]
    assert [c.id for c in taxonomy.path("8")] == ["166", "7", "8"]
    assert taxonomy.leaves == ("3237", "8")
    assert taxonomy.categories["3237"].name_in("ja") == "生き物"
    assert taxonomy.categories["8"].name_in("ja") == "Dresses"
    assert taxonomy.label_ids() == ()


def test_one_locale_alone(tmp_path: Path) -> None:
    taxonomy = import_taxonomy("google", [write(tmp_path, "ja-JP", JAPANESE)])
    assert taxonomy.locale == "ja-jp"
    assert taxonomy.categories["3237"].name == "生き物"


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "en-US",
        "1 - Animals\n"
        "2 - Animals > Cats\n"
        "no number here\n"
        "\n"
        "2 - Animals > Dogs\n"
        "3 - Animals > Cats\n"
        "4 - Plants > Trees > Oak\n"
        "5 -  > x\n"
        "6 - Animals > \x07\n",
    )
    with pytest.raises(TaxonomyError) as caught:
        import_taxonomy("google", [path])
    assert [problem.removeprefix(f"{path}:") for problem in caught.value.problems] == [
        "1: the first line must be '# Google_Product_Taxonomy_Version: ...'",
        "3: not '<id> - <path>': 'no number here'",
        "8: not '<id> - <path>': '5 -  > x'",
        " version is empty",
        "6: the path 'Animals > Cats' occurs twice, first in line 2",
        f"5: category '2' is defined twice, first at {path}:2",
        "7: category '4': no line has the path 'Plants > Trees'",
        "9: name of category '6' '\\x07' holds a control character or a lone surrogate",
    ]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"absent\.txt: cannot be read"):
        import_taxonomy("google", [tmp_path / "absent.txt"])
    latin = tmp_path / "taxonomy-with-ids.fr-FR.txt"
    latin.write_bytes("1 - Vêtements".encode("latin-1"))
    with pytest.raises(TaxonomyError, match="not UTF-8: invalid continuation byte at byte 5"):
        import_taxonomy("google", [latin])


def test_a_second_file_must_say_its_locale(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(JAPANESE, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=r"name it taxonomy-with-ids\.<locale>\.txt"):
        import_taxonomy("google", [write(tmp_path, "en-US", ENGLISH), other])
