"""Real configs and headers with one thing wrong: a model, or one message that names the value's place, at once."""

import json
import random
import struct
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest

from simulator.catalog import from_gguf, from_hf_config
from simulator.catalog.config_keys import Config
from simulator.catalog.hf import from_config
from simulator.errors import CatalogError

CONFIGS = sorted((Path(__file__).parents[2] / "data/configs").glob("*.json"))
MOST_S, MOST_BYTES, MOST_MODEL_BYTES = 1.0, 100e6, 1e15
NONSENSE = (
    *(None, True, False, "", "7", "x" * 100_000),
    *(-1, 0, 1, 10**9, 10**18, 10**400, 99_999_999, 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *([], [1] * 3, [None] * 48, [-1] * 100, [10**9] * 100, [float("nan")] * 64, ["a"] * 64, [[1]] * 64),
    *([1] * 100_000, ["full_attention"] * 100_000, [{}] * 64),
    *({}, {"a": 1}, {"bits": 10**9}, {"bits": -4}, {"bits": None}, {"hidden_size": 10**9}),
)


def _string(text):
    return struct.pack("<Q", len(text)) + text


@contextmanager
def _at_once():
    """Below a second of this process's own time, whatever else the machine does."""
    started = time.process_time()
    yield
    assert time.process_time() - started < MOST_S


def _one_message(error, place):
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    assert place in text


def _places(config, path=()):
    for key, value in config.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _places(value, (*path, key))


def _with(config, path, value):
    changed = json.loads(json.dumps(config))
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def _read_or_refused(config):
    with _at_once():
        try:
            assert 0 < from_config(Config(config, "here")).total_bytes < MOST_MODEL_BYTES
        except CatalogError as error:
            _one_message(error, "here")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_one_wrong_value_in_a_real_config(path):
    config, draws = json.loads(path.read_text()), random.Random(path.stem)
    places = list(_places(config))
    for _ in range(10):
        _read_or_refused(_with(config, draws.choice(places), draws.choice(NONSENSE)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("value", [10**9, -3, "12", float("nan"), {}], ids=repr)
def test_a_depth_or_width_that_no_model_has_is_refused_by_its_name(path, value):
    config = json.loads(path.read_text())
    for *inside, name in _places(config):
        if (
            name in ("num_hidden_layers", "hidden_size", "n_layer", "n_embd")
            and "vision_config" not in inside
        ):
            with _at_once(), pytest.raises(CatalogError, match=rf"^here: .*({name}|{value} layers)"):
                from_config(Config(_with(config, (*inside, name), value), "here"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_null_everywhere(path):
    with _at_once(), pytest.raises(CatalogError, match=r"^here: .* is missing, must be"):
        from_config(Config(dict.fromkeys(json.loads(path.read_text())), "here"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[]",
        b"null",
        b"NaN",
        b'{"hidden_size": ' + b"9" * 100_000 + b"}",
        b'{"hidden_size": 1e999}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_config_is_said_at_once(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    tracemalloc.start()
    with _at_once(), pytest.raises(CatalogError) as refused:
        from_hf_config(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < MOST_BYTES
    _one_message(refused.value, "config.json")


def _gguf(path, change, value, kind):
    """A mixture of experts with windows, latent attention and an index; one key of it changed."""
    numbers = {
        "block_count": 3,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "attention.sliding_window": 128,
        "attention.sliding_window_pattern": 2,
        "attention.kv_lora_rank": 8,
        "attention.shared_kv_layers": 1,
        "attention.indexer.key_length": 8,
        "attention.indexer.top_k": 64,
        "rope.dimension_count": 8,
        "expert_count": 4,
        "expert_used_count": 2,
        "ssm.inner_size": 64,
        "ssm.state_size": 8,
        "ssm.conv_kernel": 4,
        "nextn_predict_layers": 1,
    }
    writer = gguf.GGUFWriter(path, "deepseek2")
    for name, number in numbers.items():
        if name == change:
            writer.add_key_value(f"deepseek2.{name}", value, kind)
        else:
            writer.add_uint32(f"deepseek2.{name}", number)
    writer.add_tensor("token_embd.weight", np.zeros((96, 64), dtype=np.float16))
    for layer in range(3):
        for name, shape in (("attn_k", (64, 64)), ("ffn_up_exps", (4, 128, 64)), ("ssm_in", (64, 64))):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.zeros(shape, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return list(numbers)


WRONG = (
    (2**32 - 1, gguf.GGUFValueType.UINT32),
    (2**63, gguf.GGUFValueType.UINT64),
    (-1, gguf.GGUFValueType.INT32),
    (0, gguf.GGUFValueType.UINT32),
    (float("nan"), gguf.GGUFValueType.FLOAT32),
    (float("inf"), gguf.GGUFValueType.FLOAT64),
    ("x" * 5000, gguf.GGUFValueType.STRING),
    ("3", gguf.GGUFValueType.STRING),
    (True, gguf.GGUFValueType.BOOL),
    ([1], gguf.GGUFValueType.ARRAY),
    ([-1, 10**9, 3], gguf.GGUFValueType.ARRAY),
    ([float("nan")] * 3, gguf.GGUFValueType.ARRAY),
    ([2] * 10_000, gguf.GGUFValueType.ARRAY),
    (["a", "b"], gguf.GGUFValueType.ARRAY),
)


@pytest.mark.parametrize(("value", "kind"), WRONG, ids=lambda wrong: repr(wrong)[:20])
def test_one_wrong_value_in_a_header(tmp_path, value, kind):
    path = tmp_path / "wrong.gguf"
    names = _gguf(path, "", None, None)
    assert from_gguf(path).layers == 2
    for name in names:
        _gguf(path, name, value, kind)
        with _at_once():
            try:
                assert 0 < from_gguf(path).total_bytes < MOST_MODEL_BYTES
            except CatalogError as error:
                _one_message(error, "wrong.gguf")


@pytest.mark.parametrize(
    ("count", "content"),
    [
        (
            (0, 1_000),
            [_string(b"%d" % i) + struct.pack("<I", 8) + _string(b"x" * 4096) for i in range(1_000)],
        ),
        (
            (0, 1_000),
            [
                _string(b"%d" % i) + struct.pack("<IIQ", 9, 6, 2_000) + struct.pack("<f", i + 0.5) * 2_000
                for i in range(1_000)
            ],
        ),
        ((0, 1), [_string(b"a"), struct.pack("<IIQ", 9, 8, 900_000), struct.pack("<Qc", 1, b"a") * 900_000]),
        ((60_000, 0), [_string(b"blk.7.a") + struct.pack("<IQIQ", 1, 2**40, 0, 0)] * 60_000),
        ((0, 1_001), [_string(b"a") + struct.pack("<II", 4, 0)] * 1_001),
        ((100_001, 0), [_string(b"a") + struct.pack("<IQIQ", 1, 32, 0, 0)] * 100_001),
    ],
    ids=["texts", "lists", "vocabulary", "tensors", "too many keys", "too many tensors"],
)
def test_the_longest_header_that_is_read_costs_little(tmp_path, count, content):
    """80 MB of lists took 640 MB, and 15 MB of strings two seconds."""
    path = tmp_path / "long.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *count) + b"".join(content))
    with _at_once(), pytest.raises(CatalogError) as refused:
        from_gguf(path)
    _one_message(refused.value, "long.gguf")


def test_what_is_kept_of_the_longest_header_is_little(tmp_path):
    """A tenth of the keys that may be, traced: tracing makes all of them take twenty seconds."""
    path, numbers = tmp_path / "long.gguf", struct.pack("<IIQ", 9, 6, 2_000) + struct.pack("<f", 0.5) * 2_000
    keys = [_string(b"%d" % i) + numbers for i in range(100)]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 100) + b"".join(keys))
    tracemalloc.start()
    with pytest.raises(CatalogError):
        from_gguf(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 10 * peak_bytes < MOST_BYTES
