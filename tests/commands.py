"""`sortiment-worker` run as a person runs it: a process, its exit code and what it says."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.settings import variable

__all__ = ["Said", "command", "ended", "start_command"]

_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


async def start_command(
    settings: Mapping[str, object], directory: Path, *arguments: str
) -> asyncio.subprocess.Process:
    """A command that runs, in a directory without a file ``.env``.

    Args:
        settings: by name, as in ``worker.settings``.
    """
    given = {variable(name): str(value) for name, value in settings.items()}
    inherited = {name: value for name, value in os.environ.items() if "SORTIMENT" not in name}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from worker.cli import main; main()",
        *arguments,
        cwd=directory,
        env=inherited | {"PYTHONPATH": str(Path(__file__).parents[1])} | given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> Said:
    """Wait for a command's end; kills it after a minute.

    Raises:
        TimeoutError: it did not end.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def command(settings: Mapping[str, object], directory: Path, *arguments: str) -> Said:
    """Run a command to its end."""
    return await ended(await start_command(settings, directory, *arguments))
