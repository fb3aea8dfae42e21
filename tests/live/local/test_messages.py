"""What a person reads when something is missing or contradicts itself; none of it needs the engine."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

import pytest

from live.local import install, library, server
from live.local import plan as plans
from live.local.run import run_scenario
from sim.live_local_cmd import endpoints_of
from simulator.errors import EngineUnavailable, LiveError
from tests.live.local.parts import scenario


def test_without_the_engine_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        EngineUnavailable, match="which is not installed; install it with `sim live local install`"
    ):
        run_scenario(scenario([8, 8]), tmp_path)
    assert not library.is_installed()


def test_an_engine_without_rpc_is_told_from_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "_package_folder", lambda: tmp_path)
    with pytest.raises(EngineUnavailable, match="built without RPC"):
        library.require()


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        EngineUnavailable, match=r"no C\+\+ compiler .*build-essential.*sim live local install"
    ):
        install.build()


def test_a_failed_build_shows_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(install, "_require_tools", lambda: None)
    monkeypatch.setattr(install.sys, "executable", "/bin/false")
    with pytest.raises(EngineUnavailable, match=r"did not build; the log ends with(?s:.*)build\.log"):
        install.build()
    assert install.cached_wheel() is None


def test_a_cached_wheel_is_not_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIM_CACHE", str(tmp_path))
    install.wheel_folder().mkdir(parents=True)
    wheel = install.wheel_folder() / "llama_cpp_python-0-py3-none-any.whl"
    wheel.touch()
    assert install.build() == wheel


def test_a_busy_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LiveError, match=f"cannot listen at 127.0.0.1:{port}: .*--port"):
            server.check_port("127.0.0.1", port)
    assert server.free_port() != 0


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("192.168.1.2", False), ("desk", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert server.is_loopback(host) is expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "exo-legacy"}, "engine is exo-legacy, and not llama-rpc, .* set `engine: llama-rpc`"),
        ({"concurrency": 2}, "concurrency is 2, but the local cluster measures one chat"),
    ],
)
def test_what_the_local_cluster_cannot_do(changes: dict[str, object], message: str) -> None:
    with pytest.raises(LiveError, match=message):
        plans.plan(scenario([8, 8], **changes))  # type: ignore[arg-type]


def test_a_model_that_is_not_the_one_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from live.local.weights import WeightsRecipe, write_f16

    tiny = WeightsRecipe(
        layers=2, hidden=256, feed_forward=512, heads=4, kv_heads=2, vocabulary=300, context=256
    )
    write_f16(tiny, tmp_path / "x.gguf")
    monkeypatch.setattr(plans, "model_file", lambda name: tmp_path / "x.gguf")
    with pytest.raises(LiveError, match=r"model\.layers is 16 in the scenario and 2 in x\.gguf"):
        plans.plan(scenario([8, 8]))


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    monkeypatch.setattr(plans, "model_file", lambda name: tmp_path / "x.gguf")
    monkeypatch.setattr(plans, "_check_model", lambda prepared, file: None)
    monkeypatch.setattr(plans, "_available_bytes", lambda: 1e8)
    with pytest.raises(
        LiveError, match=r"2 devices with x\.gguf need about .* of memory and 100 MB are free"
    ):
        plans.plan(scenario([8, 8]))


def test_cluster_addresses() -> None:
    assert endpoints_of("local") == ()
    assert endpoints_of("llama-rpc://a:1, b:50052") == ("a:1", "b:50052")
    for wrong in ("lokal", "llama-rpc://", "llama-rpc://a", "llama-rpc://a:x", "http://a:1"):
        with pytest.raises(LiveError, match="write local, or llama-rpc://host:port"):
            endpoints_of(wrong)
