"""The environment of an engine: a virtual environment in the
user's cache folder, never the one that `sim` runs in.

One for each set of pins and each Python, so that a new version neither breaks nor waits for the old one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from simulator.errors import EngineUnavailable
from simulator.files.cache import cache_folder

__all__ = ["EngineEnvironment", "python_of"]

READY = "ready"
TAIL_LINES = 15
VERSION_OF = "import sys; print(*sys.version_info[:2], sep='.')"


@dataclass(frozen=True)
class EngineEnvironment:
    """What is installed for one engine, and how it is known to work."""

    engine: str
    """As `--engine` names it."""
    title: str
    pins: Path
    probe: str
    """Python that ends with another status than 0 where the engine does not work."""
    size: str
    """What it takes, for people."""
    advice: str
    """For whoever's installation failed."""
    interpreter: Callable[[], str] = lambda: sys.executable
    """The Python to make it with; raises EngineUnavailable where there is none."""
    version: tuple[int, int] = sys.version_info[:2]
    """Of that Python, known without starting it."""

    @property
    def home(self) -> Path:
        """Its folder."""
        key = f"{self.pins.read_text(encoding='utf-8')} {self.version} {sys.platform}"
        return cache_folder("engines") / f"{self.engine}-{sha256(key.encode()).hexdigest()[:12]}"

    @property
    def python(self) -> Path:
        """The Python that has the engine; see `require`."""
        return self.home / "bin" / "python"

    def is_installed(self) -> bool:
        """Whether the environment is there; starts nothing."""
        return (self.home / READY).exists()

    def require(self) -> None:
        """Raise EngineUnavailable, with the way out, unless the environment is there."""
        if not self.is_installed():
            raise EngineUnavailable(
                f"the local {self.title} cluster needs {self.title}, which is not installed for it; "
                f"install it with `{self._command}` ({self.size}, in your cache folder); the rest of `sim` "
                "works without it"
            )

    @property
    def _command(self) -> str:
        return f"sim live local install --engine {self.engine}"

    def install(self) -> Path:
        """The environment's folder: the one that is there, else made now; raises EngineUnavailable."""
        home = self.home
        if self.is_installed():
            return home
        interpreter = self.interpreter()
        # built where it stays, for a virtual environment
        # cannot be moved; what an interruption left goes first
        shutil.rmtree(home, ignore_errors=True)
        log, own = cache_folder("engines") / f"{self.engine}.log", str(self.python)
        with log.open("wb") as out:
            for command in (
                [interpreter, "-P", "-m", "venv", str(home)],
                # without dependencies: the pins are all of them,
                # and what packages ask for beside them is too much
                [own, "-P", "-m", "pip", "install", "--no-deps", "-r", str(self.pins)],
                [own, "-P", "-c", self.probe],
            ):
                if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode:
                    raise EngineUnavailable(self._failed(command, log))
        (home / READY).write_text("", encoding="utf-8")
        return home

    def _failed(self, command: list[str], log: Path) -> str:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        tail = "\n".join(f"  {line[:200]}" for line in lines[-TAIL_LINES:])
        return (
            f"the environment of {self.title} could not be made: `{' '.join(command[1:4])} ...` ended with\n"
            f"{tail}\nthe whole log is {log}; mend what it names ({self.advice}) and run `{self._command}` "
            f"again; all of `sim` but the local {self.title} cluster works without it"
        )

    def versions(self) -> dict[str, str]:
        """The versions that are pinned for this system, by package."""
        lines = self.pins.read_text(encoding="utf-8").splitlines()
        found = [
            re.match(r"([\w.-]+)==([\w.+]+)", line)
            for line in lines
            if sys.platform in line or ";" not in line
        ]
        return {one[1]: one[2] for one in found if one}


@cache
def python_of(version: tuple[int, int], why: str) -> str:
    """A Python of that version: the running one, else one on
    the PATH; raises EngineUnavailable, which says `why`.
    """
    wanted = f"{version[0]}.{version[1]}"
    for name in (sys.executable, shutil.which(f"python{wanted}"), shutil.which("python3")):
        if name is None:
            continue
        # a name promises nothing: a shim of that name may find no Python behind it
        told = subprocess.run([name, "-P", "-c", VERSION_OF], capture_output=True, text=True, check=False)
        if told.returncode == 0 and told.stdout.strip() == wanted:
            return name
    raise EngineUnavailable(
        f"no Python {wanted} on the PATH, and {why}; install one (Debian, Ubuntu: apt-get install "
        f"python{wanted} python{wanted}-venv; macOS: brew install python@{wanted}) beside the one you "
        "have, which `sim` goes on using"
    )
