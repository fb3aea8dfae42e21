"""The fit of the platforms: it finds known truth, excludes what it must, and makes the shipped files again."""

import subprocess
import sys
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from fit_catalog_model import Law, fit, predict  # noqa: E402
from fit_catalog_rows import RULES, clean, published_rows  # noqa: E402
from fit_field import Figure, excess_of  # noqa: E402


@pytest.fixture(scope="module")
def samples():
    return clean()[0]


def made_up(samples, law, spread):
    """The inputs of real rows with times from the equations, each chip off by its own factor."""
    generator = np.random.default_rng(7)
    chips = sorted({sample.chip for sample in samples})
    factor = dict(zip(chips, np.exp(spread * generator.standard_normal(len(chips))), strict=True))
    return [
        replace(sample, seconds_per_token=predict(sample, law) * factor[sample.chip]) for sample in samples
    ]


TRUTH = Law(0.7, 1.3, 80e-6, 2.0, plain=1.0, nested=6.0, size=1.2, mixture_layer=1.4)


@pytest.mark.parametrize("platform", ["nvidia-cuda", "apple-metal"])
def test_the_fit_finds_the_truth_that_made_the_data(samples, platform):
    rows = [s for s in samples if (s.platform, s.runtime, s.phase) == (platform, "llama.cpp", "decode")]
    found = fit(made_up(rows, TRUTH, spread=0.1), 0.3)
    assert found.eta == pytest.approx(0.7, rel=0.08)
    assert found.overhead_s == pytest.approx(80e-6, rel=0.3)
    assert found.mixture_cost == pytest.approx(1.3, rel=0.15)
    assert found.log_sd == pytest.approx(0.13, abs=0.05)


def test_one_wild_chip_does_not_move_the_fit(samples):
    rows = [s for s in samples if (s.platform, s.runtime, s.phase) == ("nvidia-cuda", "llama.cpp", "decode")]
    good = made_up(rows, TRUTH, spread=0.05)
    wild = [
        replace(s, seconds_per_token=9 * s.seconds_per_token) if s.chip == "RTX 3070" else s for s in good
    ]
    assert fit(wild, 0.3).eta == pytest.approx(fit(good, 0.3).eta, rel=0.05)


def test_validation_targets_are_not_fitted(samples):
    """The single-device rows of V01, V11, V35, V45, V48 and the reference of V38, named again by hand."""
    fitted = {(sample.chip, sample.model) for sample in samples}
    forbidden = [
        ("M4 Pro", "Llama-3.2-3B"),
        ("M4 Max", "GLM-4.7-Flash"),
        ("BCM2712", "Llama-2-7B"),
        ("M3 Ultra", "Qwen3-235B-A22B"),
        ("M3 Ultra", "Llama-3.3-70B"),
        ("M2 Ultra", "Qwen2.5-72B"),
    ]
    assert not [
        (chip, model) for chip, model in fitted for part, name in forbidden if part in chip and name == model
    ]


def test_every_row_is_used_or_left_out_for_a_reason(samples):
    used, removed = clean()
    assert len(published_rows()) == 1637
    assert len(used) + sum(removed.values()) == 1637
    assert set(removed) <= {reason for reason, _ in RULES}


def test_names_of_merged_cells_are_filled_in_plausibly():
    """F16 weights are 3.3 times those of Q4_K_M: a GPU reads them at 1.5 to 3.5 times the seconds per token."""
    rates = {}
    for row in published_rows():
        if (
            row["framework"] == "llama.cpp (May 2024)"
            and row["model"] == "Llama-3-8B"
            and row["test"] == "tg1024"
        ):
            rates[row["device"], row["quantisation"]] = float(row["value"])
    pairs = [(rate, rates[device, "Q4_K_M"]) for (device, name), rate in rates.items() if name == "F16"]
    assert len(pairs) >= 20
    assert all(1.4 < quick / slow < 3.4 for slow, quick in pairs)


def test_no_sample_beats_its_memory(samples):
    """Reading the active weights faster than the peak bandwidth allows would be a wrong join (10 % for rounding)."""
    for sample in samples:
        if sample.phase == "decode":
            assert sample.weight_bytes / sample.memory_bytes_per_s < 1.1 * sample.seconds_per_token, sample
        assert abs(log(sample.seconds_per_token)) < 15


def test_the_shipped_files_are_what_the_script_makes():
    subprocess.run([sys.executable, str(SCRIPTS / "fit_catalog.py"), "--check"], check=True)


def test_the_factor_of_a_generation_is_found_and_paid_for(samples):
    """Of prompts that M5 reads at 0.7 of its matrix units' peak; its chips' spread has one degree of freedom less."""
    rows = [s for s in samples if (s.platform, s.runtime, s.phase) == ("apple-metal", "llama.cpp", "prefill")]
    truth = Law(0.6, 1.1, fill=5.0, latent_cost=1.2, generations=(("M5", 0.7),))
    made = made_up(rows, truth, spread=0.05)
    found = fit(made, 0.3)
    assert found.eta == pytest.approx(0.6, rel=0.08)
    assert dict(found.generations)["M5"] == pytest.approx(0.7, rel=0.12)
    alone = fit([sample for sample in made if not sample.generation], 0.3)
    assert found.log_sd > alone.log_sd * 0.95


def test_what_reports_scatter_by_beyond_the_predictions_is_found():
    """40 sources of 6 figures whose predictions' errors are half alike, with an own and a shared excess."""
    generator = np.random.default_rng(3)
    own, shared, alike, log_sd = 0.15, 0.2, 0.5, 0.3
    figures = []
    for at in range(40):
        common = shared * generator.normal() + alike**0.5 * log_sd * generator.normal()
        each = np.hypot((1 - alike) ** 0.5 * log_sd, own) * generator.normal(size=6)
        figures += [Figure(f"source {at}", float(common + ratio), log_sd) for ratio in each]
    assert excess_of(figures).log_sd == pytest.approx(np.hypot(own, shared), abs=0.05)
    exact = [replace(figure, log_ratio=0.3 * float(generator.normal())) for figure in figures]
    assert excess_of(exact).log_sd < 0.08
