"""A refusal names what makes the scenario fit, and each way really does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.errors import PlacementError
from simulator.files import loads
from simulator.prepare import prepare
from simulator.run.predict import predict
from simulator.run.ways_out import ways_out
from simulator.scenario import Scenario

EIGHT = """
name: minis
model: {name: DeepSeek-V3, quantisation: 4bit}
engine: exo-legacy
placement: exo-legacy
devices:
""" + "".join(
    f"  m{at}: {{kind: Mac mini M4 Pro, memory: 64 GB, link: {{kind: thunderbolt5}}}}\n" for at in range(1, 9)
)


def test_the_setting_that_raises_a_macs_limit_is_named_and_works() -> None:
    """Eight minis of 64 GB: EXO showed this model on them, with the wired limit raised."""
    scenario = loads(EIGHT, Scenario)
    with pytest.raises(
        PlacementError, match=r"usable_memory: 63\.35 GB on m1, .*, m8 .*iogpu\.wired_limit_mb=60416"
    ):
        predict(scenario)
    raised = {
        name: spec.model_copy(update={"usable_memory": 63.35e9}) for name, spec in scenario.devices.items()
    }
    assert prepare(scenario.model_copy(update={"devices": raised})).memory


def test_each_quantisation_that_is_named_fits_as_it_is_said() -> None:
    text = "name: q\nmodel: {name: Llama-3.1-8B, quantisation: Q8_0}\nengine: llama-rpc\ndevices: {x: {kind: RTX 3060 8GB desktop}}\n"
    scenario = loads(text.replace("RTX 3060 8GB desktop", "RTX 3070 desktop"), Scenario)
    found = ways_out(scenario)
    assert found
    for way in found:
        name = re.search(r"model\.quantisation: (\S+?)(,|$)", way)
        assert name is not None
        prepare(
            scenario.model_copy(update={"model": scenario.model.model_copy(update={"quantisation": name[1]})})
        )


def test_where_nothing_helps_it_says_so() -> None:
    scenario = loads(
        "name: big\nmodel: {name: Llama-3.1-405B, quantisation: 4bit}\ndevices: {p: {kind: Pixel 6}}\n",
        Scenario,
    )
    with pytest.raises(PlacementError, match="none of these makes it fit"):
        predict(scenario)


def test_the_embedding_of_llama_cpp_stays_in_the_memory_of_a_cards_host() -> None:
    """gpt-oss-20b runs on 12 GB (geerlingguy/ai-benchmarks): its embedding is not on the card."""
    text = "name: c\nmodel: gpt-oss-20b\nengine: ENGINE\ndevices: {x: {kind: RTX 3060 12GB desktop}}\n"
    (use,) = prepare(loads(text.replace("ENGINE", "llama-rpc"), Scenario)).memory
    assert use.embedding_bytes == 0
    mac = loads(
        text.replace("ENGINE", "llama-rpc").replace("RTX 3060 12GB desktop", "MacBook Pro M4 Pro"), Scenario
    )
    assert prepare(mac).memory[0].embedding_bytes > 0.5e9


def test_fewer_bits_are_tried_for_a_config_too() -> None:
    config = Path(__file__).parents[2] / "data" / "configs" / "qwen3-32b.json"
    scenario = loads(
        f"name: c\nmodel: {{name: own, hf_config: {config}}}\nengine: llama-rpc\n"
        "devices: {x: {kind: MacBook Pro M4 Pro, memory: 24 GB}}\n",
        Scenario,
    )
    with pytest.raises(PlacementError, match=r"model\.quantisation: "):
        predict(scenario)
