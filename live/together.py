"""Several chats at once: all leave together, and an interrupt reaches every one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

__all__ = ["run_together"]

STOP_S = 5.0


def run_together(
    count: int, chat: Callable[[int, threading.Barrier], None], abort: threading.Event
) -> list[BaseException]:
    """Call `chat(number, barrier)` in `count` threads; what they raised. `chat` passes the barrier to start.

    An exception here (Ctrl-C) sets `abort` and gives the chats some seconds to write down how far they came.
    """
    # all chats leave together: one after the other, the first would have the cluster to itself
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []
    # Events, not Thread.join: a Ctrl-C during a join makes Python 3.11 take the
    # thread for dead (bpo-45274).
    over = [threading.Event() for _ in range(count)]

    def one(number: int) -> None:
        try:
            chat(number, barrier)
        except BaseException as error:  # handed to the main thread, which knows what to do
            errors.append(error)
            # the others must not wait for one that will not come
            barrier.abort()
        finally:
            over[number].set()

    with ExitStack() as stack:
        stack.callback(_stop, over, abort)
        for number in range(count):
            threading.Thread(target=one, args=(number,), daemon=True).start()
        for each in over:
            while not each.wait(0.2):  # in slices, so that Ctrl-C gets through
                pass
    return errors


def _stop(over: Sequence[threading.Event], abort: threading.Event) -> None:
    """Call off what still runs, and wait for it to write down how far it came."""
    # an ordinary end needs no calling off, which would mark replies as aborted
    if not all(each.is_set() for each in over):
        abort.set()
        for each in over:
            each.wait(STOP_S)
