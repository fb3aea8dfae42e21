"""A measured rate held against a prediction: inside, or outside on which side and by what factor, and why perhaps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sim.benchmark_cmd import measured_rate
from sim.main import main
from sim.plan_cmd import _goal
from simulator.files import dump
from simulator.model_spec import ModelSpec
from simulator.prepare import prepare
from simulator.result.estimate import Estimate
from simulator.run.held_against import HeldAgainst, held_against
from simulator.scenario import EngineSpec, Scenario

MACS = Scenario.model_validate(
    {
        "name": "two_macs",
        "model": {"name": "DeepSeek-V3", "quantisation": "IQ1_S"},
        "engine": "llama-rpc",
        "devices": {
            name: {"kind": "Mac Studio M2 Ultra", "memory": f"{size} GB", "link": {"kind": "ethernet_10g"}}
            for name, size in (("big", 192), ("small", 64))
        },
        "workload": {"prompt_tokens": 64, "output_tokens": 128, "runs": 3},
    }
)
CARD = Scenario.model_validate(
    {
        "name": "card",
        "model": {"name": "Llama-3.1-8B", "quantisation": "Q4_K_M"},
        "engine": "llama-rpc",
        "devices": {"pc": {"kind": "RTX 4090 desktop"}},
    }
)
SAID = Estimate(median=38, p05=33, p95=46, n=600)


def held(scenario: Scenario, said: Estimate, measured: float) -> HeldAgainst:
    return held_against(prepare(scenario), said, measured)


def test_inside_the_interval_nothing_is_looked_for() -> None:
    found = held(MACS, SAID, 35)
    assert (found.verdict, found.candidates) == ("inside", ())
    assert found.sentence == "measured 35 tokens/s: inside the predicted 38 [33, 46] tokens/s"


def test_a_broken_cluster_is_told_from_a_slow_one() -> None:
    """Field case: 0.69 tokens/s where 38 were to be had."""
    found = held(MACS, SAID, 0.69)
    assert (found.verdict, round(found.factor)) == ("slower", 55)
    assert "slower by a factor of 55.1; devices and links as described do not explain it" in found.sentence
    causes = " ".join(one.cause for one in found.candidates)
    for word in ("paging", "Wi-Fi", "processor", "other work", "Nagle"):
        assert word in causes
    factors = [one.factor for one in found.candidates]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 1
    assert all(one.enough_alone == (one.tokens_per_s <= 0.69) for one in found.candidates)


def test_a_rate_that_no_memory_allows() -> None:
    found = held(MACS, SAID, 200)
    assert found.verdict == "faster"
    assert "none of these alone would do" in found.sentence
    assert any("at its peak" in one.cause for one in found.candidates)
    assert all(one.factor < 1 for one in found.candidates)


def test_one_device_alone_has_no_candidates_on_the_network() -> None:
    found = held(CARD, SAID, 9)
    assert found.candidates
    assert not any("Wi-Fi" in one.cause or "message" in one.cause for one in found.candidates)
    # a card's host reads at a tenth of the card's rate
    processor = next(one for one in found.candidates if "processor" in one.cause)
    assert processor.factor > 5


def test_a_file_of_another_model_or_engine_is_said_to_be(tmp_path: Path) -> None:
    data = Path(__file__).parents[2] / "data" / "benchmarks"
    _, doubts = measured_rate(str(data / "rtx4080.json"), MACS)
    assert any(doubt.startswith("measured was Qwen2.5-7B, predicted is ") for doubt in doubts)
    on_exo = MACS.model_copy(update={"engine": EngineSpec(name="exo")})
    _, more = measured_rate(str(data / "rtx4080.json"), on_exo)
    assert "measured with llama-bench (llama.cpp), predicted on exo (mlx)" in more
    same = MACS.model_copy(
        update={
            "engine": EngineSpec(name="llama-rpc"),
            "model": ModelSpec(name="Qwen2.5-7B", quantisation="Q8_0"),
        }
    )
    assert measured_rate(str(data / "rtx4080.json"), same)[1] == (
        "measured was Qwen2.5-7B at Q4_K_M, predicted is Q8_0",
    )


def test_a_rate_may_have_its_unit_wherever_one_is_asked_for() -> None:
    for said in ("0.5", "0.5 tokens/s", "0.5 tok/s", ".5 t/s"):
        assert measured_rate(said, MACS) == (0.5, ())
        assert _goal(said) == 0.5


@pytest.mark.parametrize("measured", ["0.69", "exo_bench.json"])
def test_the_command_says_it(
    measured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(__file__).parents[2] / "data" / "benchmarks"
    said = measured if measured[0].isdigit() else str(data / measured)
    dump(MACS.model_copy(update={"replications": 20}), tmp_path / "macs.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sim", "run", "macs.yaml", "--measured", said, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)["measured"]
    assert document["measured_tokens_per_s"] == (0.69 if measured == "0.69" else 61.2)
    assert document["verdict"] == ("slower" if measured == "0.69" else "faster")


@pytest.mark.parametrize("said", ["fast", "0", "-1", "nan", "inf"])
def test_what_is_no_rate_is_refused(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sim", "run", "five_devices", f"--measured={said}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"--measured is '{said}' and must be tokens/s" in capsys.readouterr().err
