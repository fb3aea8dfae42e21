"""The doors by which files come in: for each kind real files, and the commands that read them, run in this process."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simulator.errors import SimulatorError

__all__ = ["KINDS", "Kind", "Unfit", "check", "command"]

ROOT = Path(__file__).parents[2]
DATA, RESULTS = ROOT / "tests/data", ROOT / "results"


class Unfit(AssertionError):
    """A door that did what none may: the message says which, and how."""


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """Also how the file is called."""
    seeds: Callable[[], tuple[bytes, ...]]
    doors: tuple[Callable[[Path], None], ...]


def command(*words: str | Path) -> tuple[int, str, str]:
    """`sim WORDS` in this process: exit code, standard output, standard error. What is no exit is raised."""
    import sim.main

    # put together once: else 130 of 140 ms of each input go into options of commands that nobody calls
    sim.main.app = _app()  # type: ignore[assignment]
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    os.environ.pop("SIM_CATALOG", None)
    sys.argv = ["sim", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            sim.main.main()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()


@cache
def _app() -> Any:
    import typer

    from sim.main import app

    return typer.main.get_command(app)


def told(path: Path, *words: str | Path) -> int:
    """The command's exit code; a refusal must name the file and say no more than a person reads."""
    code, _, err = command(*words)
    if code not in (0, 1, 2, 3):
        raise Unfit(f"sim {words[0]} exits {code}")
    # 1 is for files that are right and cannot be fitted or compared: those messages name what does not go together
    if code != 1 and code and path.name not in err:
        raise Unfit(f"sim {words[0]} refuses without naming the file: {err[:300]}")
    if len(err) > 20_000:
        raise Unfit(f"sim {words[0]} says {len(err)} characters: {err[:300]}")
    return code


def check(kind: Kind, data: bytes, folder: Path, rng: random.Random) -> None:
    """Give `data` to one of the doors of its kind; raises whatever the door raises, and Unfit."""
    path = folder / kind.name
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rng.choice(kind.doors)(path)


def _scratch(path: Path, name: str) -> Path:
    target = path.with_name(name)
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return target


# measurements


def _few(path: Path, most: int) -> bytes:
    """The first lines of a measurement and its last, else a mutation hardly ever meets the header."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = data.splitlines(keepends=True)
    return b"".join([*lines[:most], *lines[-2:]]) if len(lines) > most else data


@cache
def measurements() -> tuple[bytes, ...]:
    """Of a local cluster, an EXO cluster, several chats, with hops, drills, and as server without tokens."""
    files = sorted((DATA / "campaign").glob("*.jsonl"))
    files += sorted((RESULTS / "local/held_out").glob("t*.gz"))[:4]
    files += sorted((RESULTS / "dropout/first/measured").glob("*.gz"))[:3]
    files += sorted((RESULTS / "exo/live2").glob("*/*.gz"))[:4]
    return tuple(
        _few(file, most) for file in files for most in (40, 160, 10_000) if file.stat().st_size < 40_000
    )


@cache
def prediction() -> bytes:
    """A prediction of B_a12b12."""
    from calibrate.samples import sample
    from calibrate.validation import predict_sessions
    from simulator.result.measurement import read_measurement

    asked = sample(read_measurement(DATA / "campaign/B_a12b12.jsonl")).scenario
    return (
        predict_sessions(asked.model_copy(update={"replications": 5})).model_dump_json(indent=2).encode()
        + b"\n"
    )


def _summary(path: Path) -> None:
    told(path, "summary", path, *random.Random(path.stat().st_size).choice(([], ["--json"])))


def _table(path: Path) -> None:
    told(path, "live", "local", "table", path)


def _delays(path: Path) -> None:
    told(path, "delays", path, "--json")


def _links(path: Path) -> None:
    scenario = path.with_name("asked.yaml")
    scenario.write_text(TWO_AGENTS)
    told(path, "delays", path, "--scenario", scenario, "-o", _scratch(path, "linked.yaml"))


def _validate(path: Path) -> None:
    said, ledger = path.with_name("said.prediction.json"), _scratch(path, "made.jsonl")
    said.write_bytes(prediction())
    _read_back(told(path, "validate", said, path, "--ledger-file", ledger), ledger)


def _read_back(code: int, ledger: Path) -> None:
    """An outcome that was promised must be there."""
    if code == 0:
        code, _, err = command("ledger", "--ledger-file", ledger)
        if code:
            raise Unfit(f"sim validate promised an outcome that cannot be read back: {err[:300]}")


def _calibrate(path: Path) -> None:
    other = DATA / "campaign/A_a24.jsonl"
    told(path, "calibrate", path, other, "-o", _scratch(path, "calibration.yaml"), "--draws", "20")


def _follow(path: Path) -> None:
    from live.watch.follow import Followed

    followed = Followed(path)
    try:
        followed.read()
        followed.read()
    except SimulatorError as error:
        if path.name not in str(error):
            raise Unfit(f"following refuses without naming the file: {error}") from None
    if followed.rate is not None and not 0 < followed.rate < 1e9:
        raise Unfit(f"a rate of {followed.rate} tokens/s")


TWO_AGENTS = """name: agents
model: {name: Llama-3.1-8B}
devices:
  node-a: {kind: MacBook Air M4}
  node-b: {kind: Mac mini M4}
  node-c: {kind: Mac mini M4}
