"""GGUF headers and HF configs: exact sums, agreement with the catalogue, and files that lie."""

import json
import struct
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.catalog import from_gguf, from_hf_config, model, models
from simulator.errors import CatalogError

LAYERS, HIDDEN, FFN, VOCAB = 3, 64, 128, 96
F16, Q8 = 2, 34 / 32  # bytes per value; Q8_0 stores 32 values in 34 bytes


def write_gguf(path, *, tied=False, experts=0, vocabulary=5000):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list([f"token {index}" for index in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)

    def add(name, *shape):
        writer.add_tensor(name, np.zeros(shape, dtype=np.float16))

    add("token_embd.weight", VOCAB, HIDDEN)
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_q.weight", HIDDEN, HIDDEN)
        if experts:
            add(f"blk.{layer}.ffn_up_exps.weight", experts, FFN, HIDDEN)
        else:
            values = np.zeros((FFN, HIDDEN), dtype=np.float32)
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"blk.{layer}.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    add("output_norm.weight", HIDDEN)
    if not tied:
        add("output.weight", VOCAB, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_bytes_are_exact(tmp_path):
    facts = from_gguf(write_gguf(tmp_path / "tiny.gguf"))
    layer = HIDDEN * HIDDEN * F16 + FFN * HIDDEN * Q8
    assert [facts.layer_kinds[kind].weight_bytes for kind in facts.layer_pattern] == [layer] * LAYERS
    assert facts.layer_bytes == layer
    assert facts.embedding_bytes == VOCAB * HIDDEN * F16
    assert facts.head_bytes == VOCAB * HIDDEN * F16 + HIDDEN * F16
    assert facts.total_bytes == LAYERS * layer + facts.embedding_bytes + facts.head_bytes
    assert (facts.name, facts.layers, facts.hidden, facts.vocab, facts.kv_heads) == (
        "tiny",
        LAYERS,
        HIDDEN,
        VOCAB,
        2,
    )
    assert facts.kv_bytes_per_token_per_layer == 2 * 2 * (HIDDEN // 4) * 2
    assert facts.layer_flops_per_token == 2 * (HIDDEN * HIDDEN + FFN * HIDDEN)
    assert not facts.tied_embeddings
    assert facts.note == ""


def test_gguf_with_tied_embeddings_counts_the_table_once(tmp_path):
    facts = from_gguf(write_gguf(tmp_path / "tiny.gguf", tied=True))
    assert facts.tied_embeddings
    assert facts.embedding_bytes == 0
    assert facts.embedding_table_bytes == facts.head_bytes


def test_gguf_experts_are_told_apart(tmp_path):
    facts = from_gguf(write_gguf(tmp_path / "tiny.gguf", experts=8))
    expert = 8 * FFN * HIDDEN * F16
    assert facts.expert_layer_bytes == expert
    assert facts.active_layer_bytes == HIDDEN * HIDDEN * F16 + expert * 2 / 8


def hybrid_gguf(path, architecture="gemma3", layers=12, **more):
    """Headers of twelve layers, each third of which has a state and no cache where `kv_heads` says 0."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_embedding_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_sliding_window(128)
    for name, value in more.items():
        key = f"{architecture}.{name.replace('__', '.')}"
        writer.add_array(key, value) if isinstance(value, list) else writer.add_uint32(key, value)
    writer.add_tensor("token_embd.weight", np.zeros((VOCAB, HIDDEN), dtype=np.float16))
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_q.weight", np.zeros((HIDDEN, HIDDEN), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_windows_and_heads_per_layer(tmp_path):
    kv_heads = [2, 2, 0] * 4
    facts = from_gguf(hybrid_gguf(tmp_path / "a.gguf", attention__head_count_kv=kv_heads))
    kept = [facts.layer_kinds[kind].kv_bytes_per_token for kind in facts.layer_pattern]
    assert kept == [2 * heads * (HIDDEN // 4) * 2 for heads in kv_heads]
    windows = [facts.layer_kinds[kind].kv_window_tokens for kind in facts.layer_pattern]
    assert windows[:5] == [128, 128, None, 128, 128]
    assert windows[5] is None  # each sixth layer of Gemma 3 sees all, and this one keeps nothing
    assert facts.kv_bytes_per_token_per_layer == pytest.approx(sum(kept) / 12)


def test_gguf_prediction_heads_are_no_layers(tmp_path):
    facts = from_gguf(hybrid_gguf(tmp_path / "a.gguf", "glm4moe", nextn_predict_layers=1))
    assert facts.layers == 11
    assert facts.other_bytes == HIDDEN * HIDDEN * F16
    assert any("not read for each token" in doubt for doubt in facts.doubts)
    assert any("all layers are taken for local" in doubt for doubt in facts.doubts)


@pytest.mark.parametrize("blocks", [10**9, 2**32 - 1, 1001])
def test_more_layers_than_any_model_has_are_refused_at_once(tmp_path, blocks):
    """450 bytes took all memory there was."""
    path = write_gguf(tmp_path / "deep.gguf", vocabulary=20)
    content, name = path.read_bytes(), b"llama.block_count"
    at = content.index(name) + len(name) + 4
    path.write_bytes(content[:at] + struct.pack("<I", blocks) + content[at + 4 :])
    tracemalloc.start()
    with pytest.raises(CatalogError, match=r"block_count is .* at most 1,000"):
        from_gguf(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


def test_only_the_header_is_needed(tmp_path):
    whole = write_gguf(tmp_path / "tiny.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[: -LAYERS * 1000])
    assert from_gguf(cut).total_bytes == from_gguf(whole).total_bytes
    assert "incomplete" in from_gguf(cut).note


def test_every_truncated_header_is_refused(tmp_path):
    whole = write_gguf(tmp_path / "tiny.gguf", vocabulary=20).read_bytes()
    header = whole.index(b"output.weight") + 20
    cut = tmp_path / "cut.gguf"
    for length in range(0, header, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(CatalogError, match=r"cut\.gguf"):
            from_gguf(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_is_refused_or_read_but_nothing_else_escapes(tmp_path, data):
    path = tmp_path / "tiny.gguf"
    if not path.exists():
        write_gguf(path, vocabulary=20)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(bytes(content))
    try:
        assert from_gguf(damaged).total_bytes > 0
    except CatalogError:
        with pytest.raises(CatalogError, match=r"damaged\.gguf"):
            from_gguf(damaged)


def key(name, kind, payload):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + payload


@pytest.mark.parametrize(
    "lie",
    [
        struct.pack("<QQ", 2**60, 1),  # tensors
        struct.pack("<QQ", 0, 2**60),  # keys
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62),  # length of a key's name
        struct.pack("<QQ", 0, 1) + key(b"a", 8, struct.pack("<Q", 2**62)),  # length of a string
        struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQ", 8, 2**61)),  # strings in a list
        struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQ", 4, 2**61)),  # numbers in a list
        struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQ", 9, 2)),  # lists in a list
        struct.pack("<QQ", 0, 1) + key(b"a", 77, b""),  # type of a key
        struct.pack("<QQ", 1, 0) + struct.pack("<Q", 1) + b"t" + struct.pack("<I", 2**31),  # dimensions
        struct.pack("<QQ", 1, 0)
        + struct.pack("<Q", 1)
        + b"t"
        + struct.pack("<IQIQ", 1, 2**63, 0, 0),  # values
        struct.pack("<QQ", 1, 0)
        + struct.pack("<Q", 1)
        + b"t"
        + struct.pack("<IQIQ", 1, 1, 999, 0),  # tensor type
        struct.pack("<QQ", 1, 0)
        + struct.pack("<Q", 9)
        + b"blk.99999"
        + struct.pack("<IQIQ", 1, 1, 0, 0),  # layer
    ],
)
def test_a_lie_costs_no_memory(tmp_path, lie):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + lie + b"\0" * 200)
    tracemalloc.start()
    with pytest.raises(CatalogError, match=r"hostile\.gguf"):
        from_gguf(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"PK\x03\x04" + b"\0" * 100, b"GGUF" + struct.pack(">I", 3) + b"\0" * 99]
)
def test_what_is_no_gguf_file_says_so(tmp_path, content):
    path = tmp_path / "not.gguf"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"not\.gguf: .*; download"):
        from_gguf(path)


def test_missing_files_say_so(tmp_path):
    with pytest.raises(CatalogError, match="cannot be read"):
        from_gguf(tmp_path / "none.gguf")
    with pytest.raises(CatalogError, match="cannot be read"):
        from_hf_config(tmp_path / "config.json")


def test_split_files_are_read_together_and_missing_parts_named(tmp_path):
    for part in (1, 2):
        writer = gguf.GGUFWriter(tmp_path / f"m-{part:05d}-of-00002.gguf", "llama")
        writer.add_uint16("split.count", 2)
        if part == 1:
            writer.add_block_count(1)
            writer.add_embedding_length(HIDDEN)
            writer.add_head_count(4)
            writer.add_tensor("token_embd.weight", np.zeros((VOCAB, HIDDEN), dtype=np.float16))
        else:
            writer.add_tensor("blk.0.attn_q.weight", np.zeros((HIDDEN, HIDDEN), dtype=np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for part in (1, 2):
        assert from_gguf(tmp_path / f"m-{part:05d}-of-00002.gguf").layer_bytes == HIDDEN * HIDDEN * F16
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(CatalogError, match=r"m-00002-of-00002\.gguf is not beside it"):
        from_gguf(tmp_path / "m-00001-of-00002.gguf")


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def write_config(tmp_path, **changes):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({name: value for name, value in {**CONFIG, **changes}.items() if value is not None})
    )
    return path


def test_a_config_agrees_with_the_catalogue(tmp_path):
    facts, known = from_hf_config(write_config(tmp_path)), model("Llama-3.3-70B", "bf16")
    assert facts.params_total == known.params_total
    assert facts.total_bytes == pytest.approx(known.params_total * 2)
    for field in ("layers", "hidden", "kv_bytes_per_token_per_layer", "layer_flops_per_token", "head_flops"):
        assert getattr(facts, field) == getattr(known, field)


def test_config_bits_come_from_the_caller_the_file_or_the_type(tmp_path):
    quantised = write_config(tmp_path, quantization={"bits": 4, "group_size": 64})
    four = from_hf_config(quantised).total_bytes
    assert four == pytest.approx(model("Llama-3.3-70B").params_total * 4.5 / 8, rel=1e-4)
    assert from_hf_config(quantised, bits_per_weight=9.0).total_bytes == pytest.approx(2 * four, rel=1e-4)


def test_config_of_latent_attention_matches_the_published_count(tmp_path):
    """DeepSeek-V3: 671 B parameters and 70,272 cache bytes per token are published."""
    facts = from_hf_config(
        write_config(
            tmp_path,
            num_hidden_layers=61,
            hidden_size=7168,
            intermediate_size=18432,
            num_attention_heads=128,
            num_key_value_heads=128,
            vocab_size=129280,
            n_routed_experts=256,
            num_experts_per_tok=8,
            n_shared_experts=1,
            moe_intermediate_size=2048,
            first_k_dense_replace=3,
            q_lora_rank=1536,
            kv_lora_rank=512,
            qk_rope_head_dim=64,
            qk_nope_head_dim=128,
            v_head_dim=128,
        )
    )
    assert facts.params_total == pytest.approx(671.03e9, rel=1e-4)
    assert 61 * facts.kv_bytes_per_token_per_layer == 70272
    assert facts.params_total == next(shape for shape in models() if shape.name == "DeepSeek-V3").params_total


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ("{}", "hidden_size is missing"),
        (json.dumps({**CONFIG, "num_hidden_layers": "many"}), "num_hidden_layers is 'many'"),
        (json.dumps({**CONFIG, "num_hidden_layers": -1}), "must be a whole number >= 1"),
        (json.dumps({**CONFIG, "hidden_size": 1e300}), "hidden_size is 1e"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_broken_configs_tell_the_key_and_the_way_out(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CatalogError, match=message):
        from_hf_config(path)


def test_absurd_bits_are_refused(tmp_path):
    with pytest.raises(CatalogError, match="0 bits per weight"):
        from_hf_config(write_config(tmp_path), bits_per_weight=0)
