"""What clusters and servers answer."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from simulator.errors import SimulatorError
from tests.fuzz.doors.door import DATA, Kind, Unfit, command, scratch

__all__ = ["KINDS"]


@cache
def states() -> tuple[bytes, ...]:
    """What EXO clusters answered to `GET /state`."""
    field = json.loads(gzip.decompress((DATA / "exo/field_states.json.gz").read_bytes()))
    recorded = sorted((DATA / "exo/rest").glob("state_*3*.json")) + sorted(
        (DATA / "exo/rest").glob("state_*2*.json")
    )
    found = [*field.values(), *(json.loads(path.read_bytes())["response"] for path in recorded)]
    return tuple(json.dumps(one).encode() for one in found)


def _state(path: Path) -> None:
    import httpx

    from live.discover.hosts import parse_network
    from live.exo.health import health_of
    from live.exo.reader import ExoReader
    from live.exo.scenario import scenario_of
    from simulator.files import dumps

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=path.read_bytes()))
    reader = ExoReader("http://127.0.0.1:52415", transport)
    card = {
        "model_id": "mlx-community/Llama-3.3-70B-Instruct-4bit",
        "base_model": "Llama 3.3 70B",
        "quantization": "4bit",
    }
    try:
        state = reader.state()
        health_of(dict(state.raw))
        parse_network(dict(state.raw))
        state.silences_s()
        for instance in (*state.instances.values(), None):
            state.is_ready(instance) if instance else None
            try:
                made, _ = scenario_of(state, (instance.card if instance else None) or card, instance=instance)
            except SimulatorError:
                continue
            dumps(made)
    except SimulatorError:
        return


def _doctored(path: Path) -> None:
    """`sim live discover` and `doctor`: an EXO node whose state is the file's."""
    from live.agent.facts import AgentFacts
    from live.discover import Options, discover, table
    from live.discover.exo_udp import Heard
    from live.discover.hosts import look_again, probe
    from live.discover.look import Sources
    from live.discover.mdns import Announced
    from live.doctor import examine, gather
    from live.doctor.run import as_json, render
    from sim.console import console_here

    get = partial(_page, path.read_bytes())
    # the addresses in a state are nobody's here
    asked = lambda hosts: tuple(probe(*host, get) for host in hosts if host[0] == "127.0.0.1")  # noqa: E731
    again = lambda probes: look_again(probes, get)  # noqa: E731
    sources = Sources(lambda *_: Heard(), lambda _: (), lambda _: Announced(), asked, again)
    here = AgentFacts("here", "linux", addresses=(("lo", "127.0.0.1", 8),))
    options = Options((("127.0.0.1", 52415),), 0.0, this_machine=False)
    seen = gather(options, look=partial(discover, sources=sources), own=lambda: here)
    found = examine(seen)
    json.dumps(as_json(found))
    json.dumps(table.as_json(seen.discovery, []))
    for shown in (render(found), table.render(seen.discovery, table.missing(seen.discovery, 9, (), ()))):
        console_here().print(shown)


def _page(state: bytes, host: str, port: int, path: str) -> Any:
    from live.discover.get import Answer

    now_s, known = time.time(), {"/state": state, "/node_id": b'"12D3KooW"'}
    return Answer(path, 200 if path in known else 404, "", known.get(path, b"{}"), now_s, now_s)


def _models() -> tuple[bytes, ...]:
    return (json.dumps(json.loads((DATA / "exo/rest/models.json").read_bytes())["response"]).encode(),)


def _cards(path: Path) -> None:
    """EXO's list of models: each card as the model of a scenario, and as what a doctor compares with."""
    import httpx

    from live.discover.get import Answer
    from live.discover.hosts import Probe
    from live.doctor.gather import model_need
    from live.exo.cards import model_of_card
    from live.exo.reader import ExoReader

    data = path.read_bytes()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=data))
    found = Probe("127.0.0.1", 52415, "exo")
    model_need("Llama 3.3 70B", [found], lambda *_: Answer("/models", 200, "", data, 0.0, 0.0))
    try:
        cards = ExoReader("http://127.0.0.1:52415", transport).models()
    except SimulatorError:
        return
    for card in cards[:200]:
        try:
            model_of_card(card, [])
        except SimulatorError:
            continue


