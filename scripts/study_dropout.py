"""Dropouts on the local cluster, predicted and then measured; writes results/dropout.

Usage: python scripts/study_dropout.py calibrate | drills | predict | measure | verify | report SERIES

calibrate  undisturbed splits (cases.yaml: train) for the speeds.
drills     for the laws of llama-rpc in recovery.yaml: the client ends and starts again on servers that are all still there;
           and a server `spare`, which is in no case, is killed. Prints the laws; they are copied into recovery.yaml by hand, with their source.
predict    one line per case in predictions.jsonl; refuses once anything is measured.
measure    all cases in turns, as often as cases.yaml says.
verify     whether every reply has the tokens that it should have.
report     report.md and the recovery plot of one case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from calibrate.apply import apply
from calibrate.calibration import calibrate, load_calibration, save_calibration
from live.local.drill import Drill, drill
from live.local.dropout import PHASES, Dropped, Fault, run_dropout
from live.local.run import measure
from simulator.churn.estimate import Dropout, predict_dropout
from simulator.churn.picture import rate_at, recovery_table, save
from simulator.churn.placing import survivors
from simulator.files import load
from simulator.result.measurement import read_measurement
from simulator.scenario import PlacementSpec, Scenario

TOP = Path(__file__).resolve().parent.parent / "results" / "dropout"
SERIES = sys.argv[2] if len(sys.argv) > 2 else "second"
FOLDER = TOP / SERIES
PICTURED = "heavy_first"
REPLICATIONS = 200
DRILLS = 4
TARGET_RECOVERY, TARGET_RATE = 0.20, 0.07  # of issue 6


def base() -> Scenario:
    """The undisturbed ring."""
    return load(TOP / "base.yaml", Scenario)


def cases() -> dict[str, Any]:
    """What trains and what leaves when."""
    found: dict[str, Any] = yaml.safe_load((TOP / "cases.yaml").read_text(encoding="utf-8"))
    return found


def split(layers: dict[str, int], name: str) -> Scenario:
    """The base scenario on some devices only."""
    chosen = survivors(base(), tuple(layers))
    return chosen.model_copy(update={"name": name, "placement": PlacementSpec(layers=layers)})


def calibrate_all() -> None:
    """Measure the undisturbed splits."""
    out = FOLDER / "calibration"
    files = measure([split(layers, name) for name, layers in cases()["train"][SERIES].items()], out, _say, rounds=2)
    save_calibration(calibrate(files), FOLDER / "calibration.yaml")


def drills() -> None:
    """Restart again and again, and print the laws."""
    found = [drill(split(cases()["train"]["first"][name], name)) for _ in range(DRILLS) for name in ("ring", "with_desktop")]
    found += [drill(_with_spare(), kill="spare") for _ in range(DRILLS)]
    (TOP / "drills.jsonl").write_text("".join(json.dumps(one.document()) + "\n" for one in found), encoding="utf-8")
    laws()


def _with_spare() -> Scenario:
    """The client, one server of the study, and a server that is in no case."""
    full = base()
    devices = {"laptop": full.devices["laptop"], "desktop": full.devices["desktop"], "spare": full.devices["mini"]}
    return full.model_copy(update={"name": "with_spare", "devices": devices,
                                   "placement": PlacementSpec(layers={"laptop": 6, "desktop": 6, "spare": 4})})


def laws() -> None:
    """Range of each law over the drills."""
    restarts = [Drill(**json.loads(line)) for line in (TOP / "drills.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in ("detect", "release", "decide", "start", "load", "load_fixed", "prefill"):
        for scenario in ("ring", "with_desktop", "with_spare"):
            found = sorted(one.phases_s[name] for one in restarts if one.scenario == scenario and name in one.phases_s)
            if found:
                print(f"{name:10} {scenario:12} {found[0]:.3f} {median(found):.3f} {found[-1]:.3f}  n={len(found)}")


def _predicted(name: str) -> Dropout:
    """The prediction of one case."""
    events = [{"event": "drop", "device": fault["device"], "at_token": fault["at_token"], "silent": fault["mode"] != "kill"}
              for fault in cases()["cases"][name]]
    calibrated = apply(load_calibration(FOLDER / "calibration.yaml"), base()).scenario
    document = calibrated.model_dump(mode="json", exclude={"events"}) | {"name": name, "events": events}
    return predict_dropout(Scenario.model_validate(document), REPLICATIONS)


def predict() -> None:
    """Write all predictions down before anything is measured."""
    if (FOLDER / "measured").exists():
        sys.exit("measurements exist: predictions come first; move its folder measured away to begin anew")
    lines = []
    for name in cases()["cases"]:
        found = _predicted(name).document()
        kept = {key: found[key] for key in ("recovery_s", "phases_s", "tokens_per_s", "placements", "seed", "replications")}
        lines.append(json.dumps({"case": name, "created": _now(), **kept}) + "\n")
        _say(f"{name}: recovery {found['recovery_s']['median']} s, then {found['tokens_per_s']['after']['median']} tokens/s")
    (FOLDER / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")


def measure_all() -> None:
    """Every case once, and the uninterrupted reply that its tokens must equal."""
    if not (FOLDER / "predictions.jsonl").exists():
        sys.exit("predict first")
    out, found = FOLDER / "measured", cases()
    plain = run_dropout(base(), (), out / "uninterrupted.jsonl", _say)
    with (FOLDER / "measured.jsonl").open("x", encoding="utf-8") as lines:
        for turn in range(found["repeats"][SERIES]):
            for name, faults in found["cases"].items():
                done = run_dropout(base(), [Fault(**fault) for fault in faults], out / f"{name}_{turn + 1}.jsonl", _say)
                lines.write(json.dumps(_measured(name, done, plain.tokens)) + "\n")
                lines.flush()
                _say(f"{name}: {done.recoveries[0].seconds:.2f} s")


def verify() -> None:
    """No token lost or doubled: up to the loss the tokens are the uninterrupted reply's, then those of a fresh cluster."""
    plain = _ids("uninterrupted")
    fresh: dict[tuple[Any, ...], tuple[int, ...]] = {}
    outcome: dict[str, bool] = {}
    with TemporaryDirectory() as folder:
        for one in _lines("measured"):
            files = sorted((FOLDER / "measured").glob(f"{one['case']}_*.jsonl"))
            for path in files if one["case"] not in outcome else []:
                tokens, losses = _ids(path.stem), _losses(path.stem)
                same = tokens[:losses[0]] == plain[:losses[0]]
                for layers, start, stop in zip(one["layers"], losses, [*losses[1:], len(tokens)], strict=True):
                    key = (*layers.items(), *tokens[:start])
                    if key not in fresh:
                        fresh[key] = _fresh(layers, tokens[:start], Path(folder) / f"{len(fresh)}.jsonl")
                    same &= tokens[start:stop] == fresh[key][:stop - start]
                outcome[one["case"]] = same and len(tokens) == len(plain) and outcome.get(one["case"], True)
    (FOLDER / "verified.json").write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    print(outcome)


