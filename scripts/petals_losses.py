"""Losses of servers of a real local Petals swarm, each
predicted before it is made: `python scripts/petals_losses.py`.

Four servers at most, of which one is a spare for the first blocks; a client that looks every few seconds, so
that a recovery takes seconds instead of minutes. Writes a Measurement for each case and `report.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from live.local.petals.dropout import LATE_S, SwarmDropped, SwarmLoss, run_loss
from live.local.petals.quick import quick_scenario
from simulator.errors import SimulatorError
from simulator.files import make_folder, write_ours
from simulator.result.measurement import Measurement, read_measurement
from simulator.scenario import Scenario
from simulator.swarm.loss import NEVER, LossPrediction, predict_loss
from simulator.swarm_spec import LossSpec

__all__ = ["CASES", "Case", "main"]

TOKENS = 150
AT_TOKEN = 12
REPAIRED = ("eof", "replay")
STARTS_S = 4.0  # of one server alone; no file holds how long it was, and any between none and 7 s tells the same attempt


@dataclass(frozen=True)
class Case:
    """One loss, of the first server."""

    name: str
    mode: str = "kill"
    after_look_s: float | None = None
    back_after_s: float | None = None
    spare: bool = True
    repairs: tuple[str, ...] = REPAIRED
    swarm: dict[str, str] = field(default_factory=dict)


# the next look decides: it comes 5 s (or 3 s) after the one
# before, attempts come 0, 1, 3, 7, 15 s after the notice
CASES = (
    Case("kill_look_soon", after_look_s=4.7),
    Case("kill_look_in_2s", after_look_s=3.3),
    Case("kill_look_in_3s", after_look_s=2.9),
    Case("kill_look_in_4s", after_look_s=1.2),
    Case("kill_look_just_was", after_look_s=0.3),
    Case("kill_short_period", after_look_s=1.0, swarm={"update_period": "3 s"}),
    Case("kill_short_period_soon", after_look_s=2.7, swarm={"update_period": "3 s"}),
    Case("kill_short_backoff", after_look_s=1.5, swarm={"max_backoff": "1 s"}),
    Case("restart_no_spare", after_look_s=2.0, back_after_s=8.0, spare=False),
    Case("hang_noticed", "hang", 1.5, swarm={"request_timeout": "12 s", "update_period": "3 s"}),
    Case("hang_resumed", "hang", 2.0, back_after_s=4.0, swarm={"request_timeout": "12 s"}),
    Case("dark_noticed", "dark", 1.5, swarm={"request_timeout": "12 s", "update_period": "3 s"}),
    Case("as_shipped", after_look_s=2.0, repairs=(), swarm={"request_timeout": "3 s", "patience": "10 s"}),
)


def scenario_of(case: Case) -> Scenario:
    """Three servers 3 ms away, and perhaps a spare that is
    far: whoever serves at first is then no matter of chance.
    """
    base = quick_scenario(3, delay="3 ms", output_tokens=TOKENS)
    told: dict[str, Any] = base.model_dump(mode="json")
    swarm: dict[str, Any] = {
        "update_period": "5 s",
        "announce_period": "10 s",
        "patience": "30 s",
        "repairs": list(case.repairs),
        **case.swarm,
    }
    if case.spare:
        link = {"delay": {"law": "constant", "value": "40 ms"}, "rate": "1 Gbit/s", "label": "measured"}
        told["devices"]["spare"] = {**told["devices"]["server1"], "link": link}
        swarm["stays"] = {"spare": {"span": [0, 6]}}
    return base.replace(name=case.name, devices=told["devices"], swarm=swarm)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that are named, else all; returns how many could not be run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("results/local_petals_losses"))
    parser.add_argument(
        "--renew", action="store_true", help="Predict what lies in --out anew, and measure nothing."
    )
    asked = parser.parse_args(arguments)
    if asked.renew:
        write_ours(asked.out / "renewed.md", renewed(asked.out))
        return 0
    make_folder(asked.out)
    rows, failed = [], 0
    for case in CASES:
        if asked.names and case.name not in asked.names:
            continue
        loss = SwarmLoss("server1", AT_TOKEN, case.mode, case.after_look_s, case.back_after_s)  # type: ignore[arg-type]
        try:
            done = run_loss(scenario_of(case), loss, asked.out / f"{case.name}.jsonl", say)
            rows.append((case, done))
        except SimulatorError as error:
            failed += 1
            say(f"{case.name}: not run: {error}")
    write_ours(asked.out / "report.md", report(rows))
    sys.stdout.write(report(rows))
    return failed


def say(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def report(rows: Sequence[tuple[Case, SwarmDropped]]) -> str:
    """A table for people, with the two figures that count."""
    lines = [
        "# Losses of servers of a local Petals swarm, predicted before they were made",
        "",
        "| case | attempts predicted | measured | seconds predicted | measured | error |",
        "|---|---|---|---|---|---|",
    ]
    right, determined, errors = 0, 0, []
    for case, done in rows:
        told, measured_s = done.predicted, done.recoveries[0].seconds if done.recoveries else None
        if told is None:
            lines.append(f"| {case.name} | - | {count(done.attempts)} | - | {seconds(measured_s)} | - |")
            continue
        if told.is_determined:
            determined += 1
            right += told.likeliest == done.attempts
        error = None
        if told.recovery_s is not None and measured_s is not None:
            error = told.recovery_s[1] / measured_s - 1
            errors.append(abs(error))
        shares = ", ".join(f"{count(number)} ({share:.0%})" for number, share in told.attempts.items())
        lines.append(
            f"| {case.name} | {shares} | {count(done.attempts)} "
            f"| {seconds(told.recovery_s[1] if told.recovery_s else None)} | {seconds(measured_s)} "
            f"| {'-' if error is None else f'{error:+.1%}'} |"
        )
    lines += ["", f"Attempt number right in {right} of {determined} cases in which chance has no part in it."]
    if errors:
        lines.append(
            f"Time until the reply goes on: median error {median(errors):.1%}, worst {max(errors):.1%}."
        )
    return "\n".join(lines) + "\n"


def renewed(folder: Path) -> str:
    """Today's predictions of the losses that lie in a folder, beside those of their day."""
    lines = [
        "# The same losses, predicted anew",
        "",
        "Renewed, not blind: these losses had been looked at when the simulator was mended, though no figure was taken "
        "from them. What was predicted before each is in `report.md`. Made by `scripts/petals_losses.py --renew`.",
        "",
        "| case | attempts measured | renewed | seconds measured | then | error | renewed | error |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    errors: list[tuple[float, float]] = []
    for case in CASES:
        found = read_measurement(folder / f"{case.name}.jsonl")
        phases, (loss,) = list(found.of("phase")), found.of("loss")
        told = predicted_anew(case, found)
        if told is None or told.recovery_s is None or not phases or loss["attempts"] == NEVER:
            lines.append(
                f"| {case.name} | {count(loss['attempts'])} | {count(told.likeliest) if told else '-'} |  |  |  |  |  |"
            )
            continue
        was_s = (phases[-1]["end_ns"] - phases[0]["start_ns"]) / 1e9
        then_s, now_s = loss["predicted"]["recovery_s"][1], told.recovery_s[1]
        errors.append((then_s / was_s - 1, now_s / was_s - 1))
        lines.append(
            f"| {case.name} | {count(loss['attempts'])} | {count(told.likeliest)} | {was_s:.2f} | {then_s:.2f} "
            f"| {errors[-1][0]:+.1%} | {now_s:.2f} | {errors[-1][1]:+.1%} |"
        )
    of = [
        f"{median(map(abs, some)):.1%} at the median, {max(map(abs, some)):.1%} at worst"
        for some in zip(*errors, strict=True)
    ]
    return "\n".join([*lines, "", f"Time until the reply goes on: then {of[0]}; renewed {of[1]}.", ""])


def predicted_anew(case: Case, found: Measurement) -> LossPrediction | None:
    """Of the server that went, by what was known before it did."""
    scenario = Scenario.model_validate(found.provenance.scenario)
    stays = scenario.swarm.stays if scenario.swarm else {}
    spans = {one.device: (one.start_layer, one.end_layer) for one in found.provenance.placement[1:]}
    spans |= {name: stay.span for name, stay in stays.items() if stay.span}
    after_s = (case.after_look_s or 0.0) + LATE_S / 2
    back_s = None
    if case.back_after_s is not None:
        back_s = case.back_after_s + (STARTS_S if case.mode == "kill" else 0.0)
    told = {
        "server": next(iter(found.of("loss")))["device"],
        "at": f"{after_s} s",
        "how": "kill" if case.mode == "kill" else "hang",
    }
    return predict_loss(
        scenario, spans, LossSpec.model_validate(told | {"back_after": back_s and f"{back_s} s"})
    )


def count(attempts: int) -> str:
    """A number of attempts in words."""
    return "never goes on" if attempts == NEVER else str(attempts)


def seconds(value: float | None) -> str:
    """Seconds, or that there are none."""
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
