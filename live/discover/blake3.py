"""BLAKE3 of a short text: EXO names its namespaces by it, and no package of the standard library knows it.

Only inputs of at most 64 bytes (one block), which is what a namespace is. After the specification,
J. O'Connor, J.-P. Aumasson, S. Neves, Z. Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere"
(2020), sections 2.1 to 2.3.
"""

from __future__ import annotations

import struct

__all__ = ["blake3_block"]

MASK = 0xFFFFFFFF
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)  # table 2
ROUNDS = 7
CHUNK_START, CHUNK_END, ROOT = 1, 2, 8  # table 3
BLOCK_BYTES = 64
LANES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def blake3_block(data: bytes) -> bytes:
    """The 32-byte BLAKE3 digest of `data`; raises ValueError for more than 64 bytes.

    >>> blake3_block(b"").hex()[:16]
    'af1349b9f5f9a1a6'
    """
    if len(data) > BLOCK_BYTES:
        raise ValueError(f"{len(data)} bytes; a namespace has at most {BLOCK_BYTES}")
    words = list(struct.unpack("<16I", data.ljust(BLOCK_BYTES, b"\0")))
    state = [*IV, *IV[:4], 0, 0, len(data), CHUNK_START | CHUNK_END | ROOT]
    for _ in range(ROUNDS):
        for index, places in enumerate(LANES + DIAGONALS):
            _mix(state, places, words[2 * index], words[2 * index + 1])
        words = [words[place] for place in PERMUTATION]
    return struct.pack("<8I", *(state[index] ^ state[index + 8] for index in range(8)))


def _mix(state: list[int], places: tuple[int, int, int, int], first: int, second: int) -> None:
    """The quarter round G of section 2.2."""
    a, b, c, d = places
    for word, turn_d, turn_b in ((first, 16, 12), (second, 8, 7)):
        state[a] = (state[a] + state[b] + word) & MASK
        state[d] = _rotate(state[d] ^ state[a], turn_d)
        state[c] = (state[c] + state[d]) & MASK
        state[b] = _rotate(state[b] ^ state[c], turn_b)


def _rotate(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & MASK
