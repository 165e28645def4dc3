"""What a local Kafka and a local Redis have in common, given or started here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from worker.local.errors import LocalServiceError

__all__ = ["LocalService", "Startable"]


class Startable(Protocol):
    """A service that was started here."""

    log_path: Path

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


StartableT = TypeVar("StartableT", bound=Startable)


@dataclass(frozen=True, slots=True)
class LocalService(Generic[StartableT]):
    """A service that answers; a context manager that ends what it started.

    Attributes:
        service: what was started here; None for a given one, which is never stopped.
    """

    service: StartableT | None
    # The setting that names a given one.
    _variable: ClassVar[str]

    @property
    def log_path(self) -> Path | None:
        """The service's log; None for a given one."""
        return self.service.log_path if self.service else None

    def stop(self) -> None:
        """Stop it in order; ``start`` brings it back on the same port.

        Raises:
            LocalServiceError: a given one is not ours to stop.
        """
        self._ours().stop()

    def start(self) -> None:
        """Bring a stopped one back.

        Raises:
            LocalServiceError: it does not start, or keeps nothing (embedded), or is not ours.
        """
        self._ours().start()

    def restart(self) -> None:
        """``stop``, then ``start``."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it and remove what it kept; a given one goes on. May be called again."""
        if self.service is not None:
            self.service.close()

    def _ours(self) -> StartableT:
        if self.service is None:
            raise LocalServiceError(
                f"what {self._variable} names was given and is not ours to stop; "
                f"unset {self._variable} to let one be started"
            )
        return self.service

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
