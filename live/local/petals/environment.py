"""The environment of Petals: its pins, and the Python that they have wheels for."""

from __future__ import annotations

from pathlib import Path

from live.local.venv import EngineEnvironment, python_of

__all__ = ["LAUNCH", "PETALS"]

PYTHON = (3, 11)
LAUNCH = Path(__file__).with_name("launch.py")


def _python() -> str:
    return python_of(PYTHON, "the releases that Petals 2.2 needs have wheels for no later one")


PETALS = EngineEnvironment(
    engine="petals",
    title="Petals",
    pins=Path(__file__).with_name("pins.txt"),
    probe=f"import runpy; runpy.run_path({str(LAUNCH)!r})['shim'](); import petals",
    size="1.6 GB",
    advice=(
        "on Linux torch's build for processors comes from PyTorch's own index of CPU wheels: name it in "
        "PIP_EXTRA_INDEX_URL"
    ),
    interpreter=_python,
    version=PYTHON,
)
