"""Dropouts on the local cluster, predicted and then measured; writes results/dropout.

Usage: python scripts/study_dropout.py calibrate | drills | predict | measure | verify | report SERIES

calibrate  undisturbed splits (cases.yaml: train) for the speeds.
drills     for the laws of llama-rpc in recovery.yaml: the client ends and starts again on servers that are
           all still there; and a server `spare`, which is in no case, is killed. Prints the laws; they are
           copied into recovery.yaml by hand, with their source.
predict    one line per case in predictions.jsonl; refuses once anything is measured.
measure    all cases in turns, as often as cases.yaml says.
verify     whether every reply has the tokens that it should have.
report     report.md and the recovery plots of two cases.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from calibrate.applied import apply
from calibrate.calibration import calibrate, load_calibration, save_calibration
from live.local.drill import Drill, drill
from live.local.dropout import Dropped, InjectedFault, run_dropout
from live.local.run import measure
from live.recovery import PHASES
from simulator.churn.estimate import Dropout, predict_dropout
from simulator.churn.picture import rate_at, recovery_table, save
from simulator.churn.placing import survivors
from simulator.files import load, pack
from simulator.result.measurement import Measurement, read_measurement
from simulator.scenario import PlacementSpec, Scenario

TOP = Path(__file__).resolve().parent.parent / "results" / "dropout"
SERIES = sys.argv[2] if len(sys.argv) > 2 else "fourth"
FOLDER = TOP / SERIES
PICTURED = ("heavy_first", "light_last")
REPLICATIONS = 200
DRILLS = 4
TARGET_RECOVERY, TARGET_RATE = 0.20, 0.07  # of issue 6


def base(case: str = "") -> Scenario:
    """The undisturbed ring of a case."""
    return load(TOP / ("base_weak.yaml" if case in cases()["weak"] else "base.yaml"), Scenario)


def cases() -> dict[str, Any]:
    """What trains and what leaves when."""
    found: dict[str, Any] = yaml.safe_load((TOP / "cases.yaml").read_text(encoding="utf-8"))
    return found


def split(layers: dict[str, int], name: str, full: Scenario | None = None) -> Scenario:
    """The base scenario on some devices only."""
    chosen = survivors(full or base(), tuple(layers))
    return chosen.model_copy(update={"name": name, "placement": PlacementSpec(layers=layers)})


def calibrate_all() -> None:
    """Measure the undisturbed splits."""
    out = FOLDER / "calibration"
    files = measure(
        [split(layers, name) for name, layers in cases()["train"][SERIES].items()], out, _say, rounds=2
    )
    save_calibration(calibrate([pack(file) for file in files]), FOLDER / "calibration.yaml")


def drills() -> None:
    """Restart again and again, and print the laws."""
    found = [
        drill(split(cases()["train"]["first"][name], name))
        for _ in range(DRILLS)
        for name in ("ring", "with_desktop")
    ]
    found += [drill(_with_spare(), kill="spare") for _ in range(DRILLS)]
    (TOP / "drills.jsonl").write_text(
        "".join(json.dumps(one.document()) + "\n" for one in found), encoding="utf-8"
    )
    laws()


def _with_spare() -> Scenario:
    """The client, one server of the study, and a server that is in no case."""
    full = base()
    devices = {
        "laptop": full.devices["laptop"],
        "desktop": full.devices["desktop"],
        "spare": full.devices["mini"],
    }
    return full.model_copy(
        update={
            "name": "with_spare",
            "devices": devices,
            "placement": PlacementSpec(layers={"laptop": 6, "desktop": 6, "spare": 4}),
        }
    )


def laws() -> None:
    """Range of each law over the drills."""
    restarts = [
        Drill(**json.loads(line)) for line in (TOP / "drills.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for name in (
        "detect",
        "release",
        "decide",
        "start",
        "load",
        "load_fixed",
        "prefill",
        "first_prompt_fixed",
    ):
        for scenario in ("ring", "with_desktop", "with_spare"):
            found = sorted(
                one.phases_s[name] for one in restarts if one.scenario == scenario and name in one.phases_s
            )
            if found:
                print(
                    f"{name:10} {scenario:12} {found[0]:.3f} {median(found):.3f} {found[-1]:.3f}  "
                    f"n={len(found)}"
                )


def predicted(name: str, ring: Scenario | None = None, believed: Scenario | None = None) -> Dropout:
    """The prediction of one case, of `ring` at the speeds that are known of it; `believed` as for `Study`."""
    events = [_event(fault) for fault in cases()["cases"][name]]
    ring = ring or known(name)
    document = ring.model_dump(mode="json", exclude={"events"}) | {"name": name, "events": events}
    if _replies(name) > 1:
        document["workload"]["arrivals"] = {"times": ["0 s"] * _replies(name)}
    return predict_dropout(Scenario.model_validate(document), REPLICATIONS, believed=believed)


def known(name: str) -> Scenario:
    """The ring of a case as the calibration describes it: what simulated and real client go by."""
    return apply(load_calibration(FOLDER / "calibration.yaml"), base(name)).scenario


def asked(name: str) -> Scenario:
    """The same for the real client, which needs no draws of what is uncertain."""
    return known(name).model_copy(update={"posterior": None})


def _event(fault: dict[str, Any]) -> dict[str, Any]:
    """A fault of cases.yaml as the simulator's event."""
    back = {"back_after": f"{fault['back_after_s']} s"} if "back_after_s" in fault else {}
    return {
        "event": "drop",
        "device": fault["device"],
        "at_token": fault["at_token"],
        "silent": fault["mode"] != "kill",
        "later": f"{fault.get('later_s', 0)} s",
        **back,
    }


