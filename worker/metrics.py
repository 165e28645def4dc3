"""Every metric of the worker, in one registry. Counted per batch, never per product."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
)

__all__ = ["Metrics"]

# Seconds: from a no-op batch on a GPU to a full window on two CPU cores.
_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Share of the token budget that holds tokens and not padding.
_FILL_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """The worker's metrics. One instance a process; tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, descriptors and processor time of the process; what Python's collector did.
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.tasks = self._gauge("tasks", "asyncio tasks that are not done")
        self.events = self._counter("events", "Input events taken from Kafka")
        self.results = self._counter(
            "results", "Products whose outputs the broker has acknowledged"
        )
        self.dead_letters = self._counter("dead_letters", "Dead letters by reason", "reason")
        self.abstentions = self._counter("abstentions", "Products left to review")
        self.labels = self._counter("labels", "Attribute values emitted")
        self.batches = self._counter("batches", "Model batches by outcome", "outcome")
        self.mask_lookups = self._counter(
            "mask_lookups", "Masks found, by level: device, memory, redis, compiled", "level"
        )
        self.redis_errors = self._counter("redis_errors", "Redis calls that failed")
        self.redis_foreign_values = self._counter(
            "redis_foreign_values", "Values under the worker's keys in Redis that are not its own"
        )
        self.discarded = self._counter(
            "discarded_events", "Events of a lane that was not or no longer open"
        )
        self.redeliveries = self._counter(
            "delivery_recoveries", "Times the producer was replaced after a failure"
        )
        self.commits = self._counter("commits", "Offset commits by outcome", "outcome")
        self.transactions = self._counter("transactions", "Transactions committed")
        self.aborted_transactions = self._counter(
            "aborted_transactions",
            "Transactions given up: fenced, refused, revoked, moved, timed_out, failed",
            "reason",
        )
        self.lost_lanes = self._counter(
            "lost_lanes", "Lanes dropped because their outputs could not be delivered"
        )
        self.refused_releases = self._counter("refused_releases", "Releases refused")
        self.returned_canaries = self._counter(
            "returned_canaries", "Canaries that this worker found outside their bounds"
        )
        self.canary_products = self._counter(
            "canary_products", "Products of the canary: assigned, review, failed", "outcome"
        )
        self.canary_share = self._gauge(
            "canary_share", "Share of the products that the canary answers"
        )
        self.shadow_products = self._counter(
            "shadow_products",
            "Products of the shadow: compared, dropped (no time), failed, unsent",
            "outcome",
        )
        self.shadow_categories = self._counter(
            "shadow_categories",
            "Best categories of the shadow beside the active: same, other",
            "is",
        )
        self.shadow_labels = self._counter(
            "shadow_labels", "Attribute values: both, active_only, shadow_only", "said_by"
        )
        self.shadow_share = self._gauge(
            "shadow_share", "Share of the products that the shadow scores again"
        )
        self.stage_seconds = Histogram(
            "sortiment_stage_seconds",
            "Time a window or batch spent in a stage: wait, prepare, model, assemble, send",
            ["stage"],
            registry=self.registry,
            buckets=_STAGE_BUCKETS,
        )
        self.batch_fill = Histogram(
            "sortiment_batch_fill_ratio",
            "Unpadded cost of a batch over the token budget",
            registry=self.registry,
            buckets=_FILL_BUCKETS,
        )
        self.batch_products = Histogram(
            "sortiment_batch_products",
            "Products in a batch",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
        )
        self.in_flight = self._gauge("in_flight_products", "Events taken and not yet settled")
        self.lag = self._gauge(
            "lag", "Events behind the end of the partition", "topic", "partition"
        )
        self.backfill_held = self._gauge(
            "backfill_held", "1 while past products are held back because live ones wait"
        )
        self.breaker_open = self._gauge(
            "breaker_open", "1 while the worker takes nothing, or a few to try, because most fails"
        )
        self.ready = self._gauge("ready", "1 when the worker takes traffic")
        self.event_delay_seconds = self._gauge(
            "event_delay_seconds",
            "Age of the oldest event in the last settled run of an input topic",
            "topic",
        )
        self.delivery = Info("sortiment_delivery", "The kind of delivery", registry=self.registry)
        self.release = Info("sortiment_release", "The active release", registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sortiment_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"sortiment_{name}", text, labels, registry=self.registry)
