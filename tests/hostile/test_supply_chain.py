"""What we stand on is known and pinned by hash, and nothing that only simulates speaks to the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import supply_chain
from tests.test_cli import SMALL

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in PIN.findall(text)}


def test_the_lock_holds_hashes_of_the_same_versions_as_the_constraints() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked, constrained = pins("requirements.lock"), pins("constraints.txt")
    assert len(locked) > 90
    assert {
        name: version for name, version in locked.items() if constrained.get(name, version) != version
    } == {}
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert [block for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)] == []
    assert "://" not in text


def test_licences_and_sbom_list_what_is_installed() -> None:
    rows = [line.split(" | ") for line in supply_chain.LICENCES.read_text(encoding="utf-8").splitlines()[7:]]
    constrained = pins("constraints.txt")
    assert {row[0].strip("| "): row[1] for row in rows}.items() <= constrained.items()
    assert not [row for row in rows if "unknown" in row[2]]
    document = supply_chain.sbom()
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    references = {one["bom-ref"] for one in document["components"]}
    assert {one["name"].lower() for one in document["components"]} >= {"simpy", "numpy", "typer", "zeroconf"}
    needed = {reference for one in document["dependencies"] for reference in one["dependsOn"]}
    assert needed == references
    assert all(one["licenses"] for one in document["components"])


OFFLINE = """
import sys
from contextlib import suppress
from pathlib import Path

def refuse(event, args):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        family = getattr(args[0], "family", None) if args else None
        if getattr(family, "name", "") != "AF_UNIX":
            raise SystemExit(f"{event} {args}")

sys.addaudithook(refuse)
from sim.main import main

def unroutable():
    heads, figures = (line.split() for line in Path("/proc/net/snmp").open() if line.startswith("Ip:"))
    return int(dict(zip(heads, figures))["OutNoRoutes"])

before = unroutable()
few = ["--replications", "2"]
for words in (
    ["run", "small.yaml", *few],
    ["compare", "small.yaml", "four_devices", *few],
    ["place", "small.yaml", *few, "--out", "placed.yaml"],
    ["sensitivity", "small.yaml", "--points", "2", "--no-charts"],
    ["predict", "small.yaml", *few, "--ledger"],
    ["cost", "thunderbolt_macs", *few],
    ["catalog", "devices", "--search", "macbook"],
    ["init"],
    ["schema"],
):
    sys.argv = ["sim", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
print("unroutable", unroutable() - before, file=sys.stderr)
"""


def test_nothing_calls_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own calls are refused; where a network of its own may be made, what libraries of other languages
    try to reach is counted too: an address without a route.
    """
    if not Path("/proc/net/snmp").exists():
        pytest.skip("packets without a route are counted in /proc")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "small.yaml").write_text(SMALL)
    done = subprocess.run(
        [*_alone(), sys.executable, "-c", OFFLINE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "unroutable 0"


def test_a_call_would_be_counted() -> None:
    """Else a count of none would say nothing."""
    if not _alone():
        pytest.skip("no network of one's own can be made here")
    code = (
        "import socket\nfrom contextlib import suppress\n"
        "with suppress(OSError): socket.create_connection(('192.0.2.1', 80), 1)\n"
        "print([line.split() for line in open('/proc/net/snmp') if line.startswith('Ip:')])"
    )
    done = subprocess.run([*_alone(), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heads, figures = eval(done.stdout)
    assert int(dict(zip(heads, figures, strict=True))["OutNoRoutes"]) > 0


def _alone() -> list[str]:
    """The words that begin a command in a network of its own without a device, where that is allowed."""
    words = ["unshare", "--map-root-user", "--net"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    ):
        return []
    return words
