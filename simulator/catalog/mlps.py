"""The feed-forward part of one layer: dense, a mixture of experts, or both."""

from __future__ import annotations

from simulator.catalog.config_keys import Config
from simulator.catalog.matrices import Block, Matrix

__all__ = ["WIDTH", "dense", "feed_forward", "mixture"]

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
EXPERT_WIDTH = ("moe_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size")
SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
SHARED = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
WIDTH = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
GATED = ("gate_proj", "up_proj", "down_proj")


def feed_forward(config: Config, layer: int) -> Block:
    """The MLP of layer number `layer`."""
    if not _has_experts(config, layer):
        return dense(config, layer)
    if config.flag("enable_moe_block"):
        # Gemma 4 adds the experts to a dense MLP, both in every layer
        return dense(config, layer) + mixture(config, "moe")
    return mixture(config)


def dense(config: Config, layer: int) -> Block:
    """Two or three matrices hidden x width."""
    hidden = config.whole("hidden_size", "n_embd", "d_model", "dim")
    is_mixed = bool(config.whole(*EXPERTS, default=0))
    # where some layers are mixtures, `intermediate_size` may be that of an expert
    own = ("intermediate_size_mlp", "dense_intermediate_size") if is_mixed else ()
    width = config.whole(*own, *WIDTH, default=0, layer=layer)
    if not width:
        width = int(hidden * (config.values.get("expansion_ratio") or 4)) if _is_plain(config) else 4 * hidden
        if not config.is_known_family:
            config.doubt(f"no width of the MLP in the config: four times the hidden size, {width}")
    if config.flag("block_auto_adjust_ff_dim"):
        width = _adjusted(config, width)
    first_borrower = config.whole("num_hidden_layers", default=0) - config.whole(
        "num_kv_shared_layers", default=0
    )
    if config.flag("use_double_wide_mlp") and layer >= first_borrower:
        width *= 2
    return _mlp(config, hidden, width).inside("mlp")


def _is_plain(config: Config) -> bool:
    return isinstance(config.values.get("expansion_ratio", 4), (int, float))


def _adjusted(config: Config, width: int) -> int:
    """LFM2: two thirds, times a factor, up to the next multiple."""
    factor = config.values.get("block_ffn_dim_multiplier", 1.0)
    width = int((factor if isinstance(factor, (int, float)) and 0 < factor < 100 else 1) * (2 * width // 3))
    multiple = config.whole("block_multiple_of", default=256) or 1
    return -(-width // multiple) * multiple


def matrices_of_mlp(config: Config) -> int:
    """Three with a gate (SwiGLU), two without, by family and activation."""
    told = config.trait("mlp_matrices")
    if told:
        return int(told)
    activation = (
        config.text("hidden_act") or config.text("mlp_hidden_act") or config.text("activation_function")
    )
    if activation == "relu2":
        return 2  # nobody gates a squared ReLU
    if not config.is_known_family and activation.startswith("gelu"):
        config.doubt("an unknown family with GELU: its MLP is taken to have a gate (three matrices)")
    return 3


def _mlp(config: Config, hidden: int, width: int) -> Block:
    names = GATED[3 - matrices_of_mlp(config) :]
    parts = [Matrix(name, hidden * width, columns=_columns(name, hidden, width)) for name in names]
    if config.trait("mlp_biases"):
        parts.append(Matrix("biases", hidden + (len(names) - 1) * width, is_vector=True, is_added=True))
    return Block(tuple(parts))


def _columns(name: str, hidden: int, width: int) -> int:
    """Values in a row: what goes into the matrix."""
    return width if name == "down_proj" else hidden


def _has_experts(config: Config, layer: int) -> bool:
    """Whether this layer is a mixture: families say it in eight ways."""
    if not config.whole(*EXPERTS, default=0) or layer in config.numbers("mlp_only_layers"):
        return False
    kinds = config.layers_of("mlp_layer_types")
    if kinds is not None and layer < len(kinds):
        return bool(kinds[layer] == "sparse")
    for key in ("moe_layers", "moe_layers_enum"):
        if config.has(key):
            return layer in config.numbers(key)
    frequencies = config.layers_of("moe_layer_freq")
    if frequencies is not None and layer < len(frequencies):
        return bool(frequencies[layer])
    first = config.whole(
        "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "moe_first_k_dense", default=0
    )
    if layer < first:
        return False
    if config.has("expert_layer_period"):
        return layer % max(config.whole("expert_layer_period"), 1) == config.whole(
            "expert_layer_offset", default=0
        )
    if config.has("interleave_moe_layer_step") or config.has("decoder_sparse_step"):
        step = config.whole("interleave_moe_layer_step", "decoder_sparse_step", default=1)
        return step > 0 and (layer + 1) % step == 0
    step = config.whole("moe_layer_freq", "moe_layer_interval", default=1)
    return step > 0 and layer % step == 0


def mixture(config: Config, path: str = "mlp") -> Block:
    """Routed experts, of which each token takes some, a router, and what is shared by all tokens."""
    hidden = config.whole("hidden_size", "n_embd", "d_model", "dim")
    experts = config.whole(*EXPERTS)
    chosen = config.whole(*CHOSEN, default=0)
    if not 0 < chosen <= experts:
        raise config.fail(
            f"has {experts} experts but {chosen} of them per token ({' or '.join(CHOSEN[:3])}), must be 1 to "
            f"{experts}"
        )
    width = config.whole(*EXPERT_WIDTH, default=0) or config.whole(*WIDTH)
    # some project to a narrower space for the routed experts alone (Nemotron 3 Super, Kimi K3)
    latent = config.whole("moe_latent_size", "routed_expert_hidden_size", default=0)
    count = matrices_of_mlp(config)
    parts = [
        Matrix(
            f"experts.0.{name}",
            (latent or hidden) * width * experts,
            is_expert=True,
            columns=_columns(name, latent or hidden, width),
        )
        for name in GATED[3 - count :]
    ]
    parts.append(Matrix("gate", hidden * experts))
    if config.trait("mlp_biases"):
        biases = experts * ((count - 1) * width + hidden)
        parts.append(Matrix("experts.0.biases", biases, is_expert=True, is_vector=True, is_added=True))
    if latent:
        parts.append(Matrix("latent_proj", 2 * hidden * latent))
    parts += _shared(config, hidden, width, count)
    return Block(tuple(parts), experts, chosen).inside(path)


def _shared(config: Config, hidden: int, width: int, count: int) -> list[Matrix]:
    """The experts that every token passes; Llama 4 has one of `intermediate_size` without saying so."""
    number = config.whole(*SHARED, default=0)
    given = next((config.whole(key, default=0) for key in SHARED_WIDTH if config.values.get(key)), 0)
    if config.trait("has_shared_expert") and not given:
        number, given = max(number, 1), config.whole("intermediate_size")
    total = given * max(number, 1) if given else number * width
    parts = [
        Matrix(f"shared_experts.{name}", hidden * total, columns=_columns(name, hidden, total))
        for name in GATED[3 - count :]
        if total
    ]
    if config.trait("gated_shared_expert"):
        parts.append(Matrix("shared_expert_gate", hidden))
    return parts
