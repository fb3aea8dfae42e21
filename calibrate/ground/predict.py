"""Predict the cases: a mixture over the ways to read the source, against what the source measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from calibrate.ground.cases import Case, readings
from calibrate.ground.rows import Part, Row
from calibrate.validation import LEVELS, QUANTILES
from simulator.engine.base import engine
from simulator.errors import CalibrationError
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.result.estimate import rounded
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from simulator.spec import Spec

__all__ = ["Outcome", "chosen", "group_of", "predict_cases", "samples_s"]

Quantity = Literal["decode", "first token"]
LONG_PROMPT_TOKENS = 4096
"""From here on a source is about its context, not about its machines."""


class Outcome(Spec):
    """One measured figure of a row beside its prediction, both in seconds."""

    row: str
    source: str
    part: Part
    group: str
    quantity: Quantity
    is_apart: bool
    """Whether its row is of another engine, or of devices that nobody has at home."""
    devices: str
    model: str
    readings: int
    """Ways to read the source that were mixed."""
    measured_s: float
    """Per token of all replies together, or to the first token."""
    predicted_s: tuple[float, ...]
    """Quantiles of the prediction (`calibrate.validation.QUANTILES`)."""

    @property
    def median_s(self) -> float:
        """The predicted median."""
        return self.predicted_s[len(LEVELS)]

    @property
    def error(self) -> float:
        """`predicted / measured - 1`."""
        return self.median_s / self.measured_s - 1

    def interval_s(self, level: int) -> tuple[float, float]:
        """The predicted interval of a level of `LEVELS` (%)."""
        at = len(LEVELS) - 1 - LEVELS.index(level)
        return self.predicted_s[at], self.predicted_s[-1 - at]

    def holds(self, level: int) -> bool:
        """Whether the interval of that level holds the measurement."""
        low, high = self.interval_s(level)
        return low <= self.measured_s <= high

    @property
    def width(self) -> float:
        """How wide the 90 % interval is, as a share of the median."""
        low, high = self.interval_s(90)
        return (high - low) / self.median_s


def predict_cases(
    cases: Iterable[Case],
    rows: Mapping[str, Row],
    parts: Mapping[str, Part],
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Every measured figure of every case, predicted; `progress` is told each row before it begins.

    Raises CalibrationError for a case without a row, or whose row has no figure.
    """
    for case in cases:
        row = rows.get(case.row)
        if row is None:
            raise CalibrationError(f"{case.row}: no such row in published_rows.csv; a case names its row")
        progress(case.row)
        yield from _outcomes(case, row, parts[row.source])


def chosen(
    cases: Sequence[Case], names: Sequence[str], rows: Mapping[str, Row], parts: Mapping[str, Part]
) -> tuple[Case, ...]:
    """The cases of those names, all without any; raises CalibrationError for an unknown or a counted one."""
    by_name = {case.row: case for case in cases}
    for name in names:
        if name not in by_name:
            raise CalibrationError(f"--row {name}: no such case; there are {', '.join(by_name)}")
        # the figures of one row alone are that row
        if name in rows and parts[rows[name].source] == "counted":
            raise CalibrationError(
                f"--row {name}: its source {rows[name].source} is only counted; leave --row out for figures"
            )
    return tuple(by_name[name] for name in names) if names else tuple(cases)


def group_of(case: Case, row: Row, quantity: Quantity = "decode") -> str:
    """The group of a figure: first token, or one of batch, long prompt, single, or swarm, pipeline or tensor
    by engine.

    What another engine measured, or a device that nobody has at home, is a group of its own.
    """
    apart = case.apart or ("another engine" if case.stands_for else "")
    if quantity == "first token":
        kind: str = quantity
    elif row.batch != 1:
        kind = "batch"
    elif (row.prompt_tokens or 0) >= LONG_PROMPT_TOKENS:
        kind = "long prompt"
    elif row.strategy == "single":
        kind = "single"
    else:
        flow = engine(case.scenario.engine.name)
        strategy = "swarm" if flow.forms_swarm else row.strategy
        kind = f"{strategy}, {flow.name.removesuffix('-tensor')}"
    return f"{kind}, {apart}" if apart else kind


def _outcomes(case: Case, row: Row, part: Part) -> Iterator[Outcome]:
    measured = _measured_s(row)
    if not measured:
        raise CalibrationError(f"{case.row}: its row has no figure that could be predicted; exclude it")
    scenarios = readings(case)
    samples = [samples_s(scenario, case.rate) for scenario in scenarios]
    for quantity, figure_s in measured.items():
        values = np.concatenate([sample[quantity] for sample in samples])
        yield Outcome(
            row=row.row,
            source=row.source,
            part=part,
            group=group_of(case, row, quantity),
            quantity=quantity,
            is_apart=bool(case.apart or case.stands_for),
            devices=row.devices,
            model=f"{row.model} {row.quantisation}".strip(),
            readings=len(scenarios),
            measured_s=rounded(figure_s),
            predicted_s=tuple(rounded(float(value)) for value in np.quantile(values, QUANTILES)),
        )


def _measured_s(row: Row) -> dict[Quantity, float]:
    """Seconds per token and to the first token, where the row has them."""
    found: dict[Quantity, float] = {}
    if row.decode_tokens_per_s is not None:
        found["decode"] = 1 / row.decode_tokens_per_s
    # a prompt's rate without its length says nothing of when the first token comes
    if row.prefill_tokens_per_s is not None and row.prompt_tokens:
        found["first token"] = row.prompt_tokens / row.prefill_tokens_per_s
    return found


def samples_s(scenario: Scenario, rate: Literal["decode", "whole", "unknown"]) -> dict[Quantity, Floats]:
    """Drawn seconds per token (of all replies together) and to the first token, shape (samples,).

    `rate` says what a token's share is of: from first token to last, of the whole with the prompt, or, as
    nobody said it, half of each.
    """
    job = prepare(scenario).job
    times_s = token_times_s(job, scenario.replications * scenario.workload.runs)
    # a stream may be a whole batch, whose replies come together
    replies = np.array(engine(job.engine.name).chats(job))[:, None]
    tokens = times_s.shape[1]
    decode = 1 / (replies * (tokens - 1) / (times_s[:, -1] - times_s[:, 0])).sum(axis=0)
    whole = times_s[:, -1].max(axis=0) / (replies.sum() * tokens)
    chosen = {"decode": [decode], "whole": [whole], "unknown": [decode, whole]}[rate]
    return {"decode": np.concatenate(chosen), "first token": times_s[0, 0]}
