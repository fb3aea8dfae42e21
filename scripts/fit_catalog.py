"""Fit the platforms of the catalogue to published single-device
rates and report how well that predicts new devices.

Usage: python scripts/fit_catalog.py [--check]

Writes `platforms.csv`, `measured_chips.csv`, `generation_speeds.csv` and `error_parts.csv` in
simulator/catalog/data, and results/catalog/
(README.md, the held-out cases, a picture). Each chip is predicted by a fit that never saw it;
only then are the shipped values fitted to all rows. With --check nothing is written and the
exit code tells whether the shipped values are the ones this makes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from fit_catalog_model import MIN_SPREAD, Fit, fit, log_ratio  # noqa: E402 (needs the path above)
from fit_catalog_parts import Parts, part_rows, parts_of  # noqa: E402
from fit_catalog_rows import Sample, clean, published_rows  # noqa: E402

from simulator.catalog.speed import Phase, generation_of  # noqa: E402
from simulator.catalog.tables import DATA  # noqa: E402

RESULTS = ROOT / "results" / "catalog"
FOLDS = 5  # by hash of the chip's name; below twice as many chips each chip is its own fold
# leaned on where chips are few; about the pooled held-out spread
SPREAD_PRIOR = {"decode": 0.3, "prefill": 0.45}
CLEAR_GAIN = 0.8  # a chip's own value must cut the error by a fifth, or the choice would follow noise
# half width of a normal interval in standard deviations
INTERVALS = {"50 %": 0.6745, "80 %": 1.2816, "90 %": 1.6449}

Key = tuple[str, str, Phase]  # platform, runtime, phase


@dataclass(frozen=True)
class Case:
    """One chip with one model: the median log ratio of its rows, predicted by a fit without that chip."""

    key: Key
    chip: str
    model: str
    log_ratio: float
    log_sd: float
    measured_s: float
    rows: int


@dataclass(frozen=True)
class MeasuredTest:
    """One model on one chip: log ratio to the platform's
    prediction, and to that of the chip's other models.
    """

    key: Key
    chip: str
    model: str
    by_platform: float
    by_chip: float
    of_rows: tuple[float, ...]
    """The same of each row, to that of the chip's other models."""


def grouped(samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    """Samples by platform, runtime and phase."""
    groups: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.platform, sample.runtime, sample.phase].append(sample)
    return dict(sorted(groups.items()))


def fold_of(chip: str, chips: int) -> str:
    """The fold of a chip: the same on every machine and in every run."""
    if chips < 2 * FOLDS:
        return chip
    return str(int(hashlib.sha256(chip.encode()).hexdigest(), 16) % FOLDS)


def fit_all(groups: dict[Key, list[Sample]]) -> dict[Key, Fit]:
    """The shipped fits, to all rows; a runtime other than
    llama.cpp leans on the spread that llama.cpp has there.
    """
    fits: dict[Key, Fit] = {}
    for key, group in sorted(groups.items(), key=lambda item: item[0][1]):
        usual = fits.get((key[0], "llama.cpp", key[2]))
        fits[key] = fit(group, usual.log_sd if usual else SPREAD_PRIOR[key[2]])
    return {key: fits[key] for key in groups}


def held_out(key: Key, samples: Sequence[Sample]) -> list[Case]:
    """Every chip of the group predicted by a fit to the others; empty where there is only one chip."""
    chips = {sample.chip for sample in samples}
    if len(chips) < 2:
        return []
    folds: dict[str, set[str]] = defaultdict(set)
    for chip in chips:
        folds[fold_of(chip, len(chips))].add(chip)
    cases = []
    for _, out in sorted(folds.items()):
        fitted = fit([sample for sample in samples if sample.chip not in out], SPREAD_PRIOR[key[2]])
        left_out = [sample for sample in samples if sample.chip in out and not sample.is_own]
        cases += _cases(key, left_out, fitted)
    return cases


def _cases(key: Key, samples: Sequence[Sample], fitted: Fit) -> list[Case]:
    ratios: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        ratios[sample.chip, sample.model].append((log_ratio(sample, fitted), sample.seconds_per_token))
    return [
        Case(
            key,
            chip,
            model,
            median(r for r, _ in values),
            fitted.log_sd,
            median(s for _, s in values),
            len(values),
        )
        for (chip, model), values in sorted(ratios.items())
    ]


