"""What is common to all doors by which files come in: a kind has real files, and the commands that read them."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "DATA",
    "RESULTS",
    "ROOT",
    "Kind",
    "Unfit",
    "check",
    "command",
    "read_back",
    "same",
    "scratch",
    "told",
]

ROOT = Path(__file__).parents[3]
DATA, RESULTS = ROOT / "tests/data", ROOT / "results"


class Unfit(AssertionError):
    """A door that did what none may: the message says which, and how."""


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """Also how the file is called."""
    seeds: Callable[[], tuple[bytes, ...]]
    doors: tuple[Callable[[Path], None], ...]


def command(*words: str | Path) -> tuple[int, str, str]:
    """`sim WORDS` in this process: exit code, standard output, standard error. What is no exit is raised."""
    import sim.main

    # put together once: else 130 of 140 ms of each input go into options of commands that nobody calls
    sim.main.app = _app()  # type: ignore[assignment]
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    os.environ.pop("SIM_CATALOG", None)
    sys.argv = ["sim", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            sim.main.main()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()


@cache
def _app() -> Any:
    import typer

    from sim.main import app

    return typer.main.get_command(app)


def told(path: Path, *words: str | Path) -> int:
    """The command's exit code; a refusal must name the file and say no more than a person reads."""
    code, _, err = command(*words)
    if code not in (0, 1, 2, 3):
        raise Unfit(f"sim {words[0]} exits {code}")
    # 1 is for files that are right and cannot be fitted or compared: those messages name what does not go together
    if code != 1 and code and path.name not in err:
        raise Unfit(f"sim {words[0]} refuses without naming the file: {err[:300]}")
    if len(err) > 20_000:
        raise Unfit(f"sim {words[0]} says {len(err)} characters: {err[:300]}")
    return code


def check(kind: Kind, data: bytes, folder: Path, rng: random.Random) -> None:
    """Give `data` to one of the doors of its kind; raises whatever the door raises, and Unfit."""
    path = folder / kind.name
    path.write_bytes(data)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("error")
        rng.choice(kind.doors)(path)


def scratch(path: Path, name: str) -> Path:
    target = path.with_name(name)
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return target


def read_back(code: int, ledger: Path) -> None:
    """An outcome that was promised must be there."""
    if code == 0:
        code, _, err = command("ledger", "--ledger-file", ledger)
        if code:
            raise Unfit(f"sim validate promised an outcome that cannot be read back: {err[:300]}")


def same(path: Path) -> Callable[[], tuple[bytes, ...]]:
    """The file as the one seed of its kind."""
    return lambda: (path.read_bytes(),)
