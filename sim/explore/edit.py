"""Change one value of a scenario's YAML and leave every other character, comments too, as it is.

The text is cut where PyYAML says that the value lies. Whatever comes of that is read again: where it does not
say exactly what was meant, the whole document is written anew, without its comments.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import yaml

from simulator.errors import Fault, ScenarioError
from simulator.files.tree import parse

__all__ = ["edited", "without_device"]

SHORTHAND = {"model": "name", "engine": "name", "placement": "rule"}
"""Keys that a scenario may give as one word, and what that word then is."""
Path = Sequence[str | int]


def edited(text: str, path: Path, value: Any) -> str:
    """`text` with `value` at `path`; None takes the key out, and text is YAML where it stands for one value.

    Raises ScenarioError where the text is no YAML or the path leads nowhere.
    """
    plain = _plain(text)
    path = tuple(path)
    first = str(path[0])
    if len(path) > 1 and isinstance(plain.get(first), str) and first in SHORTHAND:
        # by its long form, into which the new key fits
        word = {SHORTHAND[first]: plain[first]}
        text = edited(text, path[:1], word)
        plain = _plain(text)
    source = None if value is None else _source(value)
    meant = copy.deepcopy(plain)
    _put(meant, path, None if source is None else parse(f"v: {source}".encode()).root.value["v"])  # type: ignore[union-attr]
    if meant == plain and value is None:
        return text
    for made in _attempts(text, path, source):
        tree = parse(made.encode())
        if not tree.faults and tree.root is not None and tree.root.value == meant:
            return made
    return yaml.safe_dump(meant, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def without_device(text: str, name: str) -> str:
    """The same text without a device and without what names it: layers, order, roles, wires, events."""
    plain = _plain(text)
    placement = plain.get("placement")
    if isinstance(placement, dict):
        for key in ("layers", "roles"):
            if isinstance(placement.get(key), dict) and name in placement[key]:
                # a division by hand has no meaning without one of its devices
                text = edited(text, ("placement", key), None)
        order = placement.get("order")
        if isinstance(order, list) and name in order:
            text = edited(text, ("placement", "order"), [one for one in order if one != name] or None)
    wires = plain.get("wires")
    if isinstance(wires, list):
        kept = [one for one in wires if not (isinstance(one, dict) and name in (one.get("between") or ()))]
        text = text if kept == wires else edited(text, ("wires",), kept or None)
    events = plain.get("events")
    if isinstance(events, list):
        kept = [one for one in events if not (isinstance(one, dict) and one.get("device") == name)]
        text = text if kept == events else edited(text, ("events",), kept or None)
    return edited(text, ("devices", name), None)


def _plain(text: str) -> dict[str, Any]:
    """The document as plain data; raises ScenarioError where it is none."""
    tree = parse(text.encode("utf-8", "surrogatepass"))
    if tree.faults or tree.root is None or not isinstance(tree.root.value, dict):
        raise ScenarioError(
            "scenario", tree.faults or [Fault("", "the file must hold 'key: value' lines", 1)]
        )
    return dict(tree.root.value)


def _source(value: Any) -> str:
    """A value as it stands in the text, on one line."""
    if isinstance(value, str):
        typed = value.strip()
        return typed if _stands_alone(typed) else json.dumps(typed, ensure_ascii=False)
    written: str = yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10**6
    )
    return written.removesuffix("\n...\n").strip()


def _stands_alone(typed: str) -> bool:
    """Whether what was typed is one YAML value and stays one behind a key and within brackets."""
    if not typed or "\n" in typed or "#" in typed:
        return False
    bare = parse(f"v: {typed}".encode("utf-8", "surrogatepass"))
    inside = parse(f"{{v: {typed}, w: 1}}".encode("utf-8", "surrogatepass"))
    if bare.faults or inside.faults or bare.root is None or inside.root is None:
        return False
    return bool({**bare.root.value, "w": 1} == inside.root.value)


def _put(plain: Any, path: Path, value: Any) -> None:
    """Write a value under a path, or take its key out; raises ScenarioError where the path leads nowhere."""
    *keys, last = path
    for key in keys:
        if isinstance(plain, dict) and plain.get(str(key)) is None:
            if value is None:
                return
            plain[str(key)] = {}
        plain = _step(plain, key, path)
    if isinstance(plain, dict) and value is None:
        plain.pop(str(last), None)
    elif isinstance(plain, dict):
        plain[str(last)] = value
    elif isinstance(plain, list) and isinstance(last, int) and 0 <= last < len(plain) and value is not None:
        plain[last] = value
    else:
        raise _nowhere(path)


def _step(plain: Any, key: str | int, path: Path) -> Any:
    if isinstance(plain, dict):
        return plain[str(key)]
    if isinstance(plain, list) and isinstance(key, int) and 0 <= key < len(plain):
        return plain[key]
    raise _nowhere(path)


def _nowhere(path: Path) -> ScenarioError:
    return ScenarioError("edit", [Fault(".".join(map(str, path)), "nothing of the scenario lies there")])


def _attempts(text: str, path: Path, source: str | None) -> list[str]:
    """Texts that may be what was meant."""
    node, pairs = yaml.compose(text, Loader=yaml.SafeLoader), list[tuple[Any, Any, Any]]()
    for depth, key in enumerate(path):
        found = _child(node, key)
        if found is None:
            if source is None or not isinstance(node, yaml.MappingNode):
                return _in_place_of_nothing(text, pairs, path[depth:], source)
            rest = source
            for inner in reversed(path[depth + 1 :]):
                rest = f"{{{_key(inner)}: {rest}}}"
            return [_inserted(text, node, f"{_key(key)}: {rest}")]
        pairs.append((node, *found))
        node = found[1]
    parent, key_node, value_node = pairs[-1]
    if source is None:
        return [_removed(text, parent, key_node, value_node)]
    return [_replaced(text, key_node, value_node, source)]


def _in_place_of_nothing(
    text: str, pairs: list[tuple[Any, Any, Any]], rest: Path, source: str | None
) -> list[str]:
    """A key whose value is empty becomes one with brackets."""
    if source is None or not pairs:
        return []
    for inner in reversed(rest):
        source = f"{{{_key(inner)}: {source}}}"
    return [_replaced(text, pairs[-1][1], pairs[-1][2], source)]


def _key(key: str | int) -> str:
    return key if isinstance(key, str) and _stands_alone(key) and ":" not in key else json.dumps(str(key))


def _child(node: Any, key: str | int) -> tuple[Any, Any] | None:
    """(key node or None, value node) below a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        return next(((name, value) for name, value in node.value if name.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and 0 <= key < len(node.value):
        return None, node.value[key]
    return None


def _end(text: str, node: Any) -> int:
    """Where a node's own text ends: a block's mark lies at what comes next."""
    begin: int = node.start_mark.index
    end: int = node.end_mark.index
    return begin + len(text[begin:end].rstrip())


def _replaced(text: str, key: Any, value: Any, source: str) -> str:
    begin, end = value.start_mark.index, _end(text, value)
    if key is not None and text[key.end_mark.index : begin].strip() in (":", ""):
        return f"{text[: key.end_mark.index]}: {source}{text[max(end, _colon(text, key)) :]}"
    return f"{text[:begin]}{source}{text[end:]}"


def _colon(text: str, key: Any) -> int:
    """Behind the colon of a key."""
    end: int = key.end_mark.index
    return text.index(":", end) + 1


def _inserted(text: str, mapping: Any, pair: str) -> str:
    if mapping.flow_style:
        brace = mapping.end_mark.index - 1
        last = len(text[:brace].rstrip())
        return f"{text[:last]}{', ' if mapping.value else ''}{pair}{text[brace:]}"
    first, last = mapping.value[0][0], mapping.value[-1][1]
    at = text.find("\n", max(_end(text, last), _colon(text, mapping.value[-1][0])))
    at = len(text) if at < 0 else at
    return f"{text[:at]}\n{' ' * first.start_mark.column}{pair}{text[at:]}"


def _removed(text: str, mapping: Any, key: Any, value: Any) -> str:
    pairs = mapping.value
    if key is None or len(pairs) == 1:
        return f"{text[: mapping.start_mark.index]}{{}}{text[_end(text, mapping) :]}" if key else text
    if not mapping.flow_style:
        begin = text.rfind("\n", 0, key.start_mark.index) + 1
        line = text.find("\n", max(_end(text, value), _colon(text, key)))
        return text[:begin] + (text[line + 1 :] if line >= 0 else "")
    at = next(number for number, (one, _) in enumerate(pairs) if one is key)
    if at + 1 < len(pairs):
        return text[: key.start_mark.index] + text[pairs[at + 1][0].start_mark.index :]
    return text[: pairs[at - 1][1].end_mark.index] + text[_end(text, value) :]
