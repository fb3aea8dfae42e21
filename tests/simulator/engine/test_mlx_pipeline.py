"""mlx-lm's pipeline against its closed form, and beside EXO's, which numbers its ranks the other way."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.runtime.cost import decode_s, head_s
from tests.helpers import SMALL, by_recursion, device, job, link

DELAY_S, BYTES_PER_S = 0.001, 1e8


def gaps_s(engine_name: str, ranks: int, delay_s: float = DELAY_S) -> np.ndarray:
    side = link(delay_s / 2, rate=BYTES_PER_S)
    a_job = job([device(f"d{i}", link=side) for i in range(ranks)], engine_name)
    return np.diff(by_recursion(a_job, 1)[0, :, 0])[1:]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_token_goes_once_round(ranks: int) -> None:
    """All layers, one head, N delays, and N - 1 states there and as many gathered: N D + 2 (N - 1) S / beta."""
    one = device("d0")
    compute_s = float(decode_s(one, SMALL.stretch(0, SMALL.layers), 0.0)) + head_s(one, SMALL)
    delays_s = ranks * DELAY_S if ranks > 1 else 0.0
    bytes_s = 2 * (ranks - 1) * SMALL.activation_bytes / BYTES_PER_S
    assert gaps_s("mlx", ranks) == pytest.approx(compute_s + delays_s + bytes_s, rel=1e-9)


def test_exos_ring_pays_two_delays_less_two() -> None:
    """N against 2 (N - 1) delays: the same for two ranks, a third less for four."""
    rise = {
        (name, ranks): (gaps_s(name, ranks) - gaps_s(name, ranks, 0.0)).mean() / DELAY_S
        for name in ("exo", "mlx")
        for ranks in (2, 4)
    }
    assert rise["mlx", 2] == pytest.approx(rise["exo", 2])
    assert (rise["mlx", 4], rise["exo", 4]) == (pytest.approx(4), pytest.approx(6))


def test_the_head_is_on_every_rank_and_waited_for_by_the_next_token() -> None:
    """A slow head on the first rank costs; on a rank whose turn comes later it is hidden behind the others."""
    devices = [device(f"d{i}") for i in range(3)]
    slow = devices[0].speed.model_copy(update={"stage_overhead": 0.001})

    def gap_s(at: int | None) -> float:
        chosen = [device(f"d{i}", speed=slow) if i == at else one for i, one in enumerate(devices)]
        return float(np.diff(by_recursion(job(chosen, "mlx"), 1)[0, :, 0])[1:].mean())

    assert gap_s(0) == pytest.approx(gap_s(None) + 0.001)
    assert gap_s(2) == pytest.approx(gap_s(None))
