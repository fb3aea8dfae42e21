"""Each tool's format is told by its content and gives the record that it should; a fault costs its own row alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from calibrate.benchmarks import Record, is_foreign, read_benchmarks, recognise
from simulator.errors import MeasurementError

DATA = Path(__file__).parents[2] / "data" / "benchmarks"


def read(name: str) -> tuple[Record, ...]:
    found = read_benchmarks([DATA / name])
    assert found.faults == ()
    return found.records


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("rtx4080.json", "llama-bench -o json or jsonl"),
        ("rtx4080.jsonl", "llama-bench -o json or jsonl"),
        ("rtx4080.csv", "llama-bench -o csv"),
        ("rtx4080.sql", "llama-bench -o sql"),
        ("rtx4080.md", "llama-bench -o md"),
        ("exo_bench.json", "EXO bench (exo_bench.py --json-out)"),
        ("mlx_benchmark.txt", "mlx_lm.benchmark"),
        ("mlx_generate.txt", "mlx_lm.generate"),
        ("vllm_serve.json", "vllm bench serve"),
        ("vllm_latency.json", "vllm bench latency"),
        ("vllm_throughput.json", "vllm bench throughput"),
        ("llama_server_reply.json", "llama-server replies with timings"),
        ("llama_server.log", "llama-server or llama-cli log"),
    ],
)
def test_a_format_is_told_by_its_content(name: str, form: str, tmp_path: Path) -> None:
    found = recognise(write(tmp_path, "whatever", (DATA / name).read_bytes()))
    assert found is not None
    assert found.name == form


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "sql", "md"])
def test_the_formats_of_llama_bench_say_the_same(ending: str) -> None:
    prompt, reply = read(f"rtx4080.{ending}")
    assert prompt.prompt is not None
    assert reply.decode is not None
    assert (prompt.prompt_tokens, prompt.decode, reply.output_tokens, reply.prompt) == (512, None, 128, None)
    assert prompt.prompt.tokens_per_s == pytest.approx(7100.0, rel=1e-5)
    assert reply.decode.tokens_per_s == pytest.approx(118.881588, rel=2e-5)
    assert reply.decode.log_sd == pytest.approx(1.041811 / 118.881588, rel=3e-3)
    assert (reply.quantisation, reply.backend, reply.gpu_layers) == ("Q4_K_M", "CUDA", None)
    assert reply.model_bytes == pytest.approx(4677120000, rel=2e-3)
    assert reply.model_params == pytest.approx(7615616512, rel=1e-3)
    if ending != "md":  # people post the table, which names no machine
        assert (reply.device, reply.versions) == ("NVIDIA GeForce RTX 4080", "8cf427ff 5163")


def test_what_was_posted_of_an_m3_ultra() -> None:
    by_json, by_csv, by_table = (read(f"llama-bench.{ending}")[0] for ending in ("json", "csv", "md"))
    assert (by_json.device, by_json.flash_attention, by_table.flash_attention) == (
        "Apple M3 Ultra",
        True,
        True,
    )
    for one in (by_json, by_csv, by_table):
        assert one.decode is not None
        assert (one.decode.tokens_per_s, one.output_tokens, one.quantisation) == (171.16, 128, "Q4_K_M")
    assert [one.device for one in (by_csv, by_table)] == ["", ""]


def test_depths_of_a_table() -> None:
    assert [(one.depth, one.prompt_tokens, one.output_tokens) for one in read("depths.md")] == [
        (0, 512, 0),
        (0, 0, 128),
        (512, 512, 0),
        (512, 0, 128),
    ]


def test_exo_groups_repeats_and_knows_a_cluster() -> None:
    one, two, four = read("exo_bench_runs.json")
    assert one.decode is not None
    assert (one.decode.tokens_per_s, one.decode.repeats, one.not_one_device) == (100.0, 2, "")
    assert one.decode.log_sd == pytest.approx(2**0.5 / 100)
    assert two.not_one_device == "ran on 2 nodes (Pipeline)"
    assert four.batch == 4
    (old,) = read("exo_bench.json")
    assert (old.not_one_device, old.decode and old.decode.tokens_per_s) == ("ran on 2 nodes (Pipeline)", 61.2)


@pytest.mark.parametrize(
    ("name", "tool", "prompt_tokens_per_s"),
    [
        ("mlx_benchmark.txt", "mlx_lm.benchmark", 1900),
        ("mlx_generate.txt", "mlx_lm.generate", 1900),
        ("vllm_serve.json", "vllm bench serve", 10_000),
        ("llama_server_reply.json", "llama-server", 2000),
    ],
)
def test_one_run_of_512_and_128_tokens(name: str, tool: str, prompt_tokens_per_s: float) -> None:
    (one,) = read(name)
    assert one.decode is not None
    assert one.prompt is not None
    assert (one.tool, one.prompt_tokens, one.output_tokens, one.depth, one.batch) == (tool, 512, 128, 512, 1)
    assert one.decode.tokens_per_s == pytest.approx(100)
    assert one.prompt.tokens_per_s == pytest.approx(prompt_tokens_per_s)
    assert one.label == "measured"


def test_a_batch_of_mlx_is_shared_by_its_chats(tmp_path: Path) -> None:
    text = (DATA / "mlx_benchmark.txt").read_text().replace("batch_size=1", "batch_size=4")
    (one,) = read_benchmarks([write(tmp_path, "mlx.txt", text)]).records
    assert (one.batch, one.decode and one.decode.tokens_per_s) == (4, 25.0)


def test_a_log_names_model_and_device_and_its_drafts_are_left_out() -> None:
    found = read_benchmarks([DATA / "llama_server.log"])
    (one,) = found.records
    assert (one.device, one.model) == ("Apple M2 Max", "models/Llama-3.2-3B-Instruct-Q4_K_M.gguf")
    assert one.decode is not None
    assert one.decode.tokens_per_s == pytest.approx(100)
    (fault,) = found.faults
    assert ":11: guessed tokens ahead" in fault


def test_vllm_results_without_a_rate_of_one_chat_say_what_has_it() -> None:
    why = "vllm_throughput.json:1: .*adds all requests up.*vllm bench serve --max-concurrency 1"
    with pytest.raises(MeasurementError, match=why):
        read_benchmarks([DATA / "vllm_throughput.json"])


def bad_row(ending: str, old: str, new: str, folder: Path) -> Path:
    """The RTX 4080's file with its first row spoilt."""
    return write(folder, f"bad.{ending}", (DATA / f"rtx4080.{ending}").read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("ending", "old", "new", "told"),
    [
        ("json", "7100.002165", '"fast"', ":2: avg_ts is 'fast' and must be a number"),
        ("json", "7100.002165", "NaN", ":2: avg_ts is nan"),
        ("json", "7100.002165", "-1", ":2: avg_ts is -1"),
        ("json", "7100.002165", "1e999", ":2: avg_ts is inf"),
        ("json", '"n_prompt": 512', '"n_prompt": [1]', ":2: n_prompt is [1] and must be a number"),
        ("json", "7100.002165,", "7100.002165", ":35: not JSON"),
        ("json", "    ]\n  },", "", ":2: a JSON object that is cut off"),
        ("jsonl", '"avg_ts": 7100.002165', '"avg_ts": ', ":1: not JSON"),
        ("jsonl", '"n_gen": 0', '"n_gen": 128', ":1: a test of prompt and reply together"),
        ("csv", '"512","0","0","2025', '"0","0","2025', "values for"),
        ("csv", '"7100.002165"', '"0"', ":2: avg_ts is 0 and must be tokens/s above 0"),
        ("sql", "'7100.002165', ", "", "values for"),
        ("sql", "'7100.002165'", "''", "avg_ts is missing"),
        ("md", "7100.00 ± 140.34", "fast", ":3: t/s is 'fast'"),
        ("md", "pp512", "warm-up", ":3: test is 'warm-up'"),
        ("md", "4.36 GiB", "4.36 GUB", ":3: size: "),
        ("md", "7100.00 ± 140.34 |", "", ":3: "),
    ],
)
def test_a_bad_row_is_told_of_and_stops_no_other(
    ending: str, old: str, new: str, told: str, tmp_path: Path
) -> None:
    found = read_benchmarks([bad_row(ending, old, new, tmp_path)])
    (one,) = found.records
    assert one.output_tokens == 128
    (fault,) = found.faults
    assert told in fault
    assert "left out" in fault
    assert fault.startswith(str(tmp_path))


