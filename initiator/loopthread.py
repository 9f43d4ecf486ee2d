"""An event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
GRACE_S = 0.5
"""How long what still runs at the end may take to end by itself."""


class LoopClosedError(RuntimeError):
    """The loop does not run (any more), not in this process, or must not wait for itself.

    Attributes:
        begun: what was asked for had begun.
    """

    def __init__(self, reason: str, *, begun: bool = False) -> None:
        super().__init__(reason)
        self.begun = begun


class LoopThread:
    """Runs coroutines for any number of threads; use it as a context manager.

    Args:
        name: of the thread, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._started = threading.Event()
        self._pid = os.getpid()
        self._closed = False
        self._door = threading.Lock()  # what comes in before it closes is ended with the rest

    def _serve(self) -> None:
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        if os.getpid() != self._pid:
            return  # the thread stayed behind in the process that was forked
        if threading.current_thread() is self._thread:
            raise LoopClosedError(self._problem())
        with self._door:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_all(self) -> None:
        """Whoever waits for something here must hear that it will not come."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, late = await asyncio.wait(others, timeout=GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.sleep(0)  # for what they tell their threads

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """A coroutine's result, in the calling thread; an interrupt there ends it here, too.

        Raises:
            LoopClosedError: see there.
        """
        problem = self._problem()  # before the door: in a forked process nobody opens it any more
        if not problem:
            with self._door:
                problem = self._problem()
                future = None if problem else asyncio.run_coroutine_threadsafe(call, self._loop)
        if problem or future is None:
            call.close()
            raise LoopClosedError(problem)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise LoopClosedError(f"{self._name} was closed meanwhile", begun=True) from None
        except BaseException:
            future.cancel()
            raise

    def _problem(self) -> str:
        if os.getpid() != self._pid:
            return f"{self._name} was made in another process: make one after the fork"
        if threading.current_thread() is self._thread:
            return f"{self._name} is asked by a callback of its own, and would wait for itself"
        return f"{self._name} is closed" if self._closed or not self._started.is_set() else ""
