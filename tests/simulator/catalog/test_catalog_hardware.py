"""Devices and platforms: names as people type them, usable memory with its source, fitted efficiencies."""

import re
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.catalog import (
    decode_speed,
    device,
    devices,
    doubt_memory,
    layer_overhead_s,
    platform,
    platforms,
    prefill_speed,
    raise_memory,
    stored_as,
)
from simulator.catalog.speed import generation_of, unpacking_share
from simulator.catalog.tables import normalise
from simulator.engine.base import engine
from simulator.errors import CatalogError
from simulator.units import GB, GIB


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("macbook air m4", "MacBook Air M4"),
        ("MacBook-Air (M4)", "MacBook Air M4"),
        ("iPhone 13", "iPhone 13"),
        ("pixel 9 pro", "Pixel 9 / 9 Pro"),
        ("Raspberry Pi 5", "Raspberry Pi 5 8/16 GB"),
        ("RTX 4090", "RTX 4090 desktop"),
        ("linux laptop", "Linux laptop LPDDR5/DDR5-4800 dual channel"),
        ("strix halo", "Framework Desktop / Strix Halo 128 GB"),
        ("DGX Spark", "NVIDIA DGX Spark / GB10"),
    ],
)
def test_finds_what_a_person_would_type(typed, name):
    assert device(typed).name == name


def test_every_device_is_found_by_each_of_its_names():
    assert len(devices()) >= 150
    for facts in devices():
        for name in (facts.name, *facts.aliases):
            assert name in (device(name).name, *device(name).aliases)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("NVIDIA GeForce RTX 3070", "RTX 3070 desktop"),
        ("AMD Radeon RX 6700 XT", "RX 6700 XT desktop"),
        ("Intel N100", "Intel N100 mini PC"),
        ("Tesla T4", "Tesla T4 desktop"),
        ("MI50", "Instinct MI50 16GB desktop"),
        ("GX10", "NVIDIA DGX Spark / GB10"),
        ("Mac mini M1", "Mac mini M1"),
        ("Galaxy S24", "Galaxy S24"),
        ("Galaxy S24+", "Galaxy S24+"),
        ("Raspberry Pi 400", "Raspberry Pi 400"),
        ("Quadro T1200", "Quadro T1200 Laptop"),
    ],
)
def test_devices_of_threads_are_known_by_the_names_used_there(typed, name):
    assert device(typed).name == name


NAMED_IN_THREADS = """MacBook Pro M3 Max, Mac Studio M1 Ultra, M2 Ultra, MacBook Pro M4 Max, MacBook Pro M5 Max,
    Mac mini M1, iMac M1, Mac mini M4 Pro, MacBook Pro M1, Mac Pro M2 Ultra, RTX 2080 Ti, RTX 3070, RTX 3070 Laptop,
    RTX 3080 Ti, RTX 4070 Laptop, RTX 4070 Ti, RTX 4080, GTX 1660, GTX 1070, Tesla T4, Tesla P40, Tesla V100, A6000,
    RTX A4000, RTX A5000, RX 6700 XT, RX 6600, MI50, RTX 5090, RTX PRO 6000, DGX Spark, GX10, Strix Halo,
    Framework Desktop, Ryzen AI Max+ 395, Raspberry Pi 5, Raspberry Pi 4, Orange Pi 5, N100, Intel N5105,
    Jetson Orin Nano, Jetson Orin NX, Jetson Thor, Pixel 8 Pro, Pixel 7, Galaxy S24, Galaxy Note 10+, iPhone 16 Pro,
    iPhone 15, iPad Pro M4, Steam Deck, Intel Iris Xe, Ryzen 7 9700X, EPYC 7713, Mac Pro 2019, Minisforum MS-R1,
    AmpereOne, Radxa Orion O6, Quadro T1200"""


@pytest.mark.parametrize("typed", [" ".join(name.split()) for name in NAMED_IN_THREADS.split(",")])
def test_every_device_that_threads_named_is_there(typed):
    found = device(typed)
    assert normalise(typed) in map(normalise, (found.name, *found.aliases))


