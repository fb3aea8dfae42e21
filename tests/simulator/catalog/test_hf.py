"""config.json of any family: shapes, caches, states and precisions of each kind of layer, and configs that lie."""

import json
import time
import tracemalloc
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.catalog import from_hf_config, model, models
from simulator.catalog.config_keys import MAX_LAYERS, Config
from simulator.catalog.hf import from_config
from simulator.errors import CatalogError

CONFIGS = Path(__file__).parents[2] / "data/configs"
PLAIN = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32000,
}
LAYER = 1024 * 1024 * 2 + 2 * 1024 * 256 + 3 * 1024 * 4096  # q, o; k, v; MLP
NORMS, TABLE = 2 * 1024, 32000 * 1024


def known(name, **arguments):
    return from_hf_config(CONFIGS / f"{name}.json", **arguments)


def made(tmp_path, **keys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**PLAIN, **keys}))
    return path


def facts(tmp_path, **keys):
    return from_hf_config(made(tmp_path, **keys))


def kinds(found, field):
    """One value per layer."""
    return [getattr(found.layer_kinds[kind], field) for kind in found.layer_pattern]


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("llama4-maverick", 400.71e9, 17e9),  # alternate layers are mixtures, one shared expert each
        ("llama4-scout", 107.77e9, 17e9),
        ("bloom-7b1", 7.069e9, 7.069e9),  # two matrices
        ("qwen3-next-80b", 79.67e9, 3.9e9),
        ("gemma3-27b-text", 27.01e9, 27.01e9),
        ("gpt-oss-120b", 116.83e9, 5.13e9),
        ("gpt-oss-20b", 20.91e9, 3.61e9),
        ("qwen3-32b", 32.76e9, 32e9),
        ("kimi-k2.5", 1026.4e9, 32e9),
        ("glm-5.1-nvfp4", 743.9e9, 40e9),
    ],
)
def test_parameters_of_real_configs(name, total, active):
    found = known(name, bits_per_weight=16)
    assert found.params_total == pytest.approx(total, rel=1e-3)
    # some count the embedding, some do not
    assert found.params_active - 2e9 <= active <= found.params_active + 2e9


def test_gpt2_counts_its_positions_beside_the_layers():
    found = known("gpt2")
    assert found.params_total + found.other_params == pytest.approx(124.44e6, rel=1e-3)
    assert any("learned positions" in doubt for doubt in found.doubts)


def test_gemma_3n_has_a_width_per_layer_and_tables_that_are_looked_up():
    found = known("gemma3n-e4b", quantisation="Q8_0")
    assert found.params_total + found.other_params == pytest.approx(6.87e9, rel=2e-3)
    assert found.other_bytes > 0.3 * found.total_bytes
    assert any("embeddings of each layer" in doubt for doubt in found.doubts)
    assert kinds(found, "kv_bytes_per_token")[-15:] == [0] * 15  # these look into earlier caches


@pytest.mark.parametrize(
    ("name", "keeping", "window", "of"),
    [
        ("qwen3-next-80b", 12, None, 48),
        ("gemma3-27b-text", 62, 4096, 62),
        ("gpt-oss-120b", 36, 128, 36),
        ("llama4-maverick", 48, 8192, 48),
    ],
)
def test_which_layers_keep_what(name, keeping, window, of):
    """24.6 kB a token for Qwen3-Next, not 98; five of six layers of Gemma 3 keep a window."""
    found = known(name)
    assert len(found.layer_pattern) == of
    assert sum(kept > 0 for kept in kinds(found, "kv_bytes_per_token")) == keeping
    assert {kept for kept in kinds(found, "kv_window_tokens") if kept} == ({window} if window else set())


def test_linear_layers_keep_a_state_and_no_cache():
    found = known("qwen3-next-80b")
    assert 48 * found.kv_bytes_per_token_per_layer == 24_576
    linear = [kind for kind in found.layer_kinds if kind.state_bytes]
    assert len(linear) == 1
    # 32 heads of 128 x 128 in single precision, and three tokens of the convolution
    assert linear[0].state_bytes == 32 * 128 * 128 * 4 + 3 * (2 * 16 + 32) * 128 * 2
    assert linear[0].kv_bytes_per_token == linear[0].attention_flops_per_token == 0
    gemma = model("Gemma-3-27B")
    assert [kinds(gemma, "kv_window_tokens").count(window) for window in (1024, None)] == [52, 10]
    assert sum(kept > 0 for kept in kinds(model("MiniMax-Text-01"), "kv_bytes_per_token")) == 10
    assert sum(kept > 0 for kept in kinds(model("Nemotron-Nano-9B-v2"), "kv_bytes_per_token")) == 4


