"""`make chaos` in small: a few hundred products while workers and brokers fail."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from demo.catalog.build import write_catalog
from models.noop import noop_release
from models.taxonomy import load_taxonomy
from tests.chaos.cells import Cell
from tests.chaos.feed import load_products
from tests.chaos.run import Bench, run_cell
from tests.chaos.verdict import Verdict
from worker.local.kafka_cluster import start_cluster

PRODUCTS = 400


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A cluster, a release and products."""
    directory = tmp_path_factory.mktemp("chaos")
    catalog = write_catalog(directory / "catalog")
    taxonomy = load_taxonomy(catalog / "taxonomy.json.gz")
    with start_cluster(os.environ, logs=directory) as cluster:
        yield Bench(
            cluster=cluster,
            release=noop_release(directory / "release", taxonomy).directory,
            products=load_products(catalog),
            logs=directory,
            settings={},
            seed=1,
            seconds=4.0,
            least_faults=1,
        )


@pytest.mark.parametrize(
    "cell",
    [
        Cell("kill9", "worker", True),
        Cell("sigstop", "worker", False),
        Cell("kill9", "broker", True),
    ],
    ids=lambda cell: cell.name,
)
def test_nothing_is_lost_twice_or_out_of_order(bench: Bench, cell: Cell) -> None:
    result = run_cell(bench, cell, PRODUCTS)
    assert result.verdict == Verdict(), "\n".join(result.details)
    assert result.faults >= bench.least_faults
    assert result.products == PRODUCTS
    assert not result.oddities
