"""`sim delays`: fit delay laws to the hops and links of Measurements, rank them, say which one to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.json_output import Json, print_json

if TYPE_CHECKING:
    from calibrate.delays import LawFit, Route
    from simulator.laws.law import Floats
    from simulator.result.measurement import Measurement

__all__ = ["delays"]

Kind = str
Ranking = tuple[Kind, "Route", tuple["LawFit", ...]]


def delays(
    measurements: Annotated[list[Path], typer.Argument(help="Measurement files (.jsonl, .jsonl.gz).")],
    link: Annotated[str, typer.Option("--link", help="only this direction, as SOURCE:SINK")] = "",
    law: Annotated[
        list[str] | None, typer.Option("--law", help="only these candidate laws (one-way delays)")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(help="Write this scenario with the links that agents measured.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="With --scenario: the file to write.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit delay laws to measured hops (one way) and links (round trips), best first; or put links that agents
    measured into a scenario.

    Raises MeasurementError for a file that cannot be read, CalibrationError when nothing in it can be fitted.
    """
    from simulator.result.measurement import read_measurement

    if scenario is not None or out is not None:
        _write(measurements, scenario, out)
        return
    rankings = _rankings([read_measurement(path) for path in measurements], link, law)
    if as_json:
        print_json([_document(*ranking) for ranking in rankings])
        return
    for ranking in rankings:
        _print(*ranking)


def _write(paths: list[Path], scenario: Path | None, out: Path | None) -> None:
    """The scenario with measured links, as a new file."""
    from calibrate.links import measured_links, with_links
    from simulator.files import dump
    from simulator.library import load
    from simulator.result.measurement import read_measurement

    if scenario is None or out is None:
        raise typer.BadParameter(
            "--scenario and -o go together: which links to replace, and the file to write"
        )
    made, notes = with_links(load(scenario), measured_links(map(read_measurement, paths)))
    dump(made, out, f"{scenario.name} with the links of {', '.join(path.name for path in paths)}.")
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {out}; next: sim run {out}")


def _rankings(measurements: list[Measurement], link: str, law: list[str] | None) -> list[Ranking]:
    """One ranking per kind and route; the samples of all files in the order given."""
    from calibrate.delays import fit_laws, fit_round_trips
    from simulator.errors import CalibrationError

    samples = _samples(measurements)
    wanted = {
        key: values for key, values in samples.items() if link in ("", f"{key[1].source}:{key[1].sink}")
    }
    if not wanted:
        known = sorted({f"{route.source}:{route.sink}" for _, route in samples})
        there = f"they have {', '.join(known)}" if known else "relays and `sim live links` record them"
        raise CalibrationError(
            f"no hop or link delays{f' of {link}' if link else ''} in these measurements; {there}"
        )
    return [
        (kind, route, fit_laws(values, candidates=law) if kind == "hop" else fit_round_trips(values))
        for (kind, route), values in wanted.items()
    ]


def _samples(measurements: list[Measurement]) -> dict[tuple[Kind, Route], Floats]:
    """All delays (s) by kind and route."""
    import numpy as np

    from calibrate.delays import hop_delays_s, link_rtts_s

    found: dict[tuple[Kind, Route], Floats] = {}
    for measurement in measurements:
        # hops are timed one way by the relay's clock, links there and back by the sender's
        for kind, reader in (("hop", hop_delays_s), ("link", link_rtts_s)):
            for route, values in reader(measurement).items():
                before = found.get((kind, route))
                found[kind, route] = values if before is None else np.concatenate([before, values])
    return found


def _print(kind: Kind, route: Route, fits: tuple[LawFit, ...]) -> None:
    """Heading, ranked table, and the law as a scenario takes it."""
    from calibrate.delays import choose, table

    chosen = choose(fits)
    print(
        f"{route} ({'one way, at the relay' if kind == 'hop' else 'law of one crossing, from round trips'})"
    )
    print(table(fits))
    law = chosen.law.model_dump(mode="json")
    if chosen.law.law == "empirical":
        # thousands of numbers help nobody on a terminal
        law["samples"] = f"... {len(chosen.law.samples)} values, see --json"
    print(f"use: {chosen.name}: {json.dumps(law)}\n")


def _document(kind: Kind, route: Route, fits: tuple[LawFit, ...]) -> dict[str, Any]:
    """The same for machines; only the chosen law is written out in full."""
    from calibrate.delays import choose

    chosen = choose(fits)
    return {
        "kind": kind,
        "source": route.source,
        "sink": route.sink,
        "size_bytes": route.size_bytes,
        "loaded": route.loaded,
        "chosen": chosen.model_dump(mode="json"),
        "ranking": [fit.model_dump(mode="json", exclude={"law"}) for fit in fits],
    }