def test_a_file_that_was_cut_off_keeps_what_it_had(tmp_path: Path) -> None:
    whole = (DATA / "rtx4080.json").read_text()
    found = read_benchmarks([write(tmp_path, "cut.json", whole[: int(len(whole) * 0.8)])])
    assert len(found.records) == 1
    assert "cut off" in found.faults[0]


def test_windows_writes_two_bytes_a_character(tmp_path: Path) -> None:
    text = (DATA / "rtx4080.md").read_text().replace("\n", "\r\n")
    wide = read_benchmarks([write(tmp_path, "wide.md", text.encode("utf-16"))])
    garbled = read_benchmarks([write(tmp_path, "cp437.md", text.replace("±", "┬▒"))])
    assert [one.decode for one in wide.records] == [one.decode for one in garbled.records]
    assert len(wide.records) == 2


def test_noise_around_the_result_is_passed_over(tmp_path: Path) -> None:
    noise = 'ggml_cuda_init: found 1 CUDA devices: {"quoted\nwarning: asserts "enabled\n'
    found = read_benchmarks(
        [write(tmp_path, "noisy.json", noise + (DATA / "rtx4080.json").read_text() + noise)]
    )
    assert len(found.records) == 2


def test_a_stream_of_the_server(tmp_path: Path) -> None:
    reply = json.loads((DATA / "llama_server_reply.json").read_text())
    chunks = [{"choices": [{"delta": {"content": "a \\ {"}}]}, reply]
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n"
    assert len(read_benchmarks([write(tmp_path, "stream.txt", text)]).records) == 1


