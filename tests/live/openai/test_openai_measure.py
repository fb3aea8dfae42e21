"""Measuring servers over real sockets: recordings of real ones, and what servers do to a client."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calibrate.samples import sample
from live.errors import LiveError, RequestRefused, Unreachable
from live.exo.chat import Timeouts
from live.http import Http
from live.measure import MeasureOptions, MeasureResult
from live.openai.address import server_url
from live.openai.client import OpenAiClient
from live.openai.key import KeyTransport
from live.openai.measure import measure_server
from live.openai.models import match_id
from live.record import ExchangeRecorder, RecordingTransport
from sim.main import app
from simulator.errors import SimulatorError
from simulator.files import dump
from simulator.result.measurement import Measurement, read_measurement
from simulator.scenario import Scenario
from tests.live.replay import (
    DATA,
    SSE_HEADERS,
    ReplayServer,
    Request,
    Script,
    chunked,
    head,
    json_answer,
    session,
)

pytestmark = pytest.mark.timed
QUICK = Timeouts(connect_s=1, answer_s=3, first_token_s=5, idle_s=1, patience=1)
KEY = "sk-verysecretkey0123456789"


def scenario(**work: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "one_server",
            "model": {
                "name": "random-80mb",
                "quantisation": "Q4_K_M",
                "layers": 16,
                "hidden": 1024,
                "layer_bytes": "5070848 B",
                "embedding_bytes": "294912 B",
                "head_bytes": "434176 B",
                "kv_bytes_per_token_per_layer": "1024 B",
                "layer_flops": 17825792,
                "head_flops": 1048576,
                "activation_bytes": "4096 B",
            },
            "engine": "llama-rpc",
            "devices": {
                "laptop": {
                    "memory": "4 GB",
                    "speed": {"decode_bandwidth": "5 GB/s", "prefill_flops": "100 Gflop/s"},
                    "link": {"delay": {"law": "constant", "value": "1 ms"}, "rate": "1 Gbit/s"},
                }
            },
            "workload": {"prompt_tokens": 32, "output_tokens": 24, "runs": 2} | work,
        }
    )


@dataclass
class FakeServer:
    """A server that streams words; `refuses` are answers given before the first chats are taken."""

    models: Any = field(default_factory=lambda: {"data": [{"id": "random-80mb", "object": "model"}]})
    gap_s: float = 0.004
    usage: bool = True
    refuses: list[Script] = field(default_factory=list)
    chat: Callable[[dict[str, Any]], Script] | None = None
    chats: list[dict[str, Any]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def serve(self) -> ReplayServer:
        return ReplayServer({"*": self})

    def __call__(self, request: Request) -> Script | None:
        if request.method == "GET":
            return json_answer(self.models) if request.path == "/v1/models" and self.models else None
        if request.path != "/v1/chat/completions":
            return None
        with self._lock:
            self.chats.append(request.json())
            if self.refuses:
                return self.refuses.pop(0)
        return self.chat(request.json()) if self.chat else self.stream(request.json())

    def stream(self, body: dict[str, Any], chunks: int | None = None, end: bool = True) -> Script:
        """One reply of as many chunks as tokens are asked for."""
        count = body["max_tokens"] if chunks is None else chunks
        events = [{"choices": [{"index": 0, "delta": {"content": " word"}}]} for _ in range(count)]
        sends = [(0.0, head(200, SSE_HEADERS))]
        sends += [(0.01 + n * self.gap_s, self._event(event)) for n, event in enumerate(events)]
        at_s = 0.01 + count * self.gap_s
        if not end:
            return Script(tuple(sends), "reset")
        tail = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}]
        usage = {"prompt_tokens": 30, "completion_tokens": body["max_tokens"]}
        tail += [{"choices": [], "usage": usage}] if self.usage else []
        last = b"".join(map(self._event, tail)) + chunked(b"data: [DONE]\n\n") + chunked(b"")
        return Script((*sends, (at_s, last)))

    @staticmethod
    def _event(event: dict[str, Any]) -> bytes:
        return chunked(f"data: {json.dumps(event)}\n\n".encode())


def refusal(status: int, message: str, **headers: str) -> Script:
    body = json.dumps({"error": {"message": message}}).encode()
    return Script(
        ((0.0, head(status, {"content-type": "application/json", "connection": "close"} | headers) + body),)
    )


def measure(
    fake: Callable[[Request], Script | None], path: Path, wanted: Scenario | None = None, **options: Any
) -> tuple[MeasureResult, Measurement]:
    with ReplayServer({"*": fake}) as server:
        result = measure_server(
            wanted or scenario(), f"{server.url}/v1", path, MeasureOptions(**options), timeouts=QUICK
        )
    return result, read_measurement(path)


def replayed(name: str) -> Callable[[Request], Script | None]:
    """A recorded session, request by request."""
    scripts = [script.faster(10) for _, script in session(DATA / f"openai/{name}.jsonl")]
    lock = threading.Lock()

    def answer(_: Request) -> Script | None:
        with lock:
            return scripts.pop(0) if scripts else None

    return answer


def test_a_recorded_mlx_server(tmp_path: Path) -> None:
    result, found = measure(replayed("mlx_lm"), tmp_path / "m.jsonl", model_id="tiny")
    assert (result.runs_done, result.failures) == (2, ())
    assert found.provenance.model == "/models/tiny"
    assert found.provenance.source == "openai"
    assert found.provenance.cluster["counting"] == "one-a-chunk"
    assert all(len(times) == 24 for times in found.token_times_s().values())
    assert any("prompt tokens came from the server's cache" in text for text in found.warnings)


def test_a_recorded_llama_cpp_python_server_that_counts_nothing(tmp_path: Path) -> None:
    result, found = measure(replayed("llama_cpp_python"), tmp_path / "m.jsonl")
    assert result.runs_done == 2
    assert all(len(times) == 24 for times in found.token_times_s().values())
    assert any("chunks are not tokens" in text for text in found.warnings)
    assert any("does not count the prompt's tokens" in text for text in found.warnings)


def test_a_recorded_llama_server_counts_with_each_chunk(tmp_path: Path) -> None:
    _, found = measure(replayed("llama_server"), tmp_path / "m.jsonl", model_id="words")
    assert found.provenance.cluster["counting"] == "told"
    assert found.provenance.engine_version.startswith("llama-server b")
    assert all(len(times) == 24 for times in found.token_times_s().values())
    assert all(event["engine_stats"]["predicted_n"] == 24 for event in found.of("result"))


def test_a_measurement_calibrates_like_any_other(tmp_path: Path) -> None:
    fake = FakeServer(gap_s=0.01)
    _, found = measure(fake, tmp_path / "m.jsonl", scenario(output_tokens=40, runs=3))
    told = sample(found)
    assert len(told.runs) == 3
    assert told.median_s == pytest.approx(0.01, rel=0.1)
    assert found.provenance.placement[0].device == "laptop"
    done = CliRunner().invoke(
        app, ["calibrate", str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "c.yaml")], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert "laptop" in (tmp_path / "c.yaml").read_text()


def test_the_client_asks_for_counts_full_length_and_no_reuse(tmp_path: Path) -> None:
    fake = FakeServer()
    measure(fake, tmp_path / "m.jsonl")
    body = fake.chats[-1]
    assert body["stream_options"]["include_usage"]
    assert body["ignore_eos"]
    assert body["cache_prompt"] is False
    assert body["max_tokens"] == 24


def test_several_chats_leave_together(tmp_path: Path) -> None:
    fake = FakeServer(gap_s=0.01)
    result, found = measure(fake, tmp_path / "m.jsonl", scenario(concurrency=3, runs=1))
    assert sorted(found.token_times_s()) == [(0, 0), (0, 1), (0, 2)]
    sent = [event["sent_ns"] for event in found.of("request")]
    assert max(sent) - min(sent) < 100e6
    assert result.steady is not None


def test_a_server_that_refuses_unknown_fields_is_asked_without(tmp_path: Path) -> None:
    fake = FakeServer(
        refuses=[
            refusal(400, "Unrecognized request argument supplied: ignore_eos, timings_per_token"),
            refusal(422, "Extra inputs are not permitted"),
        ]
    )
    _, found = measure(fake, tmp_path / "m.jsonl")
    assert "ignore_eos" not in fake.chats[1]
    assert "stream_options" in fake.chats[1]
    assert set(fake.chats[2]) == {"model", "messages", "max_tokens", "stream"}
    assert found.provenance.cluster["asked_for"] == []


def test_max_completion_tokens_where_that_is_its_name(tmp_path: Path) -> None:
    fake = FakeServer(refuses=[refusal(400, "Use 'max_completion_tokens' instead of 'max_tokens'.")])
    fake.chat = lambda body: fake.stream(body | {"max_tokens": body["max_completion_tokens"]})
    result, _ = measure(fake, tmp_path / "m.jsonl")
    assert result.runs_done == 2


def test_a_busy_server_is_asked_again_when_it_says(tmp_path: Path) -> None:
    busy = refusal(429, "slow down", **{"retry-after": "0.2"})
    fake, said = FakeServer(), list[str]()
    with fake.serve() as server:
        client = OpenAiClient(f"{server.url}/v1", timeouts=QUICK, say=said.append)
        client.learn_form("random-80mb")
        fake.refuses = [busy, busy]
        reply, _ = client.chat("random-80mb", "Hi", max_tokens=4)
    assert len(reply.tokens) == 4
    assert client.refusals == 2
    assert said == ["the server is busy (429); asking again in 0.2 s"] * 2


def test_a_refused_chat_beside_others_is_told_in_the_file(tmp_path: Path) -> None:
    fake = FakeServer()
    warm_up = 3

    def chat(body: dict[str, Any]) -> Script:
        first_of_runs = len(fake.chats) == warm_up + 1
        return refusal(429, "one at a time", **{"retry-after": "0.1"}) if first_of_runs else fake.stream(body)

    fake.chat = chat
    result, found = measure(fake, tmp_path / "m.jsonl", scenario(concurrency=2, runs=1))
    assert result.runs_done == 1
    assert len(list(found.of("request"))) == 3
    assert any("did not run side by side" in text for text in found.warnings)


def test_a_reply_that_breaks_is_kept_and_the_next_run_goes_on(tmp_path: Path) -> None:
    fake = FakeServer()
    fake.chat = lambda body: fake.stream(body, 7, end=False) if len(fake.chats) == 4 else fake.stream(body)
    result, found = measure(fake, tmp_path / "m.jsonl")
    assert result.runs_done == 1
    assert len(result.failures) == 1
    outcomes = [(event["outcome"], event["tokens"]) for event in found.of("result")]
    assert outcomes[0][0].startswith("Stream")
    assert outcomes == [(outcomes[0][0], 7), ("complete", 24)]


def test_an_interrupt_keeps_every_chunk(tmp_path: Path) -> None:
    def stop(run: int, chat: int, chunk: int) -> None:
        if chunk == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(FakeServer(), tmp_path / "m.jsonl", on_token=stop)
    found = read_measurement(tmp_path / "m.jsonl")
    assert not found.complete
    assert len(list(found.of("chunk"))) == len(list(found.of("token"))) == 6


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_key_names_its_variable(status: int, tmp_path: Path) -> None:
    fake = FakeServer(refuses=[refusal(status, "Invalid API Key")] * 9)
    with pytest.raises(RequestRefused, match="environment variable SIM_OPENAI_KEY"):
        measure(fake, tmp_path / "m.jsonl")


def test_the_key_is_sent_and_never_kept(tmp_path: Path) -> None:
    """Not even where a server repeats it, in one packet or in two."""
    seen: list[bytes] = []

    def answer(request: Request) -> Script | None:
        seen.append(request.head)
        if request.method == "GET":
            return json_answer({"data": [{"id": "random-80mb", "owned_by": KEY}]})
        event = f'data: {{"model":"{KEY}","system_fingerprint":"{KEY}","choices":[{{"delta":{{"content":"'
        half = len(event) - 20 - len(KEY) // 2
        whole = event + f'{KEY}"}},"finish_reason":"length"}}]}}\n\ndata: [DONE]\n\n'
        headers = SSE_HEADERS | {"x-request-id": KEY}
        parts = [whole[:half], whole[half:]]
        sends = [(0.0, head(200, headers))]
        sends += [(0.02 * (n + 1), chunked(part.encode())) for n, part in enumerate(parts)]
        return Script((*sends, (0.1, chunked(b""))))

    with ReplayServer({"*": answer}) as server:
        recorder = ExchangeRecorder(tmp_path / "raw.jsonl")
        transport = RecordingTransport(KeyTransport(Http.network(), KEY), recorder)
        measure_server(
            scenario(), f"{server.url}/v1", tmp_path / "m.jsonl", transport=transport, timeouts=QUICK
        )
        recorder.close()
    assert all(f"Bearer {KEY}".encode() in one for one in seen)
    for file in tmp_path.iterdir():
        assert KEY not in file.read_text()
        assert "REMOVED" in file.read_text()


def test_an_error_that_repeats_the_key_is_cleaned(tmp_path: Path) -> None:
    fake = FakeServer(refuses=[refusal(401, f"Incorrect API key provided: {KEY}")])
    with fake.serve() as server:
        client = OpenAiClient(f"{server.url}/v1", KeyTransport(Http.network(), KEY), QUICK)
        with pytest.raises(RequestRefused) as told:
            client.chat("m", "Hi", max_tokens=2)
    assert KEY not in str(told.value)
    assert "REMOVED" in str(told.value)


def test_a_model_that_is_not_there_gets_the_nearest_names(tmp_path: Path) -> None:
    fake = FakeServer(models={"data": [{"id": "random-88mb-instruct"}, {"id": "qwen3-8b"}]})
    with pytest.raises(LiveError, match=r"no model 'random-80mb' among the 2 .* 'random-88mb-instruct'"):
        measure(fake, tmp_path / "m.jsonl")
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "ids", "found"),
    [
        ("Llama-3.1-8B", ["/m/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"], 0),
        ("Qwen3-4B", ["mlx-community/Qwen3-14B-4bit", "mlx-community/Qwen3-4B-4bit"], 1),
        ("llama3.1-8b", ["llama3.1:8b", "llama3.1:70b"], 0),
        ("Qwen3-4B", ["Qwen3-4B-Q8_0.gguf", "Qwen3-4B-Q4_K_M.gguf"], 1),
    ],
)
def test_spellings_of_servers(name: str, ids: list[str], found: int) -> None:
    assert match_id(name, "Q4_K_M", ids) == ids[found]


def test_two_that_may_be_meant_are_asked_about() -> None:
    with pytest.raises(LiveError, match="several models of the server may be"):
        match_id("Qwen3-4B", None, ["Qwen3-4B-Q8_0.gguf", "Qwen3-4B-Q4_K_M.gguf"])


def test_a_server_without_a_list_is_measured_and_doubted(tmp_path: Path) -> None:
    _, found = measure(FakeServer(models=None), tmp_path / "m.jsonl")
    assert any("lists no models" in text for text in found.warnings)


def test_what_llama_server_says_of_itself_is_held_against_the_scenario(tmp_path: Path) -> None:
    models = {"data": [{"id": "random-80mb", "owned_by": "llamacpp", "meta": {"size": 400_000_000}}]}
    props = {"build_info": "b6000-abc", "default_generation_settings": {"n_ctx": 512}}
    fake = FakeServer(models=models)

    def answer(request: Request) -> Script | None:
        return json_answer(props) if request.path == "/props" else fake(request)

    _, found = measure(answer, tmp_path / "m.jsonl")
    assert found.provenance.engine_version == "llama-server b6000-abc"
    assert any("the server's model has 400 MB" in text for text in found.warnings)
    with pytest.raises(LiveError, match="do not fit the server's context of 512"):
        measure(answer, tmp_path / "n.jsonl", scenario(prompt_tokens=500))


def test_another_engine_than_the_scenario_says_is_doubted(tmp_path: Path) -> None:
    _, found = measure(
        FakeServer(models={"data": [{"id": "random-80mb", "owned_by": "vllm"}]}), tmp_path / "m.jsonl"
    )
    assert any("the server says that it is vLLM" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("openai://10.0.0.7", "names no port"),
        ("openai://a:1,b:2", "names several servers"),
        ("openai://sk-1234@host:1", "must not hold a key"),
        ("openai://host:port", "is no address"),
        ("openai://host:1/v1?key=2", "only host, port and path"),
        ("openai://:1", "names no host"),
    ],
)
def test_addresses_that_are_none(address: str, said: str) -> None:
    with pytest.raises(LiveError, match=said):
        server_url(address)


def run_cli(words: list[str]) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, words)
    error = done.exception if isinstance(done.exception, SimulatorError) else None
    return (error.exit_code if error else done.exit_code), done.stdout, str(error or done.stderr)


def test_the_command_says_what_it_does_and_prints_the_rate(tmp_path: Path) -> None:
    dump(scenario(), tmp_path / "one.yaml")
    with FakeServer().serve() as server:
        cluster = server.url.replace("http://", "openai://")
        code, out, err = run_cli(
            ["live", "run", str(tmp_path / "one.yaml"), "--cluster", cluster, "-o", str(tmp_path)]
        )
    assert code == 0
    assert "2 of 2 runs" in out
    assert "nothing is placed on such a server: the file will say llama-rpc with 16 on laptop" in err


def test_the_command_fails_where_runs_are_missing(tmp_path: Path) -> None:
    dump(scenario(), tmp_path / "one.yaml")
    fake = FakeServer()
    fake.chat = lambda body: fake.stream(body, 7, end=False) if len(fake.chats) == 4 else fake.stream(body)
    with fake.serve() as server:
        cluster = server.url.replace("http://", "openai://")
        words = [
            "live",
            "run",
            str(tmp_path / "one.yaml"),
            "--cluster",
            cluster,
            "-o",
            str(tmp_path),
            "--json",
        ]
        code, out, _ = run_cli(words)
    assert code == 1
    assert json.loads(out)["runs_done"] == 1


def test_options_that_mean_nothing_here_are_refused(tmp_path: Path) -> None:
    words = ["live", "run", "four_devices", "--cluster", "openai://127.0.0.1:1", "--reuse-instance"]
    code, _, err = run_cli([*words, "--rounds", "2"])
    assert code != 0
    assert "--rounds, --reuse-instance: means nothing for openai://" in err


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="nothing listens on that port"):
        measure_server(scenario(), "http://127.0.0.1:9/v1", tmp_path / "m.jsonl", timeouts=QUICK)
