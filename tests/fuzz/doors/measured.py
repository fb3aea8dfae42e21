"""Measurements, of clusters and of links."""

from __future__ import annotations

import gzip
import json
import random
from functools import cache
from pathlib import Path

from simulator.errors import SimulatorError
from tests.fuzz.doors.door import DATA, RESULTS, Kind, Unfit, read_back, scratch, told

__all__ = ["KINDS", "prediction"]


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
    told(path, "delays", path, "--scenario", scenario, "-o", scratch(path, "linked.yaml"))


def _validate(path: Path) -> None:
    said, ledger = path.with_name("said.prediction.json"), scratch(path, "made.jsonl")
    said.write_bytes(prediction())
    read_back(told(path, "validate", said, path, "--ledger-file", ledger), ledger)


def _calibrate(path: Path) -> None:
    other = DATA / "campaign/A_a24.jsonl"
    told(path, "calibrate", path, other, "-o", scratch(path, "calibration.yaml"), "--draws", "20")


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


KINDS = {
    "measurement": Kind(
        "measured.jsonl",
        measurements,
        (*2 * (_summary, _summary, _table, _delays, _validate, _follow), _calibrate),
    ),
    "packed measurement": Kind("measured.jsonl.gz", _packed_seeds, (_summary,)),
    "links": Kind("links.jsonl", _link_seeds, (_delays, _links)),
}
