"""The command line: documents with the promised keys, and mistakes that end in one message."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from sim.main import app, main

ROOT = Path(__file__).parents[1]
KEYS = {
    "scenario",
    "engine",
    "tokens_per_s",
    "first_token_s",
    "inter_token_s",
    "placement",
    "bottleneck",
    "what_if",
    "warnings",
    "seed",
    "replications",
    "version",
}
FURTHER = {"question", "model", "total_tokens_per_s", "inter_token_interval_s", "where_time_goes", "runs"}
PLACEMENT = {"device", "first_layer", "last_layer", "memory_bytes", "cap_bytes", "stage_s"}
SMALL = """# How fast is a small ring?
name: small
question: How fast is a small ring?
model: {name: tiny, layers: 12, layer_bytes: 20 MB, hidden: 256, head_bytes: 10 MB}
devices:
  a: {memory: 1 GB, speed: {decode_bandwidth: 10 GB/s, prefill_flops: 1 TFLOPS},
      link: {delay: {law: constant, value: 2 ms}, rate: 100 MB/s}}
  b: {memory: 1 GB, speed: {decode_bandwidth: 20 GB/s, prefill_flops: 1 TFLOPS},
      link: {delay: {law: exponential, mean: 2 ms}, rate: 100 MB/s}}
placement: speed
workload: {prompt_tokens: 16, output_tokens: 16, runs: 2}
replications: 10
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command line in an empty folder that holds `small.yaml`."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["sim", *args])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def assert_refused(done: Done, *words: str, code: int = 2) -> None:
    """One message, no traceback, nothing on standard output."""
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_run_prints_one_document_with_the_promised_keys(sim: Any, tmp_path: Path) -> None:
    done = sim("run", "small.yaml", "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert set(document) == KEYS | FURTHER
    for name in ("tokens_per_s", "first_token_s"):
        assert set(document[name]) >= {"median", "p05", "p95"}
        assert document[name]["p05"] <= document[name]["median"] <= document[name]["p95"]
    assert set(document["inter_token_s"]) == {"p50", "p90", "p99"}
    assert set(document["bottleneck"]) >= {"kind", "where", "share"}
    assert [set(row) >= PLACEMENT for row in document["placement"]] == [True, True]
    assert [(row["first_layer"], row["last_layer"]) for row in document["placement"]] == [(0, 3), (4, 11)]
    assert {"change", "tokens_per_s", "difference", "probability_better"} == set(document["what_if"][0])
    assert (document["scenario"], document["seed"], document["replications"]) == ("small", 1, 10)
    assert {path.name for path in tmp_path.iterdir()} == {"small.yaml"}, "--json writes no file"


def test_json_is_one_option_everywhere() -> None:
    found = [option for option in options_of(typer.main.get_command(app)) if "--json" in option.opts]
    assert len(found) > 20
    assert len({option.help for option in found}) == 1


def options_of(command: Any) -> Iterator[Any]:
    """The options of a command and of all below it."""
    yield from command.params
    for below in getattr(command, "commands", {}).values():
        yield from options_of(below)


def test_the_same_seed_gives_the_same_bytes_and_options_count(sim: Any) -> None:
    first, again, other = (
        sim("run", "small.yaml", "--json"),
        sim("run", "small.yaml", "--json"),
        sim("run", "small.yaml", "--json", "--seed", "2", "--replications", "5", "--evaluator", "simpy"),
    )
    assert first.out == again.out
    document = json.loads(other.out)
    assert (document["seed"], document["replications"]) == (2, 5)
    assert document["tokens_per_s"] != json.loads(first.out)["tokens_per_s"]


def test_run_prints_the_answer_and_writes_its_folder(sim: Any, tmp_path: Path) -> None:
    done = sim("run", "small.yaml", "--no-charts")
    assert done.code == 0
    for word in (
        "small",
        "How fast is a small ring?",
        "tokens/s",
        "first token",
        "inter-token",
        "limit:",
        "layers",
    ):
        assert word in done.out
    folder = tmp_path / "results" / "small"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["scenario"] == "small"
    again = sim("run", str(folder / "scenario.yaml"), "--json")
    assert json.loads(again.out)["tokens_per_s"] == summary["tokens_per_s"]


def test_compare_ranks_and_finds_the_break_even(sim: Any, tmp_path: Path) -> None:
    third = SMALL.replace("name: small", "name: three").replace(
        "placement",
        (
            "  c: {memory: 1 GB, speed: {decode_bandwidth: 1 GB/s, prefill_flops: 1 TFLOPS}, "
            "link: {delay: {law: constant, value: 9 ms}, rate: 100 MB/s}}\nplacement"
        ),
    )
    (tmp_path / "three.yaml").write_text(third)
    done = sim("compare", "small.yaml", "three.yaml", "--json")
    document = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert set(document) == {"reference", "ranking", "verdicts", "crossovers"}
    assert [row["scenario"] for row in document["ranking"]] == ["small", "three"]
    assert {"scenario", "tokens_per_s", "difference", "probability_better"} == set(document["ranking"][0])
    assert document["ranking"][1]["probability_better"] == 0
    assert any("break-even of c" in line for line in document["verdicts"])
    assert "break-even of c" in sim("compare", "small", "three").out


def test_schema_is_one_that_editors_can_use(sim: Any) -> None:
    done = sim("schema")
    document = json.loads(done.out)
    assert done.code == 0
    assert {"model", "devices"} <= set(document["required"])
    assert {"workload", "engine", "placement", "access_points"} <= set(document["properties"])


def test_init_writes_a_scenario_that_runs_and_replaces_none(sim: Any, tmp_path: Path) -> None:
    assert sim("init").code == 0
    text = (tmp_path / "my_scenario.yaml").read_text()
    assert text.startswith("#")
    assert (
        json.loads(sim("run", "my_scenario.yaml", "--json", "--replications", "5").out)["tokens_per_s"][
            "median"
        ]
        > 0
    )
    (tmp_path / "my_scenario.yaml").write_text("mine")
    assert_refused(sim("init"), "my_scenario.yaml exists", "--force")
    assert (tmp_path / "my_scenario.yaml").read_text() == "mine"
    assert sim("init", "--force").code == 0
    assert (tmp_path / "my_scenario.yaml").read_text() == text


MISTAKES = {
    "no such file": (("run", "absent.yaml"), "absent.yaml"),
    "a folder": (("run", "."), "folder"),
    "no such option": (("run", "small.yaml", "--replicas", "3"), "--replicas"),
    "no such evaluator": (("run", "small.yaml", "--evaluator", "magic"), "magic"),
    "no replications": (("run", "small.yaml", "--replications", "0"), "replications"),
    "a negative seed": (("run", "small.yaml", "--seed", "-1"), "seed"),
    "a seed that is a word": (("run", "small.yaml", "--seed", "one"), "--seed"),
    "one to compare, of one strategy": (("compare", "legacy_phones"), "two scenarios"),
    "one scenario twice": (("compare", "small.yaml", "small.yaml"), "small"),
    "no such command": (("rnu", "small.yaml"), "rnu"),
}


@pytest.mark.parametrize(("args", "word"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_on_the_command_line(sim: Any, args: tuple[str, ...], word: str) -> None:
    assert_refused(sim(*args), word)


NOWHERE = {
    "sensitivity": (
        "sensitivity",
        "catalogued.yaml",
        "--points",
        "2",
        "--no-charts",
        "--out",
        "small.yaml/out",
    ),
    "plan": (
        "plan",
        "catalogued.yaml",
        "--budget",
        "0 EUR",
        "--most-purchases",
        "0",
        "--out",
        "small.yaml/out",
    ),
    "dropout": ("dropout", "small.yaml", "--device", "b", "--no-charts", "--out", "small.yaml/out"),
    "load": (
        "load",
        "small.yaml",
        "--replications",
        "2",
        "--chats",
        "2",
        "--most",
        "2",
        "--rates",
        "60",
        "--out",
        "small.yaml/out",
    ),
    "ledger": ("predict", "small.yaml", "--ledger", "--ledger-file", "small.yaml/out/ledger.jsonl"),
}


@pytest.mark.parametrize("args", NOWHERE.values(), ids=NOWHERE.keys())
def test_a_folder_that_cannot_be_made_is_one_message(sim: Any, tmp_path: Path, args: tuple[str, ...]) -> None:
    """A file stands where the folder would be."""
    (tmp_path / "catalogued.yaml").write_text(
        "name: catalogued\nmodel: Llama-3.2-1B\ndevices: {a: {kind: MacBook Air M4}}\nreplications: 4\n"
    )
    done = sim(*args)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "small.yaml/out" in done.err
    assert "cannot be made (Not a directory); name a folder" in done.err


FAULTS = {
    "unit": ("memory: 1 GB", "memory: 1 GX", "devices.a.memory"),
    "unknown key": ("runs: 2", "rnus: 2", "workload.rnus"),
    "negative": ("prompt_tokens: 16", "prompt_tokens: -16", "workload.prompt_tokens"),
    "unknown engine": ("placement: speed", "placement: speed\nengine: exxo", "exxo"),
    "unknown device kind": ("a: {memory", "a: {kind: MacBok Air M4, memory", "MacBok"),
    "unknown access point": (
        "link: {delay: {law: constant",
        "link: {via: attic, delay: {law: constant",
        "attic",
    ),
    "unknown model": (
        "model: {name: tiny, layers: 12, layer_bytes: 20 MB, hidden: 256, head_bytes: 10 MB}",
        "model: Lama-3.3-70B",
        "Lama-3.3-70B",
    ),
    "law with a missing part": ("{law: constant, value: 2 ms}", "{law: constant}", "devices.a.link.delay"),
    "not a number": ("replications: 10", "replications: .nan", "replications"),
    "huge": ("output_tokens: 16", "output_tokens: 1e30", "workload.output_tokens"),
}


@pytest.mark.parametrize(("old", "new", "word"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_in_a_scenario(sim: Any, tmp_path: Path, old: str, new: str, word: str) -> None:
    assert old in SMALL
    (tmp_path / "small.yaml").write_text(SMALL.replace(old, new, 1))
    done = sim("run", "small.yaml", "--json")
    assert_refused(done, word)


def test_what_does_not_fit_is_refused_with_both_figures(sim: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("layer_bytes: 20 MB", "layer_bytes: 2 GB"))
    assert_refused(sim("run", "small.yaml", "--json"), "GB", code=3)


def test_an_unknown_rule_is_refused_with_those_that_are_known(sim: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("placement: speed", "placement: quickly"))
    assert_refused(sim("run", "small.yaml", "--json"), "'quickly'", "speed", code=3)


def test_names_in_the_folder_scenarios_are_found(sim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = sim("run", "oversize")
    assert_refused(done, "EXO would refuse", code=3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("load", "small.yaml", "--rates=-5"), "cannot be; give numbers over 0"),
        (("sweep", "small.yaml", "--over", "devices.fone.link.rtt=1ms"), "there is no 'fone'"),
        (("dropout", "small.yaml"), "has no events"),
        (("summary", "small.yaml"), "not JSON"),
        (("calibrate", "small.yaml"), "is nothing that can be read here; what can be is measurements"),
        (
            ("calibrate", "absent.jsonl", "-o", "small.yaml"),
            "exists, and sim did not write it, or it was edited since; it is kept",
        ),
        (("predict", "small.yaml", "-o", "small.yaml"), "small.yaml exists, and sim did not write it"),
        (("validate", "absent.json", "absent.jsonl"), "there is no such file"),
        (("validate", "study", ".", "--train", "nope"), "no scenario nope"),
        (("ledger", "--ledger-file", "."), "no ledger there"),
        (
            ("live", "run", "small.yaml", "--cluster", "ftp://x"),
            "ftp:// is not known; write local, exo://host:port",
        ),
        (("live", "scenario", "--cluster", "exo://127.0.0.1:9"), "Connection refused"),
    ],
)
def test_each_command_says_what_was_wrong_in_one_message(
    sim: Any, words: tuple[str, ...], message: str
) -> None:
    done = sim(*words)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err + done.out
    assert Path("small.yaml").read_text() == SMALL


def test_predict_and_ledger_keep_what_was_asked_before_it_is_measured(sim: Any) -> None:
    assert sim("predict", "small.yaml", "--ledger", "--ledger-file", "l.jsonl").code == 0
    entry = json.loads(Path("l.jsonl").read_text())
    assert entry["type"] == "prediction"
    assert sum(entry["placement"].values()) == 12
    assert "no outcome yet" in sim("ledger", "--ledger-file", "l.jsonl").err


def test_the_ledger_reads_all_grounds_or_one(sim: Any) -> None:
    shutil.copytree(ROOT / "results", "results", ignore=shutil.ignore_patterns("*.png", "*.svg", "*.gz"))
    grounds = {ground["ground"] for ground in json.loads(sim("ledger", "--json").out)["grounds"]}
    assert grounds >= {"exo", "local", "published", "catalog"}
    assert "# The ledger" in sim("ledger", "--out", "page").out
    assert Path("page/report.html").is_file()
    assert "slower device" in sim("ledger", "--ledger-file", "results/local/ledger.jsonl").out
    assert "no outcome" in sim("ledger", "--results", "absent").err
