"""Summary: what a set of token times says, simulated or measured, by the same code.

Definitions, as EXO's own benchmark has them: tokens/s of a chat is (n - 1) /
(last - first token time), so the prompt does not count; the first-token time
runs from the request; inter-token time is the gap between neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.laws.law import Floats
from simulator.result.estimate import Estimate, estimate
from simulator.scenario import Label

__all__ = ["Summary", "inter_token_s", "rates", "summarise", "tokens_per_s"]


BLOCK_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Summary:
    """Estimates over rows (replications, or measured runs)."""

    tokens_per_s: Estimate
    """Of one chat."""
    total_tokens_per_s: Estimate
    """Of all chats together, from the first token of any to the last token of any."""
    first_token_s: Estimate
    inter_token_p50_s: Estimate
    inter_token_p90_s: Estimate
    inter_token_p99_s: Estimate

    def inter_token_document(self) -> dict[str, Any]:
        """The inter-token times as plain data, for JSON: medians, and the ends of their intervals."""
        gaps = {"p50": self.inter_token_p50_s, "p90": self.inter_token_p90_s, "p99": self.inter_token_p99_s}
        return {
            "inter_token_s": {name: gap.median for name, gap in gaps.items()},
            "inter_token_interval_s": {name: [gap.p05, gap.p95] for name, gap in gaps.items()},
        }


def inter_token_s(times_s: Floats) -> Floats:
    """Gaps between neighbouring tokens; tokens along axis -2, rows along axis -1."""
    return np.diff(times_s, axis=-2)


def tokens_per_s(times_s: Floats) -> Floats:
    """Decode rate of each stream and row, `(n - 1) / (last - first)`; shape (..., rows)."""
    return np.asarray((times_s.shape[-2] - 1) / (times_s[..., -1, :] - times_s[..., 0, :]))


def rates(times_s: Floats) -> Floats:
    """Tokens/s of one chat for each row, the mean over streams, shape (rows,)."""
    return np.asarray(tokens_per_s(times_s).mean(axis=0))


def _gap_quantiles(times_s: Floats) -> Floats:
    """Median, 90th and 99th percentile of the gaps of each row; by blocks: each is copied twice."""
    streams, tokens, rows = times_s.shape
    step = max(1, BLOCK_TOKENS // (streams * tokens))
    gaps = (inter_token_s(times_s[:, :, first : first + step]) for first in range(0, rows, step))
    return np.concatenate([np.quantile(block, [0.5, 0.9, 0.99], axis=(0, 1)) for block in gaps], axis=1)


def summarise(times_s: Floats, chats: Sequence[int], label: Label = "assumed") -> Summary:
    """Summary of token times of shape (streams, tokens, rows); stream i stands for
    `chats[i]` chats in step.
    """
    # a stream that stands for eight chats in step counts eight times
    weights = np.asarray(chats, dtype=float)
    rate = np.average(tokens_per_s(times_s), axis=0, weights=weights)
    span_s = times_s[:, -1].max(axis=0) - times_s[:, 0].min(axis=0)
    total = weights.sum() * (times_s.shape[1] - 1) / span_s
    quantiles = _gap_quantiles(times_s)
    return Summary(
        tokens_per_s=estimate(rate, label),
        total_tokens_per_s=estimate(total, label),
        first_token_s=estimate(np.average(times_s[:, 0], axis=0, weights=weights), label),
        inter_token_p50_s=estimate(quantiles[0], label),
        inter_token_p90_s=estimate(quantiles[1], label),
        inter_token_p99_s=estimate(quantiles[2], label),
    )
