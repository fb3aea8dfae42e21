"""YAML text to a tree that remembers its lines.

A safe subset of YAML 1.2: mappings, lists, text, numbers, true/false, null. No tags, anchors, aliases or
merge keys, so a file of n bytes never grows beyond n values. The tree is built from parser events without
recursion, so that no input can exhaust the stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from simulator.errors import Fault
from simulator.files.text import UNPRINTABLE, Stop, decode, in_plain_words

__all__ = ["FLOAT", "MAX_DEPTH", "MAX_INTEGER", "MAX_VALUES", "Tree", "YamlNode", "dotted", "parse"]

# Caps of this project, not of YAML: the largest hand-written scenario is some kilobytes and five levels deep.
MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_INTEGER = 2**63 - 1

# Scalars as in the core schema of YAML 1.2.2, section 10.3.2, without octal and hexadecimal numbers.
NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
TRUE = re.compile(r"(?:true|True|TRUE)\Z")
FALSE = re.compile(r"(?:false|False|FALSE)\Z")
INTEGER = re.compile(r"[-+]?[0-9]+\Z", re.ASCII)
FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)

# libyaml where PyYAML was built with it: 7 times faster (0.3 s instead of 2.1 s for 100,000 values).
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class YamlNode:
    """One value of the file: `line` is that of its key (or of itself in a list), `text`
    what a scalar says there.
    """

    line: int
    value: Any
    text: str | None = None
    children: dict[str | int, YamlNode] = field(default_factory=dict)


@dataclass(slots=True)
class Tree:
    """The whole file; `faults` are those of the text itself, `spoilt` the paths
    whose value could not be read.
    """

    root: YamlNode | None = None
    faults: list[Fault] = field(default_factory=list)
    spoilt: set[str] = field(default_factory=set)

    def find(self, path: tuple[str | int, ...]) -> YamlNode | None:
        """The node at `path`, None where the file does not have it."""
        node = self.root
        for key in path:
            node = node.children.get(key) if node else None
        return node

    def line(self, path: tuple[str | int, ...]) -> int | None:
        """The 1-based line of `path`, or of its nearest ancestor in the file."""
        node, line = self.root, self.root.line if self.root else None
        for key in path:
            node = node.children.get(key) if node else None
            line = node.line if node else line
        return line

    def locate(self, path: str) -> int | None:
        """The line of a dotted path whose keys may hold dots themselves."""
        node, line = self.root, self.root.line if self.root else None
        while node and path:
            name = next((key for key in node.children if f"{path}.".startswith(f"{key}.")), None)
            if name is None:
                break
            node, path = node.children[name], path[len(str(name)) + 1 :]
            line = node.line
        return line


def dotted(path: tuple[str | int, ...]) -> str:
    """A path for people, safe for a terminal: keys that would not print are escaped and long ones cut.

    >>> dotted(("devices", "phone", 0))
    'devices.phone.0'
    """
    keys = (str(key) for key in path)
    return ".".join((key if key.isprintable() else ascii(key)[1:-1])[:60] for key in keys)


def parse(raw: bytes) -> Tree:
    """The tree of a YAML file; what is wrong with the text is in `faults`, and `root` is
    None if nothing was read.
    """
    tree = Tree()
    try:
        _Builder(tree).build(decode(raw))
    except Stop as stop:
        tree.faults.append(stop.fault)
        tree.root = None
    return tree


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is still open; `key` waits for its value, `dropped`
    says the value goes nowhere.
    """

    node: YamlNode
    is_mapping: bool
    name: str | int
    key: str | None = None
    key_line: int = 0
    dropped: bool = False


