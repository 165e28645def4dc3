"""The proxy of the fault tests does what it says, between a client and a service that echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.polling import until
from tests.proxy import Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            return  # cut: the test's own doing
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with Proxy(f"127.0.0.1:{port}") as running:
            yield running


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, proxy: Proxy) -> Client:
        host, _, port = proxy.address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def said(self, text: bytes) -> bytes:
        """What comes back for a text of this length."""
        self.writer.write(text)
        return await self.reader.readexactly(len(text))

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


async def test_bytes_pass_whole_and_in_order_whatever_the_network(proxy: Proxy) -> None:
    text = bytes(range(256)) * 2_000
    client = await Client.connect(proxy)
    assert await client.said(text) == text
    proxy.slow(up_s=0.05, down_s=0.05)
    assert await client.said(text) == text
    proxy.slow(bytes_per_s=10_000_000)
    assert await client.said(text) == text
    proxy.heal()
    assert await client.said(text) == text
    await client.close()


async def test_silence_ends_with_all_that_was_said_meanwhile(proxy: Proxy) -> None:
    client = await Client.connect(proxy)
    assert await client.said(b"before") == b"before"
    proxy.stall()
    late = await Client.connect(proxy)
    answers = [asyncio.create_task(each.said(b"hello")) for each in (client, late)]
    done, _ = await asyncio.wait(answers, timeout=0.2)
    assert not done
    proxy.heal()
    assert await asyncio.gather(*answers) == [b"hello", b"hello"]
    await client.close()
    await late.close()


async def test_connections_are_cut_and_refused(proxy: Proxy) -> None:
    client = await Client.connect(proxy)
    assert await client.said(b"before") == b"before"
    proxy.cut()
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await client.said(b"after")
    await client.close()
    again = await Client.connect(proxy)
    assert await again.said(b"again") == b"again"
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(proxy)
    await again.close()
    proxy.heal()
    healed = await Client.connect(proxy)
    assert await healed.said(b"healed") == b"healed"
    await healed.close()
    await until(lambda: None if proxy.num_connections == 3 else "more to come", 5, "connections")
