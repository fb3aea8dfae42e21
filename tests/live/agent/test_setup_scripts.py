"""The set-up scripts: POSIX shell, honest about what is missing, and the agent that they start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "live" / "setup"
SCRIPTS = sorted(SETUP.glob("*.sh"))


def sh(*arguments, **environment):
    return subprocess.run(
        ["sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_is_posix_shell(script):
    assert sh("-n", script).returncode == 0


@pytest.mark.parametrize("name", ["macos.sh", "linux.sh", "termux.sh"])
def test_without_a_command_it_says_what_it_can(name):
    result = sh(SETUP / name)
    assert result.returncode == 2
    assert "agent ADDRESS" in result.stdout


def test_the_agent_is_started_with_a_token_of_its_own(tmp_path):
    """`agent` runs our package with the environment that `install` would have made."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    fake = tmp_path / "venv/bin/python"
    fake.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then echo "$PWD" "$@"; else exec {sys.executable} "$@"; fi\n'
    )
    fake.chmod(0o755)
    result = sh(SETUP / "linux.sh", "agent", "192.168.1.11", "/models/a b.gguf", LANSIM_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.endswith(f"--listen 192.168.1.11 --token-file {tmp_path}/token --model-file /models/a b.gguf")
    assert len((tmp_path / "token").read_text().strip()) >= 16
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0


def test_the_agent_needs_an_address_and_an_installation(tmp_path):
    assert "which address" in sh(SETUP / "linux.sh", "agent", LANSIM_HOME=str(tmp_path)).stderr
    assert "install first" in sh(SETUP / "linux.sh", "agent", "10.0.0.1", LANSIM_HOME=str(tmp_path)).stderr
    assert not (tmp_path / "token").exists()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_exo_says_what_is_missing(tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in ("git", "sh", "dirname", "cat"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    result = sh(SETUP / "linux.sh", "exo-install", LANSIM_HOME=str(tmp_path), PATH=str(tmp_path / "bin"))
    assert result.returncode == 1
    assert "uv is missing" in result.stderr
