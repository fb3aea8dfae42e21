"""How one layer mixes tokens: attention of every kind, its cache, and the mixers that keep a fixed state."""

from __future__ import annotations

from math import ceil

from simulator.catalog.config_keys import Config
from simulator.catalog.matrices import FP16_BYTES, FP32_BYTES, Block, Matrix

__all__ = ["HEADS", "attention", "head_sizes", "linear_attention", "mamba", "short_convolution"]

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")


def attention(config: Config, layer: int, window: int | None) -> Block:
    """Softmax attention; `window` tokens are kept (None: all). Latent where the config has a latent rank."""
    hidden = config.whole("hidden_size", "n_embd", "d_model", "dim")
    if config.has("compress_ratios"):
        return _compressed_attention(config, hidden, layer)
    if config.whole("kv_lora_rank", default=0):
        return _latent_attention(config, hidden, layer)
    return _grouped_attention(config, hidden, layer, window)


def _grouped_attention(config: Config, hidden: int, layer: int, window: int | None) -> Block:
    """Multi-head, grouped-query and multi-query: kv = K (d_k + d_v) values a token."""
    heads, kv_heads, width, value = head_sizes(config, hidden, layer, is_local=window is not None)
    gates = 2 if config.flag("attn_output_gate", bool(config.trait("gated_attention"))) else 1
    shares_values = config.flag("attention_k_eq_v") and window is None
    # the last layers of Gemma 3n and 4 look into the cache of an earlier one
    borrows = layer >= config.whole("num_hidden_layers", default=0) - config.whole(
        "num_kv_shared_layers", default=0
    )
    keeps_own = not borrows or bool(config.trait("keeps_unused_kv"))
    parts = [
        Matrix("q_proj", gates * hidden * heads * width, columns=hidden),
        Matrix("k_proj", hidden * kv_heads * width * keeps_own, columns=hidden),
        Matrix("v_proj", hidden * kv_heads * value * (keeps_own and not shares_values), columns=hidden),
        Matrix("o_proj", heads * value * hidden, columns=heads * value),
        Matrix(
            "norms", _small_vectors(config, hidden, heads, kv_heads, width), is_vector=True, is_added=True
        ),
    ]
    return Block(
        tuple(part for part in parts if part.params),
        kv_values=0.0 if borrows or _looks_at_images(config, layer) else kv_heads * (width + value),
        window=window,
        attention_flops=2.0 * heads * (width + value),
    ).inside("self_attn") + _sparse_index(config, hidden, layer)


def _looks_at_images(config: Config, layer: int) -> bool:
    """Llama 3.2 Vision: some layers attend to an image and to nothing of the text."""
    found = layer in config.numbers("cross_attention_layers")
    if found:
        config.doubt(
            "layers of cross-attention: read for each token, as with an image; its cache is not counted"
        )
    return found


def head_sizes(config: Config, hidden: int, layer: int, is_local: bool) -> tuple[int, int, int, int]:
    """Heads, key-value heads, width of a key, width of a value; families let them differ by kind of layer."""
    heads, kv_heads, width = _plain_heads(config, hidden, layer)
    value = config.whole("v_head_dim", default=width)
    if is_local:
        other = config.part("attention_other_setting")  # Step 3.5 has more heads in its local layers
        heads = other.whole(
            "num_attention_heads", default=config.whole("swa_num_attention_heads", default=heads)
        )
        kv_heads = config.whole("swa_num_key_value_heads", default=kv_heads)
        width = config.whole("swa_head_dim", default=width)
        value = config.whole("swa_v_head_dim", default=value)
    elif config.has("global_head_dim"):
        width = value = config.whole("global_head_dim", default=width)
        kv_heads = config.whole("num_global_key_value_heads", default=kv_heads) or kv_heads
    return heads, kv_heads, width, value


