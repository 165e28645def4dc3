"""The group's committed offset of a partition, from the broker that coordinates the group.

aiokafka 0.14 does not look at the error of a whole answer: a broker that has ceased to coordinate,
or is still loading, says so there and names no offset, which then reads as "never committed".
Whoever believes that starts from the beginning, and everything comes out twice.

And a broker that was frozen answers from old memory until it hears that another one coordinates the
group. So an answer counts only when most of the brokers name the one that gave it.
"""

from __future__ import annotations

import asyncio
import logging
import random

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

__all__ = ["committed_offset"]

_log = logging.getLogger(__name__)

_NO_OFFSET = -1
_RETRY_S = 0.1
# Brokers that are asked who coordinates: of a large cluster a few.
_MOST_ASKED = 5
_ANSWER_S = 2.0


async def committed_offset(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset, or None where the group has committed none; waits for a coordinator.

    Raises:
        KafkaError: not to be mended by asking again, like a lack of authorization.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    request = OffsetFetchRequest(coordinator.group_id, [(partition.topic, [partition.partition])])
    while True:
        await coordinator.ensure_coordinator_known()
        node = coordinator.coordinator_id
        try:
            offset = _offset(await coordinator._send_req(request))  # noqa: SLF001
            if await _is_confirmed(consumer, node):
                return offset
            raise NotCoordinatorForGroupError(f"most brokers do not name broker {node}")
        except KafkaError as error:
            if not error.retriable:
                raise
            if isinstance(error, NotCoordinatorForGroupError | CoordinatorNotAvailableError):
                coordinator.coordinator_dead()
            _log.info("committed offset of %s: %r, asking again", partition, error)
            await asyncio.sleep(_RETRY_S)


async def _is_confirmed(consumer: AIOKafkaConsumer, node: int | None) -> bool:
    """Whether most of the brokers, or of some of many, say that ``node`` coordinates the group."""
    client = consumer._client  # noqa: SLF001
    brokers = [broker.nodeId for broker in client.cluster.brokers()]
    if len(brokers) > _MOST_ASKED:
        brokers = random.sample(brokers, _MOST_ASKED)
    request = FindCoordinatorRequest(consumer._coordinator.group_id, CoordinationType.GROUP)  # noqa: SLF001

    async def named_by(broker: int) -> int | None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await client.send(broker, request)
        except (KafkaError, TimeoutError):
            return None
        named: int | None = answer.coordinator_id if answer.error_code == 0 else None
        return named

    named = await asyncio.gather(*map(named_by, brokers))
    return 2 * sum(each == node for each in named) > len(brokers)


def _offset(response: object) -> int | None:
    # Versions 0 and 1 have no error of the whole answer.
    codes = [getattr(response, "error_code", 0)]
    offsets = []
    for _, partitions in response.topics:  # type: ignore[attr-defined]
        for _, offset, _, code in partitions:
            offsets.append(offset)
            codes.append(code)
    for code in codes:
        error = for_code(code)
        if error is not NoError:
            raise error
    if len(offsets) != 1:
        raise KafkaError(f"asked for one offset, got {len(offsets)}")
    return None if offsets[0] == _NO_OFFSET else int(offsets[0])
