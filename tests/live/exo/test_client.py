"""The EXO client against recorded answers and a fake cluster: placing, waiting, and leaving nothing behind."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.errors import (
    ApiChanged,
    InstanceFailed,
    LiveError,
    NotOffered,
    PlacementRefused,
    RequestRefused,
    Unreachable,
)
from live.exo.casing import snake
from live.exo.client import ExoClient, Timeouts
from live.exo.state import parse_state
from live.url import base_urls
from tests.live.exo.fake import MODEL, FakeExo, rest
from tests.live.replay import DATA, ReplayServer, json_answer

pytestmark = pytest.mark.timed

QUICK = Timeouts(connect_s=1, answer_s=2, poll_s=0.01, appear_s=0.3, ready_s=2)
A, B, C = (
    "c23be1351091c5fea37ee056335b39d0",
    "d66a68583f2072fb2d9bbdc3b7b39d75",
    "8f767940680fa000a79b1c14c4bac7f5",
)


@pytest.fixture
def fake() -> FakeExo:
    return FakeExo()


@pytest.fixture
def exo(fake: FakeExo) -> Iterator[ExoClient]:
    with fake.serve() as server:
        yield ExoClient(server.url, timeouts=QUICK)


def test_reads(exo: ExoClient) -> None:
    assert exo.node_id() == A
    assert {card["id"] for card in exo.models()} >= {MODEL}
    assert exo.features() == ("state_path", "feature_flags")
    state = exo.state()
    assert [node.name for node in state.nodes] == ["node-a", "node-b", "node-c"]
    assert state.node(A).free_bytes == 8 * 2**30
    assert len(state.edges) == 6
    assert state.addresses(A, B) == (("10.99.0.2", "unknown"),)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("state_running_min1", [("node-a", 0, 16)]),
        ("state_running_min2", [("node-c", 0, 5), ("node-a", 5, 16)]),
        ("state_running_min3", [("node-c", 0, 4), ("node-b", 4, 8), ("node-a", 8, 16)]),
    ],
)
def test_state_of_a_running_cluster(name: str, layers: list[tuple[str, int, int]]) -> None:
    state = parse_state(rest(name))
    (instance,) = state.instances.values()
    assert [(state.name_of(s.node_id), s.start_layer, s.end_layer) for s in instance.shards] == layers
    assert state.is_ready(instance)
    assert instance.card["storage_size"] == {"in_bytes": 21366784}
    assert not state.busy_tasks  # finished tasks stay in the state for ever


def test_both_casings_say_the_same() -> None:
    raw = rest("state_running_min3")
    assert parse_state(snake(raw)).runners == parse_state(raw).runners
    assert parse_state(snake(raw)).nodes == parse_state(raw).nodes


@given(
    st.dictionaries(st.uuids().map(str) | st.text("0123456789abcdef", min_size=8, max_size=32), st.integers())
)
def test_ids_are_no_words(ids: dict[str, int]) -> None:
    assert snake(ids) == ids
    assert snake({"RunnerReady": {}, "mlx-community/Llama-3.3-70B": 1, "12D3KooWAbCd": 2}).keys() == {
        "RunnerReady",
        "mlx-community/Llama-3.3-70B",
        "12D3KooWAbCd",
    }


def test_placement_errors_are_exos_own(exo: ExoClient, fake: FakeExo) -> None:
    with pytest.raises(PlacementRefused, match="No cycles found with sufficient memory"):
        exo.place_instance(MODEL, min_nodes=4)
    assert not fake.posted


def test_without_placement_endpoint_previews_serve() -> None:
    with ReplayServer({"GET /instance/previews": json_answer(rest("instance_previews"))}) as server:
        client = ExoClient(server.url, timeouts=QUICK)
        assert len(client.placement(MODEL, min_nodes=2).shards) == 2
        with pytest.raises(PlacementRefused, match="No cycle where every node supports"):
            client.placement(MODEL, meta="MlxJaccl")
        with pytest.raises(NotOffered):
            client.bench(MODEL, "?", max_tokens=2)
        assert client.cancel("x") is False


def test_creates_waits_and_deletes_only_its_own(fake: FakeExo) -> None:
    foreign = rest("state_running_min2")["instances"]
    fake.state["instances"] |= copy.deepcopy(foreign)
    with fake.serve() as server, ExoClient(server.url, timeouts=QUICK) as exo:
        instance = exo.create_instance(exo.instance_with(MODEL, [(A, 0, 4), (B, 4, 10), (C, 10, 16)]))
        changes: list[str] = []
        fake.looks = 0
        exo.wait_ready(instance, on_change=changes.append)
        assert changes == ["node-a: Connecting; node-b: Connecting; node-c: Connecting"]
        with pytest.raises(LiveError, match="not made by this run"):
            exo.delete_instance(next(iter(foreign)))
    assert fake.deleted == [instance.instance_id]
    assert set(fake.state["instances"]) == set(foreign)


def test_place_instance_adopts_the_one_new_instance(fake: FakeExo) -> None:
    with fake.serve() as server, ExoClient(server.url, timeouts=QUICK) as exo:
        assert exo.place_instance(MODEL, min_nodes=2).instance_id == "placed-0"
    assert fake.deleted == ["placed-0"]


def test_place_instance_takes_none_of_two(fake: FakeExo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else places the same model at the same moment: neither is deleted by us."""
    place = fake._place

    def twice(body: dict[str, Any]) -> Any:
        place(body)
        return place(body)

    monkeypatch.setattr(fake, "_place", twice)
    with fake.serve() as server, pytest.raises(PlacementRefused, match="somebody else"):  # noqa: SIM117
        with ExoClient(server.url, timeouts=QUICK) as exo:
            exo.place_instance(MODEL, min_nodes=2)
    assert len(fake.state["instances"]) == 2
    assert not fake.deleted


