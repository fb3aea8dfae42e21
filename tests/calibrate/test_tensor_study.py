"""Recorded EXO with Tensor sharding: calibrated without delay, predicted with it."""

from __future__ import annotations

from pathlib import Path

from calibrate.samples import sample
from calibrate.study import StudySplit, run_split
from simulator.result.measurement import read_measurement

RESULTS = Path(__file__).parents[2] / "results" / "exo"


def predicted(layers: str, *others: str) -> StudySplit:
    """One rank alone and two with Tensor at no delay calibrate; `others` are predicted."""
    training = [f"T_pipe1_{layers}_0ms", f"T_tensor2_{layers}_0ms"]
    found = []
    for name in (*training, *others):
        folder = RESULTS / ("campaign2" if "pipe" in name else "tensor") / "measurements"
        found.append(sample(read_measurement(folder / f"{name}.jsonl.gz"), first_token_is_enough=True))
    return run_split("test", found, training, draws=100)


def test_other_delays() -> None:
    split = predicted("24L", "T_tensor2_24L_0.5ms", "T_tensor2_24L_2ms")
    assert all(abs(row.median_error) <= 0.06 and row.in_90 for row in split.validations)
    assert all(abs(row.error) <= 0.15 for row in split.first_tokens)


def test_a_strategy_that_was_not_trained() -> None:
    """The same machines in a pipeline, their hops learned from all-reduces."""
    split = predicted("24L", "T_pipe2_24L_0ms", "T_pipe2_24L_0.5ms", "T_pipe2_24L_2ms")
    assert all(abs(row.median_error) <= 0.06 and row.in_90 for row in split.validations)


def test_three_ranks_from_two() -> None:
    """Two placements alone check each other badly: medians are 1 to 14 % off, inside their intervals."""
    names = [f"T_tensor3_12L_{delay}" for delay in ("0ms", "0.5ms", "2ms")]
    split = predicted("12L", "T_tensor2_12L_0.5ms", *names)
    assert all(abs(row.median_error) <= 0.18 and row.in_90 for row in split.validations)
