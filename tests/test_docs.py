"""The guides and the API as a site: it builds without a warning, names all that is public, and needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import calibrate
import live
import simulator

ROOT = Path(__file__).parents[1]
FETCHED = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|url\(|@import\s)\s*["']?\s*(?:https?:)?//[^"')\s]+""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; README names the same command."""
    if find_spec("sphinx") is None or find_spec("myst_parser") is None:
        pytest.skip("Sphinx and MyST (extra `docs`) build the site")
    out = tmp_path_factory.mktemp("site")
    doctrees = out.parent / "doctrees"  # else it would look for changes only, and repeat no warning
    command = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", doctrees, "docs", out)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_built_and_every_public_name_is_on_one(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in site.glob("*.html")}
    api = (site / "api.html").read_text(encoding="utf-8")
    packages = (simulator, calibrate, live)
    promised = {f"{one.__name__}.{name}" for one in packages for name in getattr(one, "__all__", ())}
    assert {name for name in promised - {"simulator.VERSION"} if f'id="{name}"' not in api} == set()


def test_the_site_fetches_nothing(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert {hit for page in pages for hit in FETCHED.findall(page.read_text(encoding="utf-8"))} == set()


def test_from_a_scenario_to_a_chart_in_ten_lines(tmp_path: Path) -> None:
    script = ROOT / "docs" / "scenario_to_chart.py"
    lines = script.read_text(encoding="utf-8").split('"""\n', 1)[1].splitlines()
    assert len([line for line in lines if line]) <= 10
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # this checkout, also where another one is installed
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"\d\.\d+ \[\d\.\d+, \d\.\d+\] tokens/s\n", done.stdout)
    assert "break-even of old_phone" in done.stdout
    assert "<svg" in (tmp_path / "where_time_goes.svg").read_text(encoding="utf-8")[:200]
