"""Round trips and throughput over one TCP connection, and the far sides that answer them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

from live.agent.pairing import WireError
from live.agent.wire import recv_exact

__all__ = ["BLOCK_BYTES", "MAX_SIZE_BYTES", "echo", "push", "round_trips", "sink"]

MAX_SIZE_BYTES = 4 << 20
BLOCK_BYTES = 256 << 10
BATCH_S = 0.5  # samples travel to the asker this often, so that an interrupted run keeps what it had
ANSWER_S = 10.0
WARM_UP = 3  # the first trips pay for the slow start of TCP and for waking the radio


def round_trips(
    connection: socket.socket,
    size_bytes: int,
    seconds: float,
    interval_s: float,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Iterator[list[int]]:
    """Batches of round-trip times (ns): `size_bytes` go, and the same number comes back, every `interval_s`.

    rtt = 2 * (one-way delay + size_bytes / rate) + turn-around of the far side. The pause between trips
    matters: a radio that sleeps between the messages of a decoding ring shows it only when it is given time
    to fall asleep. Raises WireError when the far side does not answer within 10 s.
    """
    payload = bytes(size_bytes)
    for _ in range(WARM_UP):
        _trip(connection, payload)
    end_s = time.monotonic() + seconds
    batch: list[int] = []
    batch_end_s = time.monotonic() + BATCH_S
    while time.monotonic() < end_s:
        start_ns = clock_ns()
        _trip(connection, payload)
        batch.append(clock_ns() - start_ns)
        if time.monotonic() >= batch_end_s:
            yield batch
            batch, batch_end_s = [], time.monotonic() + BATCH_S
        # after the trip: the pause belongs between messages, as in a decoding ring
        if interval_s > 0:
            time.sleep(interval_s)
    yield batch


def _trip(connection: socket.socket, payload: bytes) -> None:
    connection.settimeout(ANSWER_S)
    try:
        connection.sendall(payload)
    except OSError as error:
        raise WireError(f"connection lost: {error}") from error
    recv_exact(connection, len(payload), time.monotonic() + ANSWER_S)


def echo(connection: socket.socket, size_bytes: int, limit_s: float) -> None:
    """Send each `size_bytes` back as soon as they are complete, until the asker
    closes or `limit_s` is over.
    """
    end_s = time.monotonic() + limit_s
    buffer = bytearray(size_bytes)
    view = memoryview(buffer)
    while time.monotonic() < end_s:
        filled = 0
        while filled < size_bytes:
            connection.settimeout(max(end_s - time.monotonic(), 0.001))
            count = connection.recv_into(view[filled:])
            if count == 0:
                return
            filled += count
        connection.sendall(buffer)


def push(connection: socket.socket, seconds: float, stopped: Callable[[], bool] = lambda: False) -> int:
    """Send as fast as the link takes it for `seconds`, then say that it is over; the
    bytes handed to the system.
    """
    block, sent = bytes(BLOCK_BYTES), 0
    end_s = time.monotonic() + seconds
    connection.settimeout(ANSWER_S)
    try:
        while time.monotonic() < end_s and not stopped():
            connection.sendall(block)
            sent += len(block)
        # the end of the stream tells the far side to count and to answer
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        raise WireError(f"connection lost: {error}") from error
    return sent


def sink(connection: socket.socket, limit_s: float) -> tuple[int, float]:
    """Swallow what `push` sends; the bytes, and the seconds between the first and the last of them.

    The clock of the receiver counts: the sender's stops when its buffer is filled, not
    when the link has delivered.
    """
    view = memoryview(bytearray(BLOCK_BYTES))
    end_s = time.monotonic() + limit_s
    received, first_ns, last_ns = 0, 0, 0
    while time.monotonic() < end_s:
        connection.settimeout(max(end_s - time.monotonic(), 0.001))
        count = connection.recv_into(view)
        if count == 0:
            break
        last_ns = time.perf_counter_ns()
        # The first block only starts the clock: when its bytes began to arrive is not known.
        received, first_ns = (received + count, first_ns) if first_ns else (0, last_ns)
    return received, (last_ns - first_ns) / 1e9
