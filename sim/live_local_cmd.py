"""`sim live local`: a real cluster on this machine, of llama.cpp RPC, of MLX, or
a swarm of Petals; install it, give it a model, measure scenarios.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sim.json_output import Json, print_json
from sim.live_result import interruptible

__all__ = ["app", "endpoints_of", "install", "model", "overhead", "run", "serve", "table"]

app = typer.Typer(help="A real cluster on one machine: throttled devices, shaped links.")
Engine = Annotated[Literal["llama-rpc", "mlx", "petals"], typer.Option(help="which engine")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="threads of each device")]
RPC_SCHEME, SWARM_SCHEME = "llama-rpc://", "petals://"


@app.callback(invoke_without_command=True)
def quick(
    context: typer.Context,
    engine: Annotated[
        Literal["mlx", "petals"] | None, typer.Option(help="measure a cluster made from the options below")
    ] = None,
    strategy: Annotated[Literal["pipeline", "tensor"], typer.Option()] = "pipeline",
    flow: Annotated[Literal["mlx", "exo"], typer.Option(help="who sends what: mlx-lm, or EXO")] = "mlx",
    ranks: Annotated[int, typer.Option(min=1, max=6, help="or servers beside the client")] = 2,
    layers: Annotated[str, typer.Option(help="of each rank, such as 6,2 (pipeline)")] = "",
    delay: Annotated[str, typer.Option(help="one way between any two ranks")] = "0.5 ms",
    jitter: Annotated[float, typer.Option(min=0, max=3, help="log sd of each side's delay")] = 0.0,
    load: Annotated[
        list[str] | None, typer.Option(help="rank1=50% (server1=50%): throttled; several times")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="recipe of `sim live local model`; default mlx-40mb, petals-18")
    ] = None,
    chats: Annotated[int, typer.Option(min=1, max=8, help="at once (petals)")] = 1,
    push: Annotated[bool, typer.Option("--push", help="servers hand on by themselves (petals)")] = False,
    tokens: Annotated[int, typer.Option(min=2, max=10_000, help="of each of two replies")] = 64,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder")] = Path("local_cluster"),
) -> None:
    """A real cluster on one machine: throttled devices, shaped links. See the commands below; with --engine
    and no command, MLX ranks or a Petals swarm are made from options, measured, and kept as a scenario.
    """
    if context.invoked_subcommand is not None:
        return
    if engine is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    from sim.live_exo_cmd import parse_pairs
    from simulator.files import dump, make_folder

    common: dict[str, Any] = {
        "delay": delay,
        "jitter": jitter,
        "background": parse_pairs(load or [], "--load"),
        "output_tokens": tokens,
    }
    if engine == "petals":
        from live.local.petals.quick import quick_scenario as quick_swarm

        made = quick_swarm(
            ranks, model=model or "petals-18", blocks=_numbers(layers), chats=chats, push=push, **common
        )
    else:
        from live.local.mlx.quick import quick_scenario

        made = quick_scenario(
            model or "mlx-40mb", strategy, ranks, layers=_numbers(layers), engine=flow, **common
        )
    make_folder(out)
    dump(made, out / f"{made.name}.yaml", header=f"Made by `sim live local --engine {engine}`.")
    run([out / f"{made.name}.yaml"], out)
    table([out / f"{made.name}.jsonl"])


def _numbers(layers: str) -> list[int]:
    from simulator.errors import LiveError

    parts = [part.strip() for part in layers.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise LiveError(f"--layers {layers!r}: write whole numbers with commas between them, such as 6,2")
    return [int(part) for part in parts]


@app.command()
def install(engine: Engine = "llama-rpc") -> None:
    """Install an engine: llama-cpp-python with RPC, built once (minutes; needs a C++ compiler) into this
    Python; or MLX (70 MB) or Petals (1.6 GB), each into an environment of its own in your cache folder.
    """
    if engine != "llama-rpc":
        from live.local.mlx.environment import MLX
        from live.local.petals.environment import PETALS

        _say(f"installed {(MLX if engine == 'mlx' else PETALS).install()}")
        return
    from live.local.install import cached_wheel
    from live.local.install import install as install_wheel

    if cached_wheel() is None:
        _say("building llama.cpp from source; this takes some minutes")
    _say(f"installed {install_wheel().name}")


@app.command()
def model(
    name: Annotated[
        str,
        typer.Argument(
            help="recipe: random-80mb, random-420mb, or one of MLX (mlx-40mb) or Petals (petals-18)"
        ),
    ] = "random-80mb",
    as_json: Json = False,
) -> None:
    """Write a model with random weights into the cache, and print what a scenario says about it."""
    made = {"mlx": _mlx_model, "petals": _petals_model}.get(name.partition("-")[0], _gguf_model)
    file, numbers = made(name)
    if as_json:
        print_json({"file": str(file), "model": numbers})
        return
    _say(f"{file} ({file.stat().st_size / 1e6:.0f} MB)")
    sys.stdout.write("model:\n" + "".join(f"  {key}: {value}\n" for key, value in numbers.items()))


def _mlx_model(name: str) -> tuple[Path, dict[str, Any]]:
    from live.local.mlx.weights import model_file, recipe

    return model_file(name, tell=_say), recipe(name).numbers(name)


def _petals_model(name: str) -> tuple[Path, dict[str, Any]]:
    from live.local.petals.weights import model_file, recipe

    return model_file(name, tell=_say), recipe(name).numbers(name)


def _gguf_model(name: str) -> tuple[Path, dict[str, Any]]:
    from live.local.weights import model_file
    from simulator import catalog

    file = model_file(name, tell=_say)
    facts = catalog.from_gguf(file)
    return file, {
        "name": name,
        "quantisation": "Q4_K_M",
        "layers": facts.layers,
        "hidden": facts.hidden,
        "layer_bytes": f"{facts.layer_bytes:.0f} B",
        "embedding_bytes": f"{facts.embedding_bytes:.0f} B",
        "head_bytes": f"{facts.head_bytes:.0f} B",
        "layer_flops": round(facts.layer_flops_per_token),
        "kv_bytes_per_token_per_layer": f"{facts.kv_bytes_per_token_per_layer:.0f} B",
        "head_flops": round(facts.head_flops),
        "activation_bytes": f"{4 * facts.hidden} B",
    }


@app.command()
def run(
    scenario: Annotated[
        list[Path],
        typer.Argument(help="scenario files with engine llama-rpc, mlx or petals; many are interleaved"),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder, or a .jsonl file for one scenario")
    ] = Path(),
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, max=100, help="visits to each scenario")
    ] = None,
    cluster: Annotated[
        str, typer.Option("--cluster", help="local, llama-rpc://host:port,... or petals://MULTIADDRESS")
    ] = "local",
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Measure scenarios on processes of this machine, or on servers that already run."""
    from live.local.run import measure
    from simulator.library import load

    scenarios = [load(file) for file in scenario]
    # there and back, so that the drift of the machine is told from what differs
    visits = rounds or (2 if len(scenarios) > 1 else 1)
    before = set(out.glob("*.jsonl"))
    with interruptible(lambda: [out] if out.suffix == ".jsonl" else sorted({*out.glob("*.jsonl")} - before)):
        files = measure(scenarios, out, _say, rounds=visits, threads=threads, endpoints=endpoints_of(cluster))
    if as_json:
        print_json({"measurements": [str(file) for file in files]})
    else:
        sys.stdout.write("".join(f"{file}\n" for file in files))


