"""Where `sim` begins: Ctrl-C while all else is still being loaded ends it without a traceback."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it."""
    # the system's own way to end: no line of Python is there yet that could say more
    found = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sim.main import main as run

    signal.signal(signal.SIGINT, found)
    run()


if __name__ == "__main__":
    main()
