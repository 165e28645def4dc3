"""The choice of a way to the logits."""

from __future__ import annotations

import pytest
import torch

from kernels._logits_triton import dot_options
from kernels._variants import VARIANTS, Problem, choose, every_tiles, tiles


def problem(**changed: int) -> Problem:
    given = {
        "num_products": 256,
        "num_features": 768,
        "num_labels": 500_000,
        "num_entries": 256 * 489,
        "num_categories": 256,
        "element_bytes": 2,
    }
    return Problem(**(given | changed))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "gather"),
        ({"num_products": 1, "num_entries": 489, "num_categories": 1}, "gather"),
        ({"num_products": 4_096, "num_entries": 4_096 * 489, "num_categories": 1}, "grouped"),
        ({"num_categories": 200, "num_labels": 7_979}, "dense"),
    ],
)
def test_the_choice_follows_the_shape(changed: dict[str, int], expected: str) -> None:
    assert choose(problem(**changed)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("element_bytes", [2, 4])
def test_tiles_are_those_that_are_compiled_in_tests(variant: str, element_bytes: int) -> None:
    for num_products in (1, 16, 33, 4_096):
        for num_categories in (1, num_products):
            chosen = problem(
                num_products=num_products,
                num_categories=num_categories,
                num_entries=489 * num_products,
                element_bytes=element_bytes,
            )
            assert tiles(variant, chosen) in every_tiles(variant, element_bytes)  # type: ignore[arg-type]


def test_an_empty_problem_has_a_choice() -> None:
    empty = problem(num_products=0, num_entries=0, num_categories=0, num_labels=0)
    assert choose(empty) in VARIANTS


def test_no_grid_is_larger_than_a_gpu_takes() -> None:
    for num_products, is_dense in ((2_000_000, True), (2_200_000, False)):
        many = problem(
            num_products=num_products,
            num_features=8,
            num_labels=4,
            num_entries=4 * num_products,
            num_categories=4,
            element_bytes=4,
        )
        assert (choose(many) == "dense") is is_dense


@pytest.mark.parametrize(("switch", "precision"), [("tf32", "tf32"), ("ieee", "tf32x3")])
def test_float32_is_multiplied_as_torch_is_told(switch: str, precision: str) -> None:
    """By torch's new switch, after which its old one cannot be read."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = switch
        assert dot_options(torch.float32)["PRECISION"] == precision
    finally:
        matmul.fp32_precision = before
