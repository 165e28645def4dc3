"""The worker's settings: the one place that reads the environment.

A value comes from a flag of ``sortiment-worker run``, else from the environment, else from a file
``.env`` in the working directory, else from the default here. ``docs/configuration.md`` lists all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.contradictions import Problem, find_contradictions
from worker.delivery import Compression, DeliveryKind
from worker.errors import ConfigError
from worker.kafka import Broker, KafkaConfig, SaslMechanism, SecurityProtocol
from worker.topics import TopicsConfig

__all__ = ["PREFIX", "Settings", "flag", "load_settings", "mask", "variable"]

PREFIX = "SORTIMENT_"
# Not a setting of the worker, and no typing error: where local services keep what they fetch.
_NEIGHBOURS = frozenset({"SORTIMENT_CACHE"})

TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._:-]{1,249}$")]


def _servers(value: str) -> str:
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "@" in host:
            raise ValueError("must be host:port, several separated by commas")
    return value


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
    return value


class Settings(BaseSettings):
    """Every setting, checked one by one; ``load_settings`` also checks them together."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        "localhost:9092",
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Kafka's brokers, `host:port`, several separated by commas.",
    )
    broker: Broker = Field(
        "kafka",
        description="`embedded`: the in-process mock cluster of `make demo`; four partitions, one "
        "worker, topics neither created nor checked.",
    )
    security_protocol: SecurityProtocol = Field(
        "PLAINTEXT", description="Whether clients encrypt (`..SSL`) and authenticate (`SASL_..`)."
    )
    sasl_mechanism: SaslMechanism | None = Field(None, description="How SASL authenticates.")
    sasl_username: str | None = Field(None, description="User of SASL.")
    sasl_password: SecretStr | None = Field(
        None, description="Password of SASL. Never printed; has no flag."
    )
    ssl_cafile: str | None = Field(
        None, description="Authorities to trust, PEM file. Unset: the system's."
    )
    ssl_certfile: str | None = Field(None, description="Client certificate, PEM file.")
    ssl_keyfile: str | None = Field(
        None, description="Key of the client certificate, PEM file, not encrypted."
    )
    ssl_check_hostname: bool = Field(
        True, description="Whether a broker's certificate must name the host connected to."
    )

    input_topic: TopicName = Field("products", description="Products come in here.")
    categories_topic: TopicName = Field("product-categories", description="Categories go out here.")
    attributes_topic: TopicName = Field(
        "product-attributes", description="Attribute values go out here."
    )
    dead_letters_topic: TopicName = Field(
        "product-dead-letters", description="Events that cannot be processed go here, whole."
    )
    control_topic: TopicName = Field(
        "sortiment-control", description="Names the active release; one partition, compacted."
    )
    partitions: int = Field(
        12, ge=1, le=10_000, description="Partitions of the topics that the worker creates."
    )
    replication_factor: int = Field(
        1, ge=1, le=100, description="Replicas of the topics that the worker creates."
    )
    create_topics: bool = Field(
        True, description="Whether missing topics are created; `false`: they must be there."
    )

    group_id: Name = Field("sortiment", description="Consumer group that shares the input.")
    group_instance_id: Name | None = Field(
        None,
        description="Name of this worker within the group (static membership): a restart within "
        "the session timeout moves no partition. Different for each worker.",
    )
    session_timeout_ms: int = Field(
        30_000, ge=6_000, le=1_800_000, description="Silence after which the group drops a worker."
    )
    heartbeat_interval_ms: int = Field(
        3_000, ge=100, description="Time between heartbeats; at most a third of the session."
    )
    max_poll_interval_ms: int = Field(
        300_000, ge=1_000, description="Longest time between polls before the group drops a worker."
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

    @property
    def transaction_timeout_ms(self) -> int:
        """How long a transaction may stay open: as long as a worker may be silent.

        At most what brokers allow unless told otherwise (``transaction.max.timeout.ms``).
        """
        return min(self.session_timeout_ms, 900_000)

    def kafka(self) -> KafkaConfig:
        """How Kafka clients connect."""
        return KafkaConfig(
            bootstrap_servers=self.bootstrap_servers,
            broker=self.broker,
            security_protocol=self.security_protocol,
            sasl_mechanism=self.sasl_mechanism,
            sasl_username=self.sasl_username,
            sasl_password=self.sasl_password.get_secret_value() if self.sasl_password else None,
            ssl_cafile=self.ssl_cafile,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            ssl_check_hostname=self.ssl_check_hostname,
        )

    def topics(self) -> TopicsConfig:
        """Names and shape of the topics."""
        return TopicsConfig(
            input=self.input_topic,
            categories=self.categories_topic,
            attributes=self.attributes_topic,
            dead_letters=self.dead_letters_topic,
            control=self.control_topic,
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
        return {name: _shown(name, getattr(self, name)) for name in type(self).model_fields}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else PREFIX + name.upper()


def flag(name: str) -> str | None:
    """The flag of a setting; None for a secret, which a list of processes would show."""
    if "SecretStr" in str(Settings.model_fields[name].annotation):
        return None
    return "--" + name.replace("_", "-")


def mask(url: str) -> str:
    """A text without user, password and query of the address that it may be."""
    scheme, separator, rest = url.rpartition("://")
    rest, question, _ = rest.partition("?")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if at and credentials else ''}{host}" + (
        "?***" if question else ""
    )


