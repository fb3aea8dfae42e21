"""One device out of benchmark records: which, with which model, how fast, and what of that to doubt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from calibrate.benchmarks.model import model_of
from calibrate.benchmarks.read import read_benchmarks
from calibrate.benchmarks.record import NO_REQUEST, Record, Request
from calibrate.benchmarks.speed import FEWEST_PROMPT_TOKENS, FEWEST_TOKENS, TrialSpeed, solved_speed
from simulator import catalog
from simulator.engine.base import engines
from simulator.errors import CatalogError, MeasurementError
from simulator.files.inert import yaml_comment
from simulator.scenario import DeviceSpec, EngineSpec, ModelSpec, SpeedSpec
from simulator.spec import Spec
from simulator.units import format_seconds

__all__ = ["Fragment", "MeasuredDevice", "fragment", "measured_devices"]

MOST_RUNS = 8
"""Of a server's log of a day: eight tell its speed, and each costs tenths of a second."""


class Fragment(Spec):
    """What a scenario's `devices:` takes."""

    devices: dict[str, DeviceSpec]


@dataclass(frozen=True)
class MeasuredDevice:
    """A device as its benchmarks show it."""

    name: str
    """As a key of `devices`."""
    kind: str | None
    """Its name in the catalogue, None where that does not know it."""
    engine: str
    """The engine whose own costs the speed is net of."""
    model: ModelSpec
    """Of the first run."""
    speed: SpeedSpec
    records: tuple[Record, ...]
    """Those that it was made of."""
    doubts: tuple[str, ...]

    @property
    def spec(self) -> DeviceSpec:
        """The device as a scenario writes it."""
        return DeviceSpec(kind=self.kind, speed=self.speed)


def measured_devices(
    paths: Sequence[Path],
    *,
    device: str | None = None,
    name: str | None = None,
    model: str | None = None,
    quantisation: str | None = None,
    request: Request = NO_REQUEST,
) -> tuple[tuple[MeasuredDevice, ...], tuple[Record, ...], tuple[str, ...]]:
    """The devices that these files tell of, all records, and `file:line: reason` for each row left out.

    `device` (a name of the catalogue), `model` and `quantisation` stand for what a file lacks, and replace
    what it says; `name` is what to call the device; `request` how long the requests were, where a file tells
    only seconds of whole ones. Raises MeasurementError where something is missing, naming its option, or
    known to nobody, with the nearest names; and what `read_benchmarks` raises.
    """
    read = read_benchmarks(paths)
    usable, left_out = list[Record](), list(read.faults)
    for record in (request.told(record) for record in read.records):
        why = _unusable(record)
        usable += [] if why else [record]
        left_out += [f"{record.place}: {why}; left out"] if why else []
    if not usable:
        raise MeasurementError("\n".join(["no run of one device alone:", *left_out]))
    groups: dict[str, list[Record]] = {}
    for record in usable:
        groups.setdefault(record.device, []).append(record)
    if (device or name) and len(groups) > 1:
        told = ", ".join(one or "one that is not named" for one in groups)
        raise MeasurementError(
            f"these are several devices ({told}): leave --device and --name out, or give their files apart"
        )
    kind = None if device is None else _catalogue_name(device)
    found = [
        _measured(
            kind or _kind(told) or _kind(name or ""), name or kind or told, records, model, quantisation
        )
        for told, records in groups.items()
    ]
    return tuple(found), read.records, tuple(left_out)


def _catalogue_name(device: str) -> str:
    try:
        return catalog.device(device).name
    except CatalogError as error:
        raise MeasurementError(
            f"--device: {error}; one that is not among them is called by --name NAME"
        ) from None


def _unusable(record: Record) -> str:
    """Why a record tells nothing of one device's speed with one chat, empty where it does."""
    rate = record.decode or record.prompt
    said = f"{rate.tokens_per_s:.4g} tokens/s" if rate else "nothing"
    if record.not_one_device:
        way_out = (
            f"; hold it against a prediction: sim run SCENARIO --measured {rate.tokens_per_s:.4g}"
            if rate
            else ""
        )
        return f"{said}, but it {record.not_one_device}: no speed of one device{way_out}"
    if record.batch > 1:
        return f"{said} with {record.batch} chats at once; measure one chat alone"
    if record.decode and record.output_tokens < FEWEST_TOKENS:
        return f"a reply of {record.output_tokens} tokens is too short; measure {FEWEST_TOKENS} or more"
    return ""


