"""A config.json as layers of named matrices: what the model is, before anybody quantises it."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.catalog.config_keys import MAX_LAYERS, Config
from simulator.catalog.layer_plan import Mixer, plan_of_layers, window_of
from simulator.catalog.matrices import Block, Matrix, params_active, params_of
from simulator.catalog.mixers import HEADS, attention, head_sizes, linear_attention, mamba, short_convolution
from simulator.catalog.mlps import EXPERT_WIDTH, WIDTH, dense, feed_forward, mixture

__all__ = ["Architecture", "Other", "architecture"]

HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
TOWER_LAYERS = ("depth", "vt_num_hidden_layers", "layers", "conf_num_hidden_layers")
MAX_PARAMS = 1e14  # fifty times the largest model known


@dataclass(frozen=True)
class Other:
    """Weights that no token reads whole: towers, looked-up tables, prediction heads."""

    what: str
    params: float
    is_quantised: bool = False
    like: Block | None = None
    """Its bits per weight are those of such a layer."""
    is_in_mlx: bool = True
    is_in_gguf: bool = False


@dataclass(frozen=True)
class Architecture:
    """The layers of a model and what is beside them, in weights."""

    layers: tuple[Block, ...]
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    others: tuple[Other, ...] = ()
    doubts: tuple[str, ...] = field(default=())
    expert_ffn: int = 0
    """Width of an expert, where it is not `ffn`."""

    @property
    def table_params(self) -> float:
        """Weights of the embedding table, and of the output head."""
        return float(self.vocab * self.hidden)

    @property
    def params_total(self) -> float:
        """All weights of the language model; a tied head is counted once."""
        return sum(map(params_of, self.layers)) + self.table_params * (1 if self.tied else 2)

    @property
    def params_active(self) -> float:
        """The weights that one token multiplies, the head's among them."""
        return sum(map(params_active, self.layers)) + self.table_params

    @property
    def experts(self) -> int:
        """Routed experts of a mixture layer, 0 in a dense model."""
        return max(block.experts for block in self.layers)

    @property
    def experts_per_token(self) -> int:
        """How many of them a token passes."""
        return max(block.experts_per_token for block in self.layers)


def architecture(config: Config) -> Architecture:
    """The model that a config describes; raises CatalogError where it is none, or absurd."""
    if "rwkv" in config.model_type:
        raise config.fail(f"model_type {config.model_type!r} is no transformer")
    hidden, layers = config.whole(*HIDDEN), _number_of_layers(config)
    if layers > MAX_LAYERS:
        raise config.fail(f"{layers:,} layers, at most {MAX_LAYERS:,} are read")
    if not config.is_known_family:
        config.doubt(f"model_type {config.model_type!r} is not known: read as a model of the Llama kind")
    config.values.setdefault("num_hidden_layers", layers)
    blocks = _blocks(config, hidden, layers)
    attends = any(block.attention_flops for block in blocks)
    heads, kv_heads, width, _ = head_sizes(config, hidden, 0, False) if attends else (1, 1, 1, 1)
    made = Architecture(
        layers=tuple(blocks),
        hidden=hidden,
        ffn=config.whole(*WIDTH, default=4 * hidden),
        expert_ffn=config.whole(*EXPERT_WIDTH, default=0),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        vocab=config.whole("vocab_size", "padded_vocab_size"),
        tied=_is_tied(config),
        others=tuple(_others(config, hidden, layers, blocks)),
        doubts=tuple(config.doubts),
    )
    weights = made.params_total + sum(other.params for other in made.others)
    if not weights < MAX_PARAMS:
        raise config.fail(f"describes {weights:.3g} weights, more than any model has ({MAX_PARAMS:.0e})")
    return made


def _number_of_layers(config: Config) -> int:
    words = config.layers_of("layers_block_type") or config.layers_of("layer_types")
    # some families say it by the length of a list alone
    if words and not any(config.has(key) for key in LAYERS):
        return len(words)
    return config.whole(*LAYERS)


def _is_tied(config: Config) -> bool:
    told = config.values.get("tie_word_embeddings", config.outer.get("tie_word_embeddings"))
    if isinstance(told, bool):
        return told
    if config.trait("tied") is None:
        config.doubt(
            "the config does not say whether the output head is the embedding table: two tables assumed"
        )
    return bool(config.trait("tied"))


def _blocks(config: Config, hidden: int, layers: int) -> list[Block]:
    """Each layer; equal ones are one object, so that thousands cost no more than a few."""
    if config.has("block_configs"):
        return _searched_blocks(config, hidden, layers)
    window, known = window_of(config), dict[object, Block]()
    found = []
    for layer, mixer in enumerate(plan_of_layers(config, layers)):
        block = _layer(config, hidden, layer, mixer, window)
        found.append(known.setdefault(block, block))
    return found


def _layer(config: Config, hidden: int, layer: int, mixer: Mixer, window: int | None) -> Block:
    block = _mixer(config, layer, mixer, window)
    if mixer in ("mlp", "moe"):
        # Nemotron-H: a layer is a mixer or an MLP, never both
        block += mixture(config) if mixer == "moe" else dense(config, layer)
    elif not config.trait("is_single"):
        block += feed_forward(config, layer)
    return block + _extras(config, hidden, layer)


def _mixer(config: Config, layer: int, mixer: Mixer, window: int | None) -> Block:
    if mixer in ("mlp", "moe"):
        return Block()
    if mixer == "mamba":
        return mamba(config)
    if mixer == "conv":
        return short_convolution(config)
    if mixer == "linear":
        return linear_attention(config)
    attending = attention(config, layer, window if mixer == "local" else None)
    return attending + mamba(config) if mixer == "both" else attending