"""


# outcomes


@cache
def ledgers() -> tuple[bytes, ...]:
    """Outcomes alone, and with predictions."""
    lines = (RESULTS / "local/ledger.jsonl").read_bytes().splitlines(keepends=True)
    other = (RESULTS / "exo/ledger.jsonl").read_bytes().splitlines(keepends=True)
    return (
        b"".join(lines[:6]),
        b"".join(other[:6]),
        b"".join([*lines[-4:], *other[-3:]]),
        b"".join(lines[:60]),
    )


def _ledger(path: Path) -> None:
    told(path, "ledger", "--ledger-file", path, *random.Random(path.stat().st_size).choice(([], ["--json"])))


def _append(path: Path) -> None:
    """A new outcome behind whatever is there: the next reading finds it, or is refused before anything is said."""
    said = path.with_name("said.prediction.json")
    said.write_bytes(prediction())
    code, _, err = command("validate", said, DATA / "campaign/B_a12b12.jsonl", "--ledger-file", path)
    if code and path.name not in err:
        raise Unfit(f"sim validate refuses without naming the ledger: {err[:300]}")
    _read_back(code, path)


def _trials(path: Path) -> None:
    folder = path.with_name("grounds")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mine").mkdir(parents=True)
    shutil.copy(path, folder / "mine" / path.name)
    told(path, "ledger", "--results", folder, "--json")


def _dropouts(path: Path) -> None:
    _ground(
        path, "dropout/first", {"predictions.jsonl": "measured.jsonl", "measured.jsonl": "predictions.jsonl"}
    )


def _published(path: Path) -> None:
    _ground(path, "published", {"predictions.csv": "causes.csv", "causes.csv": "predictions.csv"})


def _chips(path: Path) -> None:
    _ground(path, "catalog", {"held_out.csv": ""})


def _ground(path: Path, name: str, pairs: dict[str, str]) -> None:
    folder = path.with_name("grounds") / name
    shutil.rmtree(path.with_name("grounds"), ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(path, folder / path.name)
    if other := pairs[path.name]:
        shutil.copy(RESULTS / name / other, folder / other)
    told(path, "ledger", "--results", path.with_name("grounds"), "--json")


def _prediction(path: Path) -> None:
    measured, ledger = DATA / "campaign/B_a12b12.jsonl", _scratch(path, "made.jsonl")
    _read_back(told(path, "validate", path, measured, "--ledger-file", ledger), ledger)


# calibrations


@cache
def calibrations() -> tuple[bytes, ...]:
    """Of a local cluster and of recorded EXO runs, with fewer draws."""
    from calibrate.calibration import load_calibration
    from simulator.files import dumps

    found = []
    for name in ("local", "exo"):
        whole = load_calibration(RESULTS / name / "calibration.yaml")
        for draws in (5, 20):
            few = whole.model_copy(update={"draws": whole.draws[:draws], "sources": whole.sources[:3]})
            found.append(dumps(few, rows=True).encode())
    return tuple(found)


@cache
def _asked(engine: str) -> bytes:
    from calibrate.samples import sample
    from simulator.files import dumps
    from simulator.result.measurement import read_measurement

    file = {
        "exo": DATA / "campaign/B_a12b12.jsonl",
        "llama-rpc": RESULTS / "local/held_out/two_even.jsonl.gz",
    }[engine]
    asked = sample(read_measurement(file)).scenario
    workload = asked.workload.model_copy(update={"output_tokens": 8, "runs": 2})
    return dumps(asked.model_copy(update={"replications": 4, "workload": workload})).encode()


def _scenario(path: Path) -> Path:
    engine = "llama-rpc" if b"llama-rpc" in path.read_bytes()[:2000] else "exo"
    scenario = path.with_name("asked.yaml")
    scenario.write_bytes(_asked(engine))
    return scenario


def _predict(path: Path) -> None:
    out = _scratch(path, "out.prediction.json")
    told(path, "predict", _scenario(path), "--calibration", path, "-o", out)


def _run(path: Path) -> None:
    told(path, "run", _scenario(path), "--calibration", path, "--json")


def _add(path: Path) -> None:
    # what it makes of a calibration may be no catalogue: then the file that was to be written is named
    out = _scratch(path, f"{path.name}.own.yaml")
    told(path, "catalog", "add", _scenario(path), "--calibration", path, "-o", out)


# sweeps


class _Inline(Executor):
    """Computes where it is asked, a point in no time."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(
            json.dumps(
                {"key": args[0], "row": json.loads(_points()[0].splitlines()[0])["row"]}, sort_keys=True
            )
        )
        return done


