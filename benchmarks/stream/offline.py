"""The model by itself: products in memory, the worker's windows and planner, preparing included.

``python -m benchmarks.stream.offline --release DIR --events FILE`` prints products and seconds.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import numpy as np
import orjson

from models.loading import load_predictor
from models.predict import CompiledMasks, leaf_rows, predict
from models.product import Product
from models.release import read_release
from worker.batching import plan_batches
from worker.components import batching_config, inference_config
from worker.events import parse_event
from worker.settings_loading import load_settings

__all__ = ["measure"]

_WARM_UP = 64


def measure(release_directory: Path, products: list[Product]) -> float:
    """Seconds to predict the products, with the worker's default settings.

    Raises:
        ReleaseError, ModelError: the release cannot be run.
    """
    settings = load_settings(env_file=None)
    config, batching = inference_config(settings), batching_config(settings)
    device = config.torch_device()
    release = read_release(release_directory)
    predictor = load_predictor(release, device, config.dtype)
    masks = CompiledMasks(release.taxonomy, release.labels, device) if release.labels else None
    rows = (
        leaf_rows(release.taxonomy, predictor.category.categories)
        if predictor.category is not None
        else np.empty(0, dtype=np.int64)
    )

    def run(window: list[Product]) -> None:
        prepared = predictor.preparer.prepare(window)
        for chosen in plan_batches(prepared.costs, batching):
            predict(predictor, prepared.take(chosen), masks, rows, top_k=config.top_k)

    run(products[:_WARM_UP])
    started_s = time.perf_counter()
    remaining = iter(products)
    while window := list(islice(remaining, settings.max_poll_records)):
        run(window)
    return time.perf_counter() - started_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    arguments = parser.parse_args()
    with arguments.events.open("rb") as file:
        products = [parse_event(line) for line in file]
    seconds = measure(arguments.release, products)
    print(orjson.dumps({"products": len(products), "seconds": seconds}).decode())


if __name__ == "__main__":
    main()
