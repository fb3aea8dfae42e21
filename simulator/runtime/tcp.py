"""TCP's slow start: what a large message waits for on a connection that was silent before.

A connection that has sent nothing for longer than its retransmission time-out begins anew with an initial
window (RFC 5681, section 4.1; on by default in Linux), and each round trip doubles what may be on its way.
"""

from __future__ import annotations

import numpy as np

from simulator.laws.law import Floats

__all__ = ["slow_start_s"]

FIRST_WINDOW_BYTES = 10 * 1448
"""Ten segments (RFC 6928) of an Ethernet frame's 1500 bytes less the headers of IPv4 and TCP."""


def slow_start_s(size_bytes: float, round_trip_s: Floats, seconds_per_byte: Floats) -> Floats:
    """Seconds that a message of `size_bytes` waits for acknowledgements, beside its transmission.

    `sum of max(0, round_trip - window * seconds_per_byte)` over all windows but the last, each twice the one
    before it: a window that takes longer to send than to be acknowledged holds nobody up.
    """
    wait_s = np.zeros(np.broadcast(round_trip_s, seconds_per_byte).shape)
    window, left = float(FIRST_WINDOW_BYTES), size_bytes - FIRST_WINDOW_BYTES
    while left > 0:
        wait_s += np.maximum(0.0, round_trip_s - window * seconds_per_byte)
        window *= 2
        left -= window
    return wait_s