@pytest.mark.parametrize(
    ("name", "kept", "index", "picked", "heads"),
    [
        # arXiv:2512.02556 and its config: keys of 512 + 64 latent values and 128 of the indexer, at 16 bits
        ("DeepSeek-V3.2", 2 * (576 + 128), 256, 2048, 64),
        ("GLM-5", 2 * (576 + 128), 256, 2048, 32),
        # 16 blocks of 128 tokens; 4 heads of 128 + 128 values and one index key
        ("MiniMax-M3", 2 * (4 * 256 + 128), 256, 2048, 4),
    ],
)
def test_sparse_attention_reads_what_its_index_picks(name, kept, index, picked, heads):
    last = model(name).layer_kinds[model(name).layer_pattern[-1]]
    assert (last.kv_bytes_per_token, last.index_bytes_per_token) == (kept, index)
    assert (last.kv_read_tokens, last.index_flops_per_token) == (picked, 2 * heads * 128)
    assert not any("sparse" in doubt for doubt in model(name).doubts)


def test_a_layer_may_take_over_what_an_earlier_one_picked():
    """GLM-5.2: `indexer_types` is shared in most layers, which keep no index of their own."""
    found = model("GLM-5.2")
    assert set(kinds(found, "kv_read_tokens")) == {2048}
    assert {0.0, 256.0} == set(kinds(found, "index_bytes_per_token"))


