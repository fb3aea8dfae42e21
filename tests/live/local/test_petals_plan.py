"""A local Petals swarm before anything is started: plans, refusals, where its environment comes from."""

from __future__ import annotations

import sys

import pytest

from live.local.engines import local_engine
from live.local.petals import foreign
from live.local.petals import plan as petals_plan
from live.local.petals.dropout import SwarmLoss, _check
from live.local.petals.environment import PETALS
from live.local.petals.foreign import plan_foreign, swarm_addresses
from live.local.petals.plan import plan_petals
from live.local.petals.quick import quick_scenario
from live.local.venv import python_of
from simulator.errors import EngineUnavailable, SimulatorError
from simulator.scenario import Scenario
from tests.live.local.parts import scenario

ADDRESS = "/ip4/10.0.0.5/tcp/31330/p2p/12D3KooWBVKakQLafy5T"


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Plans look at a model's size alone; none is made here."""
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    file.write_bytes(b"0")
    for module in (petals_plan, foreign):
        monkeypatch.setattr(module, "model_file", lambda name: file)


def with_device(scenario: Scenario, name: str, **changes: object) -> Scenario:
    """The scenario with one device told otherwise."""
    devices = scenario.model_dump(mode="json")["devices"]
    return scenario.replace(devices={**devices, name: {**devices[name], **changes}})


def test_servers_are_as_slow_as_the_simulators_devices() -> None:
    """The client serves nothing; a server that other work keeps half busy takes twice as long."""
    made = plan_petals(quick_scenario(3, blocks=[4, 8, 6], background={"server2": "50%"}))
    assert made.client == "client"
    assert [(one.name, one.start, one.end) for one in made.servers] == [
        ("server1", 0, 4),
        ("server2", 4, 12),
        ("server3", 12, 18),
    ]
    quick, slow, _ = made.servers
    assert quick.block_s == pytest.approx(3.213312e6 / 0.8e9)
    assert slow.block_s == pytest.approx(2 * quick.block_s, rel=0.1)
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
        (
            lambda: swarm_addresses("10.0.0.5:31330"),
            "10.0.0.5:31330 is no address of a swarm; write petals:///ip4",
        ),
        (lambda: swarm_addresses(""), "nothing is no address"),
        (lambda: swarm_addresses(f"{ADDRESS}?folder=x"), "folder is no option; there are model, prefix"),
        (
            lambda: _check(plan_petals(quick_scenario(2)), SwarmLoss("client", 5)),
            "the client: without it nobody",
        ),
        (lambda: _check(plan_petals(quick_scenario(2)), SwarmLoss("server1", 500)), "not inside the reply"),
        (lambda: _check(plan_petals(quick_scenario(2, chats=2)), SwarmLoss("server1", 5)), "in one chat"),
        (
            lambda: _check(plan_petals(quick_scenario(2)), SwarmLoss("server1", 5, "dark", back_after_s=3)),
            "a link that is dark stays dark",
        ),
    ],
)
def test_refused_in_words(asked: object, words: str) -> None:
    with pytest.raises(SimulatorError, match=words):
        asked()  # type: ignore[operator]


def test_a_spare_is_a_server_on_no_route() -> None:
    told = quick_scenario(3).model_dump(mode="json")
    devices = {**told["devices"], "spare": told["devices"]["server2"]}
    made = plan_petals(
        quick_scenario(3).replace(devices=devices, swarm={"stays": {"spare": {"span": [6, 12]}}})
    )
    assert [(one.name, one.start, one.end) for one in made.spares] == [("spare", 6, 12)]
    assert [link.forth.sink for link in made.links][-1] == "spare"


def test_a_swarm_of_others_has_no_server_here() -> None:
    """Its speeds are nobody's business: a device may be faster than a block of ours."""
    fast = with_device(
        quick_scenario(2), "server1", speed={"decode_bandwidth": "40 GB/s", "prefill_flops": "10 Tflop/s"}
    )
    made = plan_foreign(fast)
    assert (made.servers, made.links, made.client) == ((), (), "client")
    assert swarm_addresses(f"{ADDRESS},{ADDRESS}?prefix=lab") == (ADDRESS, ADDRESS, "prefix=lab")


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
