"""`sim explore` itself: where it listens, what it says without its extra, and that it ends in words."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from live.watch.sources import DeviceRow, View
from sim.explore import planning
from simulator.errors import SimulatorError


def test_without_its_extra_it_says_what_to_install(printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, out, err = printed("explore", "--no-browser")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "pip install 'lan-cluster-simulator[explore]'" in err


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:x", "127.0.0.1:99999", ":80", "no-such-host.invalid", "192.0.2.1:0"]
)
def test_a_wrong_address_is_refused_in_words(printed: Any, listen: str) -> None:
    code, _, err = printed("explore", "--no-browser", "--listen", listen)
    assert code == 2
    assert "--listen" in err


def test_a_port_that_is_taken_and_a_scenario_that_is_not_there(printed: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert (
            "name an address of this machine"
            in printed("explore", "--no-browser", "--listen", f"127.0.0.1:{port}")[2]
        )
    assert "no scenario of this name" in printed("explore", "five_devicez", "--no-browser")[2]


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
def test_it_serves_until_it_is_interrupted(listen: str) -> None:
    command = [
        sys.executable,
        "-m",
        "sim.main",
        "explore",
        "four_devices",
        "--no-browser",
        "--listen",
        listen,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        port, token = re.findall(r":(\d+)/(?:#token=(\S+))?", said)[0]
        assert bool(token) == (listen == "0.0.0.0")
        heads = {"authorization": f"Bearer {token}"} if token else {}
        answer = httpx.get(f"http://127.0.0.1:{port}/api/start", headers=heads)
        assert answer.json()["name"] == "four_devices"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out == "the page is closed\n"


def test_a_look_at_a_cluster_holds_a_running_measurement_against_the_prediction(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @dataclass
    class Ended:
        rate = 7.5
        tokens = 40
        has_ended = True

        def __init__(self, path: Path) -> None:
            assert path == tmp_path / "run.jsonl"

        def read(self) -> None:
            """Nothing more to come."""

    monkeypatch.setattr(
        "sim.live_watch_cmd.look_at", lambda _: lambda: View((DeviceRow("mac"),), ("a model",))
    )
    monkeypatch.setattr("live.watch.follow.Followed", Ended)
    asked = {"cluster": "exo://10.0.0.7", "follow": str(tmp_path / "run.jsonl")}
    found = planning.look(asked, str(tmp_path))
    assert found["devices"][0]["name"] == "mac"
    assert found["measured"] == {"tokens_per_s": 7.5, "tokens": 40, "has_ended": True}
    with pytest.raises(SimulatorError, match="on loopback alone"):
        planning.look(asked, None)
    with pytest.raises(SimulatorError, match="on loopback alone"):
        planning.discover({"seconds": 1.0}, None)
