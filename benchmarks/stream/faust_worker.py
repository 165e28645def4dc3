"""What the two plain Faust workers share: the app, and the worker's own work on a product.

Only the streaming differs from the project's worker: decoding, validation, preparing, prediction
and encoding are its own functions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import faust
from faust.types import Message

from worker.components import inference_config
from worker.errors import EventError
from worker.events import parse_event
from worker.lanes import Result
from worker.masks import MaskCacheConfig
from worker.metrics import Metrics
from worker.serving import Serving, ServingLoader
from worker.settings_loading import load_settings

__all__ = ["Arguments", "categorize", "load_serving", "make_app", "run"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a run is told."""

    bootstrap_servers: str
    group: str
    input: str
    categories: str
    attributes: str
    release: str
    datadir: str

    @classmethod
    def parse(cls) -> Arguments:
        """From the command line."""
        parser = argparse.ArgumentParser()
        for name in cls.__slots__:
            parser.add_argument(f"--{name.replace('_', '-')}", required=True)
        return cls(**vars(parser.parse_args()))


def make_app(arguments: Arguments) -> faust.App:
    """A Faust app at its best: no tables, no web server, raw bytes, commits as the worker does."""
    return faust.App(
        arguments.group,
        broker=f"kafka://{arguments.bootstrap_servers}",
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,  # the worker's default, commit_interval_ms
        producer_compression_type="snappy",  # the worker's default
        producer_linger=0.005,
        datadir=arguments.datadir,
    )


def load_serving(release: str) -> Serving:
    """The release as the worker would serve it, masks in memory."""
    config = inference_config(load_settings(env_file=None))
    loader = ServingLoader(config, MaskCacheConfig(redis_url=None), Metrics())
    return loader.load(release)


def categorize(serving: Serving, messages: Sequence[Message]) -> list[Result]:
    """Both outputs of the messages that hold products."""
    records, products = [], []
    for message in messages:
        try:
            products.append(parse_event(message.value))
        except EventError:
            continue  # the input holds none; the worker would write a dead letter
        records.append(message)
    if not products:
        return []
    batch = serving.prepare(products)
    # A Faust message has the fields of aiokafka's record that the assembler reads.
    return serving.run(records, products, batch).assemble()


def run(app: faust.App) -> None:
    """Until SIGTERM."""
    sys.argv[1:] = []
    worker = faust.Worker(app, loglevel="warning", redirect_stdouts=False)
    worker.execute_from_commandline()