@cache
def _planned() -> Any:
    from simulator.library import load
    from simulator.plan.sweep.points import parse_axis
    from simulator.plan.sweep.sweep import plan_sweep

    asked = load("four_devices").model_copy(update={"replications": 2})
    return plan_sweep(
        asked, [parse_axis("workload.output_tokens=4,5"), parse_axis("devices.pixel.link.rtt=1ms..9ms:3")]
    )


@cache
def _points() -> tuple[bytes, ...]:
    from simulator.plan.sweep.sweep import evaluate_point

    whole = [evaluate_point(key, payload) for key, payload in _planned().tasks]
    failed = json.dumps({"key": _planned().tasks[1][0], "row": {"error": "fits nowhere"}}, sort_keys=True)
    return "\n".join([*whole, ""]).encode(), "\n".join([whole[0], failed, *whole[3:], ""]).encode()


def _sweep(path: Path) -> None:
    from sim.sweep_cmd import _finish, _print_sweep
    from simulator.plan.sweep.sweep import run_sweep

    folder = _scratch(path, "swept")
    folder.mkdir()
    shutil.copy(path, folder / "points.jsonl")
    planned = _planned()
    try:
        run_sweep(planned, folder, _Inline, workers=1, say=lambda _: None)
        rows = _finish(planned, folder, charts=path.stat().st_size % 10 == 0)
    except SimulatorError as error:
        if "points.jsonl" not in str(error):
            raise Unfit(f"the sweep refuses without naming the file: {error}") from None
        return
    with contextlib.redirect_stdout(io.StringIO()):
        _print_sweep(planned, rows, folder)


# YAML of users


PRICES = b"""devices:
  Mac mini M4 24 GB: 799 EUR
  MacBook Air M4: 1099 EUR
accessories:
  ethernet_cable: 15 EUR
electricity: 0.31 EUR/kWh
cloud:
  mine: {input: 0.1 USD, output: 0.3 USD}
watts:
  mac: {idle: 5 W, load: 40 W}
usd_per_eur: 1.1
tax: 20 %
"""
OWN = b"""# Devices of my own
devices:
  desk:
    kind: Mac mini M4
    memory: 24 GB
    speed: {decode_bandwidth: 90 GB/s, prefill_flops: 4 TFLOPS, decode_spread: 0.05}
  box:
    memory: 64 GB
    speed: {decode_bandwidth: 60 GB/s \xc2\xb1 5 GB/s, prefill_flops: 1 TFLOPS}
    link: {kind: attic}
links:
  attic: {delay: {law: constant, value: 3 ms}, rate: 20 MB/s, delay_spread: 0.2}
  cellar: {kind: wifi5, delay: {law: lognormal, median: 4 ms, sigma: 0.4}}
models:
  mine: {layers: 32, hidden: 4096, layer_bytes: 110 MB}
prices:
  devices: {Mac mini M4: 600 EUR}
"""
NAMING = """name: own
model: {name: mine}
devices:
  a: {kind: desk}
  b: {kind: box}
workload: {output_tokens: 6, runs: 2}
replications: 4
"""


def _cost(path: Path) -> None:
    told(path, "cost", "thunderbolt_macs", "--prices", path, "--replications", "2", "--json")


def _price_list(path: Path) -> None:
    from simulator.files import load
    from simulator.plan.buy.prices import PriceBook, PricesFile

    try:
        book = PriceBook("EUR", load(path, PricesFile))
        book.electricity()
        book.accessory("ethernet_cable")
    except SimulatorError as error:
        if path.name not in str(error):
            raise Unfit(f"prices are refused without naming the file: {error}") from None