def test_an_index_that_does_not_say_how_much_it_picks_is_doubted(tmp_path):
    latent = {"kv_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32}
    found = facts(tmp_path, index_head_dim=32, index_n_heads=4, **latent)
    assert found.layer_kinds[0].kv_read_tokens is None
    assert any("how much the index picks is not said" in doubt for doubt in found.doubts)


def test_averages_are_those_of_the_kinds():
    found = known("llama4-maverick")
    for average, field in (
        ("layer_bytes", "weight_bytes"),
        ("expert_layer_bytes", "expert_bytes"),
        ("kv_bytes_per_token_per_layer", "kv_bytes_per_token"),
        ("layer_flops_per_token", "flops"),
        ("active_layer_bytes", "active_bytes"),
    ):
        assert getattr(found, average) == pytest.approx(sum(kinds(found, field)) / 48)
    assert found.total_bytes == pytest.approx(
        48 * found.layer_bytes + found.embedding_bytes + found.head_bytes + found.other_bytes
    )
    assert [kind > 0 for kind in kinds(found, "experts")] == [False, True] * 24


def test_a_named_quantisation_decides_and_is_what_the_name_says():
    """`quantisation: 4bit` beside a 16-bit config was shown and not computed."""
    four, plain = known("qwen3-32b", quantisation="4bit"), known("qwen3-32b")
    assert (four.quantisation, plain.quantisation) == ("4bit", "bf16")
    assert four.total_bytes == pytest.approx(plain.total_bytes * 4.5 / 16, rel=1e-4)
    assert four.total_bytes == pytest.approx(model("Qwen3-32B", "4bit").params_total * 4.5 / 8, rel=1e-2)
    assert known("qwen3-32b", bits_per_weight=5).quantisation == "5 bits per weight"
    with pytest.raises(CatalogError, match="give one"):
        known("qwen3-32b", quantisation="4bit", bits_per_weight=5)
    with pytest.raises(CatalogError, match="did you mean '4bit'"):
        known("qwen3-32b", quantisation="4bits")


def test_published_quantised_files_are_met():
    """Kimi-K2.6: 595,148,192,736 bytes by EXO's card, experts at 4 bits and everything else at 16."""
    assert known("kimi-k2.5").total_bytes == pytest.approx(595_148_192_736, rel=2e-3)
    assert known("gpt-oss-20b").total_bytes == pytest.approx(13.76e9, rel=2e-3)
    assert known("qwen3-30b-fp8").total_bytes == pytest.approx(31.2e9, rel=5e-3)
    nvfp4 = known("glm-5.1-nvfp4")
    assert nvfp4.quantisation == "nvfp4"
    # attention, shared experts and the first layers stay at 16 bits by name
    assert 4.6 < 8 * nvfp4.total_bytes / (nvfp4.params_total + nvfp4.other_params) < 5


@pytest.mark.parametrize(
    ("quantisation", "linear", "tables", "name"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, 4.5, 4.5, "4bit"),
        ({"quantization": {"bits": 8, "group_size": 32}}, 9.0, 9.0, "8bit-gs32"),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, 4.25, 4.25, "mxfp4"),
        ({"quantization": {"bits": 8, "group_size": 32, "mode": "mxfp8"}}, 8.25, 8.25, "mxfp8"),
        ({"quantization": {"bits": 4, "group_size": 16, "mode": "nvfp4"}}, 4.5, 4.5, "nvfp4"),
        ({"quantization": {"bits": 4, "group_size": 64, "lm_head": {"bits": 8}}}, 4.5, (4.5, 8.5), "4bit"),
        ({"quantization": {"bits": 4, "model.embed_tokens": False}}, 4.5, (16, 4.5), "4bit"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
            4 + 20 / 128,
            16,
            "gptq 4bit",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": -1}}, 8, 16, "gptq 8bit"),
        (
            {"quantization_config": {"quant_method": "awq", "w_bit": 4, "q_group_size": 64}},
            4 + 20 / 64,
            16,
            "awq 4bit",
        ),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            8 + 32 / 16384,
            16,
            "fp8",
        ),
        ({"quantization_config": {"quant_method": "fbgemm_fp8"}}, 8, 16, "fp8"),
        (
            {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}},
            4.5,
            16,
            "nvfp4",
        ),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}, 8, 16, "fp8"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            8,
            16,
            "bitsandbytes 8bit",
        ),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            4.5,
            16,
            "bitsandbytes 4bit",
        ),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {
                        "g": {
                            "targets": ["Linear"],
                            "weights": {"num_bits": 4, "type": "int", "group_size": 32},
                        }
                    },
                    "ignore": ["lm_head"],
                }
            },
            4.5,
            16,
            "int4",
        ),
        ({}, 16, 16, "bf16"),
        ({"torch_dtype": "float16"}, 16, 16, "fp16"),
        ({"torch_dtype": "float32"}, 32, 32, "fp32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bits_of_every_common_kind(tmp_path, quantisation, linear, tables, name):
    found = facts(tmp_path, **quantisation)
    plain = 32 if name == "fp32" else 16
    embedding, head = tables if isinstance(tables, tuple) else (tables, tables)
    assert found.quantisation == name
    assert found.layer_bytes == pytest.approx((LAYER * linear + NORMS * plain) / 8)
    assert found.embedding_bytes == pytest.approx(TABLE * embedding / 8)
    assert found.head_bytes == pytest.approx(TABLE * head / 8)


@pytest.mark.parametrize(
    ("kept", "bits"),
    [
        (["model.layers.1.mlp.gate_proj"], 16),
        (["model.layers.1.mlp*"], 16),
        (["re:.*layers.1.mlp.*"], 16),
        (["layers.1.mlp"], 16),
        (["model.layers.11.mlp*"], 4.5),
        (["re:(a+)+$"], 4.5),  # may backtrack for ever: not tried
    ],
)
def test_modules_that_are_left_alone_are_found_by_name(tmp_path, kept, bits):
    stated = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": kept}
    first, second, *_ = kinds(facts(tmp_path, quantization_config=stated), "weight_bytes")
    width = 1024 * 4096 * (3 if "proj" not in kept[0] else 1)
    assert second - first == pytest.approx(width * (bits - 4.5) / 8)


def test_routers_and_shared_experts_follow_their_family(tmp_path):
    mixture = {
        "model_type": "deepseek_v3",
        "n_routed_experts": 16,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    }
    found = facts(tmp_path, **mixture)
    dense, *rest = (found.layer_kinds[kind] for kind in found.layer_pattern)
    assert (dense.experts, {kind.experts for kind in rest}) == (0, {16})
    assert rest[0].expert_bytes == 16 * 3 * 1024 * 512 * 2
    attention = LAYER - 3 * 1024 * 4096
    assert rest[0].weight_bytes == rest[0].expert_bytes + 2 * (attention + NORMS + 3 * 1024 * 512 + 16 * 1024)
    assert rest[0].active_bytes == rest[0].weight_bytes - rest[0].expert_bytes * 14 / 16


def test_what_no_token_reads_is_counted_and_said(tmp_path):
    tower = {"hidden_size": 1152, "depth": 27, "intermediate_size": 4304, "out_hidden_size": 1024}
    seeing = facts(tmp_path, vision_config=tower, num_nextn_predict_layers=1)
    blind = facts(tmp_path)
    assert seeing.layer_bytes == blind.layer_bytes
    assert seeing.total_bytes - blind.total_bytes == pytest.approx(seeing.other_bytes)
    assert sum("not read for each token" in doubt for doubt in seeing.doubts) == 2
    converted = facts(tmp_path, vision_config=tower, num_nextn_predict_layers=1, quantization={"bits": 4})
    assert any("not in the files of MLX" in doubt for doubt in converted.doubts)


def test_guesses_are_doubts(tmp_path):
    found = facts(tmp_path, model_type="brand_new")
    assert any("'brand_new' is not known" in doubt for doubt in found.doubts)
    assert any("two tables assumed" in doubt for doubt in found.doubts)
    assert facts(tmp_path).doubts == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_hidden_layers": 10**9}, "at most 100,000,000"),
        ({"num_hidden_layers": MAX_LAYERS + 1}, "at most 1,000"),
        ({"hidden_size": 10**8, "intermediate_size": 10**8}, "more than any model has"),
        ({"num_hidden_layers": 0, "layer_types": ["full_attention"]}, "num_hidden_layers is 0"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": [[]]}, "num_attention_heads is"),
        ({"intermediate_size": True}, "intermediate_size is True"),
        ({"num_experts": 8}, "0 of them per token"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, "must be 1 to 8"),
        ({"layer_types": ["full_attention"]}, "1 entries for 4 layers"),
        ({"layer_types": ["full_attention", 7, None, "x"]}, "which is not known"),
        ({"layer_types": ["full_attention"] * 30_000}, "more than"),
        ({"quantization": {"bits": "many"}}, "bits 'many'"),
        ({"quantization_config": {"quant_method": "magic"}}, "does not say its bits"),
        (
            {"quantization_config": {"quant_method": "fp8", "ignore": [f"re:{n}.*" for n in range(9000)]}},
            "too many",
        ),
        ({"model_type": "rwkv6"}, "no transformer"),
    ],
)
def test_absurd_configs_get_one_message_at_once(tmp_path, keys, message):
    path = made(tmp_path, **keys)
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(CatalogError, match=message):
        from_hf_config(path)
    took_s, peak_bytes = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took_s < 1
    assert peak_bytes < 20_000_000


