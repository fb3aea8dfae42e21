"""Where messages begin in the bytes that a relay lets pass: to count them, to name them, to delay each once.

A request of llama.cpp's RPC protocol 7 is `command (1 byte) | size (8 bytes, little endian) | payload`, a
reply `size (8 bytes) | payload` (read from ggml-rpc.cpp of llama-cpp-python
0.3.36). MLX's ring sends bare bytes, so their sizes are told beforehand. The relay forwards bytes whatever
these readers make of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["COMMANDS", "FrameReader", "Piece", "SizedReader"]

Piece = tuple[memoryview, list[str], bool]
"""Bytes, the names of the messages that begin in them, and whether a flight of its own begins with them."""

# in the order of the enumeration rpc_cmd: a command is its position here
COMMANDS = (
    "alloc_buffer",
    "get_alignment",
    "get_max_size",
    "buffer_get_base",
    "free_buffer",
    "buffer_clear",
    "set_tensor",
    "set_tensor_hash",
    "get_tensor",
    "copy_tensor",
    "graph_compute",
    "get_device_memory",
    "init_tensor",
    "get_alloc_size",
    "hello",
    "device_count",
    "graph_recompute",
    "memset_tensor",
)
REPLY = "reply"


@dataclass
class FrameReader:
    """Finds where messages begin in one direction of a byte stream."""

    is_request: bool
    is_dialogue = True
    """Each side speaks in its turn, so that what comes from one ends a burst of the other."""
    _header: bytearray = field(default_factory=bytearray)
    _payload_left: int = 0

    def pieces(self, data: memoryview) -> Iterator[Piece]:
        """All of it in one: a burst of several messages is one flight."""
        yield data, [name for name, _ in self.feed(data)], False

    def feed(self, data: memoryview) -> list[tuple[str, int]]:
        """Take the next bytes; returns (name, size in bytes with its header) of each
        message whose header got whole.
        """
        begun: list[tuple[str, int]] = []
        header_size = 9 if self.is_request else 8
        at, end = 0, len(data)
        while at < end:
            if self._payload_left:
                step = min(self._payload_left, end - at)
                self._payload_left -= step
            else:
                # a header may be cut by the end of a packet, so its bytes are collected
                step = min(header_size - len(self._header), end - at)
                self._header += data[at : at + step]
                if len(self._header) == header_size:
                    begun.append(self._open(header_size))
            at += step
        return begun

    def _open(self, header_size: int) -> tuple[str, int]:
        size = int.from_bytes(self._header[-8:], "little")
        command = self._header[0] if self.is_request else None
        self._header.clear()
        # the payload is passed over and never kept: a set_tensor carries a whole layer
        self._payload_left = size
        if command is None:
            return REPLY, header_size + size
        return COMMANDS[command] if command < len(COMMANDS) else f"command {command}", header_size + size


@dataclass
class SizedReader:
    """Cuts one direction of a ring's connection into the messages that were announced.

    On a ring each side sends whenever it is ready, often without a word from the other in between: neither
    the turn of the other nor a pause tells where a message ends.
    """

    is_dialogue = False
    _announced: deque[tuple[int, int]] = field(default_factory=deque)
    _left: int = 0

    def expect(self, messages: Iterable[tuple[int, int]]) -> None:
        """What comes next: (how many, bytes of each), in this order; what came before is over."""
        self._announced, self._left = deque(messages), 0

    def pieces(self, data: memoryview) -> Iterator[Piece]:
        """Each message, or part of one, alone; what nobody announced passes as it comes."""
        while data:
            begins = self._left == 0
            if begins:
                self._left = self._next(len(data))
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            yield part, ["message"] if begins else [], begins

    def _next(self, default: int) -> int:
        if not self._announced:
            return default
        count, size = self._announced.popleft()
        if count > 1:
            self._announced.appendleft((count - 1, size))
        return size
