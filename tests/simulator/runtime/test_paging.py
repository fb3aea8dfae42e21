"""What exceeds a memory goes through a page cache: counted once, for the warning and for the charge."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import PlacementError
from simulator.files import loads
from simulator.layer import LayerKind
from simulator.model.stretch import Stretch
from simulator.prepare import prepare
from simulator.runtime.paging import paged_bytes, paging_s
from simulator.scenario import Scenario
from tests.helpers import SMALL, by_recursion, device, job

# 24 layers of 12 MB and 8 MB each of embedding and head; no KV cache to speak of
BARE = replace(SMALL, kv_bytes_per_token_per_layer=0.0)


def short_of(bytes_: float) -> list:
    """Two devices, 12 layers each, the first one short of so many bytes of what legacy EXO puts there."""
    needed = 12 * 12e6 + 8e6
    return [device("a", usable_bytes=needed - bytes_), device("b")]


@pytest.mark.parametrize("name", ["exo-legacy", "llama-rpc"])
def test_a_loop_longer_than_memory_is_read_again_whole(name: str) -> None:
    """12 layers of 12 MB at 1 GB/s are 144 ms, though 10 MB are missing; a device with room reads nothing."""
    found = job(short_of(10e6), name, model=BARE)
    assert paging_s(found, 0) == pytest.approx(0.144)
    assert paging_s(found, 1) == 0
    roomy = job(short_of(0.0), name, model=BARE)
    gap = by_recursion(found)[0, -1] - by_recursion(found)[0, -2]
    assert gap == pytest.approx(by_recursion(roomy)[0, -1] - by_recursion(roomy)[0, -2] + 0.144)


@pytest.mark.parametrize("name", ["exo-legacy", "llama-rpc"])
def test_tied_embeddings_are_charged_where_they_are_counted(name: str) -> None:
    """Stored once, but the first rank needs them beside the last one: they take room there."""
    tied = replace(BARE, embedding_bytes=0.0)
    assert paging_s(job(short_of(10e6), name, model=tied), 0) == pytest.approx(0.144)


MIXTURE = LayerKind(
    weight_bytes=100e6, active_bytes=40e6, experts=8, experts_per_token=2, expert_bytes=80e6, flops=6e7
)


def test_of_a_mixture_the_experts_that_have_no_room_are_missed() -> None:
    """Ten layers of 1 GB; a token reads 400 MB, 200 of them experts of 800. A cache of 600 MB keeps half of the experts."""
    held = Stretch((MIXTURE,), (10,))
    assert paged_bytes(held, 0.0, 600e6) == pytest.approx(200e6 / 2, rel=1e-9)
    assert paged_bytes(held, 0.0, 399e6) == pytest.approx(400e6)
    assert paged_bytes(held, 0.0, 1e9) == 0


def test_what_no_step_reads_is_not_missed() -> None:
    """A layer without experts that holds more than a token reads: what is read fits, so nothing comes from disk."""
    idle = MIXTURE.model_copy(update={"experts": 0, "experts_per_token": 0, "expert_bytes": 0.0})
    assert paged_bytes(Stretch((idle,), (10,)), 0.0, 600e6) == 0


@given(st.floats(0, 1.2e9), st.floats(0, 1.2e9), st.integers(1, 8))
def test_more_memory_never_reads_more(less: float, more: float, batch: int) -> None:
    held = Stretch((MIXTURE,), (10,))
    low, high = sorted((less, more))
    assert 0 <= paged_bytes(held, 0.0, high, batch) <= paged_bytes(held, 0.0, low, batch) + 1
    assert paged_bytes(held, 0.0, low, batch) <= held.bytes_read(batch)


PAGES = """
name: pages
model: {{name: own, layers: 10, hidden: 1000, layer_bytes: 100 MB, embedding_bytes: 0 B, head_bytes: 300 MB}}
devices:
  a: {{usable_memory: {usable} MB, speed: {{decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}}, disk: 1 GB/s,
       allow_paging: {pages}, link: {{delay: {{law: constant, value: 1 ms}}, rate: 1 GB/s}}}}
  b: {{usable_memory: 600 MB, speed: {{decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}},
       link: {{delay: {{law: constant, value: 1 ms}}, rate: 1 GB/s}}}}
engine: {{name: {engine}, memory_overhead: 0 B}}
placement: {placement}
"""


def test_the_warning_and_the_charge_are_the_same_figure() -> None:
    text = PAGES.format(usable=500, pages="true", engine="exo-legacy", placement="{layers: {a: 8, b: 2}}")
    prepared = prepare(loads(text, Scenario))
    assert paging_s(prepared.job, 0) == pytest.approx(0.8)
    assert any(
        "a: 600 MB more than it can keep, so 800 MB are read from its disk again at each token, 800 ms"
        in warning
        for warning in prepared.warnings
    )


@pytest.mark.parametrize("engine", ["exo", "exo-legacy", "llama-rpc"])
@pytest.mark.parametrize("rule", ["own", "speed", "even"])
def test_paging_may_be_allowed_under_every_rule_of_every_engine(engine: str, rule: str) -> None:
    """1.3 GB on 300 MB that page and 600 MB that do not: refused, and with leave b holds no more than it can."""
    own = {"exo": "exo", "exo-legacy": "exo-legacy", "llama-rpc": "speed"}[engine]
    text = PAGES.format(usable=300, pages="PAGES", engine=engine, placement=own if rule == "own" else rule)
    with pytest.raises(PlacementError):
        prepare(loads(text.replace("PAGES", "false"), Scenario))
    prepared = prepare(loads(text.replace("PAGES", "true"), Scenario))
    fits = {use.device: use.fits for use in prepared.memory}
    assert not fits["a"]
    assert fits["b"]
    assert paging_s(prepared.job, list(fits).index("a")) > 0


def test_weights_that_nobody_reads_are_never_waited_for() -> None:
    """3 GB of which a token reads 1, with a trifle of experts: what is read fits, so nothing comes from disk."""
    odd = LayerKind(
        weight_bytes=3e9, active_bytes=1e9, experts=8, experts_per_token=2, expert_bytes=1e6, flops=1e9
    )
    assert paged_bytes(Stretch((odd,), (1,)), 0.0, 2e9) == 0
