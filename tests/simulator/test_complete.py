"""What a person leaves out of a scenario, and what must not be left out."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.complete import complete
from simulator.engine.base import engine
from simulator.errors import ScenarioError
from simulator.files import loads
from simulator.library import load
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import NoiseSpec, Scenario


def test_a_model_by_numbers_says_how_wide_it_is() -> None:
    """It was taken for one value wide, two bytes a message, without a word."""
    with pytest.raises(
        ScenarioError, match=r"own\.yaml:1: model: own has layers and layer_bytes but not hidden"
    ):
        loads(
            "model: {name: own, layers: 4, layer_bytes: 1 GB}\nname: x\ndevices: {a: {}}",
            Scenario,
            "own.yaml",
        )


@pytest.mark.parametrize(("engine", "value_bytes"), [("exo", 2), ("exo-legacy", 4), ("llama-rpc", 4)])
def test_a_model_by_numbers_sends_what_the_engine_sends(engine: str, value_bytes: int) -> None:
    model = "{name: own, layers: 4, layer_bytes: 1 GB, hidden: 1024}"
    device = "{kind: Mac mini M4}"
    own = loads(f"model: {model}\nname: x\nengine: {engine}\ndevices: {{a: {device}}}", Scenario)
    assert complete(own).model.activation_bytes == value_bytes * 1024


def test_devices_on_which_an_engine_does_not_run_are_named_together() -> None:
    """With the platforms and the way out, all of it from the engine's own facts."""
    phones = "{ios: {kind: iPhone 16 Pro}, android: {kind: Pixel 8 Pro}, mac: {kind: Mac mini M4}}"
    scenario = loads(f"model: Llama-3.2-1B\nname: x\nengine: exo\ndevices: {phones}", Scenario)
    found = [warning for warning in prepare(scenario).warnings if "does not run on" in warning]
    assert found == [
        f"ios, android: engine exo does not run on ios-metal and android-cpu: {engine('exo').facts.note}"
    ]


@pytest.mark.parametrize(("engine", "picked"), [("exo", 2048), ("llama-rpc", None)])
def test_sparse_attention_saves_where_the_engine_gathers_what_was_picked(
    engine: str, picked: int | None
) -> None:
    """MLX takes the picked keys alone; llama.cpp masks the others (pull 23346) and reads them all the same."""
    text = f"name: s\nmodel: DeepSeek-V3.2\nengine: {engine}\ndevices: {{m: {{kind: Mac Studio M3 Ultra}}}}\n"
    kinds = complete(loads(text, Scenario)).model.layer_kinds
    assert kinds is not None
    assert {kind.kv_read_tokens for kind in kinds} == {picked}
    assert {kind.index_bytes_per_token for kind in kinds} == {256.0}


def test_runs_and_sessions_of_an_uncalibrated_engine_differ_as_recorded() -> None:
    """They agreed to 0.2 %. Who says how noisy it is, is believed."""
    scenario = load("four_devices")
    facts = engine(scenario.engine.name).facts
    workload = scenario.workload.model_copy(update={"runs": 6})
    job = prepare(scenario.model_copy(update={"workload": workload})).job
    rates = 1 / token_times_s(job, 240)[0][-1].reshape(40, 6)
    spread = float(np.sqrt(np.var(np.log(rates), axis=1, ddof=1).mean()))
    assert 0.8 * facts.run_log_sd < spread < 0.05
    assert 0.01 <= facts.session_log_sd <= 0.19
    quiet = scenario.model_copy(update={"common_noise": NoiseSpec(sigma=0.0)})
    assert prepare(quiet).job.common_noise.is_silent
