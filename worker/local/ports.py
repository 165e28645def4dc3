"""Loopback ports that the system chose and that stay ours."""

from __future__ import annotations

import socket
import sys

__all__ = ["LOOPBACK", "ReservedPort"]

LOOPBACK = "127.0.0.1"


class ReservedPort:
    """A free port on 127.0.0.1, kept for one server from now until ``close``.

    A port that was only looked up can be taken before the server binds it, and again while the
    server is down: a client that reconnects in a loop may even be given it as its own end and so
    connect to itself. A bound socket that does not listen prevents both on Linux, and lets a
    server that sets SO_REUSEADDR (all of ours do) bind beside it. Elsewhere it is let go at once.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{LOOPBACK}:{self.number}"

    @property
    def is_held(self) -> bool:
        """Whether nobody else can be given the port."""
        return self._socket.fileno() != -1

    def close(self) -> None:
        """Let the port go."""
        self._socket.close()