@pytest.mark.parametrize("typed", ["Intel Core i9", "Apple A10", "RTX 4000", "RTX 306", "M4 Ultra", "Pi 40"])
def test_a_name_that_nothing_bears_is_taken_for_nothing_near_it(typed):
    with pytest.raises(CatalogError, match="no known device, (did you mean|no name comes near)"):
        device(typed)


WORDS = ["Ti", "SUPER", "XT", "Pro", "Max", "Ultra", "Laptop", "Plus", "+", "SE", "0", "1", ".5", "a"]


@given(st.sampled_from(devices()), st.data())
def test_a_changed_name_is_never_taken_for_the_device(facts, data):
    """Whatever a word or digit more, or a character less, leads to bears exactly that name itself."""
    name = data.draw(st.sampled_from((facts.name, *facts.aliases)))
    at = data.draw(st.integers(0, len(name) - 1))
    cut = name[:at] + name[at + 1 :]
    changed = data.draw(st.sampled_from([cut, *(f"{name} {word}" for word in WORDS), f"{name}0"]))
    try:
        found = device(changed)
    except CatalogError:
        return
    plain = normalise(changed)
    assert any(plain.endswith(normalise(known)) for known in (found.name, *found.aliases))


@given(st.text(), st.text())
def test_names_with_other_numbers_or_letters_stay_apart(one, other):
    for text in (one, other):
        assert re.findall(r"\d+", normalise(text)) == re.findall(r"\d+", text.lower())
    if normalise(one) == normalise(other):
        assert re.findall(r"\d+", one) == re.findall(r"\d+", other)


@pytest.mark.parametrize(
    ("name", "gib", "chip"),
    [
        ("RTX 3060", 8, "RTX 3060 8GB"),
        ("MI50", 32, "Instinct MI50 32GB"),
        ("MacBook Pro M5 Max", 36, "Apple M5 Max 32c"),
        ("Mac Studio M5 Ultra", 512, "Apple M5 Ultra 80c"),
        ("Raspberry Pi 5", 4, "BCM2712"),
        ("Tesla V100", 32, "Tesla V100 PCIe 32GB"),
    ],
)
def test_memory_picks_the_variant_that_was_sold_with_it(name, gib, chip):
    found = device(name, gib * GIB)
    assert (found.chip, found.memory_bytes) == (chip, gib * GIB)
    assert found.sold_with(gib * GIB)


@pytest.mark.parametrize(
    ("name", "bandwidth_gb_per_s", "tflop_per_s", "gib"),
    [
        ("RTX 2080 Ti", 616, 53.8, 11),
        ("RTX 3080", 760.3, 59.54, 10),
        ("RTX 4080", 716.8, 97.48, 16),
        ("T4", 320, 32.6, 16),
        ("P40", 347.1, 11.76, 24),
        ("V100", 897, 112, 16),
        ("A100 80GB", 1940, 312, 80),
        ("RX 6700 XT", 384, 26.43, 12),
        ("MI100", 1230, 184.6, 32),
        ("Mac Studio M5 Max 32c", 460, 14.7, 36),
    ],
)
def test_figures_of_added_devices(name, bandwidth_gb_per_s, tflop_per_s, gib):
    facts = device(name)
    assert facts.memory_bytes_per_s == pytest.approx(bandwidth_gb_per_s * GB)
    assert facts.flop_per_s == pytest.approx(tflop_per_s * 1e12)
    assert facts.memory_bytes == gib * GIB


def test_unknown_device_tells_the_nearest_and_the_way_out():
    with pytest.raises(
        CatalogError, match=r"'macbok air m4' .* did you mean 'MacBook Air M4'.*sim catalog devices"
    ):
        device("macbok air m4")
    with pytest.raises(CatalogError, match="no name comes near"):
        device("\x00" * 1000)


def test_memory_tells_variants_apart():
    assert device("MacBook Pro M4 Max", 36 * GB).chip == "Apple M4 Max 32c"
    assert device("MacBook Pro M4 Max", 64 * GIB).chip == "Apple M4 Max 40c"
    assert device("Strix Halo", 64 * GB).name.endswith("64 GB")