def _extras(config: Config, hidden: int, layer: int) -> Block:
    """Norms, and what Gemma 3n and 4 add to each layer."""
    norms = config.trait("norms")
    parts = [Matrix("norms", (2 if norms is None else norms) * hidden, is_vector=True)]
    width = config.whole("hidden_size_per_layer_input", default=0)
    if width:
        # each layer gates its own embedding in and back, and takes its part of the one projection
        parts += [Matrix("per_layer_input", 3 * hidden * width)]
    if config.has("laurel_rank"):
        parts.append(Matrix("laurel", 2 * hidden * config.whole("laurel_rank")))
    return Block(tuple(part for part in parts if part.params))


def _searched_blocks(config: Config, hidden: int, layers: int) -> list[Block]:
    """Nemotron-NAS: `block_configs` gives each layer its own heads and width, or leaves a part out."""
    blocks = config.layers_of("block_configs") or []
    if len(blocks) < layers or not all(isinstance(entry, dict) for entry in blocks):
        raise config.fail(f"block_configs has {len(blocks)} entries for {layers} layers")
    found = []
    for entry in blocks[:layers]:
        here = Config({**config.values, "block_configs": None, **entry}, config.where)
        attends, feeds = here.part("attention"), here.part("ffn")
        block = _extras(here, hidden, 0)
        if attends.flag("replace_with_linear"):
            block += Block((Matrix("self_attn.linear_attn", hidden * hidden),))
        elif not attends.flag("no_op"):
            group = attends.whole("n_heads_in_group", default=1) or 1
            here.values["num_key_value_heads"] = max(here.whole(*HEADS) // group, 1)
            block += attention(here, 0, None)
        if feeds.flag("replace_with_linear"):
            block += Block((Matrix("mlp.linear_mlp", hidden * hidden),))
        elif not feeds.flag("no_op"):
            times = feeds.values.get("ffn_mult", 1.0)
            times = times if isinstance(times, (int, float)) and 0 < times < 100 else 1.0
            width = -(-int(2 * times * hidden / 3) // 256) * 256
            block += dense(Config({**here.values, "intermediate_size": width}, config.where), 0)
        found.append(block)
    return found


def _others(config: Config, hidden: int, layers: int, blocks: list[Block]) -> list[Other]:
    """What is in the files and not read for each token; each is said in a doubt."""
    found = []
    width = config.whole("hidden_size_per_layer_input", default=0)
    if width:
        rows = config.whole("vocab_size_per_layer_input", "vocab_size")
        found.append(
            Other(
                "embeddings of each layer (looked up)",
                rows * width * layers,
                is_quantised=True,
                is_in_gguf=True,
            )
        )
    if config.has("altup_num_inputs"):
        copies = config.whole("altup_num_inputs", default=1)
        found.append(Other("alternating updates", 2 * (copies - 1) * hidden * hidden, True, is_in_gguf=True))
    positions = config.trait("positions")
    if positions:
        found.append(
            Other(
                "learned positions (looked up)", config.whole(positions, default=0) * hidden, is_in_gguf=True
            )
        )
    found += [tower for name in ("vision_config", "audio_config") if (tower := _tower(config, hidden, name))]
    heads = config.whole("num_nextn_predict_layers", "mtp_num_hidden_layers", default=0)
    if heads:
        # MLX and llama.cpp's converters leave the prediction heads out, or do not load them
        like = max(blocks[-4:], key=params_of)
        if config.trait("dense_prediction"):
            like = min(blocks, key=params_of)
        tables = 2 * config.whole("vocab_size") * hidden if config.trait("prediction_tables") else 0
        size = heads * (params_of(like) + 2 * hidden * hidden + tables)
        found.append(Other(f"{heads} multi-token prediction layer(s)", size, like=like, is_in_mlx=False))
    return found


def _tower(config: Config, hidden: int, name: str) -> Other | None:
    """A vision or audio tower by its own sizes.

    Of width w a vision layer has 4 w^2 for attention and two matrices (Gemma 4: three) for the MLP; an
    audio layer is a conformer's: two MLPs of four widths, a convolution of 3 w^2, positions. A projector
    leads to the text model; with `deepstack` one more for each layer that is tapped.
    """
    tower = config.part(name)
    width = tower.whole("hidden_size", "vt_hidden_size", "embed_dim", "width", default=0)
    depth = tower.whole(
        *LAYERS, "depth", "vt_num_hidden_layers", "layers", "conf_num_hidden_layers", default=0
    )
    depth += tower.whole("num_global_layers", default=0)
    if not width or not depth:
        return None
    inner = tower.whole("intermediate_size", "vt_intermediate_size", default=4 * width)
    matrices = 3 if "gemma4" in tower.model_type else 2
    per_layer = 24 * width**2 if "audio" in name else 4 * width**2 + matrices * width * inner
    merged = tower.whole("spatial_merge_size", default=1) ** 2 * width
    out = tower.whole("out_hidden_size", default=hidden)
    seen = tower.whole("vision_output_dim", default=width)
    projector = merged * (merged + out) if merged > width else seen * out
    projector *= 1 + len(tower.layers_of("deepstack_visual_indexes") or [])
    patches = 3 * tower.whole("patch_size", default=14) ** 2 * width
    what = f"{name.removesuffix('_config')} tower (estimated from its sizes)"
    return Other(what, depth * per_layer + patches + projector)
