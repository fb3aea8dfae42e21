"""Ask a public calculator (servcalc, extra `baselines`) for the single devices of the published rows.

It knows dense models on cards by name. Each row's chip is given to it with the catalogue's peaks, each mixture as
the dense model of its active experts, and each quantisation as its bytes: what helps it most. Writes
`calibrate/data/published_baselines.csv`. Its engine is ollama's (llama.cpp) or vLLM's.
"""

from __future__ import annotations

import csv
from importlib.metadata import version
from math import isclose
from pathlib import Path
from typing import Any

from servcalc import DoesNotFitError, GpuSpec, Workload, estimate, profiles
from vramcalc import Arch

from calibrate.ground.cases import Case, load_cases
from simulator import catalog
from simulator.model.model import Model
from simulator.prepare import prepare

ROOT = Path(__file__).parents[1]
HEAD_SIZE = 128
"""Of all attention heads: only their number times their size matters here, for the cache."""


def main() -> None:
    """Ask for each case with one device, and write down what it says."""
    lines = []
    for case in load_cases(ROOT / "scenarios" / "published"):
        if len(case.scenario.devices) == 1 and (rate := told(case)):
            lines.append((case.row, "servcalc", version("servcalc"), f"{rate:.4g}"))
    with (ROOT / "calibrate/data/published_baselines.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "calculator", "version", "tokens_per_s"))
        writer.writerows(lines)
    print(f"{len(lines)} rows")


def told(case: Case) -> float | None:
    """Tokens/s of all replies together; None for what the calculator cannot express or says does not fit."""
    job, workload = prepare(case.scenario).job, case.scenario.workload
    layer = job.model.average(1)
    # it has no layers with a window or a state: their cache does not grow with each token
    if not isclose(float(layer.kv_bytes(1000, 1)), 1000 * float(layer.kv_bytes(1, 1)), rel_tol=0.01):
        return None
    (spec,) = case.scenario.devices.values()
    assert spec.kind is not None
    facts = catalog.device(spec.kind, spec.memory)
    card = GpuSpec(
        spec.kind,
        int(spec.memory or facts.memory_bytes),
        facts.memory_bytes_per_s / 1e9,
        facts.flop_per_s / 1e12,
    )
    prompt, output, batch = workload.prompt_tokens, workload.output_tokens, workload.concurrency
    if case.rate == "decode":
        # its rates share out the prompt's time: a prompt of one token, and a reply about the same context
        prompt, output = 1, 2 * prompt + output
    engine: Any = (
        profiles.vllm()
        if case.stands_for == "vLLM"
        else profiles.ollama(num_parallel=batch, num_ctx=prompt + output)
    )
    asked = Workload(prompt_len=prompt, gen_len=output, concurrency=(batch,))
    read_bytes = job.model.stretch(0, job.model.layers).bytes_read() + job.model.head_bytes
    try:
        said = estimate(arch(job.model), card, workload=asked, profile=engine, weight_bytes=int(read_bytes))
    except DoesNotFitError:
        return None
    return float(said.points[0].total_tok_s.mid)


def arch(model: Model) -> Arch:
    """The dense model with this one's active weights and cache; embedding taken as tied, so all is read."""
    kv_heads = max(1, round(float(model.average(1).kv_bytes(1, 1)) / (2 * 2 * HEAD_SIZE)))
    hidden = model.hidden
    active = model.stretch(0, model.layers).flops / 2 / model.layers
    attention = 2 * hidden * hidden + 2 * hidden * kv_heads * HEAD_SIZE
    return Arch(
        hidden_size=hidden,
        num_layers=model.layers,
        num_heads=max(kv_heads, hidden // HEAD_SIZE),
        num_kv_heads=kv_heads,
        head_dim=HEAD_SIZE,
        intermediate_size=max(1, int((active - attention) / (3 * hidden))),
        vocab_size=max(1, int(model.head_flops / 2 / hidden)),
        tie_word_embeddings=True,
        attention_bias=False,
        norms_per_layer=2,
    )


if __name__ == "__main__":
    main()