def test_decimal_and_binary_gigabytes_mean_the_same_option():
    assert device("Mac mini M4", 16 * GB) == device("Mac mini M4", 16 * GIB)
    assert device("Mac mini M4", 16 * GB).memory_bytes == 16 * GIB


@pytest.mark.parametrize(
    ("name", "memory_bytes", "usable_bytes", "source"),
    [
        ("MacBook Air M4", 16 * GIB, 12.71e9, "12713 MB"),  # printed, the newer of two
        ("MacBook Air M4", 24 * GIB, 0.67 * 24 * GIB, "0.67"),  # nobody printed one: the rule
        ("Mac Studio M3 Ultra", 512 * GIB, 0.75 * 512 * GIB, "0.75"),
        ("iPhone 16 Pro", None, 3.8e9, "killed above about 3.8 GB"),
        ("RTX 4090", None, 24 * GIB - 1e9, "VRAM minus"),
        ("Jetson Orin Nano", None, 5.2e9, "measured usable"),
        ("Pixel 9 Pro", 16 * GIB, 0.6875 * 16 * GIB, "PowerInfer-2"),
        ("Raspberry Pi 5", 8 * GIB, 8 * GIB - 1e9, "RAM minus"),
    ],
)
def test_usable_memory_and_who_says_so(name, memory_bytes, usable_bytes, source):
    usable = device(name).usable(memory_bytes)
    assert usable.bytes == pytest.approx(usable_bytes)
    assert source in usable.source


@pytest.mark.parametrize(
    ("name", "gib", "raised_bytes", "how"),
    [
        ("Mac mini M4 Pro", 64, 59 * GIB, "sudo sysctl iogpu.wired_limit_mb=60416"),
        ("MacBook Air M4", 16, 13107 * 2**20, "iogpu.wired_limit_mb=13107"),
        ("Strix Halo", 128, 120 * GIB, "ttm.pages_limit=31457280"),
        ("Strix Halo", 128, 120 * GIB, "amdgpu.gttsize=122880"),
        ("GMKtec EVO-X2", 64, 56 * GIB, "ttm.pages_limit=14680064"),
        ("iPhone 16 Pro", 8, 5.3e9, "increased-memory-limit"),
        ("iPhone 17 Pro", 12, 6.4e9, "increased-memory-limit"),
    ],
)
def test_a_setting_raises_the_limit_to_what_people_ran_with(name, gib, raised_bytes, how):
    raised, setting = raise_memory(device(name, gib * GIB), gib * GIB)
    assert raised == pytest.approx(raised_bytes)
    assert how in setting


@pytest.mark.parametrize(
    "name", ["RTX 4090", "NVIDIA DGX Spark", "RX 7900 XTX", "Ryzen 9 9950X", "Pixel 8 Pro"]
)
def test_no_setting_raises_the_memory_of_a_card(name):
    assert raise_memory(device(name)) is None


@given(st.sampled_from(devices()))
def test_a_raised_limit_lies_between_the_default_and_the_memory(facts):
    for memory_bytes in facts.memory_options_bytes:
        raised = raise_memory(facts, memory_bytes)
        assert raised is None or facts.usable_bytes(memory_bytes) < raised[0] < memory_bytes


def test_iphones_of_one_memory_have_one_limit():
    """A limit per app goes with the memory, not with the model."""
    limits = {}
    for facts in devices():
        if facts.name.startswith("iPhone"):
            limits.setdefault(facts.memory_bytes, set()).add(
                (facts.usable_low_bytes, facts.usable_high_bytes)
            )
    assert {memory / GIB: limit for memory, limit in limits.items()} == {
        4: {(2.0e9, None)},
        6: {(3.0e9, None)},
        8: {(3.8e9, 5.3e9)},
        12: {(3.3e9, 6.4e9)},
    }


@pytest.mark.parametrize(
    ("kind", "gib", "words"),
    [
        (
            "RTX 5090",
            64,
            "no RTX 5090 desktop with 68.7 GB was sold, only with 32 GB; what counts is the memory on",
        ),
        ("Mac mini M4 Pro", 128, "only with 24, 48 or 64 GB; a Mac's memory is soldered"),
        ("Pixel 8 Pro", 256, "storage is no memory"),
        ("Jetson Orin Nano", 16, "check its memory"),
    ],
)
def test_a_memory_that_was_never_sold_is_doubted_with_the_reason(kind, gib, words):
    assert words in doubt_memory(kind, gib * GIB)


