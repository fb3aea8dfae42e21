"""No message, help text or page names an option that the command it speaks of does not have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sim.main import app

ROOT = Path(__file__).parents[1]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]")
OURS = re.compile(r"`(sim (?!->)[^`]+)`")
OF_OTHERS = {
    "EXO": {"--api-port", "--json-out"},
    "vLLM": {"--input-len", "--output-len", "--batch-size", "--max-concurrency", "--save-result"},
    "llama.cpp": {"--rpc", "--tensor-split", "--n-cpu-moe"},
    "pip, macOS": {"--no-binary", "--no-cache-dir", "--no-deps", "--wheel-dir", "--verbose", "--install"},
    "Petals": {"--no_relay", "--no_auto_relay", "--host_maddrs", "--announce_maddrs"},
    "processes of our own": {"--supervised", "--build-only"},
}
SPEAKS_OF = {
    "live/agent": ("agent", "links"),
    "live/discover": ("discover", "doctor", "run"),
    "live/doctor": ("discover", "doctor", "links", "agent"),
    "live/exo": ("run", "dropout", "scenario"),
    "live/exo_legacy": ("run", "dropout"),
    "live/local": ("run", "dropout", "local"),
    "live/openai": ("run",),
    "live/watch": ("watch",),
    "live": ("run", "dropout", "scenario"),
}
"""The commands of `sim live` that show a folder's messages."""


@cache
def options() -> dict[tuple[str, ...], set[str]]:
    """Options of each command by its words; of a group, those of all of its commands as well."""
    found: dict[tuple[str, ...], set[str]] = {}

    def walk(command: Any, words: tuple[str, ...]) -> set[str]:
        own = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        subs = [walk(sub, (*words, name)) for name, sub in getattr(command, "commands", {}).items()]
        found[words] = own.union(*subs)
        return found[words]

    walk(get_command(app), ())
    return found


@cache
def texts(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, text) of each string of a module, what is put into it left as X; not those that document it."""
    return tuple(_texts(path))


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text if "--" in text or "`sim " in text else "")
    about = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # docstrings, also those of constants
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about | parts:
            yield node.lineno, node.value


def misnamed(line: str) -> list[str]:
    """The options in a command line of ours that its command does not have."""
    words = line.split()[1:]
    command: tuple[str, ...] = ()
    while words and (*command, words[0]) in options():
        command = (*command, words.pop(0))
    return [name for name in OPTION.findall(line) if name not in options()[command] | own_of_root()]


@cache
def own_of_root() -> set[str]:
    """Options that may stand anywhere in the line."""
    return {name for one in get_command(app).params for name in one.opts}


MODULES = [
    path for folder in ("sim", "live", "calibrate", "simulator") for path in (ROOT / folder).rglob("*.py")
]


def speaks_of(path: Path) -> set[str]:
    """Options that a message of this module may mean."""
    folder = path.parent.relative_to(ROOT).as_posix()
    if folder not in SPEAKS_OF:
        return options()[()]
    return set().union(*(options()["live", name] for name in SPEAKS_OF[folder]))


@pytest.mark.parametrize("folder", ["sim", "live", "calibrate", "simulator"])
def test_messages_name_options_that_exist(folder: str) -> None:
    others = set().union(*OF_OTHERS.values())
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in MODULES
        if path.is_relative_to(ROOT / folder)
        for number, text in texts(path)
        for name in OPTION.findall(OURS.sub("", text))  # whole commands: the next test
        if name not in speaks_of(path) | others
    ]
    assert not wrong


def test_commands_in_messages_have_their_options() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line}: {', '.join(bad)}"
        for path in MODULES
        for number, text in texts(path)
        for line in OURS.findall(text)
        if (bad := misnamed(line))
    ]
    assert not wrong


@pytest.mark.parametrize(
    "path", [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")], ids=lambda path: path.name
)
def test_commands_in_pages_have_their_options(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    lines = [line.partition(" #")[0] for line in re.findall(r"^sim [^\n]+", blocks, re.MULTILINE)]
    # a page of changes tells of options that are gone
    lines += OURS.findall(" ".join(text.split())) if path.name != "CHANGELOG.md" else []
    assert not {line: bad for line in lines if (bad := misnamed(line))}


def test_a_wrong_option_is_found() -> None:
    assert misnamed("sim live run SCENARIO --cluster exo://a --map a=b") == ["--map"]
    assert misnamed("sim live scenario --cluster exo://a --model x") == ["--model"]
    assert not misnamed("sim live doctor --model x")
