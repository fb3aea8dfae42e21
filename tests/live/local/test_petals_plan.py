"""A local Petals swarm before anything is started: plans, refusals, where its environment comes from."""

from __future__ import annotations

import sys

import pytest

from live.local.engines import local_engine
from live.local.petals import plan as petals_plan
from live.local.petals.environment import PETALS
from live.local.petals.plan import plan_petals
from live.local.petals.quick import quick_scenario
from live.local.venv import python_of
from simulator.errors import EngineUnavailable, SimulatorError
from simulator.scenario import Scenario
from tests.live.local.parts import scenario


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Plans look at a model's size alone; none is made here."""
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    file.write_bytes(b"0")
    monkeypatch.setattr(petals_plan, "model_file", lambda name: file)


def with_device(scenario: Scenario, name: str, **changes: object) -> Scenario:
    """The scenario with one device told otherwise."""
    devices = scenario.model_dump(mode="json")["devices"]
    return scenario.replace(devices={**devices, name: {**devices[name], **changes}})


def test_servers_are_as_slow_as_the_simulators_devices() -> None:
    """The client serves nothing; a server that other work keeps half busy takes more than twice as long."""
    made = plan_petals(quick_scenario(3, blocks=[4, 8, 6], background={"server2": "50%"}))
    assert made.client == "client"
    assert [(one.name, one.start, one.end) for one in made.servers] == [
        ("server1", 0, 4),
        ("server2", 4, 12),
        ("server3", 12, 18),
    ]
    quick, slow, _ = made.servers
    assert quick.block_s == pytest.approx(3.213312e6 / 0.8e9)
    assert slow.block_s == pytest.approx(quick.block_s / (0.5 * 0.95))
    # eight tokens of a prompt are read while the weights are
    assert 8 * quick.token_s == pytest.approx(quick.block_s)
    assert [(link.forth.source, link.forth.sink) for link in made.links] == [
        ("client", name) for name in ("server1", "server2", "server3")
    ]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda: plan_petals(quick_scenario(9)), "1 to 6; take some out"),
        (lambda: plan_petals(quick_scenario(2, chats=9)), "measures 8 chats at once at most"),
        (
            lambda: plan_petals(
                with_device(
                    quick_scenario(2),
                    "server1",
                    speed={"decode_bandwidth": "40 GB/s", "prefill_flops": "10 Tflop/s"},
                )
            ),
            "lower its decode_bandwidth",
        ),
        (
            lambda: plan_petals(
                with_device(
                    quick_scenario(2, push=True),
                    "server1",
                    link={"delay": {"law": "constant", "value": "2.5 ms"}, "rate": "10 Mbit/s"},
                )
            ),
            "the links of all servers must be alike",
        ),
        (lambda: quick_scenario(2, blocks=[4, 5]), "one number for each of the 2 servers, 18 in all"),
        (lambda: quick_scenario(2, background={"server7": "50%"}), "there are server1 to server2"),
        (lambda: quick_scenario(2, model="petals-19"), "did you mean"),
        (lambda: local_engine([scenario([8, 8]), quick_scenario(2)]), "engines of several clusters"),
    ],
)
def test_refused_in_words(asked: object, words: str) -> None:
    with pytest.raises(SimulatorError, match=words):
        asked()  # type: ignore[operator]


def test_another_python_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Petals has wheels for 3.11 alone; what `sim` runs in does not matter."""
    assert python_of(sys.version_info[:2], "of this test") == sys.executable
    monkeypatch.setattr("live.local.venv.shutil.which", lambda name: None)
    with pytest.raises(
        EngineUnavailable,
        match=r"no Python 2\.99 on the PATH, and nobody has one; install "
        r"one",
    ):
        python_of((2, 99), "nobody has one")


def test_the_environment_has_its_own_pins() -> None:
    versions = PETALS.versions()
    assert (versions["petals"], versions["hivemind"]) == ("2.2.0.post1", "1.1.12")
    assert PETALS.home.name.startswith("petals-")
