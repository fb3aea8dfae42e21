"""What the errors of the catalogue have in common: their variance by chip, by model and by report.

Log ratios, in units of their platform's log sd, are taken as `platform mean + chip + model on that platform +
chip with model + report`; the variances are those of the greatest restricted likelihood (Patterson and
Thompson, Biometrika 58 (1971) 545-554), all platforms together because most have a handful of chips.

Devices of one home share all but their own silicon and heat: chip, and chip with model, where they are of one
kind; model where they are of one platform; and the report too, for the version of the software, its settings and
whoever set it up are the same for all devices of a platform in one scenario.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from fit_catalog_model import LATENT_PRIOR, Fit, log_ratio
from fit_catalog_rows import Sample
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["Parts", "part_rows", "parts_of"]

Floats = NDArray[np.float64]
CLIP = 3.0  # standard deviations: a wild row is no tenth of a variance
OWN = {
    "decode": (0.01, "from memory: where memory is the limit, equal GPUs differ by about 1 %"),
    "prefill": (0.04, "Sinha et al., SC 2022 (arXiv:2208.11035): equal GPUs differ by 8 % from end to end"),
}


@dataclass(frozen=True)
class Parts:
    """Shares of the variance of a log ratio around its platform's mean; they add up to 1."""

    chip: float
    model: float
    chip_with_model: float
    report: float
    rows: int


def parts_of(samples: Sequence[Sample], fits: Sequence[Fit]) -> Parts:
    """The shares, by restricted maximum likelihood; `fits[i]` is that of the platform of `samples[i]`."""
    ratios = [log_ratio(s, f) / f.log_sd for s, f in zip(samples, fits, strict=True)]
    y = np.clip(ratios, -CLIP, CLIP)
    where: list[Callable[[Sample], Hashable]] = [
        lambda s: (s.platform, s.runtime, s.chip),
        lambda s: (s.platform, s.runtime, s.model),
        lambda s: (s.platform, s.runtime, s.chip, s.model),
    ]
    alike = [z @ z.T for z in (_membership(samples, key) for key in where)] + [np.eye(len(y))]
    means = _membership(samples, lambda s: (s.platform, s.runtime))
    start = np.log(np.full(len(alike), 0.5))
    found = minimize(
        lambda logs: _deviance(sum(np.exp(2 * a) * g for a, g in zip(logs, alike, strict=True)), means, y),
        start,
        method="Nelder-Mead",
        options={"maxiter": 600, "xatol": 0.01, "fatol": 0.001},
    )
    variances = np.exp(2 * found.x)
    return Parts(*(variances / variances.sum()).tolist(), rows=len(y))


def _membership(samples: Sequence[Sample], key: Callable[[Sample], Hashable]) -> Floats:
    groups = {name: at for at, name in enumerate(dict.fromkeys(map(key, samples)))}
    table = np.zeros((len(samples), len(groups)))
    table[np.arange(len(samples)), [groups[key(sample)] for sample in samples]] = 1
    return table


def _deviance(covariance: Floats, means: Floats, y: Floats) -> float:
    """Minus the restricted log likelihood, but for a constant."""
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(y)))
    x, z = np.linalg.solve(root, means), np.linalg.solve(root, y)
    gram = x.T @ x
    rest = z - x @ np.linalg.solve(gram, x.T @ z)
    return float(np.log(np.diag(root)).sum() + np.linalg.slogdet(gram)[1] / 2 + rest @ rest / 2)


def part_rows(parts: dict[str, Parts]) -> list[dict[str, str]]:
    """The rows of error_parts.csv, by phase."""
    return [
        {
            "phase": phase,
            "platform_share": f"{found.report:.2f}",
            "kind_share": f"{found.chip + found.chip_with_model:.2f}",
            "model_share": f"{1 - round(found.report, 2) - round(found.chip + found.chip_with_model, 2):.2f}",
            "own_log_sd": f"{OWN[phase][0]:g}",
            "latent_log_sd": f"{LATENT_PRIOR[1] if phase == 'prefill' else 0:g}",
            "rows": str(found.rows),
            "source": f"shares: scripts/fit_catalog.py; own: {OWN[phase][1]}",
        }
        for phase, found in parts.items()
    ]