def errors(cases: Sequence[Case]) -> dict[str, float]:
    """Median and 90th percentile of |predicted/measured - 1|, and the coverage of the intervals."""
    if not cases:
        return {}
    relative = [abs(exp(-case.log_ratio) - 1) for case in cases]
    inside = {
        name: sum(abs(case.log_ratio) <= z * case.log_sd for case in cases) / len(cases)
        for name, z in INTERVALS.items()
    }
    return {"median": median(relative), "p90": float(np.quantile(relative, 0.9)), **inside}


def measured_chips(
    samples: Sequence[Sample], fits: dict[Key, Fit]
) -> tuple[list[dict[str, str]], list[MeasuredTest]]:
    """Effective decode bandwidth and prompt flop/s of each chip with two
    models or more, where that predicts better than the platform.

    A row of decoding implies `(weights + k KV) / (seconds - layers * overhead)` bytes/s. A chip's value is
    the platform's times `exp(n / (n + 1) * median log ratio)` over its n models: one model's worth of doubt.
    The test predicts each model from the chip's others; a platform whose chips are not predicted clearly
    better that way, and with less spread than the platform has for a new device, offers no measured values.
    Of a chip with rows of its own alone (newer backends) these are the ones that count. The spread is that
    of single rows: who measures has one build and one backend.
    """
    implied: dict[tuple[Key, str], dict[str, list[float]]] = {}
    older: dict[tuple[Key, str, str], list[float]] = {}
    for key, group in grouped(samples).items():
        newer = {sample.chip for sample in group if sample.is_own}
        current = [sample for sample in group if sample.is_own or sample.chip not in newer]
        now, old = ([s for s in current if s.is_old == is_old] for is_old in (False, True))
        for (chip, model), ratios in _by_chip_and_model(now, fits[key]).items():
            implied.setdefault((key, chip), {})[model] = ratios
        for (chip, model), ratios in _by_chip_and_model(old, fits[key]).items():
            older[key, chip, model] = ratios
    tests = [
        _tested(key, chip, model, models, older.get((key, chip, model), []))
        for (key, chip), models in implied.items()
        if len(models) > 1
        for model in models
    ]
    peaks = {(sample.chip, sample.phase): sample.peak_per_s for sample in samples}
    rows = []
    for (key, chip), models in sorted(implied.items()):
        if len(models) < 2:
            continue
        mine = [test for test in tests if test.key == key]
        by_chip, by_platform = (
            _rms(getattr(test, name) for test in mine) for name in ("by_chip", "by_platform")
        )
        if by_chip < min(CLEAR_GAIN * by_platform, fits[key].log_sd):
            of_generation = dict(fits[key].generations).get(generation_of(key[0], chip, key[2]), 1.0)
            slower = _shrunk([median(ratios) for ratios in models.values()])
            per_s = peaks[chip, key[2]] * fits[key].eta * of_generation * exp(-slower)
            spread = sqrt(float(np.mean([_rms(test.of_rows) ** 2 for test in mine])))
            rows.append(_measured_row(key, chip, per_s, spread, len(models)))
    return rows, tests


def _tested(
    key: Key, chip: str, model: str, models: dict[str, list[float]], older: list[float]
) -> MeasuredTest:
    others = _shrunk([median(ratios) for name, ratios in models.items() if name != model])
    value, rows = median(models[model]), tuple(ratio - others for ratio in (*models[model], *older))
    return MeasuredTest(key, chip, model, value, value - others, rows)


def _shrunk(ratios: Sequence[float]) -> float:
    return median(ratios) * len(ratios) / (len(ratios) + 1)


def _rms(values: Iterable[float]) -> float:
    """Root mean square, each value clipped at a factor of 1.8 so that one odd row does not decide."""
    return sqrt(float(np.mean(np.clip(list(values), -0.6, 0.6) ** 2)))


def _measured_row(key: Key, chip: str, per_s: float, log_sd: float, models: int) -> dict[str, str]:
    return {
        "chip": chip,
        "platform": key[0],
        "runtime": key[1],
        "phase": key[2],
        "per_s": f"{per_s:.4g}",
        "log_sd": f"{max(log_sd, MIN_SPREAD):.3f}",
        "n_models": str(models),
        "source": "scripts/fit_catalog.py",
        "confidence": "measured",
    }


def _by_chip_and_model(samples: Sequence[Sample], fitted: Fit) -> dict[tuple[str, str], list[float]]:
    """Log ratio of the time of a prompt, or of that spent reading memory: what
    is left of a token after the fixed cost of the layers.
    """
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        if sample.phase == "prefill":
            ratios[sample.chip, sample.model].append(log_ratio(sample, fitted))
            continue
        fixed, read = fitted.fixed_s(sample), fitted.read_s(sample)
        if sample.seconds_per_token > 1.5 * fixed:
            ratios[sample.chip, sample.model].append(log((sample.seconds_per_token - fixed) / read))
    return ratios