class _Builder:
    """Turns parser events into nodes, with an explicit stack instead of recursion."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.stack: list[_Frame] = []
        self.values = 0
        self.documents = 0

    def build(self, text: str) -> None:
        try:
            for event in yaml.parse(text, Loader=_Loader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            raise in_plain_words(error, text) from None
        except yaml.YAMLError as error:
            raise Stop(f"this is not YAML: {str(error).splitlines()[0]:.100}") from None
        if self.tree.root is None:
            raise Stop("the file is empty; write 'key: value' lines", 1)

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise Stop("a second document begins here ('---'); a spec file holds one", line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.stack.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._count(line)
            self._node(event, line)

    def _count(self, line: int) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise Stop(
                f"more than {MAX_VALUES} keys and values, which is the most a spec file may hold", line
            )
        if len(self.stack) > MAX_DEPTH:
            raise Stop(f"nested more than {MAX_DEPTH} levels deep", line)

    def _node(self, event: Any, line: int) -> None:
        waiting = self.stack[-1] if self.stack else None
        if waiting and waiting.is_mapping and waiting.key is None:
            self._key(waiting, event, line)
            return
        self._refuse_extras(event, line)
        if isinstance(event, yaml.AliasEvent):
            self._spoil(f"alias '*{event.anchor:.40}' is not allowed; write the value out", line)
            self._attach(YamlNode(line, None, ""))
        elif isinstance(event, yaml.ScalarEvent):
            # the bytes of the file are plain text, but an escape within quotes makes what a terminal obeys
            if found := UNPRINTABLE.search(event.value):
                self._spoil(f"the text holds the control character {found[0]!a}; leave it out", line)
            value = self._scalar(event.value, line) if event.implicit[0] else event.value
            self._attach(YamlNode(line, value, event.value))
        else:
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            node = YamlNode(line, {} if is_mapping else [])
            name = self._path()[-1] if self.stack else ""
            self._attach(node)
            self.stack.append(_Frame(node, is_mapping, name))

    def _refuse_extras(self, event: Any, line: int) -> None:
        if getattr(event, "tag", None):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._spoil(f"tag '{tag[:60]}' is not allowed; write a plain value", line)
        if event.anchor and not isinstance(event, yaml.AliasEvent):
            reason = f"anchor '&{event.anchor:.40}' is not allowed; remove it"
            self.tree.faults.append(Fault(self._here(), reason, line))

    def _key(self, frame: _Frame, event: Any, line: int) -> None:
        """A key is always its text, so that a device may be called `no` or `8`."""
        where = self._here()
        if not isinstance(event, yaml.ScalarEvent) or event.tag or event.anchor:
            raise Stop("a key must be plain text, without brackets, tags, anchors or aliases", line, where)
        frame.key, frame.key_line, frame.dropped = event.value, line, False
        reason = None
        if event.value == "<<":
            reason = "merge key '<<' is not allowed; write the keys out"
        elif event.implicit[0] and NULL.match(event.value):
            reason = "a key is missing before ':'"
        elif not event.value.isprintable():
            where, reason = (
                self._here(),
                "this key holds a control character or a line break; write plain text",
            )
        elif earlier := frame.node.children.get(event.value):
            where, reason = (
                self._here(),
                f"this key was given before, on line {earlier.line}; keep one of them",
            )
        if reason:
            frame.dropped = True
            self.tree.faults.append(Fault(where, reason, line))

    def _attach(self, node: YamlNode) -> None:
        frame = self.stack[-1] if self.stack else None
        if frame is None:
            self.tree.root = node
            return
        if frame.is_mapping:
            key, frame.key, node.line = frame.key or "", None, frame.key_line
            if not frame.dropped:
                frame.node.value[key] = node.value
                frame.node.children[key] = node
        else:
            frame.node.children[len(frame.node.children)] = node
            frame.node.value.append(node.value)

    def _scalar(self, text: str, line: int) -> Any:
        if NULL.match(text):
            return None
        if TRUE.match(text) or FALSE.match(text):
            return text[0] in "tT"
        if INTEGER.match(text):
            # The length is checked first: int() of thousands of digits is slow, and refused by Python itself.
            if len(text) <= 1000 and abs(int(text)) <= MAX_INTEGER:
                return int(text)
            self._spoil(f"{text:.40} is too large for a whole number (at most {MAX_INTEGER})", line)
            return None
        if FLOAT.match(text):
            return float(re.sub(r"\.(?=[iInN])", "", text))  # YAML's '.inf' and '.nan'
        return text

    def _spoil(self, reason: str, line: int) -> None:
        self.tree.faults.append(Fault(self._here(), reason, line))
        self.tree.spoilt.add(self._here())

    def _path(self) -> tuple[str | int, ...]:
        """Where the next value goes."""
        path: list[str | int] = [frame.name for frame in self.stack[1:]]
        if self.stack and not self.stack[-1].is_mapping:
            path.append(len(self.stack[-1].node.children))
        elif self.stack and self.stack[-1].key is not None:
            path.append(self.stack[-1].key)
        return tuple(path)

    def _here(self) -> str:
        return dotted(self._path())