def test_placement_that_never_appears(fake: FakeExo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.exo.owned.IN_FLIGHT_S", 0.3)
    fake.loses_creations = True
    with fake.serve() as server, pytest.raises(PlacementRefused, match="log"):  # noqa: SIM117
        with ExoClient(server.url, timeouts=QUICK) as exo:
            exo.create_instance(rest("instance_placement_min2"))


@pytest.mark.parametrize("how", ["exception", "sigint", "sigterm"])
def test_interrupts_leave_nothing_behind(fake: FakeExo, how: str) -> None:
    former = signal.getsignal(signal.SIGTERM)
    with fake.serve() as server, pytest.raises((KeyboardInterrupt, ZeroDivisionError)):  # noqa: PT012, SIM117
        with ExoClient(server.url, timeouts=QUICK) as exo:
            exo.create_instance(rest("instance_placement_min2"))
            if how == "exception":
                raise ZeroDivisionError
            threading.Timer(
                0.05, os.kill, (os.getpid(), signal.SIGINT if how == "sigint" else signal.SIGTERM)
            ).start()
            threading.Event().wait(5)
    assert len(fake.deleted) == 1
    assert not fake.state["instances"]
    assert signal.getsignal(signal.SIGTERM) is former


def test_failed_runner(fake: FakeExo) -> None:
    fake.statuses = ["RunnerLoading", "RunnerFailed"]
    with fake.serve() as server, ExoClient(server.url, timeouts=QUICK) as exo:
        instance = exo.create_instance(rest("instance_placement_min2"))
        with pytest.raises(InstanceFailed, match="out of memory"):
            exo.wait_ready(instance)


def test_endless_connecting(fake: FakeExo) -> None:
    fake.statuses = ["RunnerConnecting"]
    with fake.serve() as server, ExoClient(server.url, timeouts=QUICK) as exo:
        instance = exo.create_instance(rest("instance_placement_min2"))
        with pytest.raises(InstanceFailed, match=r"node-c: Connecting.*cannot reach"):
            exo.wait_ready(instance, within_s=0.1)


def test_vanished_instance(exo: ExoClient) -> None:
    with pytest.raises(InstanceFailed, match="vanished"):
        exo.wait_ready("00000000-0000-0000-0000-000000000000")


def test_chat_without_instance(exo: ExoClient) -> None:
    with pytest.raises(RequestRefused, match="No instance found for model") as caught:
        exo.chat(MODEL, "?", max_tokens=4)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "name", ["state_unknown_path_404", "trace_get_text_task", "instance_placement_unknown_model_error"]
)
def test_recorded_errors(name: str) -> None:
    record = json.loads((DATA / f"exo/rest/{name}.json").read_text())
    with ReplayServer({"GET /state": json_answer(record["response"], record["status"])}) as server:
        with pytest.raises(RequestRefused) as caught:
            ExoClient(server.url, timeouts=QUICK).state()
        assert caught.value.status == record["status"]


def test_transport_is_an_argument() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json="abc"))
    assert ExoClient("http://nowhere.invalid", transport).node_id() == "abc"


def test_nothing_there() -> None:
    with pytest.raises(Unreachable, match="nothing listens on that port; start the server"):
        ExoClient("http://127.0.0.1:9", timeouts=QUICK).node_id()


def test_no_state_is_no_exo() -> None:
    with (
        ReplayServer({"GET /state": json_answer({"status": "ok"})}) as server,
        pytest.raises(ApiChanged, match=r"EXO 1\.x"),
    ):
        ExoClient(server.url, timeouts=QUICK).state()


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("exo://a", ("http://a:52415",)),
        ("a:1,b", ("http://a:1", "http://b:52415")),
        ("exo://[::1]:2", ("http://[::1]:2",)),
        ("https://a", ("https://a:443",)),
    ],
)
def test_addresses(text: str, urls: tuple[str, ...]) -> None:
    assert base_urls(text) == urls


@pytest.mark.parametrize(
    "text", ["", "ftp://a", "exo://", "exo://u:p@a", "exo://a/path", "exo://a:port", "exo://a:99999", "a b"]
)
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(LiveError, match="exo://"):
        base_urls(text)
