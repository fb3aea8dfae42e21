"""The user's own catalogue: found, checked like a scenario, spelt out before anything is computed."""

import pytest

import simulator
from simulator import own
from simulator.complete import complete
from simulator.errors import ScenarioError
from simulator.files import dump
from simulator.plan.buy.prices import own_prices
from simulator.prepare import prepare
from simulator.scenario import Scenario
from simulator.units import GIB

FILE = """\
# mine
devices:
  Big box:
    memory: 64 GB
    usable_memory: 60 GB
    speed: {decode_bandwidth: 200 GB/s, prefill_flops: 20 TFLOPS, label: measured}
    link: {kind: lab cable}
  tuned mini:
    kind: Mac mini M4 Pro
    memory: 64 GB
    usable_memory: 58 GB
links:
  lab cable: {kind: ethernet_10g, rate: 6 Gbit/s}
models:
  mine-7B: {layers: 32, hidden: 4096, layer_bytes: 120 MB, head_bytes: 100 MB}
prices:
  devices: {Mac mini M4 24 GB: 799 EUR}
"""
SCENARIO = {
    "name": "mine",
    "model": "mine-7b",
    "devices": {"a": {"kind": "big-box"}, "b": {"kind": "Tuned Mini"}, "c": {"kind": "Mac mini M4"}},
}


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """The usual file, in a folder for settings of this test alone."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "lan-cluster-simulator" / "devices.yaml"
    file.parent.mkdir()
    file.write_text(FILE)
    return file


def test_names_of_the_user_are_spelt_out(settings):
    full = complete(Scenario.model_validate(SCENARIO))
    box, mini, plain = full.devices.values()
    assert (box.speed.decode_bandwidth, box.speed.label, box.usable_memory) == (200e9, "measured", 60e9)
    assert (box.link.kind, box.link.rate) == ("ethernet_10g", 6e9 / 8)
    assert (mini.kind, mini.memory, mini.usable_memory) == ("Mac mini M4 Pro", 64 * GIB, 58e9)
    assert (plain.kind, full.model.layers) == ("Mac mini M4", 32)


def test_what_the_scenario_says_goes_before_the_entry(settings):
    devices = {"a": {"kind": "Big box", "usable_memory": "30 GB", "link": {"kind": "wifi6"}}}
    full = complete(Scenario.model_validate(SCENARIO | {"devices": devices}))
    assert (full.devices["a"].usable_memory, full.devices["a"].link.kind) == (30e9, "wifi6")


def test_a_completed_scenario_runs_where_the_file_is_not(settings, tmp_path):
    full = complete(Scenario.model_validate(SCENARIO))
    dump(full, tmp_path / "results.yaml")
    settings.unlink()
    assert prepare(simulator.load(tmp_path / "results.yaml")).scenario == full


def test_a_cable_can_be_of_the_users_kind(settings):
    wires = [{"between": ["a", "b"], "kind": "lab cable"}]
    full = complete(Scenario.model_validate(SCENARIO | {"wires": wires}))
    assert (full.wires[0].kind, full.wires[0].rate) == ("ethernet_10g", 6e9 / 8)


def test_an_rtt_says_nothing_of_a_cable(settings):
    settings.write_text("links: {near: {kind: wifi6, rtt: 2 ms}}\n")
    devices = {"a": {"kind": "Mac mini M4"}, "b": {"kind": "Mac mini M4"}}
    wires = [{"between": ["a", "b"], "kind": "near"}]
    scenario = {"name": "x", "model": "Llama-3.1-8B", "devices": devices, "wires": wires}
    with pytest.raises(ScenarioError, match="wires a -- b: near has an rtt"):
        complete(Scenario.model_validate(scenario))


def test_every_fault_is_named_with_file_and_line(settings):
    settings.write_text(
        "devices:\n  a: {kind: Mac mini M44}\n  b: {memory: 8 GB}\n  c: {kind: Mac mini M4, speeed: 1}\n"
    )
    with pytest.raises(ScenarioError) as error:
        complete(Scenario.model_validate(SCENARIO))
    assert str(error.value).startswith(f"{settings}:4: devices.c.speeed: unknown key, did you mean 'speed'?")
    settings.write_text("devices:\n  a: {kind: Mac mini M44}\n  b: {memory: 8 GB}\n")
    with pytest.raises(ScenarioError) as error:
        complete(Scenario.model_validate(SCENARIO))
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{settings}:2: devices.a.kind: 'Mac mini M44' is no known device, did you mean")
    assert second.startswith(f"{settings}:3: devices.b: needs a kind of the catalogue")


def test_a_later_file_goes_before_an_earlier_one(settings, monkeypatch, tmp_path):
    more = tmp_path / "more.yaml"
    more.write_text(
        "devices: {big box: {kind: Mac mini M4}}\nprices: {devices: {Mac mini M4 16 GB: 500 EUR}}\n"
    )
    monkeypatch.setenv(own.ENVIRONMENT, str(more))
    assert complete(Scenario.model_validate(SCENARIO)).devices["a"].kind == "Mac mini M4"
    assert {name: price.amount for name, price in own_prices().devices.items()} == {
        "Mac mini M4 24 GB": 799,
        "Mac mini M4 16 GB": 500,
    }


def test_an_edited_file_is_read_again(settings):
    assert {entry.name for entry in own.yours("devices")} == {"Big box", "tuned mini"}
    settings.write_text("devices: {other: {kind: Mac mini M4}}\n")
    assert {entry.name for entry in own.yours("devices")} == {"other"}


def test_faults_of_prices_have_their_line(settings):
    settings.write_text("prices:\n  devices: {Mac mini M44: 3 EUR}\n")
    with pytest.raises(ScenarioError, match=f"{settings}:2: .*Mac mini M44"):
        own_prices()


def test_without_a_file_nothing_is_read():
    assert own.own_files() == ()
    assert own.yours("devices") == ()
    assert own_prices() is None
