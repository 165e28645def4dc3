"""Products at a steady rate, each remembered by its place in the input."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import KafkaError, Message, Producer

from tests.streams import Place
from worker.product_lines import read_events

__all__ = ["Feed", "load_products"]

# Prime: the keys fall on all partitions, each of them many times.
_NUM_SELLERS = 97
_BAD_EVERY = 50
_BAD = b'{"product_id": '
_TICK_S = 0.01
_FLUSH_S = 120.0


def load_products(catalog: Path) -> list[dict[str, Any]]:
    """The held-out products of the sample catalog."""
    return [orjson.loads(event.value) for event in read_events([catalog / "test.jsonl.gz"], "none")]


class Feed:
    """Writes on a thread, idempotently: what is sent is in the input once.

    Args:
        num: how many events.
        seconds: over how long a time, evenly.
        ordered: keys are sellers, who come again and again; else every key is new.
        bad_every: one event in so many holds no product: dead letters go through the same faults.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        products: Sequence[dict[str, Any]],
        *,
        num: int,
        seconds: float,
        ordered: bool,
        bad_every: int = _BAD_EVERY,
    ) -> None:
        self.sent: dict[Place, bool] = {}
        self._topic = topic
        self._products = products
        self._num = num
        self._interval_s = seconds / num
        self._ordered = ordered
        self._bad_every = bad_every
        self._refused: list[KafkaError] = []
        self._is_aborted = False
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 1_000,
                "error_cb": lambda _: None,  # brokers go and come
                "log_level": 2,
            }
        )
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    @property
    def is_done(self) -> bool:
        """Whether the broker has everything, or the feed failed."""
        return self._ended.is_set()

    def wait(self, timeout_s: float) -> bool:
        """``is_done`` after at most so long."""
        return self._ended.wait(timeout_s)

    def result(self) -> dict[Place, bool]:
        """By place, whether the event holds a product; once all is with the broker.

        Raises:
            RuntimeError: the broker refused some, or did not answer.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        if self._refused or len(self.sent) != self._num:
            why = self._refused[0] if self._refused else "no answer"
            raise RuntimeError(f"{len(self.sent)} of {self._num} events were taken: {why}")
        return self.sent

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_aborted = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._send()
        except BaseException as error:  # noqa: BLE001  raised by ``result``
            self._failure = error
        finally:
            self._ended.set()

    def _send(self) -> None:
        due_s = time.monotonic()
        for number, product in enumerate(islice(cycle(self._products), self._num)):
            due_s += self._interval_s
            while not self._is_aborted and (wait_s := due_s - time.monotonic()) > 0:
                self._producer.poll(min(wait_s, _TICK_S))
            if self._is_aborted:
                return
            product_id = f"p{number}"
            is_product = number % self._bad_every != self._bad_every - 1
            value = orjson.dumps(product | {"product_id": product_id}) if is_product else _BAD
            key = f"seller-{number % _NUM_SELLERS}" if self._ordered else product_id
            self._producer.produce(
                self._topic, value, key, on_delivery=self._acknowledged(is_product)
            )
        deadline = time.monotonic() + _FLUSH_S
        while not self._is_aborted and len(self._producer) and time.monotonic() < deadline:
            self._producer.poll(_TICK_S)

    def _acknowledged(self, is_product: bool) -> Any:
        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refused.append(error)
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            self.sent[partition, offset] = is_product

        return note
