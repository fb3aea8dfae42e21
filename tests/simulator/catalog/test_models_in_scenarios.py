"""What a config.json says reaches the prediction: bits, layers that differ, doubts."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.files import loads
from simulator.prepare import prepare
from simulator.run.evaluate import scenario_rates
from simulator.scenario import Scenario

CONFIGS = Path(__file__).parents[2] / "data" / "configs"
TEXT = """
name: one
model: {{name: own, hf_config: {config}, {bits}}}
engine: exo
devices:
  m: {{kind: Mac Studio M3 Ultra, memory: 512 GB}}
workload: {{prompt_tokens: 63, output_tokens: 64, runs: 1}}
replications: 200
"""


def asked(name: str, bits: str = "bits_per_weight: 4.5") -> Scenario:
    return loads(TEXT.format(config=CONFIGS / f"{name}.json", bits=bits), Scenario)


def test_a_quantisation_beside_a_config_decides() -> None:
    """A 32B at 4 bits is 18.4 GB, at 16 bits 65.5; the heading says what was computed."""
    prepared = prepare(asked("qwen3-32b", "quantisation: 4bit"))
    assert prepared.job.model.total_bytes == pytest.approx(18.4e9, rel=0.02)
    assert prepared.scenario.model.quantisation == "4bit"


@pytest.mark.parametrize(("name", "measured"), [("llama4-maverick", 53.1), ("llama4-scout", 46.7)])
def test_interleaved_experts_are_within_what_was_measured(name: str, measured: float) -> None:
    """One M3 Ultra at 4 bits (exo-explore/exo issue 1781); every layer was taken for a mixture before."""
    rates = sorted(scenario_rates(asked(name)))
    assert rates[len(rates) // 20] < measured < rates[-len(rates) // 20]


def test_a_hybrid_keeps_a_cache_in_a_quarter_of_its_layers() -> None:
    """Qwen3-Next: 12 of 48 layers attend, 24.6 kB a token; the others keep a state that does not grow."""
    model = prepare(asked("qwen3-next-80b")).job.model
    held = model.stretch(0, model.layers)
    assert float(held.kv_bytes(2000)) - float(held.kv_bytes(1000)) == pytest.approx(24.6e6, rel=0.02)


def test_guesses_reach_the_reader() -> None:
    warnings = prepare(asked("llama4-maverick")).warnings
    assert any("vision tower" in text and "not read for each token" in text for text in warnings)


def test_a_completed_scenario_runs_again_without_the_catalogue() -> None:
    full = prepare(asked("gpt-oss-120b")).scenario
    again = Scenario.model_validate(full.model_dump(mode="json"))
    assert prepare(again).job.model == prepare(full).job.model
