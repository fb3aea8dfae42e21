"""Frames of llama.cpp's RPC protocol 7, only to count and to name the messages that a relay lets pass.

A request is `command (1 byte) | size (8 bytes, little endian) | payload`, a
reply `size (8 bytes) | payload` (read from ggml-rpc.cpp of llama-cpp-python
0.3.36). The relay forwards bytes whatever this reader makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["COMMANDS", "FrameReader"]

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


@dataclass(slots=True)
class FrameReader:
    """Finds where messages begin in one direction of a byte stream."""

    is_request: bool
    _header: bytearray = field(default_factory=bytearray)
    _payload_left: int = 0

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