# OpenAI-compatible servers

ONE_SERVER = """name: one_server
model: {name: random-80mb, layers: 16, hidden: 1024, layer_bytes: 5070848 B}
devices: {a: {kind: MacBook Air M4}}
workload: {prompt_tokens: 8, output_tokens: 24, runs: 2}
"""
IDS = ("words", "/models/tiny", "random-80mb")
WARM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"length"}],'
    b'"usage":{"completion_tokens":2,"prompt_tokens":9}}\n\ndata: [DONE]\n\n'
)
RECORDED = ("llama_cpp_python", "llama_server", "mlx_lm")


@cache
def _exchanges(path: str) -> tuple[bytes, ...]:
    """The longest answer of each recorded server to requests of this path."""
    found = []
    for name in RECORDED:
        asked, bodies = set[int](), dict[int, str]()
        for line in (DATA / f"openai/{name}.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["type"] == "request" and event["path"].endswith(path):
                asked.add(event["n"])
            if event["type"] == "data" and event["n"] in asked:
                bodies[event["n"]] = bodies.get(event["n"], "") + event["text"]
        found.append(max(bodies.values(), key=len, default="").encode())
    return tuple(body for body in found if body)


def _stream(path: Path) -> None:
    _served(path, {"/chat/completions": path.read_bytes()})


def _listed(path: Path) -> None:
    _served(path, {"/models": path.read_bytes()})


def _served(path: Path, answers: dict[str, bytes]) -> None:
    """A measurement of a server that gives these answers; whatever it holds can be summarised."""
    import httpx

    from live.exo.chat import Timeouts
    from live.measure import MeasureOptions
    from live.openai.measure import measure_server
    from simulator.files import loads
    from simulator.scenario import Scenario

    known = {"/chat/completions": _exchanges("/chat/completions")[0], **answers}

    def packets(body: bytes) -> Iterator[bytes]:
        for at in range(0, len(body), len(body) // 8 + 1):
            time.sleep(1e-4)
            yield body[at : at + len(body) // 8 + 1]

    def answer(request: httpx.Request) -> httpx.Response:
        body = next((data for end, data in known.items() if request.url.path.endswith(end)), None)
        is_stream = request.url.path.endswith("/completions")
        if is_stream and b'"max_tokens": 24' not in request.content:
            body = WARM  # the recorded replies have 24 tokens, and longer ones than asked for are refused
        kind = "text/event-stream" if is_stream else "application/json"
        return httpx.Response(
            404 if body is None else 200, content=packets(body or b""), headers={"content-type": kind}
        )

    out, asked = scratch(path, "measured.jsonl"), loads(ONE_SERVER, Scenario, "one_server.yaml")
    quick = Timeouts(connect_s=1, answer_s=1, first_token_s=1, idle_s=1, patience=1)
    try:
        measure_server(
            asked,
            "http://127.0.0.1:1/v1",
            out,
            MeasureOptions(model_id=next((one for one in IDS if one.encode() in path.read_bytes()), None)),
            transport=httpx.MockTransport(answer),
            timeouts=quick,
        )
    except SimulatorError:
        return
    code, _, err = command("summary", out)
    if code not in (0, 1, 2) or (code and out.name not in err):
        raise Unfit(f"sim summary exits {code}: {err[:300]}")


KINDS = {
    "EXO state": Kind("state.json", states, (_state, _doctored)),
    "EXO models": Kind("models.json", _models, (_cards,)),
    "server stream": Kind("stream.txt", lambda: _exchanges("/chat/completions"), (_stream,)),
    "server models": Kind("models.json", lambda: _exchanges("/models"), (_listed,)),
}
