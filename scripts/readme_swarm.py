"""README's figures of swarms: what `sim swarm`, `sim compare` and `sim cost` say of the four scenarios."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import simulator
from simulator.errors import PlacementError
from simulator.prepare import prepare

__all__ = ["PHRASES", "swarm_figures"]

REPLICATIONS = "4"
PHRASES = (
    "| {rooms.rate} tokens/s, first token after {rooms.first}. Two of the three must be up: all blocks are "
    "served {rooms.whole} of the time. As shipped {rooms.lost} of the replies are lost in their middle; with "
    "`--repaired` none, but a recovery takes {rooms.recovery} |",
    "| {public.rate} tokens/s each, first token after {public.first}, never incomplete;",
    "{public.losses} losses an hour, {public.recovery} each where mended |",
    "| {flaky.rate} tokens/s while it goes well, but as shipped {flaky.lost} of the replies are lost and "
    "{flaky.waiting} of the time is spent on waiting for them; `--repaired`: none lost, {flaky.repaired} of "
    "the time. {flaky.enough} such cards keep all blocks served 99 % of the time |",
    "without graphics cards it runs 16 bits, {desk.needs} GB of layers where {desk.have} fit. With 4 bits: "
    "{desk.petals} tokens/s against EXO's {desk.exo}, which is faster in {desk.better} of the cases",
    "a 70B on the three friends' cards costs {rooms.million} EUR a million tokens when never idle, and "
    "{rooms.electricity} EUR if only electricity counts; the APIs of the list ask {rooms.least} to {rooms.most} EUR",
)
Sim = Callable[..., Any]


def swarm_figures(
    sim: Sim, text: Callable[..., str], brief: Callable[..., str], found: Callable[..., tuple[str, ...]]
) -> dict[str, str]:
    """Every figure by its name in PHRASES; the functions are those of `readme_figures`."""
    rooms, mended = (_swarm(sim, "petals_three_rooms", how) for how in ("--as-shipped", "--repaired"))
    flaky, kept = (_swarm(sim, "petals_flaky", how) for how in ("--as-shipped", "--repaired"))
    public = sim("swarm", "petals_public", "--replications", "1", "--hours", "6")
    enough = sim("swarm", "petals_flaky", "--whole", "99%")["enough"]["flaky"]
    if mended["lost"]["median"] or kept["lost"]["median"] or public["whole"]["median"] < 1:
        raise SystemExit("README says that none is lost where clients are repaired; write anew what is true")
    return {
        "rooms.rate": text(rooms["tokens_per_s"]),
        "rooms.first": _seconds(rooms["first_token_s"]),
        "rooms.whole": _percent(rooms["whole"]["median"]),
        "rooms.lost": _percent(rooms["lost"]["median"]),
        "rooms.recovery": brief(mended["recovery_s"]),
        "public.rate": f"{public['tokens_per_s']['median']:.1f}",
        "public.first": _seconds(public["first_token_s"]),
        "public.losses": f"{public['losses_per_hour']['median']:.0f}",
        "public.recovery": _seconds(public["recovery_s"]),
        "flaky.rate": text(flaky["tokens_per_s"]),
        "flaky.lost": _percent(flaky["lost"]["median"]),
        "flaky.waiting": _percent(_waiting(flaky)),
        "flaky.repaired": _percent(_waiting(kept)),
        "flaky.enough": f"{enough}",
        **_desk(sim, text, found),
        **_cost(sim),
    }


def _swarm(sim: Sim, scenario: str, how: str) -> Any:
    return sim("swarm", scenario, how, "--replications", REPLICATIONS)


def _waiting(answer: Mapping[str, Any]) -> float:
    return float(sum(share["median"] for share in answer["lost_share"].values()))


def _desk(sim: Sim, text: Callable[..., str], found: Callable[..., tuple[str, ...]]) -> dict[str, str]:
    """The four devices by Petals and by EXO; at 16 bits they are refused."""
    both = sim("compare", "petals_or_exo", "four_devices")
    rates = {row["scenario"]: row for row in both["ranking"]}
    needs, have = found(_refusal(), r"need (\d+) GB, but there is room for \d+ layers, ([\d.]+) GB")
    return {
        "desk.needs": needs,
        "desk.have": f"{float(have):.0f}",
        "desk.petals": text(rates["petals_or_exo"]["tokens_per_s"]),
        "desk.exo": text(rates["four_devices"]["tokens_per_s"]),
        "desk.better": _percent(rates["four_devices"]["probability_better"]),
    }


def _refusal() -> str:
    """What the four devices are told whose Petals runs as it is shipped."""
    scenario = simulator.load("petals_or_exo")
    try:
        prepare(scenario.replace(model={"name": scenario.model.name}))
    except PlacementError as error:
        return str(error)
    raise SystemExit("petals_or_exo fits at 16 bits; write README anew")


def _cost(sim: Sim) -> dict[str, str]:
    """Three cards at full use against what APIs ask."""
    (cost,) = sim("cost", "petals_three_rooms")
    prices = [row["per_million"] for row in cost["cloud"]]
    million = {key: round(cost["per_million"][key]) for key in ("median", "p05", "p95")}
    return {
        "rooms.million": f"{million['median']} [{million['p05']}, {million['p95']}]",
        "rooms.electricity": f"{cost['electricity_per_million']['median']:.1f}",
        "rooms.least": f"{min(prices):.2f}",
        "rooms.most": f"{max(prices):.2f}",
    }


def _percent(share: float) -> str:
    """'98 %', with a digit more below one."""
    return f"{100 * share:.1f} %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def _seconds(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['median']:.1f} s"
