"""A TCP relay that holds every byte back for a fixed time each way, and may be narrow: the link of a test."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time


class Relay:
    """Listens on `address` and passes everything to `target`, `delay_s` later in each direction.

    With a rate all connections towards the target share it, first come first served, as they share a radio.
    What passes is kept in `there` and `back`; once `spoiling`, a bit of it is flipped, there (0) or back (1).
    """

    def __init__(
        self,
        target: tuple[str, int],
        delay_s: float,
        address: str = "127.0.0.1",
        bytes_per_s: float = float("inf"),
        spoil: int | None = None,
    ) -> None:
        self.target, self.delay_s, self.bytes_per_s = target, delay_s, bytes_per_s
        self.free_s, self.lock = 0.0, threading.Lock()
        self.held_s: list[float] = []
        self.there: list[bytes] = []
        self.back: list[bytes] = []
        self.spoil, self.spoiling = spoil, False
        self.listener = socket.create_server((address, 0))
        self.listener.settimeout(0.1)
        self.address = self.listener.getsockname()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.listener.close()

    def _accept(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                for connection in (near, far):
                    connection.settimeout(30)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                done = [threading.Event(), threading.Event()]
                self._pass(near, far, done[0], done, narrow=True)
                self._pass(far, near, done[1], done, narrow=False)

    def _due_s(self, size: int, narrow: bool) -> float:
        if not narrow:
            return time.monotonic() + self.delay_s
        with self.lock:
            self.free_s = max(self.free_s, time.monotonic()) + size / self.bytes_per_s
            return self.free_s + self.delay_s

    def _pass(self, source, sink, mine, both, narrow: bool) -> None:
        waiting: queue.Queue = queue.Queue(64)

        def read() -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if self.spoiling and self.spoil == (not narrow):
                        data = data[:-1] + bytes([data[-1] ^ 1])
                    (self.there if narrow else self.back).append(data)
                    waiting.put((time.monotonic(), self._due_s(len(data), narrow), data))
            waiting.put((0.0, 0.0, b""))

        def write() -> None:
            with contextlib.suppress(OSError):
                while True:
                    came_s, due_s, data = waiting.get()
                    time.sleep(max(due_s - time.monotonic(), 0))
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        break
                    sink.sendall(data)
                    self.held_s.append(time.monotonic() - came_s)
            mine.set()
            if all(event.is_set() for event in both):
                source.close()
                sink.close()

        for target in (read, write):
            threading.Thread(target=target, daemon=True).start()