def _measured(
    kind: str | None, name: str, records: list[Record], model: str | None, quantisation: str | None
) -> MeasuredDevice:
    """The device that the catalogue calls `kind`, and the person or the file `name`."""
    _must_say(name, records)
    engine, used = _engine(records[0]), _some(records)
    models = [model_of(record, model, quantisation) for record in used]
    runs = [
        (TrialSpeed(spec, EngineSpec(name=engine), kind), _for_speed(record))
        for record, (spec, _) in zip(used, models, strict=True)
    ]
    if kind is None and not any(record.prompt for _, record in runs):
        raise MeasurementError(
            f"{records[0].place}: {name}: no tokens/s of a prompt of {FEWEST_PROMPT_TOKENS} tokens or more, "
            "and the catalogue does not know the device; measure one (llama-bench -p 512), or give "
            "--device with a name of `sim catalog devices`"
        )
    speed = solved_speed(runs)
    doubts = [doubt for _, doubt in models if doubt]
    doubts += [*_doubts(name, kind, [record for _, record in runs]), *_doubt_of_speed(speed, runs[0][0])]
    if len(used) < len(records):
        doubts.append(f"of {len(records)} runs {len(used)} were used, from the least to the largest context")
    return MeasuredDevice(
        name=_key(name),
        kind=kind,
        engine=engine,
        model=models[0][0],
        speed=speed,
        records=tuple(used),
        doubts=tuple(dict.fromkeys(doubts)),
    )


def _must_say(name: str, records: Sequence[Record]) -> None:
    """Ask for what no speed can do without."""
    first = records[0]
    if not name:
        raise MeasurementError(
            f"{first.place}: {first.tool} does not say which device this was; give --device NAME, a name of "
            "`sim catalog devices`, or --name NAME for one that is not there"
        )
    if not any(record.decode for record in records):
        raise MeasurementError(
            f"{first.place}: {name}: no decode tokens/s; measure replies too (llama-bench -n 128)"
        )


def _some(records: list[Record]) -> list[Record]:
    """So many records that a search over them ends soon, evenly from the least to the largest depth."""
    ordered = sorted(records, key=lambda record: (record.depth, record.prompt is None))
    step = max(1.0, len(ordered) / MOST_RUNS)
    return [ordered[int(at * step)] for at in range(min(len(ordered), MOST_RUNS))]


def _for_speed(record: Record) -> Record:
    """The record without a prompt rate that says nothing of flops."""
    # behind a filled cache a prompt's tokens attend to more than themselves, which a workload cannot say
    behind = record.tool == "llama-bench" and record.depth > 0
    short = record.prompt_tokens < FEWEST_PROMPT_TOKENS
    return record.model_copy(update={"prompt": None}) if behind or short else record


def _doubts(name: str, kind: str | None, records: Sequence[Record]) -> Iterator[str]:
    if kind is None:
        yield (
            f"the catalogue does not know {name!r}: give it memory: and link: in the scenario, or name its "
            "kind with --device"
        )
    if not any(record.prompt for record in records):
        yield "no prompt was measured, so prefill_flops is the catalogue's; llama-bench -p 512 measures it"
    layers = {record.gpu_layers for record in records if record.gpu_layers}
    if layers:
        yield f"only {min(layers)} layers were on the graphics processor, so this is a speed of both together"
    if records[0].runtime == "vllm":
        yield "no engine here is vLLM; the speed is net of another engine's own costs"


def _doubt_of_speed(speed: SpeedSpec, trial: TrialSpeed) -> Iterator[str]:
    if speed.layer_overhead != trial.start.layer_overhead:
        yield (
            f"a layer costs {format_seconds(speed.layer_overhead)} beside its bytes, where the catalogue has "
            f"{format_seconds(trial.start.layer_overhead)}; a larger model measured too tells the two apart"
        )


def _engine(record: Record) -> str:
    """The first engine that computes with what the benchmark did; else the one of a plain scenario."""
    # a benchmark is of one device, which splits no layers
    same = (
        name
        for name, engine in engines().items()
        if engine.facts.runtime == record.runtime and not engine.splits_layers
    )
    return next(same, EngineSpec().name)


def _kind(name: str) -> str | None:
    """The catalogue's name of what a driver calls 'NVIDIA GeForce RTX 4090'."""
    short = re.sub(r"\((R|TM)\)|\b(NVIDIA|GeForce|AMD|Intel|Graphics|GPU)\b", " ", name).strip()
    for said in (name, short, f"{short} desktop") if short else ():
        try:
            return catalog.device(said).name
        except CatalogError:
            continue
    return None


def _key(name: str) -> str:
    """A name as a scenario's keys are written."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()[:60] or "device"


def fragment(found: Sequence[MeasuredDevice], sources: Sequence[Path]) -> str:
    """YAML text that a scenario's `devices:` takes, with how to use it."""
    names = ", ".join(path.name for path in sources)
    header = (
        f"Measured speed, made by `sim calibrate {names}`.\n"
        "Put what is below `devices:` into a scenario (`sim init` writes one), then: sim run SCENARIO"
    )
    devices = {one.name: one.spec.model_dump(mode="json", exclude_defaults=True) for one in found}
    body = yaml.safe_dump({"devices": devices}, sort_keys=False, allow_unicode=True)
    return yaml_comment("\n".join([header, *_provenance(found)])) + body


def _provenance(found: Sequence[MeasuredDevice]) -> Iterator[str]:
    for one in found:
        for record in one.records:
            rates = [("decode", record.decode), ("prompt", record.prompt)]
            said = ", ".join(f"{rate.tokens_per_s:.4g} {name} tokens/s" for name, rate in rates if rate)
            about = [record.tool, record.versions, record.backend, record.model]
            yield f"{one.name}: {said} ({', '.join(part for part in about if part)})"
        yield from (f"doubt: {doubt}" for doubt in one.doubts)
