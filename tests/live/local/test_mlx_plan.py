"""A local MLX cluster before anything is started: plans, refusals, what the relay is told of messages."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from live.local.children import Child
from live.local.engines import local_engine
from live.local.frames import SizedReader
from live.local.hops import hop_events
from live.local.mlx import plan as mlx_plan
from live.local.mlx.plan import plan_mlx
from live.local.mlx.quick import quick_scenario
from live.local.mlx.weights import recipes
from live.local.overhead import _echo
from live.local.shaping import DirectionSpec, LegSpec, LinkShape
from simulator.errors import LiveError, SimulatorError
from simulator.laws.law import Constant
from simulator.runtime.collective import rounds
from tests.live.local.parts import scenario, until


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Plans look at a model's size alone; none is made here."""
    file = tmp_path_factory.mktemp("model") / "model"
    file.write_bytes(b"0")
    monkeypatch.setattr(mlx_plan, "model_file", lambda name: file)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_messages_of_tensor_are_the_simulators_rounds(ranks: int) -> None:
    """One chat: every layer's two all-reduces, of the prompt before its last token and of each token."""
    made = plan_mlx(quick_scenario("mlx-40mb", "tensor", ranks))
    of = rounds("all_reduce", "ring", ranks, made.shape.hidden * 4)
    for place in range(ranks):
        prompt, *tokens = made.to_left(place, prompt_tokens=16, output_tokens=10)
        assert tokens == [(2 * 8 * len(of), of[0].size_bytes)] * 10
        assert prompt == (2 * 8 * len(of), 15 * of[0].size_bytes)
        assert made.to_right(place, 16, 10) == []


def test_messages_of_a_pipeline() -> None:
    """mlx-lm's last rank has the first layers; everything goes to the left, from each to the one behind."""
    made = plan_mlx(quick_scenario("mlx-40mb", "pipeline", 3, layers=[4, 2, 2]))
    assert [made.rank_of(place) for place in range(3)] == [2, 1, 0]
    assert [link.forth.source for link in made.links] == ["rank2", "rank1", "rank0"]
    # the prompt, then a state to the next stage and two rounds
    # of the gather a token; the last stage sends none on
    assert made.to_left(0, 16, 10) == [(1, 15 * 3072), *[(3, 3072)] * 10]
    assert made.to_left(2, 16, 10) == [(2, 3072)] * 10
    assert made.to_left(0, 1, 10) == [(3, 3072)] * 10


def test_messages_as_exo_sends_them() -> None:
    """A notice and a gather to the left, hidden states to the right."""
    made = plan_mlx(quick_scenario("mlx-40mb", "pipeline", 3, engine="exo"))
    assert [made.rank_of(place) for place in range(3)] == [0, 1, 2]
    assert made.to_right(1, 16, 10) == [(1, 15 * 3072), (10, 3072)]
    assert made.to_right(2, 16, 10) == []
    assert made.to_left(2, 16, 10) == [(2, 4), (2, 3072)] * 10
    split = plan_mlx(quick_scenario("mlx-40mb", "tensor", 2, engine="exo"))
    assert split.to_left(0, 1, 1) == [(1, 4), (32, 1536)]


def test_the_recipes_say_how_many_ranks_may_split_them() -> None:
    fitting = {name: [n for n in (2, 3, 4) if not one.fault_of(n)] for name, one in recipes().items()}
    assert fitting == {"mlx-40mb": [2, 3, 4], "mlx-20mb": [2, 3], "mlx-60mb": [2, 4], "mlx-wide": [2, 4]}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            lambda: plan_mlx(quick_scenario("mlx-20mb", "tensor", 4)),
            "cannot split this model among 4 devices",
        ),
        (
            lambda: plan_mlx(
                quick_scenario("mlx-60mb", "tensor", 2).replace(workload={"prompt_tokens": 600})
            ),
            "beyond 512 MLX sends all-reduces both ways",
        ),
        (
            lambda: quick_scenario("mlx-40mb", "pipeline", 2, layers=[4, 5]),
            "one number for each of the 2 ranks",
        ),
        (lambda: quick_scenario("mlx-40mb", "tensor", 2, layers=[4, 4]), "none with tensor"),
        (
            lambda: quick_scenario("mlx-40mb", "tensor", 2, background={"rank7": "50%"}),
            "there are rank0 to rank1",
        ),
        (lambda: quick_scenario("mlx-40mb", "tensor", 2, background={"rank1": "much"}), "much"),
        (lambda: quick_scenario("mlx-40mb", "tensor", 2, delay="soon"), "soon"),
        (lambda: quick_scenario("mlx-40m", "tensor", 2), "did you mean"),
        (
            lambda: local_engine([scenario([8, 8]), quick_scenario("mlx-40mb", "tensor", 2)]),
            "engines of several clusters",
        ),
        (
            lambda: local_engine([scenario([8, 8], engine="exo-legacy")]),
            "runs llama-rpc, mlx, mlx-tensor, exo, exo-tensor, petals",
        ),
    ],
)
def test_refused_in_words(asked: object, words: str) -> None:
    with pytest.raises(SimulatorError, match=words):
        asked()  # type: ignore[operator]


