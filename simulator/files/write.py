"""Write specs and any other file so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from pathlib import Path

import yaml
from pydantic import BaseModel

from simulator.errors import Fault, ScenarioError, SimulatorError
from simulator.files.inert import yaml_comment
from simulator.files.ours import mark, refuse_others
from simulator.files.read import loads
from simulator.files.text import MAX_BYTES
from simulator.files.tree import FLOAT

__all__ = [
    "dump",
    "dumps",
    "make_folder",
    "sync_folder",
    "write_bytes_atomically",
    "write_ours",
    "write_text_atomically",
]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or our reader would take for something else."""

    def text(self, text: str) -> yaml.ScalarNode:
        """Escape YAML 1.1's exotic line breaks, which PyYAML writes raw and a
        reader then folds into spaces.
        """
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


class _RowDumper(_Dumper):
    """Writes a list of numbers on one line."""

    def row(self, values: list[object]) -> yaml.SequenceNode:
        """A list, in brackets where it holds numbers only."""
        flow = bool(values) and all(isinstance(value, int | float) for value in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


_RowDumper.add_representer(list, _RowDumper.row)


def dumps(instance: BaseModel, header: str = "", *, rows: bool = False) -> str:
    """YAML text that `loads` reads back to an equal object, keys as declared, quantities in their base unit.

    `header` becomes comment lines at the top; with `rows` a list of numbers takes one line. Raises
    ScenarioError if the object is one that no file can describe, for example after `model_copy` with a value
    out of range.
    """
    comment = yaml_comment(header)
    # Empty values are left out where that means the same, which is nearly always: None is mostly the default.
    for exclude_none in (True, False):
        text = comment + _yaml(instance, exclude_none=exclude_none, rows=rows)
        with contextlib.suppress(ScenarioError):
            if loads(text, type(instance)) == instance:
                return text
    name = f"<{type(instance).__name__}>"
    loads(text, type(instance), name)
    raise ScenarioError(name, [Fault("", "the object differs from what a file can say of it")])


def _yaml(instance: BaseModel, *, exclude_none: bool, rows: bool) -> str:
    # By way of JSON, so that only plain values are left; its floats are the shortest that read back exactly.
    text = instance.model_dump_json(round_trip=True, by_alias=True, warnings=False, exclude_none=exclude_none)
    dumper, width = (_RowDumper, MAX_BYTES) if rows else (_Dumper, 120)
    return yaml.dump(json.loads(text), Dumper=dumper, sort_keys=False, allow_unicode=True, width=width)


def dump(instance: BaseModel, path: str | Path, header: str = "", *, rows: bool = False) -> None:
    """Write `dumps` of the same arguments to `path`; raises as `dumps` and `write_ours` do."""
    write_ours(path, dumps(instance, header, rows=rows))


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing; raises SimulatorError where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = getattr(error, "strerror", None) or error
        raise SimulatorError(f"{folder}: cannot be made ({why}); name a folder where you may write") from None


def write_ours(path: str | Path, data: str | bytes) -> None:
    """Write a file of ours atomically; raises SimulatorError too where one of others would be lost."""
    target, content = Path(path), data.encode() if isinstance(data, str) else data
    refuse_others(target.parent, {target.name: content})
    mark(target.parent, {target.name: content})
    write_bytes_atomically(target, content)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` with newlines as they are; see `write_bytes_atomically`."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to a temporary name in the same folder, flush it to the disk, and rename it to `path`.

    A link is followed and an existing file keeps its permissions. Raises SimulatorError if the folder does
    not exist or cannot be written; whatever happens, `path` holds all of the old content or all of the new.
    """
    try:
        # a link stays a link: what it points to is replaced
        target = Path(path).resolve()
        # of its own name: two processes may write one file at the same time
        temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
        _write(temporary, target, data)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        why = getattr(error, "strerror", None) or error
        raise SimulatorError(
            f"{path}: cannot be written ({why}); name a file in a folder that you may write"
        ) from None


def _write(temporary: Path, target: Path, data: bytes) -> None:
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """See to it that new names in a folder are on the disk; systems that cannot open a folder skip this."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