@app.command()
def serve(
    host: Annotated[
        str, typer.Option("--host", help="address to listen on: there is no password")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 50052,
    threads: Threads = 1,
) -> None:
    """Serve this device's processor to a llama.cpp RPC client, until stopped."""
    from live.local.server import exposure, is_loopback
    from live.local.server import serve as serve_here

    # llama.cpp asks for no password, so who opens its server to the network is told
    if not is_loopback(host):
        _say(exposure(host, port))
    serve_here(host, port, threads)


@app.command()
def overhead(
    count: Annotated[int, typer.Option("--count", min=10, max=100_000)] = 500, as_json: Json = False
) -> None:
    """Measure what the relay itself adds to each message on this machine."""
    import numpy as np

    from live.local.overhead import relay_overhead_s

    added_s = relay_overhead_s(count)
    found = {
        name: float(np.quantile(added_s, share))
        for name, share in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
    if as_json:
        print_json({"relay_overhead_s": found, "messages": count})
    else:
        sys.stdout.write(
            ", ".join(f"{name} {value * 1e6:.0f} us" for name, value in found.items()) + " per message\n"
        )


@app.command()
def table(
    measurements: Annotated[list[Path], typer.Argument(help="Measurements of the local cluster")],
    as_json: Json = False,
) -> None:
    """Summarise Measurements: milliseconds per token, split by device and hop."""
    from live.local.table import markdown, row
    from simulator.result.measurement import read_measurement

    rows = [row(read_measurement(file)) for file in measurements]
    if as_json:
        print_json(rows)
    else:
        sys.stdout.write(markdown(rows))


def endpoints_of(cluster: str) -> tuple[str, ...]:
    """The addresses that a `--cluster` names: none for local; raises LiveError for anything else."""
    from simulator.errors import LiveError

    if cluster == "local":
        return ()
    if cluster.startswith(SWARM_SCHEME):
        from live.local.petals.foreign import swarm_addresses

        return swarm_addresses(cluster.removeprefix(SWARM_SCHEME))
    addresses = tuple(part.strip() for part in cluster.removeprefix(RPC_SCHEME).split(",") if part.strip())
    if (
        not cluster.startswith(RPC_SCHEME)
        or not addresses
        or not all(_has_port(address) for address in addresses)
    ):
        raise LiveError(
            f"--cluster is {cluster!r}; write local, or {RPC_SCHEME}host:port,host:port with one address "
            "for each device after the first (an EXO cluster, exo://host:52415, is measured by `sim live "
            "run`)"
        )
    return addresses


def _has_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _say(text: Any) -> None:
    """Progress goes to standard error, so that standard output holds the result alone."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
