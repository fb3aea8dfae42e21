"""The shape of the code base: what the house rules say, checked."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sim", "simulator", "calibrate", "live")
HEAVY = ("altair", "scipy", "pyarrow", "httpx", "zeroconf", "numpy", "simpy", "gguf", "vl_convert")
MOST_LINES = 400
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
SIMULATING = ("cluster", "engine", "laws", "model", "placement", "result", "run", "runtime")


def module_names() -> list[str]:
    """All modules of the project, packages included."""
    names = list(PACKAGES)
    for package in PACKAGES:
        found = pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        names += [module.name for module in found if not module.name.endswith("__main__")]
    return names


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_no_module_needs_another_to_be_imported_first() -> None:
    """Imports at the top of modules form no circle, so that each can be imported alone, and all can in any order."""
    names = set(module_names())
    graph = {name: imported_at_the_top(name, names) - {name} for name in names}
    assert len(list(TopologicalSorter(graph).static_order())) == len(
        names
    )  # raises CycleError with the circle
    for order in (sorted(names), sorted(names, reverse=True)):
        done = python(
            "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)", *order
        )
        assert done.returncode == 0, done.stderr


def imported_at_the_top(name: str, names: set[str]) -> set[str]:
    """Our modules that `name` imports while it is itself imported."""
    found: set[str] = set()
    for node in ast.parse(source(name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & names or {node.module}
    return found & names


def source(name: str) -> Path:
    """The file of one of our modules."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("name", module_names())
def test_all_names_what_is_public(name: str) -> None:
    """`__all__` holds each public class and function of its module, sorted, and nothing that is not there.

    A package may hold a docstring alone; constants are public where `__all__` says so.
    """
    tree = ast.parse(source(name).read_text(encoding="utf-8"))
    public = {node.name for node in public_definitions(tree) if node in tree.body}
    module = importlib.import_module(name)
    if not hasattr(module, "__all__"):
        assert not public, f"{name} has no __all__ and defines {sorted(public)}"
        return
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, found) for found in module.__all__)
    helpers = public - set(module.__all__)
    used_elsewhere = {found for found in helpers if _is_imported(name, found)}
    assert not used_elsewhere, f"{name}: {sorted(used_elsewhere)} are imported elsewhere and not in __all__"


def _is_imported(module: str, name: str) -> bool:
    """Whether another module of the packages imports `name` from `module`."""
    return (module, name) in _imports()


@cache
def _imports() -> set[tuple[str, str]]:
    return {
        (node.module, alias.name)
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def python_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_no_file_is_too_long() -> None:
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_every_public_function_is_documented() -> None:
    missing = []
    for path in python_files():
        for node in public_definitions(ast.parse(path.read_text(encoding="utf-8"))):
            if ast.get_docstring(node) is None:
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert missing == []


def public_definitions(tree: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Public classes, their public methods, and public functions; what sits inside a function is nobody's interface."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def test_nobody_uses_global_random_numbers() -> None:
    """Random numbers come from named streams: neither `random` nor NumPy's global generator is used to simulate."""
    legacy = {
        "seed",
        "rand",
        "randn",
        "randint",
        "random",
        "choice",
        "normal",
        "exponential",
        "shuffle",
        "uniform",
    }
    found = []
    for path in (
        path for package in SIMULATING for path in sorted((ROOT / "simulator" / package).rglob("*.py"))
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import) and any(
                alias.name in ("random", "secrets") for alias in node.names
            ):
                found.append(f"{where} imports random")
            if isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random"):
                found.append(f"{where} imports from {node.module}")
            if (
                isinstance(node, ast.Attribute)
                and node.attr in legacy
                and ast.unparse(node.value) in ("np.random", "random")
            ):
                found.append(f"{where} {ast.unparse(node)}")
    assert found == []


def test_directions_of_imports() -> None:
    linter = shutil.which(
        "lint-imports", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert linter is not None, "import-linter is part of the extra `test`"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['sim', '--help']\nfrom sim.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = python(code)
    assert done.stderr.strip() == "[]"
    assert "compare" in done.stdout


def test_the_simulator_opens_no_socket_when_imported() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.socket.bind = refuse\n"
        "import simulator.run.predict, simulator.run.compare, sim.main"
    )
    assert python(code).returncode == 0


def test_nobody_but_an_engine_knows_its_name() -> None:
    """Outside its own folder an engine is asked, not recognised: no code holds its name.

    The one exception is the engine of a scenario that names none. Benchmarks say `mlx` of what computes.
    """
    from simulator.engine.base import engines

    names = set(engines())
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.value!r}"
        for package in ("simulator", "calibrate")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "engine" not in path.relative_to(ROOT).parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    allowed = (
        "simulator/engine_spec.py",
        "simulator/result/measurement.py",
        "calibrate/truth.py",
        "calibrate/benchmarks/",
    )
    assert [line for line in found if not line.startswith(allowed)] == []
