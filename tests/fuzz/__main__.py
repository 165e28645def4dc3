"""`make fuzz`: mutated events through a real worker on a real broker.

Every event must come out as a result (both outputs) or as a dead letter with its bytes unchanged,
exactly once as nothing fails here; the worker must be the same process from the first event to the
last and stop in order. Exit status 1 where one of these does not hold.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from random import Random

import click
import orjson
from aiokafka import AIOKafkaProducer

from demo.catalog.build import write_catalog
from models.noop import noop_release
from models.taxonomy import load_taxonomy
from tests.fuzz.mutations import mutate, mutate_key
from tests.fuzz.verdict import Outputs, Place
from worker.local.kafka import start_kafka
from worker.local.redis import start_redis
from worker.local.worker_process import WorkerProcess
from worker.product_lines import read_events
from worker.topics_config import TopicsConfig

# More than the noise that any one machine makes; a worker that hangs this long has stopped.
_NO_PROGRESS_S = 60.0
_SENT_AT_ONCE = 5_000


@click.command()
@click.option("--events", default=100_000, show_default=True, help="Events to send.")
@click.option("--seed", default=1, show_default=True, help="Of the mutations.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data set whose test products are mutated; the sample catalog where not given.",
)
def main(events: int, seed: int, data: Path | None) -> None:
    """Send mutated EVENTS through the worker with the no-op model and account for every one."""
    with tempfile.TemporaryDirectory(prefix="sortiment-fuzz-") as scratch:
        directory = Path(scratch)
        if data is None:
            data = write_catalog(directory / "catalog")
        noop_release(directory / "release", load_taxonomy(data / "taxonomy.json.gz"))
        with (
            start_kafka(os.environ, say=print) as kafka,
            start_redis(os.environ) as redis,
            WorkerProcess(
                {
                    "bootstrap_servers": kafka.bootstrap_servers,
                    "redis_url": redis.url,
                    "release": directory / "release",
                },
                directory=directory,
                environ=os.environ,
            ) as worker,
        ):
            worker.wait_ready()
            print(f"{kafka.description}; {events:,} events, seed {seed}, from {data}")
            problems = asyncio.run(_fuzz(kafka.bootstrap_servers, worker, data, events, seed))
            exit_code = worker.stop()
            if exit_code != 0:
                problems.append(f"the worker ended with status {exit_code}")
            if problems:
                print(worker.child.log_tail(40))
    for problem in problems:
        print(f"FAILED: {problem}")
    if problems:
        sys.exit(1)
    print("every event came out, none was lost, the worker never restarted")


async def _fuzz(
    servers: str, worker: WorkerProcess, data: Path, num_events: int, seed: int
) -> list[str]:
    topics = TopicsConfig()
    outputs = Outputs(servers, topics)
    started_s = time.perf_counter()
    sending = asyncio.create_task(_send(servers, topics.input, data, num_events, seed))
    reading = asyncio.create_task(outputs.read(sending, _NO_PROGRESS_S))
    sent = await sending
    stalled = await reading
    elapsed_s = time.perf_counter() - started_s
    print(f"{outputs.num_results:,} results and {outputs.num_dead:,} dead letters", end=" ")
    print(f"from {len(sent):,} events in {elapsed_s:.1f} s")
    for reason, count in Counter(outputs.reasons.values()).most_common():
        print(f"  {count:8,}  {reason}")
    problems = outputs.problems(sent)
    if stalled:
        problems.append(f"nothing came out for {_NO_PROGRESS_S:g} s")
    if worker.child.poll() is not None:
        problems.append("the worker did not live through it")
    return problems


async def _send(
    servers: str, topic: str, data: Path, num_events: int, seed: int
) -> dict[Place, bytes | None]:
    """Send mutations of the test products; returns what was sent, by its place in the input."""
    rng = Random(seed)
    real = [
        (event.key or b"", orjson.loads(event.value))
        for event in read_events([data / "test.jsonl.gz"], "none")
    ]
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5)
    await producer.start()
    sent: dict[Place, bytes | None] = {}
    try:
        events = islice(cycle(real), num_events)
        while chunk := list(islice(events, _SENT_AT_ONCE)):
            values = [mutate(event, rng) for _, event in chunk]
            # aiokafka sends no event of neither key nor value; tests/integration covers that one.
            keys = [
                key if value is None else mutate_key(key, rng)
                for (key, _), value in zip(chunk, values, strict=True)
            ]
            acknowledgements = [
                await producer.send(topic, value, key=key)
                for key, value in zip(keys, values, strict=True)
            ]
            places = await asyncio.gather(*acknowledgements)
            sent |= {
                (place.partition, place.offset): value
                for place, value in zip(places, values, strict=True)
            }
    finally:
        await producer.stop()
    return sent


if __name__ == "__main__":
    main()