def platform_rows(fits: dict[Key, Fit], errors_of: dict[Key, dict[str, float]]) -> list[dict[str, str]]:
    """One row of platforms.csv per platform and runtime with decode figures."""
    rows = []
    for platform, runtime, phase in fits:
        if phase == "decode":
            row = {"platform": platform, "runtime": runtime}
            for name in ("decode", "prefill"):
                key = (platform, runtime, name)
                row |= _columns(name, fits.get(key), errors_of.get(key, {}))
            rows.append(row)
    return rows


# columns that one phase has alone, and the parameter that each holds
EXTRA = {
    "decode": {
        "layer_overhead_s": "overhead_s",
        "kv_cost": "kv_cost",
        "unpacking_plain": "plain",
        "unpacking_nested": "nested",
        "size_factor": "size",
        "mixture_layer_cost": "mixture_layer",
    },
    "prefill": {"prefill_expert_fill": "fill", "prefill_latent_cost": "latent_cost"},
}


def _columns(phase: str, fitted: Fit | None, error: dict[str, float]) -> dict[str, str]:
    """The columns of one phase; empty where nothing was measured."""
    names = [f"{phase}_efficiency", f"{phase}_log_sd", f"{phase}_rows", f"{phase}_chips"]
    extra = EXTRA[phase]
    names.append(f"{phase}_mixture_cost")
    tests = {f"{phase}_held_out_{name.split()[0]}": value for name, value in error.items()}
    columns = dict.fromkeys([*names, *extra], "")
    columns |= {f"{phase}_held_out_{name}": "" for name in ("median", "p90", "50", "80", "90")}
    if fitted is None:
        return columns
    columns |= {names[0]: f"{fitted.eta:.4g}", names[1]: f"{fitted.log_sd:.3f}"}
    columns |= {
        names[2]: str(fitted.n_rows),
        names[3]: str(fitted.n_chips),
        names[4]: f"{fitted.mixture_cost:.3g}",
    }
    columns |= {name: f"{getattr(fitted, field):.3g}" for name, field in extra.items()}
    return columns | {name: f"{value:.3f}" for name, value in tests.items()}


def generation_rows(fits: dict[Key, Fit]) -> list[dict[str, str]]:
    """One row of generation_speeds.csv per platform, runtime, phase and generation that has a factor."""
    return [
        {
            "platform": platform,
            "runtime": runtime,
            "phase": phase,
            "generation": generation,
            "factor": f"{factor:.4g}",
            "source": "scripts/fit_catalog.py",
        }
        for (platform, runtime, phase), fitted in fits.items()
        for generation, factor in fitted.generations
    ]


def as_csv(rows: Sequence[dict[str, str]]) -> str:
    """The rows as CSV text with a heading."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parts(phase: str, groups: dict[Key, list[Sample]], fits: dict[Key, Fit]) -> Parts:
    chosen = [(key, sample) for key, group in groups.items() if key[2] == phase for sample in group]
    pairs = [(sample, fits[key]) for key, sample in chosen if not sample.is_own]
    return parts_of([sample for sample, _ in pairs], [fitted for _, fitted in pairs])


def main() -> int:
    """Clean, fit, test, write; returns the exit code."""
    samples, removed = clean()
    groups = grouped(sample for sample in samples if not sample.is_old)
    cases = {key: held_out(key, group) for key, group in groups.items()}
    fits = fit_all(groups)
    chips, tests = measured_chips(samples, fits)
    parts = {phase: _parts(phase, groups, fits) for phase in SPREAD_PRIOR}
    files = {
        DATA / "error_parts.csv": as_csv(part_rows(parts)),
        DATA / "platforms.csv": as_csv(
            platform_rows(fits, {key: errors(found) for key, found in cases.items()})
        ),
        DATA / "measured_chips.csv": as_csv(chips),
        DATA / "generation_speeds.csv": as_csv(generation_rows(fits)),
    }
    if "--check" in sys.argv:
        return int(any(path.read_text() != text for path, text in files.items()))
    for path, text in files.items():
        path.write_text(text)
    from fit_catalog_report import Study, write  # altair only where a picture is drawn

    write(RESULTS, Study(fits, cases, tests, removed, len(published_rows()), len(samples), parts), errors)
    for key, found in cases.items():
        print(*key, {name: round(value, 3) for name, value in errors(found).items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