def _own_lists(path: Path) -> None:
    part = random.Random(path.stat().st_size).choice(("devices", "networks", "models"))
    told(path, "catalog", part, "--catalog", path, "--json")


def _own_scenario(path: Path) -> None:
    scenario = path.with_name("asked.yaml")
    scenario.write_text(NAMING)
    # a name may be gone from the catalogue: then the scenario is what cannot be used
    code, _, err = command("run", scenario, "--catalog", path, "--json")
    if code not in (0, 1, 2, 3) or (code and not err):
        raise Unfit(f"sim run exits {code}: {err[:300]}")


# clusters and other tools


@cache
def states() -> tuple[bytes, ...]:
    """What EXO clusters answered to `GET /state`."""
    field = json.loads(gzip.decompress((DATA / "exo/field_states.json.gz").read_bytes()))
    recorded = sorted((DATA / "exo/rest").glob("state_*3*.json")) + sorted(
        (DATA / "exo/rest").glob("state_*2*.json")
    )
    return (*(json.dumps(one).encode() for one in field.values()), *(path.read_bytes() for path in recorded))


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


@cache
def benchmarks() -> tuple[bytes, ...]:
    """Results of every tool that `sim calibrate` reads."""
    found = sorted(path for path in (DATA / "benchmarks").iterdir() if path.name != "README.md")
    return tuple(path.read_bytes()[:30_000] for path in found)


def _benchmark(path: Path) -> None:
    told(path, "calibrate", path, "--json", "--device", "RTX 4080", "--model", "Llama-3.1-8B")


def _benchmark_read(path: Path) -> None:
    from calibrate.benchmarks.read import read_benchmarks

    try:
        read_benchmarks([path])
    except SimulatorError as error:
        if path.name not in str(error):
            raise Unfit(f"a benchmark is refused without naming the file: {error}") from None


def _file(path: Path) -> Callable[[], tuple[bytes, ...]]:
    return lambda: (path.read_bytes(),)


def _packed_seeds() -> tuple[bytes, ...]:
    return tuple(gzip.compress(data, mtime=0) for data in measurements()[:6])


def _link_seeds() -> tuple[bytes, ...]:
    whole = gzip.decompress((DATA / "delays/links_three_agents.jsonl.gz").read_bytes()).splitlines(
        keepends=True
    )
    kept: dict[tuple[str, ...], list[bytes]] = {}
    for line in whole:
        event = json.loads(line)
        if "node-c" in (event.get("source"), event.get("sink"), event.get("device")):
            continue
        kept.setdefault(
            tuple(str(event.get(key)) for key in ("type", "source", "sink", "loaded")), []
        ).append(line)
    # of each route a few trips: laws of thousands take seconds to fit
    return tuple(b"".join(line for lines in kept.values() for line in lines[:few]) for few in (2, 4))


KINDS: dict[str, Kind] = {
    name: Kind(file, seeds, doors)
    for name, file, seeds, doors in (
        (
            "measurement",
            "measured.jsonl",
            measurements,
            (*2 * (_summary, _summary, _table, _delays, _validate, _follow), _calibrate),
        ),
        ("packed measurement", "measured.jsonl.gz", _packed_seeds, (_summary,)),
        ("links", "links.jsonl", _link_seeds, (_delays, _links)),
        ("ledger", "ledger.jsonl", ledgers, (_ledger, _append, _trials)),
        ("prediction", "odd.prediction.json", lambda: (prediction(),), (_prediction,)),
        (
            "dropout predictions",
            "predictions.jsonl",
            _file(RESULTS / "dropout/first/predictions.jsonl"),
            (_dropouts,),
        ),
        ("dropout outcomes", "measured.jsonl", _file(RESULTS / "dropout/first/measured.jsonl"), (_dropouts,)),
        ("published", "predictions.csv", _file(RESULTS / "published/predictions.csv"), (_published,)),
        ("published causes", "causes.csv", _file(RESULTS / "published/causes.csv"), (_published,)),
        ("held-out chips", "held_out.csv", _file(RESULTS / "catalog/held_out.csv"), (_chips,)),
        ("calibration", "fitted.yaml", calibrations, (_predict, _run, _add)),
        ("sweep points", "swept.jsonl", _points, (_sweep,)),
        ("prices", "prices.yaml", lambda: (PRICES,), (*5 * (_price_list,), _cost)),
        ("catalogue", "own.devices.yaml", lambda: (OWN,), (_own_lists, _own_scenario)),
        ("EXO state", "state.json", states, (_state,)),
        ("benchmark", "bench.txt", benchmarks, (*11 * (_benchmark_read,), _benchmark)),
    )
}
