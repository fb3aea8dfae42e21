"""A process of a local Petals swarm: runs in the environment of Petals, which has nothing of ours.

    python launch.py nursery              imports Petals once, and forks whatever is asked for on standard
    input python launch.py write RECIPE FILE    writes a model with random weights (RECIPE: its shape as JSON)

So nothing here imports the rest of the project. What is forked is a bootstrap (`dht`), a `server` of some
blocks or a `client`: commands come as JSON lines on its standard input, events go out on its standard output.
Petals and hivemind run as they are published: no file of theirs is touched, and what is done otherwise is
done from outside, here and in `client.py`.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

__all__ = ["PREFIX", "Wire", "as_published", "main", "nursery", "seclude", "shim"]

START_S = 60.0
PREFIX = "_lab"
"""Of all keys in the swarm's table; one that begins with _ is listed nowhere as a public model."""
MOVED = {
    "hivemind.p2p": ("P2P", "P2PContext", "PeerID", "ServicerBase", "StubBase"),
    "hivemind.dht": ("DHT", "DHTNode"),
    "hivemind.compression": ("serialize_torch_tensor", "deserialize_torch_tensor"),
    "hivemind.compression.serialization": ("deserialize_tensor_stream",),
    "hivemind.utils": (
        "MSGPackSerializer",
        "get_logger",
        "MPFuture",
        "get_dht_time",
        "nested_flatten",
        "nested_pack",
        "nested_map",
        "TensorDescriptor",
        "TimedStorage",
        "DHTExpiration",
        "MAX_DHT_TIME_DISCREPANCY_SECONDS",
        "amap_in_executor",
        "as_aiter",
    ),
    "hivemind.utils.tensor_descr": ("BatchTensorDescriptor",),
    "hivemind.utils.nested": ("nested_compare",),
    "hivemind.utils.asyncio": ("anext",),
}
"""Names that petals imports from hivemind's top, where they were until 1.1.11."""


def as_published(module: str) -> Any:
    """A module of the engine's environment; unknown to whoever checks our types."""
    return importlib.import_module(module)


def shim() -> None:
    """Put the names where petals looks for them."""
    top = as_published("hivemind")
    for module, names in MOVED.items():
        found = as_published(module)
        for name in names:
            setattr(top, name, getattr(found, name))


def seclude(relays: bool = False) -> None:
    """Open nothing to others: no port mapping, nobody asked whether one can be reached.

    `relays` are for who has to reach servers behind firewalls.
    """
    p2p = as_published("hivemind.p2p").P2P
    create = p2p.create

    async def alone(*arguments: Any, **options: Any) -> Any:
        closed = {"nat_port_map": False, "auto_nat": False, "use_relay": relays, "use_auto_relay": False}
        # who else has an identity would be asked by a daemon of its own; and a busy machine starts one slowly
        slow = {"check_if_identity_free": False, "startup_timeout": START_S}
        return await create(*arguments, **(options | closed | slow))

    p2p.create = alone


class Wire:
    """The parent's pipe: commands in, events out; this process and all that it started end with it."""

    def __init__(self) -> None:
        # a Ctrl-C is the parent's to handle
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)  # what the libraries print must not mix with our lines
        self._lock = threading.Lock()
        self.commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        # by descriptor, not `sys.stdin`: a fork while a thread holds its lock would leave it locked for ever
        pending = b""
        while came := os.read(0, 1 << 16):
            *lines, pending = (pending + came).split(b"\n")
            for line in lines:
                self.commands.put(json.loads(line))
        # handlers, the table and p2pd are processes of this
        # one's group; who led it has no other way to end them
        os.killpg(0, signal.SIGKILL)

    def tell(self, event: str, **fields: Any) -> None:
        """Send one event; several threads may."""
        line = json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n"
        with self._lock:
            self._out.write(line)


def _run(module: str, arguments: list[str]) -> None:
    """One of the commands of petals, as its own script would run it."""
    sys.argv = [module, *arguments]
    as_published(module).main()


def dht(wire: Wire, options: dict[str, Any]) -> None:
    """The bootstrap; tells at which address it listens."""
    command = as_published("petals.cli.run_dht")

    def listening(addresses: list[Any], **_: Any) -> None:
        wire.tell("listening", addresses=[str(address) for address in addresses])

    command.log_visible_maddrs = listening
    listen = f"/ip4/127.0.0.1/tcp/{options['port']}"
    _run("petals.cli.run_dht", ["--host_maddrs", listen, "--announce_maddrs", listen, "--no_relay"])


def server(wire: Wire, options: dict[str, Any]) -> None:
    """A server of `blocks`, at `port`, known to others at
    `announce`; tells when it has announced itself online.
    """
    as_published("petals.cli.run_server").validate_version = lambda: None
    module = as_published("petals.server.server")
    # the question costs a second p2pd for as long as the server lives, and here all are reachable
    module.check_direct_reachability = lambda **_: True
    _tell_online(wire, module)
    _keep_pace(options["block_s"], options["token_s"])
    if options["push"]:
        _push_what_came_last()
    arguments = {
        "dht_prefix": PREFIX,
        "initial_peers": options["peers"],
        "host_maddrs": f"/ip4/127.0.0.1/tcp/{options['port']}",
        "announce_maddrs": f"/ip4/127.0.0.1/tcp/{options['announce']}",
        "identity_path": options["identity"],
        "torch_dtype": "float32",
        "device": "cpu",
        "num_handlers": 2,
        "block_indices": options["blocks"],
        # a number: to measure it, petals would ask a speed test on the internet
        "throughput": 1000,
        "update_period": options["update_period"],
        "balance_quality": 0,
    }
    flags = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    _run("petals.cli.run_server", [options["model"], "--no_auto_relay", *flags])


