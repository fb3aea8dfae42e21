"""Turn the published single-device table into samples that
can be fitted, and say why each other row is left out.

Every rule is a function with one reason; `clean` counts what each of them removes.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt

from simulator.catalog.llm import ModelFacts, bits_named, model
from simulator.catalog.speed import Phase, generation_of, matrix_peak, unpacking_share
from simulator.catalog.tables import DATA, normalise, split, table
from simulator.errors import CatalogError

__all__ = ["Sample", "clean", "published_rows"]

Row = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """One measured rate of one chip with everything that the cost equation needs."""

    row_id: str
    platform: str
    runtime: str
    chip: str
    memory_bytes_per_s: float
    flop_per_s: float
    model: str
    layers: int
    weight_bytes: float
    kv_bytes_per_token: float
    flops_per_token: float
    attention_flops: float
    tokens: float
    phase: Phase
    mixture: bool
    tokens_per_expert: float
    """Of a chunk of the prompt, by each expert that is asked at all; no limit in a dense model."""
    latent: bool
    """Whether attention is latent (MLA)."""
    unpacking: str
    flops_per_byte: float
    """Of the stored weights, that unpacking waits for: a multiplication and an addition for each."""
    generation: str
    seconds_per_token: float
    is_own: bool = False
    """Whether it says what its chip does and nothing of its platform: see `OWN_FIGURE`."""
    is_old: bool = False
    """Whether it says no more than by how much that may be off: see `OWN_SPREAD`."""

    @property
    def peak_per_s(self) -> float:
        """What its phase has an effective share of: flop/s of a prompt, bytes/s of decoding."""
        return self.flop_per_s if self.phase == "prefill" else self.memory_bytes_per_s


def published_rows() -> list[Row]:
    """The published rows, 1,580 of one table and those of single_device_more.csv, with merged cells filled in.

    In the source's table a device name stands only beside its first model,
    Llama-3-8B Q4_K_M; the rows without a name that follow are its other
    models (8B F16, 70B). A device without enough memory has no such rows.
    """
    text = gzip.decompress((DATA / "llamacpp_single_device.csv.gz").read_bytes()).decode()
    rows, last = list(csv.DictReader(io.StringIO(text))), {"device": "", "chip": ""}
    for row in rows:
        if row["device"]:
            last = {"device": row["device"], "chip": row["chip"]}
        elif row["framework"] == "llama.cpp (May 2024)":
            row.update(last)
    return rows + [dict(row) for row in table("single_device_more")]


# (chip, model) of the single-device rows of validation_targets.csv:
# V01, V11, V35, V45, V48 and the reference of V38
TARGETS = (
    ("M4 Pro", "Llama-3.2-3B"),
    ("M4 Max", "GLM-4.7-Flash"),
    ("BCM2712", "Llama-2-7B"),
    ("M3 Ultra", "Qwen3-235B-A22B"),
    ("M3 Ultra", "Llama-3.3-70B"),
    ("M2 Ultra", "Qwen2.5-72B"),
)
# conditions of rows on newer backends than a platform's other chips were measured with: they would make these look slow
OWN_FIGURE = "own figure alone"
# and on backends that a later change made much faster: some still have them, most do not
OWN_SPREAD = "own spread alone"
EXOTIC_HOSTS = ("Pi CM5 - 16GB (", "Pi 5 - 16GB (", "Pi 5 - 8GB (", "Pi 500+ - 16GB (", "HiFive", "DC-ROMA")
OTHER_RUNTIMES = (
    "litert",
    "coreml",
    "core-ai",
    "Core AI",
    "apple-fm",
    "PowerInfer",
    "mlx-flash",
    "LiteRT",
    "pocketroofline",
)


def is_prefill(row: Row) -> bool:
    """Whether the row is about reading a prompt."""
    return row["test"].startswith(("pp", "prefill"))


def _is_target(row: Row) -> bool:
    chip, shape = _chip(row), _model(row)
    name = shape.name if shape else row["model"]
    return any(part in (chip or {}).get("chip", "") and name == model_name for part, model_name in TARGETS)


def _is_odd_pixel(row: Row) -> bool:
    on_cpu, clone = row["accelerator"] == "CPU", "OpenCL" in row["accelerator"]
    return row["device"] == "Google Pixel 9 Pro" and (on_cpu or clone or is_prefill(row))


def _starts(column: str, *prefixes: str) -> Callable[[Row], bool]:
    return lambda row: row[column].startswith(prefixes)


def _prefill(applies: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: is_prefill(row) and applies(row)


def _is_apple_cpu(row: Row) -> bool:
    return row["accelerator"] == "CPU" and re.search(r"Apple|M2 Pro", row["chip"] + row["device"]) is not None


RULES: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("time to first token and peak memory: no rate", lambda row: row["unit"] in ("ms", "MB")),
    ("also a validation target (V01, V11, V35, V38, V45, V48)", _is_target),
    ("prompt and output in one rate", lambda row: "+tg" in row["test"]),
    ("several GPUs", lambda row: "*" in row["device"]),
    (
        "paging from disk or streamed weights",
        lambda row: "paging" in row["test"] or row["framework"] == "mlx-flash",
    ),
    ("neural engine or NPU: no engine of ours uses it", lambda row: row["accelerator"] in ("ANE", "CPU+NPU")),
    ("other runtimes than llama.cpp and MLX", _starts("framework", *OTHER_RUNTIMES)),
    ("speculative decoding (MTP)", lambda row: "MTP" in row["quantisation"]),
    ("runs for energy or sustained load: heat", _starts("conditions", "task energy", "task sustained")),
    ("long-context tasks: context not stated", lambda row: "long-context" in row["conditions"]),
    ("prefill of a short chat: prompt not stated, mostly start-up", _prefill(_starts("conditions", "task "))),
    (
        "prefill of an image prompt on a Mac, where plain prompts were measured",
        _prefill(lambda row: row["conditions"].startswith("VLM") and row["device"].startswith("Mac")),
    ),
    (
        "Pixel 9 Pro: CPU rows are a harness artefact, OpenCL repeats Vulkan, prefill slower than decode",
        _is_odd_pixel,
    ),
    ("GPU card on a Raspberry Pi or RISC-V board, or RISC-V itself", _starts("device", *EXOTIC_HOSTS)),
    ("server or pre-AVX processors: not everyday devices", _starts("device", "AmpereOne", "Dell Optiplex")),
    ("data-centre cards: not everyday devices", _starts("device", "A40", "L40S", "A100", "H100")),
    ("software of early 2023, before today's kernels", lambda row: "Mar 2023" in row["framework"]),
    ("part GPU, part CPU", lambda row: row["accelerator"] == "GPU/CPU"),
    ("Apple CPU: the catalogue's Macs and iPhones run on Metal", _is_apple_cpu),
    ("chip not identified, or its peaks unknown", lambda row: _chip(row) is None),
    ("model not identified or architecture unknown", lambda row: _model(row) is None),
    ("figure is not a number", lambda row: _value(row) is None),
)


def clean() -> tuple[list[Sample], Counter[str]]:
    """Samples of the rows that no rule removes, and how many
    rows each rule removed (first rule that applies).
    """
    samples, removed = [], Counter[str]()
    for row in published_rows():
        reason = next((reason for reason, applies in RULES if applies(row)), None)
        if reason is None:
            samples.append(_sample(row))
        else:
            removed[reason] += 1
    return samples, removed


def _value(row: Row) -> float | None:
    """The figure; a range 'a-b' stands for its geometric middle."""
    match = re.fullmatch(r"([\d.]+)(?:-([\d.]+))?", row["value"])
    if match is None:
        return None
    return sqrt(float(match[1]) * float(match[2] or match[1]))


def _chip(row: Row) -> Row | None:
    """The row of chips.csv for the device; a processor that also has a GPU entry is told apart by ' CPU'."""
    wanted = [row["device"], row["chip"]]
    if row["accelerator"] == "CPU":
        wanted = [f"{name} CPU" for name in wanted] + wanted
    for name in wanted:
        for chip in table("chips"):
            if name and normalise(name) in {normalise(known) for known in split(chip["names"])}:
                return chip
    return None


QUANTISATION = {"int4": "4bit", "int8": "8bit", "q4": "4bit"}
# the table's name for what the catalogue has under another
MEANT = {"Qwen2-1.5B": "Qwen2.5-1.5B", "Phi-3.5-3B": "Phi-3.5-mini"}


def _model(row: Row) -> ModelFacts | None:
    """The catalogue's model in the row's quantisation, with the file size where the row states it."""
    quantisation = row["quantisation"].split(" (")[0]
    mlx = row["framework"].lower().startswith("mlx")
    if mlx or row["framework"] == "MLC-LLM":
        quantisation = QUANTISATION.get(quantisation.lower(), quantisation)
    name = re.sub(r"^mlx-community/|-4bit$", "", row["model"])
    if name.startswith("gpt-oss"):
        quantisation = "MXFP4-Q8" if mlx else "MXFP4"
    try:
        return model(
            MEANT.get(name, name),
            quantisation or "Q8_0",
            "MLX" if mlx or row["framework"] == "MLC-LLM" else "GGUF",
        )
    except CatalogError:
        return None


def _sample(row: Row) -> Sample:
    chip = _chip(row)
    facts = _model(row)
    assert chip is not None
    assert facts is not None
    stored = bits_named(facts.quantisation, facts.format)
    platform = chip["platform"]
    if platform == "android-cpu" and row["accelerator"] != "CPU":
        platform = "android-gpu"
    kind = next(kind for kind in table("platform_kinds") if kind["platform"] == platform)
    bandwidth = 1e9 * float(row["mem_bandwidth_gbs"] if platform == "jetson" else chip["mem_bandwidth_gbs"])
    layers, weights, kv, flops, attention = _of_catalogue(facts)
    rate = _value(row) or 0.0
    phase: Phase = "prefill" if is_prefill(row) else "decode"
    flop_per_s = float(chip["fp16_tflops"] or 0) * 1e12 or bandwidth * float(kind["flop_per_byte"])
    # prompts alone run on matrix units: the weights of one token are unpacked by shaders
    units = matrix_peak(platform, chip["chip"]) if phase == "prefill" else 1.0
    return Sample(
        row_id=row["row_id"],
        platform=platform,
        runtime=_runtime(row),
        chip=chip["chip"],
        memory_bytes_per_s=bandwidth,
        flop_per_s=flop_per_s * units,
        model=facts.name,
        layers=layers,
        weight_bytes=weights,
        kv_bytes_per_token=kv,
        flops_per_token=flops,
        attention_flops=attention,
        tokens=_tokens(row),
        phase=phase,
        mixture=facts.experts > 0,
        tokens_per_expert=_tokens_per_expert(row, facts),
        latent=any(kind.latent for kind in facts.layer_kinds),
        unpacking=stored.unpacking,
        flops_per_byte=stored.flops_per_byte * unpacking_share(platform, _runtime(row), chip["chip"]),
        generation=generation_of(platform, chip["chip"], phase),
        seconds_per_token=rate / 1e3 if row["unit"] == "ms/token" else 1 / rate,
        is_own=row["conditions"] in (OWN_FIGURE, OWN_SPREAD),
        is_old=row["conditions"] == OWN_SPREAD,
    )


def _of_catalogue(facts: ModelFacts) -> tuple[int, float, float, float, float]:
    weights = facts.layers * facts.active_layer_bytes + facts.head_bytes
    kv = facts.layers * facts.kv_bytes_per_token_per_layer
    attention = facts.layers * facts.attention_flops_per_context_token
    return facts.layers, weights, kv, facts.layers * facts.layer_flops_per_token, attention


def _runtime(row: Row) -> str:
    framework = row["framework"].lower()
    return "mlx" if framework.startswith("mlx") else "mlc" if framework == "mlc-llm" else "llama.cpp"


def _tokens(row: Row) -> float:
    """Prompt length, or the mean context while generating n
    tokens from an empty one: n/2 (256 where not stated).
    """
    if row["framework"] == "mlx-lm" and not is_prefill(row):
        return float(row["prompt_tokens"]) + float(row["gen_tokens"]) / 2
    match = re.match(r"(?:pp|tg)(\d+)", row["test"])
    if match is None:
        return 512.0 if is_prefill(row) else 256.0
    return float(match[1]) if is_prefill(row) else float(match[1]) / 2


def _tokens_per_expert(row: Row, facts: ModelFacts) -> float:
    """llama.cpp's chunks have 512 tokens, but tables of 2,048 were made with chunks as long
    (from memory of their commands); mlx-lm's have 2,048.
    """
    if not facts.experts:
        return inf
    tokens, chosen = min(_tokens(row), 2048.0), facts.experts_per_token / facts.experts
    return tokens * chosen / (1 - (1 - chosen) ** tokens)
