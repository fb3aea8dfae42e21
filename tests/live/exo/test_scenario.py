"""A running cluster as a scenario that loads again, and the command behind it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from live.errors import LiveError
from live.exo.scenario import catalogue_device, scenario_of
from live.exo.state import StateNode, parse_state
from sim.live_exo_cmd import live_run, live_scenario, parse_pairs
from simulator.files import dump, load
from simulator.prepare import prepare
from simulator.scenario import Scenario
from simulator.units import GIB
from tests.live.doctor import states
from tests.live.doctor.states import best_ring, field_state
from tests.live.exo.fake import MODEL, FakeExo, rest


def macs() -> dict[str, Any]:
    """The recorded state of three nodes, as three Macs would report themselves."""
    raw = rest("state_running_min2")
    a, b, c = raw["topology"]["nodes"]
    who = {
        a: ("MacBook Pro", "Apple M4 Max", "Ada's MacBook Pro", 48),
        b: ("Mac mini", "Apple M4 Pro", "mini", 24),
        c: ("MacBook Air", "Apple M2", "mini", 16),
    }
    kinds = {a: "thunderbolt", b: "thunderbolt", c: "wifi"}
    for node, (model, chip, name, memory) in who.items():
        raw["nodeIdentities"][node] |= {
            "modelId": model,
            "chipId": chip,
            "friendlyName": name,
            "osVersion": "15.3",
        }
        raw["nodeMemory"][node] |= {
            "ramTotal": {"inBytes": memory * 2**30},
            "ramAvailable": {"inBytes": memory * 2**29},
        }
        for interface in raw["nodeNetwork"][node]["interfaces"]:
            interface["interfaceType"] = kinds[node]
    return raw


def test_macs_are_found_in_the_catalogue(tmp_path: Path) -> None:
    state = parse_state(macs())
    (instance,) = state.instances.values()
    made, notes = scenario_of(state, instance.card, instance=instance)
    assert {name: spec.kind for name, spec in made.devices.items()} == {
        "adas-macbook-pro": "MacBook Pro M4 Max 40c",
        "mini-1": "Mac mini M4 Pro",
        "mini-2": "MacBook Air M2",
    }
    assert made.devices["mini-1"].memory == 24 * GIB
    assert made.devices["mini-1"].usable_memory == 12 * GIB
    assert made.devices["mini-2"].link.kind == "wifi6"
    assert [set(wire.between) for wire in made.wires] == [{"adas-macbook-pro", "mini-1"}]
    assert made.placement.layers == {"mini-2": 5, "adas-macbook-pro": 11}
    assert made.model.layers == 16
    assert any("not in the catalogue" in note for note in notes)
    dump(made, tmp_path / "mine.yaml", "What can it do?")
    assert load(tmp_path / "mine.yaml", Scenario) == made
    prepare(made)  # `sim run` takes it as it is


def test_known_models_and_exos_rule() -> None:
    card = next(card for card in rest("models")["data"] if "Llama-3.3-70B-Instruct-4bit" in card["id"])
    made, notes = scenario_of(parse_state(macs()), card)
    assert (made.model.name, made.model.quantisation) == ("Llama-3.3-70B", "4bit")
    assert made.placement.rule == "exo"
    assert not [note for note in notes if note.startswith("model")]


def test_linux_nodes_get_a_stand_in_and_a_note() -> None:
    state = parse_state(rest("state_running_min2"))
    made, notes = scenario_of(state, next(iter(state.instances.values())).card)
    assert all("Linux laptop" in str(spec.kind) for spec in made.devices.values())
    assert sum("stands in for it" in note for note in notes) == 3


@pytest.mark.parametrize(
    ("machine", "chip", "gib", "kind"),
    [
        ("Mac Studio", "Apple M3 Ultra", 256, "Mac Studio M3 Ultra"),
        ("Mac mini", "Apple M4", 16, "Mac mini M4"),
        ("iMac", "Apple M1", 16, "iMac M1"),
        ("MacBook Pro", "Apple M3 Max", 64, "MacBook Pro M3 Max 40c"),
        ("Unknown Model", "Unknown Chip", 16, None),
    ],
)
def test_chips(machine: str, chip: str, gib: int, kind: str | None) -> None:
    found = catalogue_device(StateNode("id", "n", machine, chip, memory_bytes=gib * GIB))
    assert (found.name if found else None) == kind


def test_no_nodes() -> None:
    raw = copy.deepcopy(rest("state_idle_3nodes"))
    raw["topology"] = {"nodes": [], "connections": {}}
    with pytest.raises(LiveError, match="no nodes"):
        scenario_of(parse_state(raw), {})


def test_commands(tmp_path: Path) -> None:
    """The user's way: the running cluster to a file, then that file measured, recorded on the way."""
    fake = FakeExo(state=macs())
    with fake.serve() as server:
        answer = live_scenario(server.url, tmp_path / "mine.yaml")
        assert answer["model"] == MODEL
        fake.state["instances"].clear()
        with pytest.raises(LiveError, match="--model"):
            live_scenario(server.url, tmp_path / "again.yaml")
        text = (tmp_path / "mine.yaml").read_text()
        (tmp_path / "mine.yaml").write_text(text.replace("output_tokens: 256", "output_tokens: 4"))
        said: list[str] = []
        result = live_run(
            tmp_path / "mine.yaml",
            server.url,
            tmp_path / "m.jsonl",
            record=tmp_path / "r.jsonl",
            say=said.append,
        )
    assert result["runs_done"] == 5
    assert result["failures"] == []
    assert "run 5 of 5" in said
    assert "/bench/chat/completions" in (tmp_path / "r.jsonl").read_text()
    assert len(fake.deleted) == 1


