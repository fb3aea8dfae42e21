"""From records to a device's speed: predicting the device with it gives back what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from calibrate.benchmarks import MeasuredDevice, fragment, measured_devices
from calibrate.benchmarks.device import Fragment
from calibrate.benchmarks.record import Request
from sim.main import main
from simulator.errors import MeasurementError
from simulator.files import loads
from simulator.run.predict import predict
from simulator.scenario import Scenario

DATA = Path(__file__).parents[2] / "data" / "benchmarks"
MODELS = {"name": "Llama-3.2-3B", "quantisation": "Q4_K_M"}


def device(name: str, called: str | None = None, **said: str | None) -> MeasuredDevice:
    (found,), _, _ = measured_devices([DATA / name], name=called, **said)  # type: ignore[arg-type]
    return found


def predicted(one: MeasuredDevice, prompt_tokens: int, output_tokens: int) -> tuple[float, float]:
    """Median decode tokens/s and first-token time (s) of a scenario with the fragment's device in it."""
    made = yaml.safe_load(fragment([one], [Path("x")]))
    scenario = Scenario.model_validate(
        {
            "name": "again",
            "model": one.model.model_dump(exclude_none=True, mode="json"),
            "engine": one.engine,
            "workload": {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, "runs": 1},
            "replications": 10_000,  # the median of so many is certain to 0.2 %
            **made,
        }
    )
    summary = predict(scenario, with_what_ifs=False).summary
    return summary.tokens_per_s.median, summary.first_token_s.median


@pytest.mark.parametrize(
    ("name", "said", "prompt_tokens", "decode"),
    [
        ("llama-bench.json", {}, 1, 171.16),
        ("llama-bench.csv", {"device": "Mac Studio M3 Ultra"}, 1, 171.16),
        ("llama-bench.md", {"device": "Mac Studio M3 Ultra"}, 1, 171.16),
        ("rtx4080.json", {"device": "RTX 4080 SUPER desktop"}, 1, 118.88),
        ("exo_bench_runs.json", {"device": "MacBook Pro M2 Max"}, 512, 100.0),
        ("mlx_benchmark.txt", {"device": "MacBook Pro M2 Max", "model": "Llama-3.2-3B-4bit"}, 512, 100.0),
        ("llama_server.log", {}, 512, 100.0),
    ],
)
def test_predicting_the_measured_device_gives_its_rate_back(
    name: str, said: dict[str, str], prompt_tokens: int, decode: float
) -> None:
    one = device(name, **said)
    assert one.speed.label == "measured"
    assert predicted(one, prompt_tokens, 128)[0] == pytest.approx(decode, rel=0.01)


def test_a_prompt_gives_the_flops() -> None:
    one = device("rtx4080.json", device="RTX 4080 SUPER desktop")
    assert predicted(one, 512, 8)[1] == pytest.approx(512 / 7100.0, rel=0.01)


def test_a_device_that_the_catalogue_does_not_know_has_one_effective_bandwidth(tmp_path: Path) -> None:
    text = (DATA / "rtx4080.json").read_text().replace("NVIDIA GeForce RTX 4080", "Some New Card 9")
    path = tmp_path / "new.json"
    path.write_text(text)
    (one,), _, _ = measured_devices([path])
    assert (one.name, one.kind, one.speed.layer_overhead) == ("some_new_card_9", None, 0.0)
    # 4.4 GB less what is not read, 118.9 times a second, and some time for the engine
    assert 450e9 < one.speed.decode_bandwidth < 600e9
    assert "memory: and link:" in one.doubts[0]


def test_no_memory_is_read_faster_than_it_is_built() -> None:
    one = device("llama-bench.json")
    assert one.kind == "Mac Studio M3 Ultra"
    assert one.speed.decode_bandwidth <= 819e9
    assert any("a layer costs" in doubt for doubt in one.doubts)


def test_several_depths_give_the_cost_of_a_context() -> None:
    one = device("depths.md", device="RTX 4080 SUPER desktop", model="Qwen2.5-7B")
    # 512 tokens more cost 1/116.71 - 1/120.60 s, 29 MB of cache: at 590 GB/s that is 5.5 weight bytes a byte
    assert 3 < one.speed.context_cost < 8


def test_spreads_are_of_the_repeats_and_never_below_the_floor() -> None:
    one = device("rtx4080.json", device="RTX 4080 SUPER desktop")
    assert one.speed.decode_spread == pytest.approx((0.1**2 + (1.041811 / 118.881588) ** 2) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "said", "asked"),
    [
        ("llama-bench.md", {}, "--device NAME"),
        ("llama-bench.md", {"called": "my box"}, "llama-bench -p 512"),
        ("mlx_benchmark.txt", {"device": "MacBook Pro M2 Max"}, "--model NAME and --quantisation NAME"),
        (
            "mlx_generate.txt",
            {"device": "MacBook Pro M2 Max", "model": "Llama-3.2-3B"},
            "--quantisation NAME",
        ),
        ("vllm_serve.json", {"device": "RTX 4090 desktop"}, "how Llama-3.2-3B was quantised"),
        ("exo_bench.json", {"device": "MacBook Pro M2 Max"}, "sim run SCENARIO --measured 61.2"),
        ("llama-bench.csv", {"device": "MacBook Pro M2 Max"}, "no speed of this device gives 171.2"),
    ],
)
def test_what_a_file_lacks_is_asked_for_by_option(name: str, said: dict[str, str], asked: str) -> None:
    with pytest.raises(MeasurementError, match=asked) as error:
        device(name, **said)
    assert str(DATA / name) in str(error.value)


