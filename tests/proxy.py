"""A TCP proxy on loopback whose network can be made bad: slow, cut, silent, refusing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from worker.local.ports import LOOPBACK, ReservedPort

__all__ = ["Proxy"]

T = TypeVar("T")

_CHUNK_BYTES = 64 * 1024
_QUEUED_CHUNKS = 256
_DRIP_S = 0.02  # what is dripped goes in pieces of so long
_CALL_S = 30.0
_FLUSH_S = 1.0


@dataclass(frozen=True, kw_only=True)
class _Network:
    up_s: float = 0.0
    down_s: float = 0.0
    bytes_per_s: float | None = None


class _Link:
    """One client's connection and its own to the service behind."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends

    def cut(self) -> None:
        """Reset both ends; what is on its way is lost."""
        for end in self._ends:
            end.transport.abort()

    async def end(self) -> None:
        """Close both ends once they have what was written to them."""
        try:
            async with asyncio.timeout(_FLUSH_S):
                for end in self._ends:
                    end.close()
                    await end.wait_closed()
        except (OSError, TimeoutError):
            self.cut()


class Proxy:
    """Passes bytes between clients and one service; a context manager that ends it.

    Runs on a thread of its own; every method may be called from any other.

    Args:
        upstream: ``host:port`` of the service.

    Attributes:
        address: ``host:port`` for clients; the same for as long as the proxy lives.
        num_connections: clients taken so far.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = host, int(port)
        self._port = ReservedPort()
        self.address = self._port.address
        self.num_connections = 0
        self._network = _Network()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._run(self._listen())

    def slow(
        self, *, up_s: float = 0.0, down_s: float = 0.0, bytes_per_s: float | None = None
    ) -> None:
        """Delay what passes from now on.

        Args:
            up_s: added on the way to the service.
            down_s: added on the way back.
            bytes_per_s: bandwidth of each connection on the way back; None: no limit.
        """
        self._network = _Network(up_s=up_s, down_s=down_s, bytes_per_s=bytes_per_s)

    def stall(self) -> None:
        """Pass nothing: connections stay and new ones are taken, but nobody ever hears anything.

        As packets that get lost: what was sent meanwhile arrives after ``heal``.
        """
        self._call(self._passing.clear)

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Reset all connections and refuse new ones."""

        async def refuse() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            self._cut()

        self._run(refuse())

    def heal(self) -> None:
        """A good network again."""
        self._network = _Network()
        self._call(self._passing.set)
        self._run(self._listen())

    def close(self) -> None:
        """End all connections and the thread. May be called again."""
        if self._loop.is_closed():
            return
        self.refuse()
        self._run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()
        self._port.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_S)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        self._run(call())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._take, LOOPBACK, self._port.number)

    def _cut(self) -> None:
        for link in self._links:
            link.cut()

    async def _end_tasks(self) -> None:
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to learn that they are closed

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.num_connections += 1
        link = _Link(writer)
        try:
            self._links.add(link)
            await self._passing.wait()
            try:
                service_reader, service_writer = await asyncio.open_connection(*self._upstream)
            except OSError:
                return  # the client sees its connection end
            self._links.discard(link)
            link = _Link(writer, service_writer)
            self._links.add(link)
            ways = [
                asyncio.create_task(self._pass_on(reader, service_writer, is_back=False)),
                asyncio.create_task(self._pass_on(service_reader, writer, is_back=True)),
            ]
            try:
                # Nobody of ours closes one half only.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            await link.end()
        except asyncio.CancelledError:
            return  # the proxy ends; asyncio would log it
        finally:
            link.cut()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_back: bool,
    ) -> None:
        """One direction of a connection, until either end closes it."""
        # Read on while older bytes are on their way: latency must not bound the bandwidth.
        on_their_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)

        async def read() -> None:
            chunk = b"-"
            while chunk:
                try:
                    chunk = await reader.read(_CHUNK_BYTES)
                except OSError:
                    chunk = b""  # an end like any other
                delay_s = self._network.down_s if is_back else self._network.up_s
                await on_their_way.put((self._loop.time() + delay_s, chunk))

        reading = asyncio.create_task(read())
        try:
            while True:
                due_s, chunk = await on_their_way.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                await self._passing.wait()
                if not chunk:
                    return
                await (self._drip if is_back else self._write)(writer, chunk)
        except OSError:
            return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _write(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        await self._passing.wait()
        writer.write(chunk)
        await writer.drain()

    async def _drip(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        while chunk:
            bytes_per_s = self._network.bytes_per_s
            size = len(chunk) if bytes_per_s is None else max(1, int(bytes_per_s * _DRIP_S))
            await self._write(writer, chunk[:size])
            chunk = chunk[size:]
            if bytes_per_s is not None:
                await asyncio.sleep(size / bytes_per_s)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