def test_pairs() -> None:
    assert parse_pairs(["a=b", "c=d=e"], "--device") == {"a": "b", "c": "d=e"}
    with pytest.raises(LiveError, match="name=value"):
        parse_pairs(["a"], "--device")


def field_scenario(name: str, raw: Any = None) -> tuple[Scenario, tuple[str, ...]]:
    state = parse_state(raw or field_state(name))
    (instance,) = state.instances.values()
    return scenario_of(state, instance.card, instance=instance)


def test_the_link_is_the_one_that_the_ring_uses() -> None:
    """exo-explore/exo#2295: the ring on Wi-Fi beside a Thunderbolt cable ran at 9 tokens/s; the cable promises 25."""
    made, notes = field_scenario("ring_on_wifi")
    assert [device.link.kind for device in made.devices.values()] == ["wifi6", "wifi6"]
    assert made.wires == ()
    assert any("mac-1 and mac-2: the ring uses wifi (192.168.1.6" in note for note in notes)
    made, notes = field_scenario("", best_ring())
    assert [(wire.between, wire.kind) for wire in made.wires] == [(("mac-1", "mac-2"), "thunderbolt5")]
    assert not any("the ring uses" in note for note in notes)
    raw = json.loads(json.dumps(best_ring()).replace("169.254.10.", "192.168.1.1"))
    made, _ = field_scenario("", raw)
    assert [device.link.kind for device in made.devices.values()] == ["ethernet_1g", "ethernet_1g"]


def test_rdma_is_a_wire_of_its_own() -> None:
    raw = states.macs("warming")
    one, other = raw["topology"]["nodes"]
    ports = {"sourceRdmaIface": "rdma_en2", "sinkRdmaIface": "rdma_en2"}
    raw["topology"]["connections"][one][other].append(ports)
    made, _ = field_scenario("", raw)
    assert [wire.kind for wire in made.wires] == ["thunderbolt5_rdma"]


@pytest.mark.parametrize(
    ("speed", "kind"), [("Up to 40 Gb/s", "thunderbolt4"), ("Up to 80 Gb/s", "thunderbolt5")]
)
def test_ports_tell_their_generation(speed: str, kind: str) -> None:
    raw = best_ring()
    port = {"rdmaInterface": "rdma_en2", "domainUuid": "u", "linkSpeed": speed}
    raw["nodeThunderbolt"] = {node: {"interfaces": [port]} for node in raw["topology"]["nodes"]}
    made, _ = field_scenario("", raw)
    assert [wire.kind for wire in made.wires] == [kind]


def test_a_dead_node_is_no_device() -> None:
    """Killed 8 s ago, still in the topology with its instance (recorded)."""
    made, notes = field_scenario("", states.worker_killed(8))
    assert set(made.devices) == {"node-a", "node-b"}
    assert made.placement.rule == "exo"
    assert any(note.startswith("node-c: left out, no sign of life for 8 s") for note in notes)
    assert any("the running instance needs node-c" in note for note in notes)