def _tell_online(wire: Wire, module: Any) -> None:
    declare, told = module.declare_active_modules, threading.Event()

    def declared(dht: Any, uids: Any, info: Any, *arguments: Any, **options: Any) -> Any:
        done = declare(dht, uids, info, *arguments, **options)
        if info.state.name == "ONLINE" and not told.is_set():
            told.set()
            wire.tell("online", peer=dht.peer_id.to_base58())
        return done

    module.declare_active_modules = declared


def _keep_pace(block_s: float, token_s: float) -> None:
    """Be as slow as a device that needs `block_s` for a
    block, or `token_s` for each token in it if that is more.

    Inside the one thread that computes, so that others' steps wait as they would for a slow device.
    """
    runtime = as_published("hivemind.moe.server.runtime").Runtime
    process = runtime.process_batch

    def paced(self: Any, pool: Any, number: int, *batch: Any) -> Any:
        begin_s = time.monotonic()
        done = process(self, pool, number, *batch)
        # (hidden states, order of hypotheses, what each block
        # is told): of all blocks, or of one for a long prompt
        if len(batch) > 2 and isinstance(batch[2], (list, tuple)):
            floor_s = len(batch[2]) * max(block_s, batch[0].shape[1] * token_s)
            time.sleep(max(0.0, begin_s + floor_s - time.monotonic()))
        return done

    runtime.process_batch = paced


def _push_what_came_last() -> None:
    """Repair: a server hands on what the latest request
    says, and not the first one, which names no next server.
    """
    handler = as_published("petals.server.handler").TransformerConnectionHandler
    steps, push = handler._iterate_inference_steps, handler._push_outputs
    latest: dict[str, tuple[Any, Any]] = {}

    async def remembered(
        self: Any, first: Any, requests: Any, session: str, *arguments: Any
    ) -> AsyncIterator[tuple[Any, Any]]:
        try:
            async for request, metadata in steps(self, first, requests, session, *arguments):
                latest[session] = request, metadata
                yield request, metadata
        finally:
            latest.pop(session, None)

    async def pushed(self: Any, request: Any, outputs: Any, metadata: Any) -> None:
        request, metadata = latest.get(metadata.get("session_id"), (request, metadata))
        await push(self, request, outputs, metadata)

    handler._iterate_inference_steps, handler._push_outputs = remembered, pushed


def write(recipe: str, path: str) -> None:
    """Draw normal weights of variance 1 / columns, so that activations keep their scale; norms are 1."""
    torch, llama = as_published("torch"), as_published("transformers").LlamaForCausalLM
    config = as_published("transformers").LlamaConfig(**json.loads(recipe)["config"])
    model = llama(config)
    drawn = torch.Generator().manual_seed(json.loads(recipe)["seed"])
    state = model.state_dict()
    for weight in state.values():
        if weight.ndim == 2:
            weight.normal_(0.0, weight.shape[1] ** -0.5, generator=drawn)
    as_published("safetensors.torch").save_file(state, path, metadata={"format": "pt"})


def client(wire: Wire, options: dict[str, Any]) -> None:
    """The client, of the file beside this one."""
    _beside("client").serve(wire)


def _beside(name: str) -> Any:
    """A module by its path: the folder of a program is not on its path here."""
    spec: Any = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


ROLES = {"dht": dht, "server": server, "client": client}
IMPORTED = (
    "petals",
    "petals.cli.run_dht",
    "petals.cli.run_server",
    "petals.client.inference_session",
    # what petals itself imports only when it converts its first block
    "bitsandbytes",
    "tensor_parallel",
)


def nursery() -> None:
    """Fork a process for each request: importing takes seconds, and memory, that all of them can share.

    A request is (role, options) as JSON, with two descriptors: a socket that becomes the new process's
    standard input and output, and its log. The answer is its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = socket.socket(fileno=os.dup(0))
    shim()
    for name in IMPORTED:
        as_published(name)
    # who is forked shares what nobody writes to; a collection would write to all of it
    gc.collect()
    gc.freeze()
    # whoever ends is forgotten at once, by the system
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, *_ = socket.recv_fds(asked, 1 << 16, 2)
        if not request:
            os.killpg(0, signal.SIGKILL)
        pid = os.fork()
        if pid == 0:
            asked.close()
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become(descriptors, *json.loads(request))
        for descriptor in descriptors:
            os.close(descriptor)
        asked.sendall(json.dumps(pid).encode() + b"\n")


def _become(descriptors: list[int], role: str, options: dict[str, Any]) -> None:
    """The life of a forked process; it never returns."""
    for standard, descriptor in enumerate((descriptors[0], descriptors[0], descriptors[1])):
        os.dup2(descriptor, standard)
    for descriptor in descriptors:
        os.close(descriptor)
    wire = Wire()
    try:
        seclude(bool(options.get("relays")))
        ROLES[role](wire, options)
    except BaseException as error:
        wire.tell("error", text=f"{type(error).__name__}: {error}", see_log=True)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """As the file says."""
    if sys.argv[1] == "write":
        write(*sys.argv[2:])
    else:
        nursery()


if __name__ == "__main__":
    main()