@pytest.mark.parametrize(
    ("model", "quantisation"),
    [
        ("models/Qwen2.5-7B-Instruct-Q4_K_M.gguf", None),
        ("Qwen2.5-7B", "Q4_K_M"),
        ("Qwen2.5-7B-Q8_0", "Q4_K_M"),
    ],
)
def test_a_name_and_its_quantisation_are_told_apart(model: str, quantisation: str | None) -> None:
    one = device("rtx4080.json", device="RTX 4080 SUPER desktop", model=model, quantisation=quantisation)
    assert (one.model.name, one.model.quantisation) == ("Qwen2.5-7B", "Q4_K_M")


def test_a_name_is_not_cut_before_what_is_no_quantisation(tmp_path: Path) -> None:
    path = tmp_path / "named.json"
    path.write_text(
        (DATA / "rtx4080.json").read_text().replace("Qwen2.5-7B", "DeepSeek-R1-Distill-Nobody-7B")
    )
    (one,), _, _ = measured_devices([path], device="RTX 4080 SUPER desktop")
    assert one.model.layers == 1  # by its numbers: no model of 671 billion weights


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"device": "RTX 4900"}, "--device: 'RTX 4900' is no known device, did you mean 'RTX 4090"),
        ({"device": "nope"}, "--device: 'nope' is no known device.* --name NAME"),
        (
            {"model": "Qwen2.5-7C"},
            "'Qwen2.5-7C' is no known model, did you mean 'Qwen2.5-7B.*leave --model out",
        ),
        ({"model": "nope"}, "'nope' is no known model"),
        ({"quantisation": "Q4_K_X"}, "Q4_K_X.*leave --quantisation out"),
    ],
)
def test_what_nobody_knows_is_refused_and_never_replaced_by_the_file(said: dict[str, str], told: str) -> None:
    with pytest.raises(MeasurementError, match=told):
        device("rtx4080.json", **({"device": "RTX 4080 SUPER desktop"} | said))


def test_a_device_that_is_named_replaces_what_the_file_says() -> None:
    assert device("llama-bench.json", device="Mac Studio M2 Ultra").kind == "Mac Studio M2 Ultra"


def test_vllm_latency_says_its_rate_once_its_lengths_are_told() -> None:
    said = {"device": "RTX 4090 desktop", "model": "Llama-3.2-3B", "quantisation": "bf16"}
    with pytest.raises(MeasurementError, match="--prompt-tokens, --output-tokens and --chats"):
        device("vllm_latency.json", **said)
    seconds = json.loads((DATA / "vllm_latency.json").read_text())["avg_latency"]
    (one,), _, _ = measured_devices([DATA / "vllm_latency.json"], **said, request=Request(32, 128, 1))
    assert one.records[0].decode
    assert one.records[0].decode.tokens_per_s == pytest.approx(128 / seconds)
    with pytest.raises(MeasurementError, match="--input-len 64 or less"):
        measured_devices([DATA / "vllm_latency.json"], **said, request=Request(2048, 128, 1))
    with pytest.raises(MeasurementError, match="with 8 chats at once; measure one chat alone"):
        measured_devices([DATA / "vllm_latency.json"], **said, request=Request(32, 128, 8))


def test_a_model_by_another_size_than_its_name_is_doubted() -> None:
    one = device("rtx4080.json", device="RTX 4080 SUPER desktop", model="Llama-3.2-3B")
    assert any("7.616e+09 weights" in doubt and "--model" in doubt for doubt in one.doubts)


def test_an_unknown_model_is_taken_by_its_numbers_and_said_to_be() -> None:
    one = device("depths.md", device="RTX 4080 SUPER desktop")
    assert (one.model.layers, one.speed.layer_overhead) == (1, 0.0)
    assert "no model of the catalogue" in one.doubts[0]


def test_the_fragment_is_a_file_of_devices() -> None:
    one = device("llama-bench.json", called="gpu")
    made = loads(fragment([one], [Path("llama-bench.json")]), Fragment)
    assert made.devices["gpu"].speed == one.speed


def command(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sim", "calibrate", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_writes_what_a_scenario_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.yaml"
    assert command(monkeypatch, str(DATA / "llama-bench.json"), "--name", "gpu", "-o", str(out)) == 0
    assert "put it under `devices:` of a scenario" in capsys.readouterr().out
    assert list(yaml.safe_load(out.read_text())) == ["devices"]
    assert command(monkeypatch, str(DATA / "llama-bench.json"), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["devices"][0]["kind"] == "Mac Studio M3 Ultra"
    assert document["records"][0]["decode"]["tokens_per_s"] == 171.16


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["README.md"], "README.md: is nothing that can be read here; what can be is measurements"),
        (["no_such.json"], "no usable measurement"),
        (["rtx4080.json", "README.md"], "is nothing that can be read here"),
        (["vllm_throughput.json"], "vllm bench serve"),
    ],
)
def test_a_file_that_cannot_be_used_ends_in_one_message(
    files: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *(str(DATA / name) for name in files)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