def test_a_line_of_several_mebibytes_is_read(tmp_path: Path) -> None:
    result = json.loads((DATA / "vllm_serve.json").read_text())
    result["generated_texts"] = ['quote " and \\ {'] * 200_000
    assert len(read_benchmarks([write(tmp_path, "long.json", json.dumps(result))]).records) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 500_000,
        b"{" * 2_000_000,
        b"[" * 2_000_000,
        b'"avg_ts": x{' + b"x{" * 1_000_000,
        b'{"avg_ts": ' + b"[" * 100_000,
        b'[{"avg_ts": ' + b"9" * 10_000 + b', "n_gen": 128}]',
        b'{"avg_ts": "' + b"x" * 30_000_000,
        b"a,b\n" * 300_000,
        b"name: scenario\nmodel: Llama-3.3-70B\n",
    ],
)
def test_a_foreign_or_hostile_file_ends_in_one_message_soon(content: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, "foreign", content)
    began = time.perf_counter()
    with pytest.raises(MeasurementError) as error:
        read_benchmarks([path])
    assert time.perf_counter() - began < 3
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_what_is_foreign() -> None:
    assert is_foreign(DATA / "README.md")
    assert not is_foreign(DATA / "rtx4080.csv")
    assert not is_foreign(DATA / "no such file")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    good, bad = '{"avg_ts": 5, "n_gen": 16}\n', '{"avg_ts": 0, "n_gen": 16}\n'
    found = read_benchmarks([write(tmp_path, "many.jsonl", good + bad * 100)])
    assert len(found.faults) == 21
    assert found.faults[-1].endswith("80 more faults like these")
