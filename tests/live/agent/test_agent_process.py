"""The agent as a process: it needs nothing but zeroconf, prints its token, stays on loopback, stops on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from live.agent.__main__ import main, token_from
from live.agent.pairing import WireError
from live.agent.speed import disk_read, memory_copy
from live.agent.wire import ask

ROOT = Path(__file__).parents[3]

WITHOUT = """
import sys
ABSENT = {"numpy", "scipy", "altair", "pydantic", "httpx", "rich", "typer", "yaml", "simulator", "sim"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not on a phone")
sys.meta_path.insert(0, Absent())
import live.agent.announce, zeroconf
from live.agent.__main__ import main
from live.agent.facts import collect
from live.agent.server import Agent, Settings
from live.agent.wire import ask
"""

ASKED = """
with Agent(Settings("phone", "x" * 16)) as agent, ask(*agent.address, b"x" * 16) as session:
    session.send({"op": "facts"})
    assert session.receive(20)["facts"]["name"] == "phone"
print(collect().platform)
"""


def python(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("LANSIM_TOKEN", None)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def test_it_needs_nothing_but_zeroconf_and_cryptography():
    with python("-c", WITHOUT + ASKED) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert out.strip() in ("linux", "macos", "android")


def test_without_cryptography_it_says_how_to_get_it():
    without = WITHOUT.replace('{"numpy"', '{"cryptography", "numpy"')
    with python("-c", without + 'sys.exit(main(["--token", "x" * 16, "--no-announce"]))') as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out.count("\n") == 1, out
    assert "pip install cryptography, in Termux pkg install python-cryptography" in out


def test_from_start_to_ctrl_c(tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(os.urandom(8 << 20))
    with python(
        "-m", "live.agent", "--port", "0", "--no-announce", "--name", "phone", "--model-file", str(model)
    ) as process:
        assert process.stdout
        first = process.stdout.readline()
        listening = re.search(r"agent 'phone' listens on 127\.0\.0\.1:(\d+) \(this machine only", first)
        assert listening, first
        token = re.search(r"pairing token: (\S+)", process.stdout.readline())
        assert token
        with ask("127.0.0.1", int(listening[1]), token[1].encode()) as session:
            session.send({"op": "disk", "seconds": 1})
            answered = session.receive(10)
        assert answered["bytes"] == 8 << 20
        assert answered["bytes_per_s"] > 1e6
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 0, out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--token", "short"],
        ["--listen", "198.51.100.7", "--token", "x" * 20],
        ["--token-file", "/nowhere/token"],
    ],
)
def test_faults_are_one_message(arguments, capsys, monkeypatch):
    monkeypatch.delenv("LANSIM_TOKEN", raising=False)
    assert main([*arguments, "--no-announce", "--port", "0"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_where_a_token_comes_from(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("from the file \n")
    monkeypatch.setenv("LANSIM_TOKEN", "from the environment")
    assert token_from("given", file) == "given"
    assert token_from("", file) == "from the file"
    assert token_from("", None) == "from the environment"
    with pytest.raises(WireError, match="cannot be read"):
        token_from("", tmp_path / "none")


def test_memory_copy_moves_two_bytes_per_byte():
    rates = memory_copy(0.2, threads=2, size_bytes=1 << 20)
    assert 1e8 < rates["one_thread_bytes_per_s"] < 1e13
    assert rates["threads"] == 2


def test_disk_read_of_a_missing_file(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        disk_read(tmp_path / "none")
