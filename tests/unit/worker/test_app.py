"""What becomes of a worker whose services fail or hang: in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PRELUDE = """
    import asyncio, os, signal, sys
    import faust
    from mode import Service
    import worker.shutdown
    from worker.app import SortimentWorker, supervise
    from worker.errors import BrokerError, ConfigError, SortimentError
    from worker.logs import set_up_logging
    from worker.shutdown import Shutdown

    worker.shutdown.GRACE_S = 0.5

    class App(faust.App):
        class BootStrategy(faust.app.BootStrategy):
            enable_kafka = False
            enable_web = False
        async def on_first_start(self):
            pass

    class Control(Service):
        is_loading = False

    def run(hot_path):
        set_up_logging("info", "text")
        async def main():
            shutdown = Shutdown(0.5)
            with shutdown.on_signals():
                app = App("test", env={}, store="memory://")
                return await supervise(SortimentWorker(app, hot_path(), Control()), shutdown)
        try:
            sys.exit(asyncio.run(main()))
        except SortimentError as error:
            print(f"{type(error).__name__}: {error}")
            sys.exit(3)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(PRELUDE) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_failing_task_ends_the_process_with_its_traceback_told_once() -> None:
    done = run("""
        class HotPath(Service):
            @Service.task
            async def _work(self):
                raise ValueError("boom")
        run(HotPath)
    """)

    assert done.returncode == 1, done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "the worker failed: ValueError('boom')" in done.stderr


def test_a_failing_start_ends_the_process() -> None:
    done = run("""
        class HotPath(Service):
            async def on_start(self):
                raise ValueError("boom")
        run(HotPath)
    """)

    assert done.returncode == 1, done.stderr
    assert "the worker failed: ValueError('boom')" in done.stderr


def test_an_error_of_our_own_is_raised_as_it_is() -> None:
    done = run("""
        class HotPath(Service):
            @Service.task
            async def _work(self):
                raise BrokerError("gone")
        run(HotPath)
    """)

    assert done.returncode == 3, done.stderr
    assert done.stdout == "BrokerError: gone\n"
    assert "Traceback" not in done.stderr


def test_a_signal_drains_the_hot_path_first_and_ends_well() -> None:
    done = run("""
        class HotPath(Service):
            @Service.task
            async def _work(self):
                os.kill(os.getpid(), signal.SIGTERM)
            async def on_stop(self):
                print("drained")
        async def on_stop(self):
            print("control")
        Control.on_stop = on_stop
        run(HotPath)
    """)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "drained\ncontrol\n"


def test_a_service_that_hangs_while_stopping_is_left_behind() -> None:
    done = run("""
        class HotPath(Service):
            @Service.task
            async def _work(self):
                os.kill(os.getpid(), signal.SIGTERM)
        async def on_stop(self):
            await asyncio.Event().wait()
        Control.on_stop = on_stop
        run(HotPath)
    """)

    assert done.returncode == 1
    assert "not stopped within 1 s" in done.stderr
