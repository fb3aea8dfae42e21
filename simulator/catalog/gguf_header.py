"""Read the header of a GGUF file: what the model is and how many bytes each part has, never the weights.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little
endian). The file may be hostile: every length is checked against what is left of the file
before it is used, nothing longer than a short string is kept, and tensors are summed up
while they are read. So memory stays bounded by the number of layers.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import BinaryIO

from simulator.catalog.config_keys import MAX_LAYERS
from simulator.catalog.tables import table
from simulator.errors import CatalogError

__all__ = ["MAX_LAYERS", "GgufHeader", "GgufPart", "read_header"]

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MAX_NAME, MAX_DIMENSIONS = 1024, 8
# what is kept stays below 70 MB, what is passed over below a second: real headers have some 60 keys, and
# the largest vocabulary 262,144 tokens with 514,906 merges
MAX_KEYS, MAX_KEPT, MAX_LIST = 1_000, 4096, 2 * MAX_LAYERS
MAX_TENSORS, MAX_STRINGS = 100_000, 1_000_000

Value = str | float | int | bool | tuple[float, ...]


@dataclass
class GgufPart:
    """Sum over the tensors of one part of the model."""

    tensor_bytes: int = 0
    values: int = 0
    expert_bytes: int = 0
    expert_values: int = 0
    has_keys: bool = False
    """Keys for attention of its own."""
    has_state: bool = False
    """A state space, a linear attention or a short convolution."""


@dataclass
class GgufHeader:
    """Metadata (numbers, short strings and lists) and the
    sizes of the parts: layers by number, others by name.
    """

    metadata: dict[str, Value] = field(default_factory=dict)
    layers: dict[int, GgufPart] = field(default_factory=lambda: defaultdict(GgufPart))
    parts: dict[str, GgufPart] = field(default_factory=lambda: defaultdict(GgufPart))
    bytes_by_type: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    embedding_rows: int = 0
    incomplete: bool = False


def read_header(path: Path) -> GgufHeader:
    """The header of one GGUF file.

    Raises CatalogError when the file cannot be opened, is no GGUF file, ends too early or contradicts itself.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).read()
    except OSError as error:
        raise CatalogError(
            f"{path}: cannot be read ({error.strerror}); give the path of a .gguf file"
        ) from error


@cache
def _types() -> dict[int, tuple[str, int, int]]:
    """Tensor types by number: name, values per block, bytes per block."""
    return {
        int(r["id"]): (r["name"], int(r["block_values"]), int(r["block_bytes"])) for r in table("ggml_types")
    }