def _fresh(layers: dict[str, int], received: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """What a cluster of the survivors alone says behind these tokens."""
    asked = split(layers, "fresh")
    left = asked.workload.output_tokens - len(received)
    workload = asked.workload.model_copy(update={"output_tokens": left})
    return run_dropout(asked.model_copy(update={"workload": workload}), (), path, received=received).tokens


def _ids(name: str) -> tuple[int, ...]:
    return tuple(event["id"] for event in read_measurement(FOLDER / "measured" / f"{name}.jsonl").of("token"))


def _losses(name: str) -> list[int]:
    """How many tokens the reply had at each loss."""
    found = read_measurement(FOLDER / "measured" / f"{name}.jsonl")
    times = [event["t_ns"] for event in found.of("token")]
    return [sum(t <= event["end_ns"] for t in times) for event in found.of("phase") if event["phase"] == "detect"]


def _measured(name: str, done: Dropped, plain: tuple[int, ...]) -> dict[str, Any]:
    """What one case came to; the first recovery is the one that is predicted."""
    return {
        "case": name, "created": _now(), "recovery_s": done.recoveries[0].seconds,
        "phases_s": [one.phases_s() for one in done.recoveries], "layers": [one.layers for one in done.recoveries],
        "tokens_per_s": {"before": done.before, "after": done.after},
        "tokens": len(done.tokens), "same_tokens": done.tokens == plain,
    }


def _lines(kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]


def _rows() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Prediction and measurement of each case; repeated ones are medians."""
    measured = _lines("measured")
    for said in _lines("predictions"):
        turns = [one for one in measured if one["case"] == said["case"]]
        rates = {name: median(one["tokens_per_s"][name] for one in turns) for name in ("before", "after")}
        phases = {name: median(one["phases_s"][0][name] for one in turns) for name in PHASES}
        yield said, {"recovery_s": median(one["recovery_s"] for one in turns), "tokens_per_s": rates, "phases_s": phases}


def report() -> None:
    """Errors of every case, hits and misses, and the plot."""
    table, errors = [], {"recovery": [], "after": []}  # type: tuple[list[str], dict[str, list[float]]]
    inside, verified = 0, json.loads((FOLDER / "verified.json").read_text(encoding="utf-8"))
    for said, was in _rows():
        guess, after = said["recovery_s"], said["tokens_per_s"]["after"]
        errors["recovery"].append(guess["median"] / was["recovery_s"] - 1)
        errors["after"].append(after["median"] / was["tokens_per_s"]["after"] - 1)
        inside += guess["p05"] <= was["recovery_s"] <= guess["p95"]
        same = "yes" if verified[said["case"]] else "NO"
        table.append(f"| {said['case']} | {guess['median']:.2f} [{guess['p05']:.2f}, {guess['p95']:.2f}] | {was['recovery_s']:.2f} | "
                     f"{errors['recovery'][-1]:+.0%} | {was['tokens_per_s']['before']:.1f} | {after['median']:.1f} | "
                     f"{was['tokens_per_s']['after']:.1f} | {errors['after'][-1]:+.1%} | {same} |")
    typical = {name: median(map(abs, values)) for name, values in errors.items()}
    text = (FOLDER / "preface.md").read_text(encoding="utf-8") + "\n".join([
        "", f"- Recovery time: median error {typical['recovery']:.0%} (wanted: {TARGET_RECOVERY:.0%}), largest "
        f"{max(map(abs, errors['recovery'])):.0%}; {inside} of {len(table)} inside the predicted 90 %.",
        f"- Tokens/s after: median error {typical['after']:.1%} (wanted: {TARGET_RATE:.0%}), largest {max(map(abs, errors['after'])):.1%}.",
        "", "| case | recovery predicted (s) | measured (s) | error | tokens/s before | after: predicted | measured | error | tokens right |",
        "|---|---|---|---|---|---|---|---|---|", *table, "", "## Phases of the first recovery (s): predicted median / measured", "",
        *_phase_rows(), "", f"![recovery of {PICTURED}](recovery.svg)", ""])
    (FOLDER / "report.md").write_text(text, encoding="utf-8")
    save(recovery_table(_predicted(PICTURED), _line(PICTURED)), FOLDER, "recovery")
    print(text)


def _phase_rows() -> list[str]:
    rows = [f"| case | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
    for said, was in _rows():
        cells = [f"{said['phases_s'].get(name, {'median': 0})['median']:.2f} / {was['phases_s'][name]:.2f}" for name in PHASES]
        rows.append(f"| {said['case']} | {' | '.join(cells)} |")
    return rows


def _line(name: str) -> list[tuple[float, float]]:
    """The measured rate around the fault."""
    import numpy as np

    found = read_measurement(FOLDER / "measured" / f"{name}_1.jsonl")
    times_s = found.token_times_s()[0, 0].tolist()
    fault_s = next(event["start_ns"] for event in found.of("phase")) / 1e9
    token = sum(time_s <= fault_s for time_s in times_s)
    at_s = np.linspace(0.0, times_s[-1], 300)
    return [(t - fault_s, rate) for t, rate in zip(at_s.tolist(), rate_at(times_s, [token], at_s).tolist(), strict=True)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    {"calibrate": calibrate_all, "drills": drills, "laws": laws, "predict": predict, "measure": measure_all, "verify": verify, "report": report}[sys.argv[1]]()