def _plain_heads(config: Config, hidden: int, layer: int) -> tuple[int, int, int]:
    heads = config.whole(*HEADS, layer=layer)
    named = config.part("attn_config")  # MPT and DBRX nest theirs
    is_shared = config.flag("multi_query") and not config.flag("new_decoder_architecture")
    kv_heads = config.whole(
        "num_key_value_heads",
        "num_kv_heads",
        "n_head_kv",
        "multi_query_group_num",
        "num_attention_groups",
        default=named.whole("kv_n_heads", default=1 if is_shared else heads),
        layer=layer,
    )
    if is_shared:
        kv_heads = 1  # Falcon-7B writes the number of its query heads here
    width = config.whole(
        "head_dim", "attention_head_dim", "kv_channels", default=max(hidden // heads, 1), layer=layer
    )
    return heads, kv_heads, width or max(hidden // heads, 1)


def _small_vectors(config: Config, hidden: int, heads: int, kv_heads: int, width: int) -> int:
    """Biases of the projections and norms of the heads."""
    biases = config.trait("biases") or ("all" if config.flag("attention_bias") else "")
    if config.flag("qkv_bias") or config.flag("add_qkv_bias"):
        biases = biases or "qkv"
    count = (heads + 2 * kv_heads) * width if biases in ("qkv", "all") else 0
    count += hidden if biases == "all" else 0
    is_normed = bool(config.trait("head_norms")) or config.flag("use_qk_norm")
    return count + (2 * width if is_normed else 0)


def _sparse_index(config: Config, hidden: int, layer: int) -> Block:
    """The small attention that picks what the large one looks at, by blocks (MiniMax-M3)."""
    sparse = config.part("sparse_attention_config")
    width = sparse.whole("sparse_index_dim", default=0)
    if not width or not sparse.whole("sparse_attention_freq", default=1, layer=layer):
        return Block()
    heads = sparse.whole("sparse_num_index_heads", default=1)
    parts = (Matrix("self_attn.indexer", hidden * width * (heads + 1)),)
    picked = sparse.whole("sparse_topk_blocks", default=0) * sparse.whole("sparse_block_size", default=1)
    return _index(config, parts, width, 2.0 * heads * width, picked)


def _index(config: Config, parts: tuple[Matrix, ...], width: int, flops: float, picked: int) -> Block:
    """An index of one key of `width` values a token, from which a step picks so many tokens (0: not said)."""
    if not picked:
        config.doubt("sparse attention: how much the index picks is not said, so the whole cache is read")
    return Block(parts, kv_values=width, read_tokens=picked or None, index_values=width, index_flops=flops)


def _latent_attention(config: Config, hidden: int, layer: int) -> Block:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): low-rank q, shared low-rank k and v.

    The cache keeps latent + rope values. A token that is attended to costs `2 heads (nope + rope + value)`
    flops in a prompt, where it counts; decoding with the up-projections absorbed takes more, but waits for
    memory.
    """
    heads, latent = config.whole(*HEADS), config.whole("kv_lora_rank")
    rope, nope = config.whole("qk_rope_head_dim", default=0), config.whole("qk_nope_head_dim", default=0)
    value, query = config.whole("v_head_dim", default=nope), config.whole("q_lora_rank", default=0)
    q_width = heads * (nope + rope)
    q = (
        [
            Matrix("q_a_proj", hidden * query, columns=hidden),
            Matrix("q_b_proj", query * q_width, columns=query),
        ]
        if query
        else [Matrix("q_proj", hidden * q_width, columns=hidden)]
    )
    parts = [
        *q,
        Matrix("kv_a_proj_with_mqa", hidden * (latent + rope), columns=hidden),
        Matrix("kv_b_proj", latent * heads * (nope + value), columns=latent),
        Matrix("o_proj", heads * value * hidden, columns=heads * value),
        Matrix("norms", query + latent, is_vector=True),
    ]
    if config.flag("mla_use_output_gate"):
        parts.append(Matrix("g_proj", hidden * heads * value))
    block = Block(
        tuple(parts),
        kv_values=latent + rope,
        attention_flops=2.0 * heads * (nope + rope + value),
        latent=True,
    ).inside("self_attn")
    return block + _latent_index(config, hidden, query, layer)


def _latent_index(config: Config, hidden: int, query: int, layer: int) -> Block:
    """DeepSeek-V3.2's lightning indexer: a key of its own per token, scored by its heads before attention."""
    width, heads = config.whole("index_head_dim", default=0), config.whole("index_n_heads", default=0)
    kinds, picked = config.layers_of("indexer_types"), config.whole("index_topk", default=0)
    if not width:
        return Block()
    if kinds and layer < len(kinds) and kinds[layer] == "shared":
        return Block(read_tokens=picked or None)  # what an earlier layer picked
    parts = (
        Matrix("wq_b", (query or hidden) * heads * width),
        Matrix("wk", hidden * width),
        Matrix("weights_proj", hidden * heads),
    )
    return _index(config, parts, width, 2.0 * heads * width, picked).inside("self_attn.indexer")


def _compressed_attention(config: Config, hidden: int, layer: int) -> Block:
    """DeepSeek-V4: one shared key-value head; beyond a window only each r-th token is kept, compressed.

    Two low-rank projections per side; the output's first one is split into groups.
    """
    heads, width, query = config.whole(*HEADS), config.whole("head_dim"), config.whole("q_lora_rank")
    low, groups = config.whole("o_lora_rank"), config.whole("o_groups", default=1)
    ratio = config.whole("compress_ratios", default=0, layer=layer)
    parts = [
        Matrix("wq_a", hidden * query),
        Matrix("wq_b", query * heads * width),
        Matrix("wkv", hidden * width),
        Matrix("wo_a", heads * width * low),
        Matrix("wo_b", groups * low * hidden),
    ]
    overlap = 2 if ratio == 4 else 1  # the finer compressor overlaps its windows
    index = config.whole("index_head_dim", default=0) if ratio == 4 else 0
    if ratio:
        parts.append(Matrix("compressor", 2 * overlap * hidden * width))
    if index:
        index_heads = config.whole("index_n_heads", default=0)
        parts += [
            Matrix("indexer.wq_b", query * index_heads * index),
            Matrix("indexer.compressor", 2 * overlap * hidden * index),
        ]
    config.doubt("DeepSeek-V4's compressed attention: cache and sparse reading are approximated")
    # its index picks among what is kept, one for each r tokens
    picked = ratio * config.whole("index_topk", default=0) if index else 0
    return Block(
        tuple(parts),
        kv_values=(width + index) / ratio if ratio else 0.0,
        read_tokens=picked or None,
        index_values=index / ratio if picked else 0.0,
        index_flops=2.0 * config.whole("index_n_heads", default=0) * index / ratio if picked else 0.0,
        state_bytes=config.whole("sliding_window", default=0) * width * FP16_BYTES,
        attention_flops=4.0 * heads * width / ratio if ratio else 0.0,
        latent=True,
    ).inside("self_attn")


def linear_attention(config: Config) -> Block:
    """Attention whose memory of the past is one matrix per head, whatever the length."""
    hidden = config.whole("hidden_size")
    if config.has("linear_num_value_heads"):
        return _gated_delta(config, hidden)
    if config.has("linear_attn_config"):
        return _kimi_delta(config, hidden)
    return _lightning(config, hidden)


def _gated_delta(config: Config, hidden: int) -> Block:
    """Gated DeltaNet (arXiv:2412.06464), as in Qwen3-Next and Qwen3.5."""
    key_heads, heads = config.whole("linear_num_key_heads"), config.whole("linear_num_value_heads")
    key, value = config.whole("linear_key_head_dim"), config.whole("linear_value_head_dim")
    kernel = config.whole("linear_conv_kernel_dim", default=4)
    mixed = 2 * key_heads * key + heads * value
    parts = (
        Matrix("in_proj_qkv", hidden * mixed, columns=hidden),
        Matrix("in_proj_z", hidden * heads * value, columns=hidden),
        Matrix("in_proj_ba", 2 * hidden * heads),
        Matrix("conv1d", mixed * kernel + 2 * heads + value, is_vector=True),
        Matrix("out_proj", heads * value * hidden, columns=heads * value),
    )
    return _stateful(parts, heads * key * value, mixed * (kernel - 1)).inside("linear_attn")


def _kimi_delta(config: Config, hidden: int) -> Block:
    """Kimi Delta Attention (arXiv:2510.26692): gates through a low rank, or a full one."""
    own = config.part("linear_attn_config")
    heads, width = own.whole("num_heads"), own.whole("head_dim")
    kernel, inner = own.whole("short_conv_kernel_size", default=4), heads * width
    gate = hidden * inner if own.flag("use_full_rank_gate") else (hidden + inner) * width
    parts = (
        Matrix("qkv_proj", 3 * hidden * inner),
        Matrix("f_proj", (hidden + inner) * width),
        Matrix("g_proj", gate),
        Matrix("b_proj", hidden * heads),
        Matrix("conv1d", 3 * inner * kernel + inner + heads + width, is_vector=True),
        Matrix("o_proj", inner * hidden),
    )
    return _stateful(parts, inner * width, 3 * inner * (kernel - 1)).inside("self_attn")


def _lightning(config: Config, hidden: int) -> Block:
    """Lightning attention (arXiv:2501.08313), as in MiniMax-01: q, k, v, an output gate."""
    heads, _, width = _plain_heads(config, hidden, 0)
    inner = heads * width
    parts = (
        Matrix("qkv_proj", 3 * hidden * inner),
        Matrix("output_gate", hidden * inner),
        Matrix("out_proj", inner * hidden),
        Matrix("norm", inner, is_vector=True),
    )
    return _stateful(parts, inner * width, 0).inside("self_attn")


def _stateful(parts: tuple[Matrix, ...], state: int, convolution: int) -> Block:
    """A state in single precision, updated and asked once a token: three multiply-adds per value."""
    return Block(parts, state_bytes=state * FP32_BYTES + convolution * FP16_BYTES, state_flops=6.0 * state)


def mamba(config: Config) -> Block:
    """A state space layer: the second generation where it has heads, else the first."""
    heads = config.whole("mamba_num_heads", "mamba_n_heads", default=0)
    if not heads and config.model_type == "mamba2":
        heads = config.whole("num_heads")
    hidden = config.whole("hidden_size", "d_model")
    state = config.whole("ssm_state_size", "mamba_d_state", "state_size", default=16)
    kernel = config.whole("conv_kernel", "mamba_d_conv", "d_conv", default=4)
    inner = config.whole("mamba_expand", "expand", default=2) * hidden
    if not heads:
        return _selective(config, hidden, inner, state, kernel)
    width = config.whole("mamba_head_dim", "mamba_d_head", "head_dim", default=0)
    inner = config.whole("mamba_d_ssm", default=heads * width or inner)
    mixed = inner + 2 * config.whole("n_groups", "mamba_n_groups", default=1) * state
    parts = (
        Matrix("in_proj", hidden * (inner + mixed + heads), columns=hidden),
        Matrix("conv1d", mixed * (kernel + 1) + 3 * heads + inner, is_vector=True),
        Matrix("out_proj", inner * hidden, columns=inner),
    )
    return _stateful(parts, inner * state, mixed * (kernel - 1)).inside("mixer")


def _selective(config: Config, hidden: int, inner: int, state: int, kernel: int) -> Block:
    """The first Mamba (arXiv:2312.00752): its step comes through a low rank."""
    given = config.values.get("mamba_dt_rank", config.values.get("time_step_rank"))
    rank = given if isinstance(given, int) and 0 < given <= hidden else ceil(hidden / 16)
    parts = (
        Matrix("in_proj", 2 * hidden * inner),
        Matrix("x_proj", inner * (rank + 2 * state)),
        Matrix("dt_proj", rank * inner),
        Matrix("conv1d", inner * (kernel + 1 + state + 2), is_vector=True),
        Matrix("out_proj", inner * hidden),
    )
    return _stateful(parts, inner * state, inner * (kernel - 1)).inside("mixer")


def short_convolution(config: Config) -> Block:
    """LFM2's gated short convolution: in (three parts), a kernel over the last tokens, out."""
    hidden, kernel = config.whole("hidden_size"), config.whole("conv_L_cache", default=3)
    parts = (
        Matrix("in_proj", 3 * hidden * hidden),
        Matrix("conv", kernel * hidden, is_vector=True),
        Matrix("out_proj", hidden * hidden),
    )
    return _stateful(parts, 0, hidden * (kernel - 1)).inside("conv")
