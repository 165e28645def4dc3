"""What a process takes: memory, threads, descriptors, connections. Linux only, as /proc is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Footprint", "footprint"]

_PROC = Path("/proc")
_ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Footprint:
    """A process at one moment.

    Attributes:
        rss_bytes: resident memory, pages shared with others included.
        ports: the remote ports of its established TCP connections, one entry a connection.
    """

    rss_bytes: int
    threads: int
    descriptors: int
    sockets: int
    ports: tuple[int, ...]


def footprint(pid: int) -> Footprint:
    """Of a process of the same user.

    Raises:
        OSError: it has ended.
    """
    directory = _PROC / str(pid)
    links = []
    for descriptor in (directory / "fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # closed since
            continue
    sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    return Footprint(
        rss_bytes=_rss(directory),
        threads=len(list((directory / "task").iterdir())),
        descriptors=len(links),
        sockets=len(sockets),
        ports=_ports(directory, sockets),
    )


def _rss(directory: Path) -> int:
    # Counted page by page: the figure in `status` lags behind by as much as each thread likes.
    for line in (directory / "smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Rss":
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"{directory} has no memory: the process has ended")


def _ports(directory: Path, inodes: set[str]) -> tuple[int, ...]:
    ports = []
    for table in ("tcp", "tcp6"):
        for line in (directory / "net" / table).read_text().splitlines()[1:]:
            # Number, local, remote, state, ..., inode: proc(5)
            fields = line.split()
            if fields[3] == _ESTABLISHED and fields[9] in inodes:
                ports.append(int(fields[2].rpartition(":")[2], 16))
    return tuple(sorted(ports))