def test_memory_that_was_sold_or_can_be_bought_apart_is_not_doubted():
    assert doubt_memory("RTX 5090", 32 * GB) is None
    assert doubt_memory("RTX 3060", 8 * GIB) is None
    assert doubt_memory("Ryzen 9 9950X", 192 * GIB) is None


@given(st.sampled_from(devices()), st.floats(1e9, 1e12))
def test_usable_memory_is_positive_less_than_all_and_never_shrinks_with_memory(facts, memory_bytes):
    rule = [facts.usable_bytes(factor * memory_bytes) for factor in (1.0, 4.0)]
    assert 0 < rule[0] < 1.0 * max(memory_bytes * 1.08, facts.memory_options_bytes[0])
    assert rule[0] <= rule[1]


def test_what_nobody_published_is_named():
    pi = device("Raspberry Pi 5")
    assert {"flop_per_s", "disk_bytes_per_s", "price_usd"} <= set(pi.assumed_fields)
    assert pi.flop_per_s == 614e9
    assert "memory_bytes_per_s" in device("iPhone 13").assumed_fields
    assert "memory_bytes_per_s" not in device("MacBook Air M4").assumed_fields


def test_every_device_has_a_platform_a_network_and_positive_peaks():
    from simulator.catalog import network

    for facts in devices():
        for name in (facts.platform, *facts.other_platforms):
            assert platform(name).name == name
        assert network(facts.network).name == facts.network
        assert facts.memory_bytes_per_s > 1e9
        assert facts.flop_per_s > 1e10
        assert facts.disk_bytes_per_s > 1e8
        assert facts.source
        assert facts.confidence


def test_platform_falls_back_to_its_usual_runtime_and_says_so():
    assert platform("apple-metal").runtime == "llama.cpp"
    assert platform("apple-metal", "mlx").runtime == "mlx"
    assert platform("nvidia-cuda", "mlx").runtime == "llama.cpp"
    with pytest.raises(CatalogError, match="did you mean 'apple-metal'"):
        platform("apple-meta")


def test_platform_figures_are_physical():
    for facts in platforms():
        assert 0.05 < facts.decode_efficiency <= 1
        assert 0.01 < facts.prefill_efficiency <= 1
        assert 0.1 <= facts.decode_log_sd < 1
        assert 0 < facts.layer_overhead_s < 1e-3
        assert (facts.decode_held_out is None) == (facts.n_decode_chips < 2)


def test_a_platform_measured_on_one_chip_only_is_less_sure():
    assert platform("apple-metal", "mlx").decode_log_sd > platform("apple-metal").decode_log_sd


def test_a_measured_chip_stays_within_its_platform_spread():
    """A value of its own that is four spreads off would be a mix-up of names, not a measurement."""
    measured = [facts for facts in devices() if facts.measured_decode_bytes_per_s]
    assert {"BCM2712", "N150"} <= {facts.chip for facts in measured}
    for facts in measured:
        usual = platform(facts.platform)
        off = log(facts.measured_decode_bytes_per_s / (usual.decode_efficiency * facts.memory_bytes_per_s))
        assert abs(off) < 4 * usual.decode_log_sd
        assert facts.measured_decode_models >= 2
        assert exp(facts.measured_decode_log_sd) < 1.5


def test_a_measured_value_holds_only_for_the_runtime_that_it_was_measured_with():
    pi, usual = device("Raspberry Pi 5"), platform("arm-cpu")
    assert decode_speed(pi, usual).label == "measured"
    assert decode_speed(pi, usual).bytes_per_s == pytest.approx(pi.measured_decode_bytes_per_s)
    other = usual.model_copy(update={"runtime": "mlx"})
    assert decode_speed(pi, other).label == "assumed"
    share = pi.memory_bytes_per_s * usual.decode_efficiency
    assert decode_speed(pi, other).bytes_per_s == pytest.approx(share)
    assert decode_speed(device("MacBook Air M4"), platform("apple-metal")).label == "assumed"


