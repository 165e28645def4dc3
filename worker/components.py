"""The services of a worker, each built from its part of the settings."""

from __future__ import annotations

from worker.announce import tell_return
from worker.at_least_once import AtLeastOnceDelivery
from worker.attempts import Attempts, AttemptsConfig
from worker.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, BatchingConfig
from worker.breaker import Breaker, BreakerConfig
from worker.canary import CanaryConfig
from worker.delivery import Delivery, DeliveryConfig
from worker.exactly_once import ExactlyOnceDelivery
from worker.fault_watch import FaultWatch
from worker.hot_path import HotPath, HotPathConfig
from worker.intake import Intake, IntakeConfig
from worker.lane_writer import TransactionsConfig
from worker.masks import MaskCacheConfig
from worker.metrics import Metrics
from worker.model_stage import ModelStage
from worker.outbox import OutputTopics
from worker.releases import ReleaseControl
from worker.rollout import Rollout
from worker.serving import InferenceConfig, ServingLoader
from worker.settings import Settings
from worker.shadow import Shadow, ShadowConfig
from worker.topics import TopicFacts

# Of the catalogs seen, most products have about so many.
_PRODUCT_TOKENS = 64

__all__ = [
    "batching_config",
    "build_control",
    "build_delivery",
    "build_hot_path",
    "inference_config",
]


def build_hot_path(settings: Settings, facts: TopicFacts, metrics: Metrics) -> HotPath:
    """The stages from Kafka to Kafka."""
    kafka = settings.kafka()
    delivery = build_delivery(settings, facts, metrics)
    attempts = Attempts(
        AttemptsConfig(redis_url=settings.redis_url, prefix=settings.attempts_prefix),
        settings.group_id,
        metrics,
    )
    intake = Intake(
        IntakeConfig(
            topic=settings.input_topic,
            backfill_topic=settings.backfill_topic,
            backfill_poll_records=settings.backfill_poll_records or _batch_products(settings),
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            max_wait_ms=settings.max_wait_ms,
            max_poll_records=settings.max_poll_records,
            max_in_flight_products=settings.max_in_flight_products,
            max_in_flight_bytes=settings.max_in_flight_bytes,
            max_event_bytes=facts.max_event_bytes,
            detect_loss=settings.broker == "embedded",
        ),
        kafka,
        delivery,
        attempts,
        metrics,
    )
    config = HotPathConfig(
        batching=batching_config(settings), drain_timeout_s=settings.drain_timeout_s
    )
    breaker = Breaker(
        BreakerConfig(
            max_dead_share=settings.breaker_max_dead_share,
            probe_interval_s=settings.breaker_probe_interval_s,
        )
    )
    rollout = Rollout(
        CanaryConfig(
            max_failed_share=settings.canary_max_failed_share,
            max_review_rise=settings.canary_max_review_rise,
        ),
        metrics,
    )
    model = ModelStage(attempts, metrics)
    shadow = Shadow(
        ShadowConfig(topic=settings.shadow_topic),
        kafka,
        config.batching,
        model,
        # What is tried alone, or was in hand when a worker died, must not be blamed for a shadow.
        lambda: not intake.has_deaths,
        metrics,
    )
    return HotPath(
        config, intake, delivery, attempts, FaultWatch(breaker), rollout, model, shadow, metrics
    )


def build_delivery(settings: Settings, facts: TopicFacts, metrics: Metrics) -> Delivery:
    """Delivery of the kind that the settings name."""
    config = DeliveryConfig(compression=settings.compression, max_event_bytes=facts.max_event_bytes)
    kafka = settings.kafka()
    topics = OutputTopics(
        categories=settings.categories_topic,
        attributes=settings.attributes_topic,
        dead_letters=settings.dead_letters_topic,
        num_partitions=dict(facts.partitions),
    )
    metrics.delivery.info({"kind": settings.delivery})
    if settings.delivery == "at_least_once":
        return AtLeastOnceDelivery(
            config, kafka, topics, metrics, commit_interval_ms=settings.commit_interval_ms
        )
    transactions = TransactionsConfig(
        interval_ms=settings.transaction_interval_ms,
        timeout_ms=settings.transaction_timeout_ms,
        # The other half is with the broker, or on its way through the stages.
        max_products=max(1, settings.max_in_flight_products // 2),
    )
    return ExactlyOnceDelivery(
        config,
        transactions,
        kafka,
        topics,
        metrics,
        group_id=settings.group_id,
        fenced_pause_s=settings.heartbeat_interval_ms / 1000,
    )


def batching_config(settings: Settings) -> BatchingConfig:
    """Bounds of a batch, by device where the settings leave it open."""
    is_cpu = inference_config(settings).torch_device().type == "cpu"
    by_device = CPU_BATCH_TOKENS if is_cpu else GPU_BATCH_TOKENS
    return BatchingConfig(
        max_batch_tokens=settings.max_batch_tokens or by_device,
        max_batch_products=settings.max_batch_products,
    )


def _batch_products(settings: Settings) -> int:
    """About as many products as fill a batch."""
    config = batching_config(settings)
    about = max(1, config.max_batch_tokens // _PRODUCT_TOKENS)
    return min(about, config.max_batch_products, settings.max_poll_records)


def build_control(settings: Settings, hot_path: HotPath, metrics: Metrics) -> ReleaseControl:
    """The reader of the control topic, which hands releases to the hot path."""
    masks = MaskCacheConfig(
        redis_url=settings.redis_url,
        redis_timeout_ms=settings.redis_timeout_ms,
        prefix=settings.mask_prefix,
    )
    kafka, topic = settings.kafka(), settings.control_topic
    control = ReleaseControl(
        kafka,
        topic,
        ServingLoader(inference_config(settings), masks, metrics),
        hot_path.take_release,
        lambda ended: tell_return(ended, kafka, topic),
        metrics,
        pinned=settings.release,
    )
    hot_path.rollout.on_return = control.return_canary
    return control


def inference_config(settings: Settings) -> InferenceConfig:
    """How a release runs."""
    return InferenceConfig(
        device=settings.device,
        dtype=settings.dtype,
        torch_threads=settings.torch_threads,
        top_k=settings.top_k,
        category_source=settings.category_source,
        release_cache=settings.release_cache.expanduser(),
    )
