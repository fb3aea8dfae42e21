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

from live.local.petals.dropout import SwarmDropped, SwarmLoss, run_loss
from live.local.petals.quick import quick_scenario
from simulator.errors import SimulatorError
from simulator.files import make_folder, write_ours
from simulator.scenario import Scenario
from simulator.swarm.loss import NEVER

__all__ = ["CASES", "Case", "main"]

TOKENS = 150
AT_TOKEN = 12
REPAIRED = ("eof", "replay")


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
    asked = parser.parse_args(arguments)
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


def count(attempts: int) -> str:
    """A number of attempts in words."""
    return "never goes on" if attempts == NEVER else str(attempts)


def seconds(value: float | None) -> str:
    """Seconds, or that there are none."""
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
