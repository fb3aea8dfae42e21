"""Whole numbers of layers from weights: proportional, between one and a cap each."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

__all__ = ["apportion"]


def apportion(total: int, weights: Sequence[float], caps: Sequence[int]) -> tuple[int, ...]:
    """Split `total` in proportion to `weights`, at least 1 and at most `caps[i]` each;
    the result sums to `total`.

    Water-filling: quota_i = min(max(level * weight_i, 1), cap_i), with the one level at which the quotas sum
    to `total`; then the largest remainders are rounded up, ties to the earlier. Computed in exact fractions,
    so a greater weight under an equal or greater cap never gets less. Raises ValueError unless len(weights)
    <= total <= sum(caps), all weights > 0 and all caps >= 1.
    """
    if not len(weights) <= total <= sum(caps) or min(weights) <= 0 or min(caps) < 1:
        raise ValueError(f"cannot give {total} to weights {list(weights)} under caps {list(caps)}")
    quotas = _quotas(total, [Fraction(weight) for weight in weights], caps)
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda at: shares[at] - quotas[at])
    for at in by_remainder[: total - sum(shares)]:
        shares[at] += 1
    return tuple(shares)


def _quotas(total: int, weights: Sequence[Fraction], caps: Sequence[int]) -> list[Fraction]:
    """Exact quotas that sum to `total`, each within [1, cap]."""

    def at_level(level: Fraction) -> list[Fraction]:
        return [
            min(max(level * weight, Fraction(1)), Fraction(cap))
            for weight, cap in zip(weights, caps, strict=True)
        ]

    # The sum of quotas is a piecewise straight line in the level, with bends where a quota
    # leaves 1 or meets its cap.
    bends = {bound / weight for weight, cap in zip(weights, caps, strict=True) for bound in (1, cap)}
    below = max((bend for bend in bends if sum(at_level(bend)) <= total), default=Fraction(0))
    quotas = at_level(below)
    # only who is between the bounds takes more as the level rises, in proportion to its weight
    rising = [weight for weight, cap in zip(weights, caps, strict=True) if 1 <= below * weight < cap]
    if not rising:
        return quotas
    return at_level(below + (total - sum(quotas)) / sum(rising, Fraction(0)))
