"""Look again and again, never more often than once a second, however long a look takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from live.errors import LiveError
from live.watch.sources import Look, View

__all__ = ["LEAST_S", "watch"]

LEAST_S = 1.0


def watch(look: Look, show: Callable[[View], None], *, every_s: float, looks: int | None = None) -> None:
    """Show a View each `every_s` seconds (at least 1), `looks` times or until interrupted.

    A cluster that does not answer is shown as an alarm, and asked again: it may come back.
    """
    done = 0
    while looks is None or done < looks:
        begun_s = time.monotonic()
        try:
            view = look()
        except LiveError as error:
            view = View(alarms=(str(error),))
        show(view)
        done += 1
        if looks is None or done < looks:
            # from the start of this look: a slow answer is no reason to ask twice as often
            time.sleep(max(0.0, begun_s + max(LEAST_S, every_s) - time.monotonic()))
