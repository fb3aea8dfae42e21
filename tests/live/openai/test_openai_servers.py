"""Real servers on this machine, where they are installed in the user's cache; skipped elsewhere, saying so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from calibrate.samples import sample
from live.openai.measure import measure_server
from simulator.result.measurement import read_measurement
from tests.live.openai.servers import llama_cpp_server, llama_server, mlx_server
from tests.live.openai.test_openai_measure import scenario

pytestmark = pytest.mark.local
Server = Callable[[Path], AbstractContextManager[str]]


def measured(server: Server, folder: Path, model: str, **work: int) -> list[str]:
    """Measure two runs on a real server; how each reply was counted."""
    wanted = scenario(**{"output_tokens": 24, "prompt_tokens": 32, "runs": 2} | work)
    wanted = wanted.model_copy(update={"model": wanted.model.model_copy(update={"name": model})})
    with server(folder / "server") as address:
        result = measure_server(wanted, f"http://{address}/v1", folder / "m.jsonl")
    assert (result.runs_done, result.failures) == (2, ())
    found = read_measurement(folder / "m.jsonl")
    assert found.complete
    assert sample(found).median_s > 0
    return [event["counting"] for event in found.of("result")]


def test_mlx_lm(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    assert set(measured(mlx_server, tmp_path, "tiny")) == {"one-a-chunk"}


def test_mlx_lm_with_two_chats_at_once(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    assert len(measured(mlx_server, tmp_path, "tiny", concurrency=2)) == 4


def test_llama_cpp_python(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    # its vocabulary is bytes, so that half characters are held back or sent as empty texts
    assert set(measured(llama_cpp_server, tmp_path, "random-80mb")) <= {"one-a-chunk", "spread", "uncounted"}


def test_llama_server(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    assert set(measured(llama_server, tmp_path, "words")) == {"told"}
    header = read_measurement(tmp_path / "m.jsonl").provenance
    assert header.engine_version.startswith("llama-server b")
