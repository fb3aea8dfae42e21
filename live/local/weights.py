"""Models with random weights: real Llama-architecture GGUF files that nobody has to download.

Weights are drawn from a seed in F16, then llama.cpp's own quantiser makes Q4_K_M of them. The
file is kept in the user's cache folder beside a record of its recipe and SHA-256, which is
checked each time before it is used.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from live.local import library
from live.local.children import module_command, module_environment
from live.local.recipe import ModelRecipe, kept, named, read_recipes
from simulator.errors import EngineUnavailable
from simulator.files.cache import cache_folder

__all__ = ["WeightsRecipe", "model_file", "recipe", "recipes", "write_f16"]

SEED = 1
BYTE_TOKENS = 256
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
K_BLOCK = 256  # values per block of the K formats, ggml-common.h: QK_K


class WeightsRecipe(ModelRecipe):
    """The shape of a Llama-architecture model with grouped-query attention and a byte-level vocabulary."""

    hidden: int = Field(ge=K_BLOCK, multiple_of=K_BLOCK)
    feed_forward: int = Field(ge=K_BLOCK, multiple_of=K_BLOCK)
    vocabulary: int = Field(
        ge=BYTE_TOKENS + len(SPECIAL_TOKENS), description="beyond the bytes: unused tokens"
    )
    context: int = Field(ge=256)
    seed: int = Field(default=SEED, ge=0)

    @property
    def parameters(self) -> int:
        """Number of weights: embedding, head, and per layer q, o, k, v, three of
        the feed-forward, two norms.
        """
        layer = self.layer_weights + 2 * self.hidden
        return self.layers * layer + 2 * self.hidden * self.vocabulary + self.hidden


@cache
def recipes() -> dict[str, WeightsRecipe]:
    """The recipes that scenarios name."""
    return read_recipes(WeightsRecipe, Path(__file__).with_name("recipes.yaml"))


def recipe(name: str) -> WeightsRecipe:
    """The recipe of that name; raises CatalogError."""
    otherwise = ", and runs any other model from its file: model: {gguf: PATH}"
    return named(name, recipes(), "the local cluster", otherwise)


def _tensors(shape: WeightsRecipe) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes (rows, columns) of all tensors, in the order in which they are drawn."""
    hidden, wide, kv = shape.hidden, shape.feed_forward, shape.kv_columns
    yield "token_embd.weight", (shape.vocabulary, hidden)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (hidden,)
        yield block + "attn_q.weight", (hidden, hidden)
        yield block + "attn_k.weight", (kv, hidden)
        yield block + "attn_v.weight", (kv, hidden)
        yield block + "attn_output.weight", (hidden, hidden)
        yield block + "ffn_norm.weight", (hidden,)
        yield block + "ffn_gate.weight", (wide, hidden)
        yield block + "ffn_up.weight", (wide, hidden)
        yield block + "ffn_down.weight", (hidden, wide)
    yield "output_norm.weight", (hidden,)
    yield "output.weight", (shape.vocabulary, hidden)


def _draw(name: str, size: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Normal weights with variance 1 / columns, so that activations keep their scale; norms are 1."""
    if len(size) == 1:
        return np.ones(size, dtype=np.float32)
    # a stream per tensor: another number of layers leaves the weights of the others as they are
    key = int.from_bytes(sha256(name.encode()).digest()[:8], "little")
    drawn = np.random.Generator(np.random.PCG64((seed, key))).standard_normal(size, dtype=np.float32)
    return (drawn / np.float32(size[1]) ** np.float32(0.5)).astype(np.float16)


def write_f16(shape: WeightsRecipe, path: Path) -> None:
    """Write the model with F16 weights, tensor by tensor, so that one tensor at a time is in memory."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random {shape.parameters / 1e6:.0f}M")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_vocabulary(writer, shape.vocabulary)
    for name, size in _tensors(shape):
        width = np.dtype(np.float32 if len(size) == 1 else np.float16)
        writer.add_tensor_info(name, size, width, int(np.prod(size)) * width.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, size in _tensors(shape):
        writer.write_tensor_data(_draw(name, size, shape.seed))
    writer.close()


def _add_vocabulary(writer: Any, size: int) -> None:
    """A vocabulary of bytes, so that any text can be read, padded with unused tokens."""
    import gguf

    special = len(SPECIAL_TOKENS)
    unused = [f"<unused{n}>" for n in range(size - special - BYTE_TOKENS)]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * (special - 1)
    kinds += [gguf.TokenType.BYTE] * BYTE_TOKENS + [gguf.TokenType.UNUSED] * len(unused)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(BYTE_TOKENS)), *unused])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def model_file(
    name: str, shape: WeightsRecipe | None = None, tell: Callable[[str], None] = lambda text: None
) -> Path:
    """The quantised model of recipe `name` (or of `shape`):
    from the cache if its checksum holds, else made now.

    Raises EngineUnavailable without llama-cpp-python, CatalogError for an unknown recipe.
    """
    shape = shape or recipe(name)
    file = cache_folder("models") / f"{name}-{shape.key}.Q4_K_M.gguf"

    def make(fresh: Path) -> dict[str, str]:
        library.require()
        tell(f"making {name}: {shape.parameters / 1e6:.0f} million random weights, then Q4_K_M")
        raw = fresh.with_suffix(".f16")
        try:
            write_f16(shape, raw)
            _quantise(raw, fresh)
        finally:
            raw.unlink(missing_ok=True)
        return {"llama_cpp_python": library.version()}

    return kept(file, shape, make, tell)


def _quantise(raw: Path, target: Path) -> None:
    """Run llama.cpp's quantiser in a process of its own."""
    command = module_command("live.local.weights", str(raw), str(target))
    done = subprocess.run(command, env=module_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EngineUnavailable(
            f"llama.cpp could not quantise the model (needs {raw.stat().st_size / 1e9:.1f} GB "
            f"free on disk and some memory); it said:\n{tail}"
        )


def _quantise_here(raw: str, target: str) -> int:
    """The library's own quantiser on one file; returns its status."""
    llama: Any = library.llama()
    options = llama.llama_model_quantize_default_params()
    options.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_K_M
    status: int = llama.llama_model_quantize(raw.encode(), target.encode(), options)
    return status


if __name__ == "__main__":
    raise SystemExit(_quantise_here(*sys.argv[1:3]))