class _Reader:
    """Reads forward through one file and knows how much of it is left."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.left = self.size = os.fstat(file.fileno()).st_size
        self.strings = 0
        self.header = GgufHeader()

    def fail(self, what: str) -> CatalogError:
        """The error for this file."""
        return CatalogError(
            f"{self.path}: {what}; download the file again, or describe the model in the scenario"
        )

    def read(self) -> GgufHeader:
        """The whole header."""
        if self.left < 24 or self.take(4) != MAGIC:
            raise self.fail("does not start like a GGUF file")
        version = self.number("I")
        if version not in VERSIONS:
            known = " or ".join(map(str, VERSIONS))
            raise self.fail(f"GGUF version {version} (little endian) is not {known}")
        tensors, keys = self.number("Q"), self.number("Q")
        if keys > MAX_KEYS or tensors > MAX_TENSORS or keys * 12 > self.left or tensors * 24 > self.left:
            raise self.fail(
                f"promises {keys} keys and {tensors} tensors in {self.size} bytes (at most {MAX_KEYS:,} and "
                f"{MAX_TENSORS:,} are read)"
            )
        for _ in range(keys):
            self.key()
        end = max((self.tensor() for _ in range(tensors)), default=0)
        data_start = -(-(self.size - self.left) // ALIGNMENT) * ALIGNMENT
        self.header.incomplete = data_start + end > self.size
        return self.header

    def take(self, length: int) -> bytes:
        """The next bytes; the length is checked first, so a lie about it costs nothing."""
        if length > self.left:
            raise self.fail(f"the header ends after {self.size} bytes, in the middle of an entry")
        self.left -= length
        return self.file.read(length)

    def skip(self, length: int) -> None:
        """Pass over bytes."""
        if length > self.left:
            raise self.fail(f"the header ends after {self.size} bytes, in the middle of an entry")
        self.left -= length
        self.file.seek(length, os.SEEK_CUR)

    def skip_strings(self, count: int) -> None:
        """Pass over a vocabulary: a million strings, so without a call for each."""
        read, seek, length_of = self.file.read, self.file.seek, struct.Struct("<Q").unpack
        left = self.left
        for _ in range(count):
            # what is left is asked before what is read: a length beyond the file ends in the message below
            length = length_of(read(8))[0] if left >= 8 else left
            left -= 8 + length
            if left < 0:
                raise self.fail(f"the header ends after {self.size} bytes, in the middle of an entry")
            seek(length, os.SEEK_CUR)
        self.left = left

    def number(self, code: str) -> int:
        """The next integer."""
        return int(struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0])

    def name(self) -> str:
        """The next short string."""
        length = self.number("Q")
        if length > MAX_NAME:
            raise self.fail(f"a name of {length} bytes is longer than {MAX_NAME}")
        return self.take(length).decode("utf-8", "replace")

    def key(self) -> None:
        """One metadata entry: kept when it is a number, a short string or a short list of numbers."""
        key, kind = self.name(), self.number("I")
        if kind in SCALARS:
            self.header.metadata[key] = struct.unpack(
                "<" + SCALARS[kind], self.take(struct.calcsize("<" + SCALARS[kind]))
            )[0]
        elif kind == STRING:
            length = self.number("Q")
            if length > MAX_KEPT:
                self.skip(length)
            else:
                self.header.metadata[key] = self.take(length).decode("utf-8", "replace")
        elif kind == ARRAY:
            self.array(key)
        else:
            raise self.fail(f"key {key[:60]!r} has the unknown type {kind}")

    def array(self, key: str) -> None:
        """A list: numbers are kept when they are few (one per layer), a vocabulary is passed over."""
        kind, count = self.number("I"), self.number("Q")
        if kind == STRING:
            self.strings += count
            if self.strings > MAX_STRINGS or count * 8 > self.left:
                raise self.fail(f"list {key[:60]!r} promises {count} strings in {self.left} bytes")
            self.skip_strings(count)
        elif kind in SCALARS:
            width = struct.calcsize("<" + SCALARS[kind])
            if count <= MAX_LIST and count * width <= self.left:
                self.header.metadata[key] = struct.unpack(
                    f"<{count}{SCALARS[kind]}", self.take(count * width)
                )
            else:
                self.skip(count * width)
        else:
            raise self.fail(f"list {key[:60]!r} has elements of the unsupported type {kind}")

    def tensor(self) -> int:
        """Add one tensor to its part; returns where its data ends, relative to the start of the data."""
        name, dimensions = self.name(), self.number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.fail(f"tensor {name[:60]!r} has {dimensions} dimensions")
        shape = struct.unpack(f"<{dimensions}Q", self.take(8 * dimensions))
        kind, offset = self.number("I"), self.number("Q")
        if kind not in _types():
            raise self.fail(f"tensor {name[:60]!r} has the unknown type {kind}")
        type_name, block_values, block_bytes = _types()[kind]
        values = prod(shape)
        size = -(-values // block_values) * block_bytes
        if values >= 1 << 48:  # 281 tera-values: no model, and sums of floats stay exact below
            raise self.fail(f"tensor {name[:60]!r} claims {values} values")
        part = self.part(name)
        part.tensor_bytes += size
        part.values += values
        if "_exps" in name:
            part.expert_bytes += size
            part.expert_values += values
        part.has_keys |= ".attn_k." in name or ".attn_kv" in name
        part.has_state |= ".ssm_" in name or ".shortconv" in name
        self.header.bytes_by_type[type_name] += size
        if name == "token_embd.weight":
            self.header.embedding_rows = shape[-1]
        end: int = offset + size
        return end

    def part(self, name: str) -> GgufPart:
        """The part of the model that a tensor belongs to."""
        head, _, rest = name.partition(".")
        if head == "blk" and rest.split(".")[0].isdecimal():
            layer = int(rest.split(".")[0])
            if layer >= MAX_LAYERS:
                raise self.fail(f"tensor {name[:60]!r} belongs to layer {layer} of at most {MAX_LAYERS}")
            return self.header.layers[layer]
        return self.header.parts[head if head in ("token_embd", "output", "output_norm") else "rest"]
