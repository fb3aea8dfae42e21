"""pydantic's errors as faults in plain words: the value, the rule, the allowed values, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from simulator.errors import Fault, did_you_mean
from simulator.files.fields import Branch, Place, field_names, literals, locate
from simulator.files.tree import Tree, YamlNode, dotted

__all__ = ["explain", "in_words"]

# Far more than are ever shown; the names nearest to 50,000 unknown keys would take a minute to find.
MAX_ERRORS = 1000
SHOWN = 60  # characters of a value in a message

# By pydantic's error type; the braces are filled from the error's context.
RULES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large for a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "dict_type": "must be a mapping ('key: value' lines)",
    "mapping_type": "must be a mapping ('key: value' lines)",
    "model_type": "must be a mapping ('key: value' lines)",
    "model_attributes_type": "must be a mapping ('key: value' lines)",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "has {actual_length} entries and must have at least {min_length}",
    "too_long": "has more entries than the {max_length} allowed",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "none_required": "must be empty",
}

# Names that pydantic gives to the branches of a union which take a single value.
SCALARS = re.compile(r"(int|float|str|bool|none|literal|enum|date|datetime|constrained-\w+|lax-or-strict)\b")
LISTS = re.compile(r"(list|tuple|set|frozenset)\b")


@dataclass(frozen=True, slots=True)
class LocatedError:
    """One error of pydantic with the place that it means."""

    error: Any
    place: Place
    lists_keys: bool = True
    """Whether it says what is allowed beside an unknown key: once for each mapping, not for each key."""


def explain(error: ValidationError, cls: type[BaseModel], tree: Tree) -> list[Fault]:
    """Each of the first MAX_ERRORS errors as a fault with its line.

    Of an undiscriminated union only the branch nearest to the file's value speaks, and a missing key is not
    reported where an unknown one beside it is taken for its misspelling.
    """
    details = error.errors(include_url=False)[:MAX_ERRORS]
    found = _nearest([LocatedError(detail, locate(cls, detail["loc"])) for detail in details], 0, tree)
    # else one misspelt key would be told twice: as unknown, and as missing under its right name
    misspelt = {_suggested(finding, tree) for finding in found if finding.error["type"] == "extra_forbidden"}
    groups = _by_place(
        [
            finding
            for finding in _listed_once(found)
            if finding.place.path not in misspelt or not _missing(finding)
        ]
    )
    return [_fault(findings, tree) for findings in groups]


def _listed_once(found: Sequence[LocatedError]) -> Iterator[LocatedError]:
    """The same, with the allowed keys at the first unknown one of each mapping."""
    told = set()
    for finding in found:
        mapping = finding.place.path[:-1]
        yield replace(finding, lists_keys=mapping not in told)
        if finding.error["type"] == "extra_forbidden":
            told.add(mapping)


def in_words(error: ValidationError) -> str:
    """The first fault of what came as plain data, on one line: where, the value, the rule."""
    first = error.errors(include_url=False)[0]
    where, kind, context = dotted(first["loc"]), first["type"], first.get("ctx", {})
    more = f" ({error.error_count() - 1} faults more)" if error.error_count() > 1 else ""
    if kind in ("missing", "extra_forbidden"):
        reason = "this key is missing" if kind == "missing" else "unknown key"
    elif kind in ("value_error", "assertion_error"):
        reason = str(context.get("error"))
    else:
        rule = (
            RULES[kind].format(**context) if kind in RULES else first["msg"].replace("Input should", "must")
        )
        reason = f"{_shown(None, first['input'])} {rule}"
    return f"{where}: {reason}{more}" if where else f"{reason}{more}"


def _missing(finding: LocatedError) -> bool:
    return bool(finding.error["type"] == "missing")


def _by_place(found: Sequence[LocatedError]) -> list[list[LocatedError]]:
    """Findings that are alternatives (branches of one union, none of them near) belong into one fault."""
    groups: dict[Any, list[LocatedError]] = {}
    for number, finding in enumerate(found):
        key = (finding.place.path, "union") if finding.place.branches else (finding.place.path, number)
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _nearest(found: Sequence[LocatedError], level: int, tree: Tree) -> list[LocatedError]:
    """Keep, of each union's branches at nesting `level`, the one that fits the
    value best; ties are all kept.
    """
    kept: list[LocatedError] = []
    unions: dict[Any, dict[str, list[LocatedError]]] = {}
    for finding in found:
        branches = finding.place.branches
        if len(branches) <= level:
            kept.append(finding)
        else:
            names = unions.setdefault(branches[level].path, {})
            names.setdefault(branches[level].name, []).append(finding)
    for names in unions.values():
        branch_of = {name: findings[0].place.branches[level] for name, findings in names.items()}
        scores = {name: _distance(branch_of[name], findings, tree) for name, findings in names.items()}
        best = [findings for name, findings in names.items() if scores[name] == min(scores.values())]
        # Only faults of the value as a whole read well side by side ("is no number; or must be one of ...").
        alike = all(len(findings) == 1 and _at_root(findings[0], level) for findings in best)
        for findings in best if alike else best[:1]:
            kept += _nearest(findings, level + 1, tree)
    return kept


def _at_root(finding: LocatedError, level: int) -> bool:
    return finding.place.path == finding.place.branches[level].path


def _distance(branch: Branch, findings: Sequence[LocatedError], tree: Tree) -> tuple[bool, int]:
    """How far a branch is from the value: of another kind altogether, then the number of its faults."""
    node = tree.find(branch.path)
    value = node.value if node else None
    if isinstance(value, dict):
        other_kind = bool(SCALARS.match(branch.name) or LISTS.match(branch.name))
    elif isinstance(value, list):
        other_kind = not LISTS.match(branch.name)
    else:
        other_kind = not SCALARS.match(branch.name)
    return other_kind, len(findings)


def _suggested(finding: LocatedError, tree: Tree) -> tuple[str | int, ...]:
    """The path of the key for which an unknown key is taken, () if for none."""
    hint = _hint(finding, tree)
    names = (name for name in field_names(finding.place.parents) if hint == f", did you mean '{name}'?")
    return next(((*finding.place.path[:-1], name) for name in names), ())


def _hint(finding: LocatedError, tree: Tree) -> str:
    """A suggestion for an unknown key, out of the keys that the file does not give yet."""
    *parent, key = finding.place.path
    node = tree.find(tuple(parent))
    given = node.children if node else {}
    return did_you_mean(
        str(key)[:SHOWN], [name for name in field_names(finding.place.parents) if name not in given]
    )


def _fault(findings: Sequence[LocatedError], tree: Tree) -> Fault:
    path = findings[0].place.path
    if findings[0].error["type"].startswith("union_tag_"):
        path = (*path, _discriminator(findings[0]))
    reason = "; or: ".join(dict.fromkeys(_reason(finding, tree) for finding in findings))
    line = tree.line(path)
    if findings[0].error["type"] == "value_error":
        # A rule between keys names its culprit first ("placement.order names 'fone', which
        # ..."): point at that line.
        line = tree.locate(".".join(part for part in (dotted(path), reason.split(" ", 1)[0]) if part))
    return Fault(dotted(path), reason, line)


def _discriminator(finding: LocatedError) -> str:
    return str(finding.error["ctx"]["discriminator"]).strip("'").removesuffix("()")


def _reason(finding: LocatedError, tree: Tree) -> str:
    error, place, kind = finding.error, finding.place, finding.error["type"]
    context = error.get("ctx", {})
    if kind == "missing":
        return "this key is missing"
    if kind == "extra_forbidden":
        allowed = f" (allowed here: {', '.join(field_names(place.parents)[:30])})"
        return f"unknown key{_hint(finding, tree)}{allowed if finding.lists_keys else ''}"
    if kind == "union_tag_not_found":
        key = _discriminator(finding)
        return f"this key is missing; it must be one of {', '.join(literals(place.allowed, key))}"
    if kind == "union_tag_invalid":
        allowed = context["expected_tags"]
        return f"{str(context['tag'])[:SHOWN]!r} must be one of {allowed}{_near(context['tag'], allowed)}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error")) or error["msg"]
    node = tree.find(place.path) if "[key]" not in error["loc"] else None
    rule = RULES[kind].format(**context) if kind in RULES else error["msg"].replace("Input should", "must")
    rule = (
        rule.replace("' or '", "', '")
        if "', '" in rule or "' or '" in rule
        else rule.replace("one of '", "'")
    )
    return f"{_shown(node, error['input'])} {rule}{_advice(node, kind, context)}"


def _near(value: Any, allowed: str) -> str:
    return did_you_mean(str(value)[:SHOWN], re.findall(r"'([^']*)'", allowed))


def _advice(node: YamlNode | None, kind: str, context: dict[str, Any]) -> str:
    if kind in ("literal_error", "enum") and node and node.text:
        return _near(node.text, str(context["expected"]))
    if kind == "string_type" and node and node.text:
        return f"; put it in quotes: '{node.text[:SHOWN]}'"
    return ""


def _shown(node: YamlNode | None, value: Any) -> str:
    """The value as the user wrote it, cut to a line."""
    if node and node.text is not None:
        plain = node.text[:SHOWN] + ("..." if len(node.text) > SHOWN else "")
        if not plain:
            return "an empty value" if node.value is None else "an empty text"
        return repr(plain) if isinstance(node.value, str) or not plain.isprintable() else plain
    value = node.value if node else value
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else f"{value!r:.{SHOWN}}"
