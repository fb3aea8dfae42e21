"""Models: parameter counts against the published ones, exact sizes, and the invariants of bytes and flops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.catalog import model, models, quantisations
from simulator.catalog.ggml_types import widened_bits
from simulator.catalog.llm import bits_named, build, shape_named
from simulator.catalog.tables import normalise, split, table
from simulator.errors import CatalogError

SHAPES = {shape.name: shape for shape in models()}


@pytest.mark.parametrize(
    ("name", "kv_bytes_per_token"),
    [
        ("Llama-3.3-70B", 327_680),
        ("Qwen3-30B-A3B", 98_304),
        ("gpt-oss-120b", 73_728),
        ("DeepSeek-V3", 70_272),
        ("GLM-4.7-Flash", 54_144),
        ("BLOOM-176B", 4_014_080),
    ],
)
def test_cache_bytes_match_the_published_ones(name, kv_bytes_per_token):
    facts = model(name)
    assert facts.layers * facts.kv_bytes_per_token_per_layer == pytest.approx(kv_bytes_per_token)


def test_published_sizes_are_taken_exactly():
    llama = model("Llama-3.3-70B", "4bit")
    assert llama.total_bytes == 39_688_355_840
    assert (llama.size_basis, llama.size_confidence) == ("published", "exact-from-table")
    assert model("llama 70b", "q4_k_m").total_bytes == pytest.approx(42_509_438_812)
    assert model("Llama-3.1-70B", "8bit", "MLX").total_bytes == 74_964_549_632


def test_computed_sizes_are_flagged_and_near_a_published_one():
    shape = next(shape for shape in models() if shape.name == "Llama-3.3-70B")
    for bits in quantisations():
        if bits.format == "GGUF" and bits.quantisation not in ("F32", "MXFP4"):
            exact = model("Llama-3.3-70B", bits.quantisation)
            guess = build(shape, bits)
            assert guess.size_basis == "computed"
            # below 3 bits the files keep more of the table and the attention at higher precision than the average
            assert guess.total_bytes == pytest.approx(exact.total_bytes, rel=0.02 if bits.body > 3 else 0.06)


@pytest.mark.parametrize(
    ("name", "size_bytes"), [("gpt-oss-20b", 12_101_070_356), ("gpt-oss-20b", 12_025_908_224)]
)
def test_mixed_precision_is_understood(name, size_bytes):
    """4-bit experts and 8-bit everything else reproduce both published files without seeing them."""
    shape = next(shape for shape in models() if shape.name == name)
    bits = next(bits for bits in quantisations() if bits.quantisation == "MXFP4")
    assert build(shape, bits).total_bytes == pytest.approx(size_bytes, rel=0.01)


@pytest.mark.parametrize("shape", models(), ids=lambda shape: shape.name)
@pytest.mark.parametrize("file_format", ["MLX", "GGUF"])
def test_parts_add_up(shape, file_format):
    facts = model(shape.name, format=file_format)
    parts = facts.layers * facts.layer_bytes + facts.embedding_bytes + facts.head_bytes + facts.other_bytes
    assert parts == pytest.approx(facts.total_bytes)
    assert facts.layer_bytes > 0
    assert 0 <= facts.expert_layer_bytes < facts.layer_bytes
    assert (facts.embedding_bytes == 0) == facts.tied_embeddings
    assert facts.embedding_table_bytes > 0
    assert facts.params_active <= facts.params_total * 1.000_1
    assert (file_format, facts.format) in (("MLX", "MLX"), ("GGUF", "GGUF"))


@given(st.sampled_from([shape.name for shape in models() if shape.experts]), st.integers(1, 512))
def test_a_batch_reads_more_experts_but_never_more_than_all(name, batch):
    facts = model(name)
    one, many = facts.active_layer_bytes, facts.active_layer_bytes_at(batch)
    assert one <= many <= facts.layer_bytes
    assert many <= one + (batch - 1) * facts.expert_layer_bytes * facts.experts_per_token / facts.experts + 1
    share = facts.experts_per_token / facts.experts
    assert one == pytest.approx(facts.layer_bytes - (1 - share) * facts.expert_layer_bytes)


@given(st.integers(1, 512))
def test_a_dense_layer_is_read_once_whatever_the_batch(batch):
    facts = model("Llama-3.1-8B")
    assert facts.active_layer_bytes_at(batch) == facts.layer_bytes


def test_flops_are_twice_the_active_weights():
    facts = model("Llama-3.3-70B")
    assert facts.layers * facts.layer_flops_per_token + facts.head_flops == pytest.approx(
        2 * facts.params_active
    )
    assert facts.head_flops == 2 * 8192 * 128256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Llama-3.3-7B",), "did you mean 'Llama-3.3-70B'"),
        (("Llama-3.3-70B", "Q4_K_X"), "no known quantisation, did you mean 'Q4_K_"),
        (("Llama-3.3-70B", "4bit", "safetensor"), "no known model format"),
        (("Llama-3.3-70B", "Q4_K_M", "MLX"), "no known quantisation"),
    ],
)
def test_unknown_names_tell_what_is_known(arguments, message):
    with pytest.raises(CatalogError, match=message):
        model(*arguments)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Mistral-Large", "Mistral-Large-123B"),
        ("Nemotron-3-Nano", "Nemotron-3-Nano-30B-A3B"),
        ("QwQ-32B", "Qwen2.5-32B"),
    ],
)
def test_what_threads_call_a_model(typed, name):
    assert model(typed).name == name


def test_defaults_are_what_people_run():
    assert model("Llama-3.2-3B").quantisation == "4bit"
    assert model("Llama-3.2-3B", format="gguf").quantisation == "Q4_K_M"
    assert model("gpt-oss-120b").quantisation == "MXFP4-Q8"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Qwen3-4B-Instruct-2507", "Qwen3-4B"),
        ("mlx-community/Qwen3-235B-A22B-Instruct-2507-8bit", "Qwen3-235B-A22B"),
        ("Meta-Llama-3-8B-Instruct", "Llama-3.1-8B"),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "Nemotron-Nano-9B-v2"),
        ("google/gemma-3-27b-it-qat-q4_0-gguf", "Gemma-3-27B"),
        ("Qwen3-4B-Sideways", None),
        ("Qwen3-40B", None),
    ],
)
def test_spellings_of_a_name_lead_to_it_and_say_so_but_near_ones_do_not(name, known):
    if known is None:
        with pytest.raises(CatalogError, match="did you mean"):
            model(name)
    else:
        assert model(name).name == known
        assert f"{name} is taken for {known}" in model(name).doubts[0]


@pytest.mark.parametrize(
    ("name", "bits", "file_format"),
    [
        # blocks of llama.cpp: exact
        ("Q4_1", 5.0, "GGUF"),
        ("Q5_0", 5.5, "GGUF"),
        ("Q5_1", 6.0, "GGUF"),
        ("TQ1_0", 1.6875, "GGUF"),
        ("TQ2_0", 2.0625, "GGUF"),
        ("Q4_0_8_8", 4.537, "GGUF"),
        ("MXFP4_MOE", 4.25, "GGUF"),
        ("IQ2_K_R4", 2.375, "GGUF"),
        # mixes of publishers: with a spread in the source
        ("UD-IQ1_S", 2.16, "GGUF"),
        ("UD-Q2_K_XL", 2.69, "GGUF"),
        ("UD-Q4_K_XL", 4.822, "GGUF"),
        ("Q8_K_XL", 9.63, "GGUF"),
        ("Q6_K_L", 6.564, "GGUF"),
        ("6bit-gs32", 7.0, "MLX"),
        ("mixed_3_6", 3.932, "MLX"),
        ("NVFP4", 4.5, "MLX"),
        ("MXFP8", 8.25, "MLX"),
        ("fp8", 8.0, "safetensors"),
        ("AWQ", 4.15625, "safetensors"),
        ("GPTQ", 4.15625, "safetensors"),
        ("nf4", 4.127, "safetensors"),
    ],
)
def test_every_usual_name_of_a_quantisation_is_known(name, bits, file_format):
    found = bits_named(name, None)
    assert (found.body, found.format) == (bits, file_format)


def test_a_type_of_llama_cpp_has_the_bits_of_its_block():
    """A file of one type alone is its block; mixes of K-quants are averages over files."""
    blocks = {
        row["name"]: 8 * int(row["block_bytes"]) / int(row["block_values"]) for row in table("ggml_types")
    }
    for name in ("Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0", "Q1_0", "NVFP4"):
        assert bits_named(name, "GGUF").body == blocks[name]


def test_names_of_quantisations_and_aliases_are_never_two_things():
    seen: dict[tuple[str, str], str] = {}
    for row in table("quantisations"):
        for name in (row["quantisation"], *split(row["aliases"])):
            key = (normalise(name), row["format"])
            assert seen.setdefault(key, row["quantisation"]) == row["quantisation"], name


@pytest.mark.parametrize("name", ["Q8_K_XXL", "FP3", "EXL2", "mixed_5_6"])
def test_what_is_near_a_quantisation_is_not_taken_for_it(name):
    with pytest.raises(CatalogError, match="no known quantisation"):
        bits_named(name, None)


def test_a_matrix_whose_rows_no_block_divides_is_stored_in_the_next_type():
    """SmolLM2-135M (rows of 576) at Q2_K: 88 MB published, of 4.5 bits each instead of 2.6."""
    made = build(SHAPES["SmolLM2-135M"], bits_named("Q2_K", "GGUF"))
    assert 8 * made.layer_bytes * made.layers / (made.params_total - 49152 * 576) > 4.2
    # tied to the head, for which the quantiser takes 8 bits then, also where blocks of 32 divide all else
    assert made.head_bytes == 49152 * 576 * 8.5 / 8
    plain = build(SHAPES["SmolLM2-135M"], bits_named("Q4_0", "GGUF"))
    assert plain.head_bytes == made.head_bytes
    assert plain.layer_bytes == pytest.approx(made.layer_bytes, rel=0.06)


def test_rows_shorter_than_any_block_stay_at_sixteen_bits():
    assert widened_bits(["Q4_K"], 100) == 16 - 4.5
    assert widened_bits(["Q4_K"], 0) == 0


def test_cross_attention_keeps_nothing_of_the_text():
    """Llama 3.2 Vision: 32 of 40 layers keep 4 kB of each token, eight look at an image alone."""
    made = model("Llama-3.2-11B-Vision", "bf16")
    assert made.kv_bytes_per_token_per_layer * 40 == 32 * 2 * 1024 * 2
    assert any("cross-attention" in doubt for doubt in made.doubts)


THREADS = """
Llama 3.1 8B;Meta-Llama-3-70B-Instruct;Llama-3.2-3B-Instruct-4bit;DeepSeek R1;DeepSeek-R1-Distill-Llama-70B;QwQ-32B
DeepSeek-R1-Distill-Qwen-32B;DeepSeek-R1-Distill-Qwen-14B;Qwen3-Next-80B-A3B;Qwen3-Coder-Next;Qwen3-Coder-30B-A3B
Qwen3-VL-235B;Qwen3.5-27B;Qwen3.5-122B-A10B;Qwen3.6-27B;Qwen3.6-35B-A3B;Qwen3-235B-A22B-Instruct-2507;GLM-4.5-Air
GLM-4.6;GLM-4.7;GLM-5;MiniMax-M2;MiniMax-M2.5;Kimi-K2;Kimi-K2.5;gpt-oss:120b;gemma-2-9b;gemma3:27b;gemma-3-12b-it
gemma-4-31b;Phi-4;Phi-3-mini;Mistral-Small-24B;Mistral-Nemo;Mistral-Large;Mixtral-8x22B;Llama-4-Scout;Llama-4-Maverick
Nemotron-3-Nano;Command-R;DeepSeek-V3.1;DeepSeek-V3.2;DeepSeek-V4-Flash;DeepSeek-Coder-V2-Lite;Falcon-180B
CodeLlama-34B;Yi-34B;Llama-3.2-11B-Vision;SmolLM2
"""


def test_every_model_that_threads_named_is_known():
    """The names in the threads that were read, 8 of which were found then."""
    names = [name for line in THREADS.split("\n") for name in line.split(";") if name]
    assert len(names) == 49
    for name in names:
        assert shape_named(name)[0].layers
    assert shape_named("Qwen3-VL-235B-A22B")[0].name == "Qwen3-VL-235B-A22B"