def _weak(name: str) -> str:
    """Ending of the name of the uninterrupted reply that a case is held against."""
    return "_weak" if name in cases()["weak"] else ""


def _replies(name: str) -> int:
    """A device that comes back is taken in before a second reply."""
    return 2 if any("back_after_s" in fault for fault in cases()["cases"][name]) else 1


def predict() -> None:
    """Write all predictions down before anything is measured."""
    if (FOLDER / "measured").exists():
        sys.exit("measurements exist: predictions come first; move its folder measured away to begin anew")
    lines = []
    for name in cases()["cases"]:
        found = predicted(name).document()
        kept = {
            key: found[key]
            for key in (
                "recovery_s",
                "regrown_s",
                "phases_s",
                "tokens_per_s",
                "placements",
                "seed",
                "replications",
            )
        }
        lines.append(json.dumps({"case": name, "created": _now(), **kept}) + "\n")
        _say(
            f"{name}: recovery {found['recovery_s']['median']} s, then "
            f"{found['tokens_per_s']['after']['median']} tokens/s"
        )
    (FOLDER / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")


def measure_all() -> None:
    """Every case once, and the uninterrupted reply that its tokens must equal."""
    if not (FOLDER / "predictions.jsonl").exists():
        sys.exit("predict first")
    out, found = FOLDER / "measured", cases()
    plain = {
        weak: run_dropout(one, (), out / f"uninterrupted{weak}.jsonl", _say).tokens
        for weak, one in (("", asked("")), ("_weak", asked(found["weak"][0])))
    }
    with (FOLDER / "measured.jsonl").open("x", encoding="utf-8") as lines:
        for turn in range(found["repeats"][SERIES]):
            for name, faults in found["cases"].items():
                done = run_dropout(
                    asked(name),
                    [InjectedFault(**fault) for fault in faults],
                    out / f"{name}_{turn + 1}.jsonl",
                    _say,
                    replies=_replies(name),
                )
                lines.write(json.dumps(_measured(name, done, plain[_weak(name)])) + "\n")
                lines.flush()
                _say(f"{name}: {done.recoveries[0].seconds:.2f} s")
    for file in out.glob("*.jsonl"):
        pack(file)


def verify() -> None:
    """No token lost or doubled.

    Up to the loss the tokens are the uninterrupted reply's, then those of a
    fresh cluster of the survivors that reads the same; and a client that reads
    received tokens one by one gets the uninterrupted reply to the last token.
    """
    fresh: dict[tuple[Any, ...], tuple[int, ...]] = {}
    outcome: dict[str, dict[str, bool]] = {}
    with TemporaryDirectory() as folder:
        for name, faults in cases()["cases"].items():
            one, plain = (
                next(line for line in lines("measured") if line["case"] == name),
                _ids(f"uninterrupted{_weak(name)}"),
            )
            files = sorted((FOLDER / "measured").glob(f"{name}_[0-9].jsonl.gz"))
            same = all(
                _is_right(path.name.partition(".")[0], asked(name), one["layers"], plain, fresh, Path(folder))
                for path in files
            )
            exact = run_dropout(
                asked(name),
                [InjectedFault(**fault) for fault in faults],
                Path(folder) / f"exact_{name}.jsonl",
                exact=True,
                replies=_replies(name),
            )
            outcome[name] = {"as_the_survivors": same, "exact_as_uninterrupted": exact.tokens == plain}
            _say(f"{name}: {outcome[name]}")
    (FOLDER / "verified.json").write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")


def _is_right(
    name: str,
    full: Scenario,
    layers: list[dict[str, int]],
    plain: tuple[int, ...],
    fresh: dict[tuple[Any, ...], tuple[int, ...]],
    folder: Path,
) -> bool:
    """Whether one measured reply is the uninterrupted one up to the loss, and then what the survivors say."""
    tokens, losses = _ids(name), _losses(name)
    same = tokens[: losses[0]] == plain[: losses[0]] and len(tokens) == len(plain)
    for held, start, stop in zip(layers, losses, [*losses[1:], len(tokens)], strict=True):
        key = (full.name, *held.items(), *tokens[:start])
        if key not in fresh:
            fresh[key] = _fresh(full, held, tokens[:start], folder / f"{len(fresh)}.jsonl")
        same &= tokens[start:stop] == fresh[key][: stop - start]
    return same


def _fresh(full: Scenario, layers: dict[str, int], received: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """What a cluster of the survivors alone says behind these tokens."""
    alone = split(layers, "fresh", full)
    left = alone.workload.output_tokens - len(received)
    workload = alone.workload.model_copy(update={"output_tokens": left})
    return run_dropout(alone.model_copy(update={"workload": workload}), (), path, received=received).tokens


def _of(name: str) -> Measurement:
    """The measurement of one case and turn."""
    return read_measurement(FOLDER / "measured" / f"{name}.jsonl.gz")


def _ids(name: str) -> tuple[int, ...]:
    return tuple(event["id"] for event in _of(name).of("token") if event["run"] == 0)


def _losses(name: str) -> list[int]:
    """How many tokens the reply had at each loss."""
    found = _of(name)
    times = [event["t_ns"] for event in found.of("token") if event["run"] == 0]
    return [
        sum(t <= event["end_ns"] for t in times)
        for event in found.of("phase")
        if event["phase"] == "detect" and event["run"] == 0
    ]


def _measured(name: str, done: Dropped, plain: tuple[int, ...]) -> dict[str, Any]:
    """What one case came to; the first recovery is the one that is predicted."""
    lost, taken_in = done.first.recoveries, [one for one in done.recoveries if one.is_planned]
    return {
        "case": name,
        "created": _now(),
        "recovery_s": lost[0].seconds,
        "regrown_s": taken_in[0].seconds if taken_in else None,
        "phases_s": [one.phases_s() for one in lost],
        "layers": [one.layers for one in lost],
        "tokens_per_s": {"before": done.before, "after": done.after, "regrown": done.next},
        "tokens": len(done.tokens),
        "same_tokens": done.tokens == plain,
    }


def lines(kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]


def _rows() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Prediction and measurement of each case; repeated ones are medians."""
    measured = lines("measured")
    for said in lines("predictions"):
        turns = [one for one in measured if one["case"] == said["case"]]
        rates = {
            name: median(one["tokens_per_s"][name] for one in turns)
            for name, value in turns[0]["tokens_per_s"].items()
            if value is not None
        }
        phases = {name: median(one["phases_s"][0][name] for one in turns) for name in PHASES}
        regrown = median(one["regrown_s"] for one in turns) if turns[0].get("regrown_s") is not None else None
        yield (
            said,
            {
                "recovery_s": median(one["recovery_s"] for one in turns),
                "tokens_per_s": rates,
                "phases_s": phases,
                "regrown_s": regrown,
            },
        )


class Line(NamedTuple):
    """One row of the report: a recovery, predicted and measured."""

    case: str
    guess: dict[str, float]
    was_s: float
    rate: dict[str, float]
    rate_was: float
    before: float
    before_was: float

    @property
    def error(self) -> float:
        """Of the recovery time."""
        return self.guess["median"] / self.was_s - 1

    @property
    def rate_error(self) -> float:
        """Of tokens/s afterwards."""
        return self.rate["median"] / self.rate_was - 1

    @property
    def inside(self) -> tuple[bool, bool]:
        """Whether the 90 % intervals of recovery time and rate held."""
        return (
            self.guess["p05"] <= self.was_s <= self.guess["p95"],
            self.rate["p05"] <= self.rate_was <= self.rate["p95"],
        )


def _table() -> Iterator[Line]:
    """A row for each case, and one more where somebody was taken in again."""
    for said, was in _rows():
        rates, were = said["tokens_per_s"], was["tokens_per_s"]
        shared = (rates["before"]["median"], were["before"])
        yield Line(
            said["case"], said["recovery_s"], was["recovery_s"], rates["after"], were["after"], *shared
        )
        if was["regrown_s"] is not None:
            yield Line(
                f"{said['case']}: taken in again",
                said["regrown_s"],
                was["regrown_s"],
                rates["regrown"],
                were["regrown"],
                *shared,
            )


def _right(verdict: bool | dict[str, bool]) -> str:
    """Whether the tokens were right; the first two series held them against one thing, the later ones two."""
    flags = verdict.values() if isinstance(verdict, dict) else (verdict,)
    return ", ".join("yes" if flag else "NO" for flag in flags)


def report() -> None:
    """Errors of every case, hits and misses, and the plot."""
    lines, verified = list(_table()), json.loads((FOLDER / "verified.json").read_text(encoding="utf-8"))
    table = [
        f"| {one.case} | {one.guess['median']:.2f} [{one.guess['p05']:.2f}, {one.guess['p95']:.2f}] | "
        f"{one.was_s:.2f} | {one.error:+.0%} | {one.before:.1f} / {one.before_was:.1f} | "
        f"{one.rate['median']:.1f} | {one.rate_was:.1f} | {one.rate_error:+.1%} | "
        f"{_right(verified[one.case.split(':')[0]])} |"
        for one in lines
    ]
    errors, rates = [abs(one.error) for one in lines], [abs(one.rate_error) for one in lines]
    loud = [
        abs(one.error)
        for one in lines
        if "silent" not in one.case and "hang" not in one.case and "dark" not in one.case
    ]
    text = (FOLDER / "preface.md").read_text(encoding="utf-8") + "\n".join(
        [
            "",
            f"- Recovery time: median error {median(errors):.0%} (wanted: {TARGET_RECOVERY:.0%}), largest "
            f"{max(errors):.0%}; {sum(one.inside[0] for one in lines)} of {len(lines)} inside the "
            "predicted 90 %. Without the silent ones, which are mostly the client's own time-outs: median "
            f"{median(loud):.0%}, largest {max(loud):.0%}.",
            f"- Tokens/s after: median error {median(rates):.1%} (wanted: {TARGET_RATE:.0%}), largest "
            f"{max(rates):.1%}; "
            f"{sum(one.inside[1] for one in lines)} of {len(lines)} inside the predicted 90 %.",
            "",
            "| case | recovery predicted (s) | measured (s) | error | tokens/s before: predicted / "
            "measured | after: predicted | measured | error | tokens right |",
            "|---|---|---|---|---|---|---|---|---|",
            *table,
            "",
            "## Phases of the first recovery (s): predicted median / measured",
            "",
            *_phase_rows(),
            *(f"\n![recovery of {name}](recovery_{name}.svg)" for name in PICTURED),
            "",
        ]
    )
    (FOLDER / "report.md").write_text(text, encoding="utf-8")
    for name in PICTURED:
        save(recovery_table(predicted(name), _line(name)), FOLDER, f"recovery_{name}")
    print(text)


def _phase_rows() -> list[str]:
    rows = [f"| case | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
    for said, was in _rows():
        cells = [
            f"{said['phases_s'].get(name, {'median': 0})['median']:.2f} / {was['phases_s'][name]:.2f}"
            for name in PHASES
        ]
        rows.append(f"| {said['case']} | {' | '.join(cells)} |")
    return rows


def _line(name: str) -> list[tuple[float, float]]:
    """The measured rate around the fault."""
    import numpy as np

    found = _of(f"{name}_1")
    times_s = found.token_times_s()[0, 0].tolist()
    fault_s = next(event["start_ns"] for event in found.of("phase")) / 1e9
    token = sum(time_s <= fault_s for time_s in times_s)
    at_s = np.linspace(0.0, times_s[-1], 300)
    return [
        (t - fault_s, rate)
        for t, rate in zip(at_s.tolist(), rate_at(times_s, [token], at_s).tolist(), strict=True)
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    {
        "calibrate": calibrate_all,
        "drills": drills,
        "laws": laws,
        "predict": predict,
        "measure": measure_all,
        "verify": verify,
        "report": report,
    }[sys.argv[1]]()
