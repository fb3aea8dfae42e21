"""Paths in a scenario lead from its own folder, then from the working directory."""

import json

import pytest

import simulator
from simulator.complete import complete
from simulator.errors import ScenarioError
from simulator.files import dump

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "intermediate_size": 25600,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
}


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    """A scenario in one folder, the shell in another."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "shell").mkdir()
    monkeypatch.chdir(tmp_path / "shell")
    file = tmp_path / "mine" / "own.yaml"
    file.write_text(
        "name: own\nmodel: {name: own, hf_config: config.json, bits_per_weight: 4}\n"
        "devices:\n  mac: {kind: Mac mini M4 Pro, memory: 64 GB}\n"
    )
    return file


def test_a_path_is_taken_from_the_folder_of_the_scenario_first(scenario, tmp_path):
    (tmp_path / "mine" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "shell" / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 2}))
    loaded = simulator.load(scenario)
    assert loaded.model.hf_config == str(tmp_path / "mine" / "config.json")
    assert complete(loaded).model.layers == 64


def test_the_working_directory_comes_second(scenario, tmp_path):
    (tmp_path / "shell" / "config.json").write_text(json.dumps(CONFIG))
    assert complete(simulator.load(scenario)).model.layers == 64


def test_a_path_that_leads_nowhere_names_both_folders(scenario, tmp_path):
    with pytest.raises(ScenarioError) as error:
        simulator.load(scenario)
    assert str(error.value).startswith(f"{scenario}:2: model.hf_config: 'config.json' is neither in ")
    assert str(tmp_path / "mine") in str(error.value)
    assert str(tmp_path / "shell") in str(error.value)


def test_a_complete_scenario_outlives_the_file_of_its_model(scenario, tmp_path):
    config = tmp_path / "mine" / "config.json"
    config.write_text(json.dumps(CONFIG))
    dump(complete(simulator.load(scenario)), tmp_path / "shell" / "results.yaml")
    config.unlink()
    assert complete(simulator.load(tmp_path / "shell" / "results.yaml")).model.layers == 64