def test_nested_blocks_cost_more_to_unpack_where_flops_are_scarce():
    """K-quants on an M1 Max (26 flop per byte of bandwidth) lose a quarter against 16 bits, on an RTX 4090 a tenth."""
    lost = {}
    for name in ("Mac Studio M1 Max", "RTX 4090"):
        facts = device(name)
        on = platform(facts.platform)
        plain, nested, whole = (
            decode_speed(facts, on, stored_as("any", q, "GGUF")).bytes_per_s
            for q in ("Q4_0", "Q4_K_M", "F16")
        )
        assert nested < plain < whole == pytest.approx(facts.memory_bytes_per_s * on.decode_efficiency)
        lost[name] = 1 - nested / whole
    assert lost["Mac Studio M1 Max"] > 0.25
    assert lost["RTX 4090"] < 0.15


def test_a_file_of_an_unknown_format_is_taken_for_the_usual_one():
    assert stored_as("my-own", "F33 or so", "GGUF").quantisation == "Q4_K_M"
    assert stored_as("gpt-oss-20b", None, "GGUF").quantisation == "MXFP4"


def test_a_larger_chip_takes_longer_to_start_a_layer():
    metal = platform("apple-metal")
    small, large = (
        layer_overhead_s(device(name), metal) for name in ("MacBook Air M4", "Mac Studio M3 Ultra")
    )
    assert small < metal.layer_overhead_s < large


def test_generations_are_told_by_name():
    assert [
        generation_of("amd-gpu", chip, "decode")
        for chip in ("RX 6800", "RX 7900 XTX", "RX 9070 XT", "RX 580 8GB")
    ] == ["RDNA 2", "RDNA 3", "RDNA 4", ""]
    assert generation_of("nvidia-cuda", "RTX 4090", "decode") == ""
    assert generation_of("apple-metal", "Apple M5 Max 40c", "prefill") == "M5"
    assert generation_of("apple-metal", "Apple M5 Max 40c", "decode") == ""


def test_late_apple_chips_unpack_beside_their_multiplications():
    """Half of the work from the M3 and the A17 on, under llama.cpp alone; other chips do all of it."""
    halves = [("apple-metal", "llama.cpp", "Apple M3 Ultra 80c"), ("ios-metal", "llama.cpp", "A17 Pro")]
    wholes = [
        ("apple-metal", "llama.cpp", "Apple M2 Ultra 76c"),
        ("apple-metal", "mlx", "Apple M3 Ultra 80c"),
        ("ios-metal", "llama.cpp", "A16"),
        ("nvidia-cuda", "llama.cpp", "RTX 4090"),
    ]
    assert {unpacking_share(*one) for one in halves} == {0.5}
    assert {unpacking_share(*one) for one in wholes} == {1.0}


def test_a_chip_measured_itself_reads_prompts_at_its_own_rate():
    """And no other chip of its platform, nor itself on another one."""
    facts = device("strix halo")
    own = prefill_speed(facts, platform(facts.platform))
    assert own.flop_per_s == facts.measured_prefill_flop_per_s
    assert own.log_sd == facts.measured_prefill_log_sd
    integrated = platform(facts.platform)
    for other in (o for o in devices() if o.platform == integrated.name and o.chip != facts.chip):
        assert prefill_speed(other, integrated).log_sd == integrated.prefill_log_sd
    assert prefill_speed(facts, platform("x86-cpu")).log_sd == platform("x86-cpu").prefill_log_sd


def test_cards_with_stacked_memory_have_a_share_of_their_own_under_llama_cpp():
    """A laptop's A3000 is no A30, and other engines have other kernels."""
    llama, vllm = engine("llama-rpc").facts, engine("vllm").facts
    assert llama.chip_share("A100 PCIe 80GB").decode == 0.55
    assert llama.chip_share("H100 PCIe").prefill < llama.chip_share("NVIDIA A30").prefill < 1
    for other in ("RTX A3000 Laptop", "NVIDIA A10", "A40 48GB", "RTX 3090"):
        assert llama.chip_share(other).decode == llama.chip_share(other).prefill == 1
    assert vllm.chip_share("A100 PCIe 80GB").decode == 1
