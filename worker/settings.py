"""The worker's settings, all of which ``worker.settings_loading`` reads from the environment.

A value comes from a flag of ``sortiment-worker run``, else from the environment, else from a file
``.env`` in the working directory, else from the default here. ``docs/configuration.md`` lists all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from models.addresses import without_secrets
from worker.delivery import Compression, DeliveryKind
from worker.settings_kafka import KafkaSettings, Name
from worker.topics_config import TopicsConfig

__all__ = ["PREFIX", "Settings", "flag", "shown", "variable"]

PREFIX = "SORTIMENT_"


def _redis_url(value: str) -> str:
    wanted = "must be redis://[user:password@]host[:port][/database], or rediss://... for TLS"
    parts = urlsplit(value)
    try:
        port_allowed = parts.port is None or parts.port > 0
    except ValueError:
        port_allowed = False
    database = parts.path.removeprefix("/")
    if (
        parts.scheme not in ("redis", "rediss")
        or not parts.hostname
        or not port_allowed
        or (database and not database.isdigit())
    ):
        raise ValueError(wanted)
    try:
        # What redis-py would find out at the first connection, when products wait.
        ConnectionPool.from_url(value).make_connection()  # type: ignore[no-untyped-call]
        parts.hostname.encode("idna")
    except (AttributeError, RedisError, TypeError, ValueError):
        # Not told why: the reason may quote the password.
        raise ValueError(f"{wanted}, with options of redis-py's where there are any") from None
    return value


class Settings(KafkaSettings):
    """Every setting, checked one by one; ``worker.settings_loading`` also checks them together."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    max_event_bytes: int = Field(
        1_048_576,
        ge=1_024,
        le=67_108_864,
        description="Largest input event, key and framing included. Dead letters may take 64 KiB "
        "more.",
    )
    max_batch_tokens: int = Field(
        0,
        ge=0,
        description="Token budget of a batch: longest product x number of products; "
        "0: 1,024 on a CPU, 16,384 on a GPU.",
    )
    max_batch_products: int = Field(1_024, ge=1, description="Most products in a batch.")
    max_wait_ms: int = Field(20, ge=0, le=60_000, description="Longest wait for a batch to fill.")
    max_poll_records: int = Field(2_000, ge=1, description="Most events taken in one poll.")
    backfill_poll_records: int = Field(
        0,
        ge=0,
        description="Most events taken in one poll of the backfill topic: live ones wait behind "
        "them. 0: a 64th of the token budget.",
    )
    max_in_flight_products: int = Field(
        8_192, ge=1, description="Most products between poll and commit; then polling pauses."
    )
    max_in_flight_bytes: int = Field(
        268_435_456, ge=1_048_576, description="The same for the size of the input events."
    )
    commit_interval_ms: int = Field(
        1_000,
        ge=10,
        le=60_000,
        description="Time between commits of offsets, where delivery is at least once.",
    )
    transaction_interval_ms: int = Field(
        100,
        ge=1,
        le=60_000,
        description="Time between the beginnings of a partition's transactions, where delivery is "
        "exactly once.",
    )
    compression: Compression = Field("snappy", description="Compression of what is sent.")
    delivery: DeliveryKind = Field(
        "exactly_once",
        description="What a reader of committed events sees after a crash: every output once, or "
        "some again, with the same event ids. The embedded broker: at least once.",
    )
    drain_timeout_s: float = Field(
        25.0,
        gt=0,
        le=3_600,
        description="Time for the products in hand after SIGTERM; the process is gone 5 s later "
        "at the latest.",
    )

    release: str | None = Field(
        None,
        min_length=1,
        description="Address of the release to serve. Unset: the one announced on the control "
        "topic.",
    )
    release_cache: Path = Field(
        Path("~/.cache/sortiment/releases"),
        description="Folder that fetched releases are kept in.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where the model runs: `auto`, `cpu`, `cuda`, `cuda:1`.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of the model's encoder."
    )
    torch_threads: int = Field(
        0, ge=0, le=1_024, description="Threads of torch on a CPU; 0: torch's default."
    )
    top_k: int = Field(5, ge=1, le=100, description="Best categories that an output lists.")
    category_source: Literal["predicted", "claimed"] = Field(
        "predicted", description="Whose category decides which attributes are relevant."
    )

    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        None,
        validation_alias="REDIS_URL",
        repr=False,
        description="Mask cache shared by workers, `redis://` or `rediss://` (TLS), with user "
        "and password. Its password is never printed. Unset: none.",
    )
    redis_timeout_ms: int = Field(
        50, ge=1, le=10_000, description="Longest wait for Redis; then masks are compiled."
    )
    mask_prefix: Name = Field("sortiment:mask", description="What the masks' keys begin with.")
    breaker_max_dead_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of dead letters among the last 2,000 events (from 200 on) above which "
        "the worker stops taking products and only tries a few; 1: never.",
    )
    breaker_probe_interval_s: float = Field(
        10.0,
        gt=0,
        le=300,
        description="Seconds until it first tries some; doubled after each try that fails, up to "
        "five minutes.",
    )
    canary_max_failed_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of a canary's last 2,000 products that it may fail on (the active "
        "release answers those); beyond it the canary is given up.",
    )
    canary_max_review_rise: float = Field(
        0.1,
        ge=0,
        le=1,
        description="How much larger a canary's share of `review` may be than the active "
        "release's, from 200 products of each on; beyond it the canary is given up.",
    )
    attempts_prefix: Name = Field(
        "sortiment:attempts",
        description="What the keys begin with that say which products were in hand when a worker "
        "died; workers of a group must agree.",
    )

    web_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that health, metrics and status are served on; `0.0.0.0`: all.",
    )
    web_port: int = Field(6066, ge=1, le=65_535, description="Port of the same.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`json`: one JSON object a line."
    )

    def topics(self) -> TopicsConfig:
        """Names and shape of the topics."""
        return TopicsConfig(
            input=self.input_topic,
            backfill=self.backfill_topic,
            categories=self.categories_topic,
            attributes=self.attributes_topic,
            dead_letters=self.dead_letters_topic,
            control=self.control_topic,
            shadow=self.shadow_topic,
            partitions=self.partitions,
            replication_factor=self.replication_factor,
            create=self.create_topics and self.broker == "kafka",
            max_event_bytes=self.max_event_bytes,
        )

    def secrets(self) -> tuple[str, ...]:
        """Every text that must not be printed, in each form that it may turn up in."""
        found = set()
        if self.sasl_password:
            found.add(self.sasl_password.get_secret_value())
        if self.redis_url:
            password = urlsplit(self.redis_url).password
            if password:
                found |= {password, unquote(password)}
        return tuple(sorted(found, key=len, reverse=True))

    def public(self) -> dict[str, Any]:
        """Settings by name, as JSON takes them, secrets masked."""
        return {name: shown(name, getattr(self, name)) for name in type(self).model_fields}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else PREFIX + name.upper()


def flag(name: str) -> str | None:
    """The flag of a setting; None for a secret, which a list of processes would show."""
    if "SecretStr" in str(Settings.model_fields[name].annotation):
        return None
    return "--" + name.replace("_", "-")


def shown(name: str, value: Any) -> Any:
    """A setting's value as it may be printed and as JSON takes it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if flag(name) is None:
        return "***"
    return without_secrets(str(value))