def test_a_reader_cuts_by_announced_sizes() -> None:
    reader = SizedReader()
    reader.expect([(2, 10), (1, 4)])
    begun = [len(part) for part, names, begins in reader.pieces(memoryview(bytes(25))) if begins and names]
    # 10, 10, 4, and what nobody announced
    assert begun == [10, 10, 4, 1]
    reader.expect([(1, 10)])
    halves = [begins for _ in range(2) for _, _, begins in reader.pieces(memoryview(bytes(5)))]
    assert halves == [True, False]


def test_hops_are_summed_by_way() -> None:
    flight = {"source": "a", "sink": "b", "size_bytes": 8, "last_ns": 5, "imposed_ns": 3, "late_ns": 1}
    flights = [{**flight, "messages": ["message"]}, {**flight, "last_ns": 9, "messages": ["message"]}]
    back = {**flight, "source": "b", "sink": "a", "messages": []}
    there, again = hop_events([*flights, back], summed=True)
    assert (there["imposed_ns"], there["sent_ns"], there["messages"]) == (6, 5, 2)
    assert (again["source"], again["late_ns"]) == ("b", 1)
    assert len(list(hop_events([*flights, back], summed=False))) == 3


@pytest.mark.timed
def test_a_relay_waits_for_who_does_not_listen_yet_and_delays_each_message() -> None:
    """MLX takes whoever accepts for its peer; and on a ring nobody answers between two messages."""
    relay = Child("relay", "live.local.relay")
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        leg = (LegSpec(law=Constant(value="20 ms")),)
        shape = LinkShape(
            target=late.getsockname(),
            forth=DirectionSpec(source="a", sink="b", legs=leg),
            back=DirectionSpec(source="b", sink="a", legs=leg),
            messages="sized",
            patience_s=10,
        )
        try:
            port = relay.ask("link", "port", shape=shape.model_dump(mode="json"))["port"]
            relay.ask("shape", "shaping", on=True)
            with socket.create_connection(("127.0.0.1", port)) as near:
                time.sleep(0.05)
                late.listen()
                threading.Thread(target=_echo, args=(late,), daemon=True).start()
                near.settimeout(10)
                near.sendall(b"x")
                assert near.recv(1) == b"x"
                relay.ask("collect", "flights")
                relay.ask("expect", "expected", port=port, forth=[(3, 100)], back=[(1, 300)])
                near.sendall(bytes(300))
                got = 0
                while got < 300:
                    got += len(near.recv(300))
            flights = until(lambda: relay.ask("collect", "flights")["flights"], 5)
        finally:
            relay.end()
    assert [flight["size_bytes"] for flight in flights if flight["source"] == "a"] == [100, 100, 100]
    assert [flight["size_bytes"] for flight in flights if flight["source"] == "b"] == [300]


def test_a_target_that_never_listens_closes_the_connection() -> None:
    relay = Child("relay", "live.local.relay")
    with socket.socket() as never:
        never.bind(("127.0.0.1", 0))
        direction = DirectionSpec(source="a", sink="b")
        shape = LinkShape(target=never.getsockname(), forth=direction, back=direction, patience_s=0.1)
        try:
            port = relay.ask("link", "port", shape=shape.model_dump(mode="json"))["port"]
            with socket.create_connection(("127.0.0.1", port), timeout=10) as near:
                assert near.recv(1) == b""
        finally:
            relay.end()


def test_what_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from live.local.mlx import cluster

    monkeypatch.setattr(cluster.MLX.__class__, "require", lambda self: None)
    monkeypatch.setattr(cluster, "preload", lambda: None)
    monkeypatch.setattr(cluster.os, "cpu_count", lambda: 2)
    made = plan_mlx(quick_scenario("mlx-40mb", "tensor", 4).replace(shared_host={"cores": 2}))
    with pytest.raises(LiveError, match="has 4 ranks, and this machine 2 cores: MLX keeps a core busy"):
        cluster.MlxCluster(made)