@pytest.mark.parametrize(
    "keys",
    [
        {"mlp_only_layers": list(range(1_000)), "num_experts": 8, "num_experts_per_tok": 2},
        {
            "quantization": {"bits": 4}
            | {f"model.layers.{n}.mlp.gate_proj": {"bits": 8} for n in range(1_000)}
        },
        {
            "quantization_config": {
                "quant_method": "fp8",
                "ignore": [f"model.layers.{n}.*" for n in range(20)],
            }
        },
        {"intermediate_size": [4096] * 1_000},
    ],
)
def test_the_deepest_config_that_is_read_is_read_at_once(tmp_path, keys):
    path = made(tmp_path, num_hidden_layers=MAX_LAYERS, hidden_size=64, **keys)
    tracemalloc.start()
    begin = time.process_time()
    assert from_hf_config(path).layers == MAX_LAYERS
    took_s, peak_bytes = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took_s < 3  # tracing allocations takes several times what reading takes
    assert peak_bytes < 100_000_000


REAL = [json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))]
REAL += [shape.config for shape in models()]
NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(), st.none(), st.text(max_size=5)), max_size=200),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.sampled_from(
        [["mamba"] * 300, {"bits": 4}, {"bits": None}, {"quant_method": "fp8"}, "full_attention"]
    ),
)


def places(config, path=()):
    """Where a value stands."""
    for key, value in config.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nonsense_in_a_real_config_is_read_or_refused_but_nothing_else_escapes(data):
    config = json.loads(json.dumps(data.draw(st.sampled_from(REAL))))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(config))))
        holder = config
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = deepcopy(data.draw(NONSENSE))
    try:
        assert from_config(Config(config, "here")).total_bytes > 0
    except CatalogError:
        with pytest.raises(CatalogError, match=r"^(here|a layer's).{1,600}$"):
            from_config(Config(config, "here"))


def test_a_config_that_ends_early_or_never_says_so(tmp_path):
    path = tmp_path / "config.json"
    whole = (CONFIGS / "qwen3-next-80b.json").read_text()
    for length in range(0, len(whole) - 1, 97):
        path.write_text(whole[:length])
        with pytest.raises(CatalogError, match="is not JSON"):
            from_hf_config(path)
    path.write_text(" " * 4_000_001)
    with pytest.raises(CatalogError, match="4000001 bytes are too many"):
        from_hf_config(path)


def test_nvidias_file_beside_the_config_counts(tmp_path):
    path = made(tmp_path)
    beside = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    assert from_hf_config(path).quantisation == "nvfp4"
    (tmp_path / "hf_quant_config.json").write_text("{")
    with pytest.raises(CatalogError, match=r"hf_quant_config\.json: is not JSON"):
        from_hf_config(path)
