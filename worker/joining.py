"""Joining the brokers again and again: once topics were found, brokers that are away come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

__all__ = ["Joining"]

_log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Joining:
    """Tries a step until it succeeds.

    Attributes:
        why_not: why it has not succeeded yet; empty where nothing is being tried, or was refused.
    """

    def __init__(self) -> None:
        self.why_not = ""

    async def until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        """Call ``step`` until it raises nothing that trying again could mend.

        Raises:
            KafkaError: it raises another.
        """
        while True:
            try:
                await step()
            except KafkaError as error:
                if not error.retriable:
                    raise
                self.why_not = f"no broker takes the worker in, trying again: {error!r}"
                _log.warning("%s", self.why_not)
                await asyncio.sleep(_RETRY_S)
            else:
                self.why_not = ""
                return