def _shown(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if flag(name) is None:
        return "***"
    return mask(str(value))


def load_settings(
    flags: Mapping[str, Any] | None = None, env_file: Path | None = Path(".env")
) -> Settings:
    """Settings from flags, environment and ``env_file``, in this order, all checked.

    Args:
        flags: values by setting name; those that are None do not count.

    Raises:
        ConfigError: all that is wrong: variable, what was given (secrets masked), what is allowed.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    problems = _unknown_variables(env_file)
    wrong: set[str] = set()
    # The signature that a type checker derives from the fields lacks ``_env_file``.
    construct: Callable[..., Settings] = Settings
    try:
        settings = construct(_env_file=env_file, **given)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False):
            name = _field(str(fault["loc"][0]))
            wrong.add(name)
            allowed = fault["msg"].removeprefix("Value error, ")
            problems.append(f"{_called(name)}: {allowed}; given {_shown(name, fault['input'])!r}")
        # What is wrong by itself stands at its default, so that the rest can be compared.
        defaults = {name: Settings.model_fields[name].default for name in wrong}
        settings = construct(_env_file=env_file, **(given | defaults))
    for problem in find_contradictions(settings):
        if wrong.isdisjoint(problem.fields):
            problems.append(_contradiction(settings, problem))
    if problems:
        raise ConfigError(problems)
    if settings.broker == "embedded":
        return settings.model_copy(update={"delivery": "at_least_once"})
    return settings


def _contradiction(settings: Settings, problem: Problem) -> str:
    given = " with ".join(
        f"{variable(name)}={_shown(name, getattr(settings, name))}" for name in problem.fields
    )
    return f"{_called(problem.fields[0])}: allowed is {problem.allowed}; given {given}"


def _called(name: str) -> str:
    option = flag(name)
    return f"{variable(name)} ({option})" if option else variable(name)


def _field(location: str) -> str:
    if location in Settings.model_fields:
        return location
    return next(name for name in Settings.model_fields if variable(name) == location)


def _unknown_variables(env_file: Path | None) -> list[str]:
    known = {variable(name) for name in Settings.model_fields} | _NEIGHBOURS
    present = set(os.environ) | set(dotenv_values(env_file) if env_file else ())
    problems = []
    for name in sorted(present):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.0)
            problems.append(f"{name}: there is no such variable; the nearest is {nearest[0]}")
    return problems
