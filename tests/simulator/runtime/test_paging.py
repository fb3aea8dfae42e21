"""What exceeds a memory is counted once, for the warning and for the charge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.files import loads
from simulator.prepare import prepare
from simulator.runtime.paging import paging_s
from simulator.scenario import Scenario
from tests.helpers import SMALL, by_recursion, device, job

# 24 layers of 12 MB and 8 MB each of embedding and head; no KV cache to speak of
BARE = replace(SMALL, kv_bytes_per_token_per_layer=0.0)


def short_of(bytes_: float) -> list:
    """Two devices, 12 layers each, the first one short of so many bytes of what legacy EXO puts there."""
    needed = 12 * 12e6 + 8e6
    return [device("a", usable_bytes=needed - bytes_), device("b")]


@pytest.mark.parametrize("name", ["exo-legacy", "llama-rpc"])
def test_what_is_missing_is_read_from_disk_again(name: str) -> None:
    """10 MB at 1 GB/s are 10 ms; a device with room reads nothing."""
    found = job(short_of(10e6), name, model=BARE)
    assert paging_s(found, 0) == pytest.approx(0.01)
    assert paging_s(found, 1) == 0
    roomy = job(short_of(0.0), name, model=BARE)
    gap = by_recursion(found)[0, -1] - by_recursion(found)[0, -2]
    assert gap == pytest.approx(by_recursion(roomy)[0, -1] - by_recursion(roomy)[0, -2] + 0.01)


@pytest.mark.parametrize("name", ["exo-legacy", "llama-rpc"])
def test_tied_embeddings_are_charged_where_they_are_counted(name: str) -> None:
    """Stored once, but the first rank needs them beside the last one: counted there, and read again there."""
    tied = replace(BARE, embedding_bytes=0.0)
    assert paging_s(job(short_of(10e6), name, model=tied), 0) == pytest.approx(0.01)


TIED = """
name: tied
model: {{name: own, layers: 10, hidden: 1000, layer_bytes: 100 MB, embedding_bytes: 0 B, head_bytes: 300 MB}}
devices:
  a: {{usable_memory: {usable} MB, speed: {{decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}}, disk: 1 GB/s,
       allow_paging: true, link: {{delay: {{law: constant, value: 1 ms}}, rate: 1 GB/s}}}}
  b: {{usable_memory: 4 GB, speed: {{decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}},
       link: {{delay: {{law: constant, value: 1 ms}}, rate: 1 GB/s}}}}
engine: {{name: exo-legacy, memory_overhead: 0 B}}
placement: {{layers: {{a: 5, b: 5}}}}
"""


def test_the_warning_and_the_charge_are_the_same_figure() -> None:
    prepared = prepare(loads(TIED.format(usable=500), Scenario))
    use = prepared.memory[0]
    missing_bytes = use.total_bytes - use.cap_bytes
    assert missing_bytes == pytest.approx(300e6)
    assert any("300 MB of its shard are re-read" in warning for warning in prepared.warnings)
    assert paging_s(prepared.job, 0) == pytest.approx(missing_bytes / 1e9)
