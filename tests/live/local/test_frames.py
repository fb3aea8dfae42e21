"""Frames are found however TCP cuts the stream."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from live.local.frames import COMMANDS, FrameReader

messages = st.lists(st.tuples(st.integers(0, len(COMMANDS) - 1), st.integers(0, 300)), max_size=20)


@given(messages, st.lists(st.integers(1, 50), min_size=1), st.booleans())
def test_every_message_once_whatever_the_pieces(
    sent: list[tuple[int, int]], cuts: list[int], is_request: bool
) -> None:
    stream = b"".join(
        (bytes([command]) if is_request else b"") + struct.pack("<Q", size) + bytes(size)
        for command, size in sent
    )
    reader, found, at, turn = FrameReader(is_request), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found += reader.feed(memoryview(stream[at : at + step]))
        at, turn = at + step, turn + 1
    header = 9 if is_request else 8
    assert found == [(COMMANDS[command] if is_request else "reply", header + size) for command, size in sent]


def test_an_unknown_command_is_counted_by_its_number() -> None:
    assert FrameReader(is_request=True).feed(memoryview(bytes([99]) + bytes(8))) == [("command 99", 9)]
