"""Real servers, each in an environment of its own in the user's cache, never in the product's.

`python -m tests.live.openai.servers` makes the environments (minutes, from the package index); a test whose
server is not there is skipped and says so. Weights are random and made here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from live.local import weights
from live.local.install import build
from live.local.weights import WeightsRecipe, model_file
from live.local.weights import _draw as draw_weights
from live.prompts import WORDS
from simulator.files.cache import cache_folder

# what the recordings in tests/data/openai were made with
PACKAGES = {
    "mlx": ("mlx-lm==0.32.2", "mlx-cpu==0.32.4", "mlx==0.32.4", "transformers==5.24.0", "tokenizers==0.23.3"),
    "llama": ("uvicorn", "fastapi", "pydantic-settings", "sse-starlette", "starlette-context", "PyYAML"),
}
START_S = 120.0
GGUF = "random-80mb"


def python_of(engine: str) -> Path:
    """The Python that has this engine; skips the test where there is none."""
    python = cache_folder("engines") / engine / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{engine} is not installed here; `python -m tests.live.openai.servers` does that")
    return python


def llama_server_binary() -> Path:
    """llama.cpp's own server, where somebody built it into the cache; skips the test elsewhere."""
    binary = cache_folder("engines") / "llama-server"
    if not binary.exists():
        pytest.skip(f"no llama-server at {binary}; build it from llama.cpp's sources and put it there")
    return binary


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[str]:
    """`command` with a free port behind it, until the block ends; the address as host:port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            _wait_for(port, process, folder)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()
        except urllib.error.HTTPError:
            time.sleep(0.3)  # still loading
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise AssertionError((folder / "server.log").read_text()[-2000:])


@contextmanager
def mlx_server(folder: Path) -> Iterator[str]:
    """mlx_lm.server with a model `tiny` whose tokens are words."""
    python = python_of("mlx")
    (folder / "hub").mkdir(parents=True)  # it lists what lies there, and hangs up where nothing does
    maker = Path(__file__).with_name("make_mlx_model.py")
    subprocess.run([python, maker, folder / "tiny", ",".join(WORDS)], check=True)
    with serving([str(python), "-m", "mlx_lm", "server", "--model", "tiny"], folder) as address:
        yield address


@contextmanager
def llama_cpp_server(folder: Path) -> Iterator[str]:
    """llama-cpp-python's server with a vocabulary of bytes: half characters, held back."""
    python = python_of("llama")
    options = ["--model", str(model_file(GGUF)), "--model_alias", GGUF, "--n_threads", "1", "--n_ctx", "1024"]
    with serving([str(python), "-m", "llama_cpp.server", *options], folder) as address:
        yield address


@contextmanager
def llama_server(folder: Path) -> Iterator[str]:
    """llama.cpp's own server."""
    binary = llama_server_binary()
    write_words(folder / "words.gguf")
    options = ["--model", "words.gguf", "--alias", "words", "--threads", "1", "--ctx-size", "2048"]
    with serving([str(binary), *options, "--no-webui", "--parallel", "2"], folder) as address:
        yield address


def write_words(path: Path) -> None:
    """A small Llama with random weights that answers in words: it never chooses a byte or a special token."""
    others = 3 + 256
    shape = WeightsRecipe(
        layers=4,
        hidden=256,
        feed_forward=512,
        heads=4,
        kv_heads=2,
        vocabulary=others + len(WORDS),
        context=2048,
    )

    def draw(name: str, size: tuple[int, ...], seed: int) -> Any:
        drawn = draw_weights(name, size, seed)
        if name == "output.weight":
            drawn[:others] = 0
        return drawn

    def add_vocabulary(writer: Any, size: int) -> None:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        writer.add_tokenizer_model("llama")
        writer.add_token_list([*tokens, *(f"\u2581{word}" for word in WORDS)])
        writer.add_token_scores([0.0] * size)
        writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(WORDS)])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)

    with (
        mock.patch.object(weights, "_draw", draw),
        mock.patch.object(weights, "_add_vocabulary", add_vocabulary),
    ):
        weights.write_f16(shape, path)


def main() -> None:
    """Make the environments."""
    for engine, packages in PACKAGES.items():
        folder = cache_folder("engines") / engine
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        wheel = [str(build())] if engine == "llama" else []
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", *wheel, *packages], check=True)
        print(f"{engine}: {folder}")


if __name__ == "__main__":
    main()
