"""The stop is bounded: in processes of their own, since these end."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

from worker.shutdown import FORCED_EXIT_CODE


def run(body: str) -> subprocess.CompletedProcess[str]:
    prelude = """
        import asyncio, logging, os, signal, threading
        import worker.shutdown
        from worker.shutdown import Shutdown
        logging.basicConfig(level="INFO")
        worker.shutdown.GRACE_S = 0.1
    """
    program = textwrap.dedent(prelude) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_signal_is_a_request_and_a_second_one_changes_nothing() -> None:
    done = run("""
        async def main():
            shutdown = Shutdown(60)
            with shutdown.on_signals():
                os.kill(os.getpid(), signal.SIGTERM)
                await shutdown.requested.wait()
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
            print("ended in order")
        asyncio.run(main())
    """)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended in order\n"
    assert done.stderr.count("stopping") == 1


def test_a_hanging_event_loop_is_left_behind() -> None:
    done = run("""
        async def main():
            with Shutdown(0.1).on_signals():
                os.kill(os.getpid(), signal.SIGTERM)
                while True:
                    pass
        asyncio.run(main())
    """)

    assert done.returncode == FORCED_EXIT_CODE
    assert "not stopped within 0.2 s" in done.stderr
    assert "in main" in done.stderr


def test_a_thread_that_never_ends_is_left_behind() -> None:
    done = run("""
        async def main():
            shutdown = Shutdown(0.1)
            with shutdown.on_signals():
                threading.Thread(target=threading.Event().wait).start()
                os.kill(os.getpid(), signal.SIGINT)
                await shutdown.requested.wait()
        asyncio.run(main())
    """)

    assert done.returncode == FORCED_EXIT_CODE


def test_leaving_at_once_keeps_the_exit_code() -> None:
    done = run("""
        async def main():
            threading.Thread(target=threading.Event().wait).start()
            Shutdown(60).leave(0)
        asyncio.run(main())
    """)

    assert done.returncode == 0


def test_signals_are_as_before_when_nothing_was_asked() -> None:
    done = run("""
        async def main():
            with Shutdown(60).on_signals():
                pass
        asyncio.run(main())
        os.kill(os.getpid(), signal.SIGTERM)
    """)

    assert done.returncode == -signal.SIGTERM
