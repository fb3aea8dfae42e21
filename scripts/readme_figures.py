"""README's figures, from the predictions and reports that it quotes.

`python scripts/readme_figures.py` computes all of them (minutes), writes `docs/figures.json` and the README;
`--check` says within a second which ones the README quotes otherwise, and whether anything that they were
made from has changed since. `PHRASES` holds the words around each figure: README stays plain text, and a
sentence that was reworded is asked for here.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import simulator
from simulator import Estimate
from simulator.prepare import prepare
from simulator.runtime.draws import Draws
from simulator.scenario import EngineSpec, LinkSpec

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts")]  # a script and a module of the tests alike

import readme_swarm  # noqa: E402

README, FIGURES = ROOT / "README.md", ROOT / "docs" / "figures.json"
PICTURE = ROOT / "docs" / "pictures" / "where_time_goes.svg"
RESULTS = {
    "published": "results/published/README.md",
    "rows": "results/published/predictions.csv",
    "catalog": "results/catalog/README.md",
    "exo": "results/exo/report.md",
    "local": "results/local/report.md",
    "mlx": "results/local_mlx/report.md",
    "swarm": "results/local_petals/report.md",
    "first": "results/local/earlier/first.md",
    "second": "results/local/earlier/second.md",
    "third": "results/local/earlier/third.md",
    "fourth": "results/local/earlier/fourth.md",
    "sixth": "results/local/earlier/sixth.md",
    "dropout 3": "results/dropout/third/report.md",
    "dropout 4": "results/dropout/fourth/report.md",
}
RUNS = {
    "four": "four_devices",
    "five": "five_devices",
    "wired": "wired_laptop",
    "wifi5": "wifi5_contended",
    "thunderbolt": "thunderbolt_macs",
    "pinned": "phone_pinned",
    "legacy": "legacy_phones",
}
REFUSED = simulator.errors.PlacementError.exit_code
BUDGET = ("--budget", "800 EUR", "--goal", "8 tokens/s")
FIGURE = r"-?\d+(?:[.,]\d+)*(?:\s(?:ms|s|%))?(?:\s\[[\d.,\s]+\])?"
PHRASES = (
    "{four.rate} tokens/s; {four.share} of a token's time is the laptop reading its layers",
    "leaves both phones out: {four.best} |",
    "No: {five.rate}, slower by {five.slower} in all cases",
    "read weights at about {five.break_even} GB/s (it does {five.effective}) to break even",
    "Next to nothing: {wired.rate}. Computing",
    "{wifi5.rate}, slower by {wifi5.slower} |",
    "| {thunderbolt.rate}; the one with 64 GB alone does as well ({thunderbolt.alone})",
    "{pinned.rate} with it, {pinned.without} without, better in {pinned.better} of the cases",
    "| {legacy.rate}; nobody has measured that engine",
    "it needs {oversize.needs} GB, they have {oversize.have} |",
    "what two M4 Pro Macs do ({thunderbolt.median})",
    "do ({four.median}): a 70B at 4 bits is {four.weights} GB",
    "| Tensor: {studios.tensor} tokens/s, {studios.pipeline} in a pipeline. Above a one-way delay of "
    "{studios.delay} us the",
    "in prompts of more than {studios.context} tokens",
    "By less than half: {sparks.rate}, alone {sparks.alone} |",
    "| Yes: {pis.rate}, two of them {pis.two}, one {pis.alone}. The slower",
    "| Yes: {halos.rate}. On the 5G Ethernet that they have the second box is worth nothing: "
    "{halos.ethernet}, alone {halos.alone} |",
    "paces all: {uneven.tensor}. The best pipeline (`sim place`) leaves it out: {uneven.alone} |",
    "one hidden state ({hop.size} kB) takes {hop.wifi6} between two devices on Wi-Fi 6, {hop.wifi24} where",
    "airtime is taken, and {hop.thunderbolt} on Thunderbolt",
    "takes {recovery.heavy} for a 32B on two laptops and a mini PC",
    "and {recovery.phone} for the 70B",
    "recovery {dropout.least} to {dropout.most} s, off by {dropout.third} and {dropout.fourth} % at the "
    "median",
    "in the last two series ({dropout.worst} % at most)",
    "tokens/s afterwards off by {dropout.third_rate} and {dropout.fourth_rate} %",
    "published clusters, catalogue alone | {clusters.seen} pipelines looked at; {clusters.counted} only "
    "counted | {clusters.seen_error} %; {clusters.counted_error} % | {clusters.seen_held} %; "
    "{clusters.counted_held} % |",
    "published tensor clusters, one chat, catalogue alone | {tensor.seen} looked at; {tensor.counted} only "
    "counted | "
    "{tensor.seen_error} %; {tensor.counted_error} % | {tensor.seen_held} %; {tensor.counted_held} % |",
    "published swarms (Petals), catalogue alone | {swarms.seen} looked at, of one source | {swarms.seen_error} % | "
    "{swarms.seen_held} % |",
    "published single devices, catalogue alone | {single.seen} looked at; {single.counted} only counted | "
    "{single.seen_error} %; {single.counted_error} % | {single.seen_held} %; {single.counted_held} % |",
    "decode rate of {catalog.chips} chips, left out in turn | {catalog.error} % | {catalog.held} % |",
    "{exo.splits} splits, {exo.predictions} predictions of {exo.recordings} recordings | {exo.error} % | "
    "{exo.held} % |",
    "{local.predictions} configurations, each predicted before it was measured, from {local.trained} that",
    "| {local.error} % (worst {local.worst} %) | {local.held} % ({local.all_held} of {local.all} over six "
    "studies)",
    "| {mlx.predictions} configurations, each predicted before it was measured, from {mlx.trained}; "
    "{mlx.strategies} of them",
    "| {mlx.error} % (worst {mlx.worst} %) | {mlx.held} % | `results/local_mlx` |",
    "| {swarm.predictions} configurations, each predicted before it was measured, from {swarm.trained} | "
    "{swarm.error} % (worst {swarm.worst} %) | {swarm.held} % | `results/local_petals` |",
    "own repeats differ by up to {exo.repeats} % within the hour",
    "{published.rows} published rows are predicted",
    "from a Mac to a DGX Spark ({published.spark} %)",
    "The best of {plan.mixes} mixes is {plan.best} tokens/s for {plan.price} EUR",
    "leaving the Pixel out gives {plan.free} instead of {plan.now}",
    "million tokens of a 70B for {cost.million} EUR at full use",
    "of which {cost.electricity} EUR is electricity for the work; APIs ask {cost.least} to {cost.most} EUR",
    "break-even lies at {cost.break_even} million tokens a day and more, and the cluster makes {cost.day} "
    "million",
    *readme_swarm.PHRASES,
)


def sim(*words: str) -> Any:
    """What `sim WORDS --json` prints; of a scenario that is refused, the refusal."""
    command = [sys.executable, "-m", "sim.main", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, REFUSED):
        raise SystemExit(f"sim {' '.join(words)}: {done.stderr}")
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def text(estimate: Mapping[str, Any], factor: float = 1.0) -> str:
    """'1.03 [0.81, 1.40]'; a negative `factor` turns the interval round, as "slower by" does."""
    low, high = sorted(estimate[key] * factor for key in ("p05", "p95"))
    return Estimate(median=estimate["median"] * factor, p05=low, p95=high, n=1).text()


def brief(estimate: Mapping[str, Any]) -> str:
    """Two digits are enough in a sentence: '60 s [46, 99]'."""
    return f"{estimate['median']:.0f} s [{estimate['p05']:.0f}, {estimate['p95']:.0f}]"


def percent(share: float) -> str:
    """'36 %'."""
    return f"{share:.0%}".replace("%", " %")


def found(where: str, pattern: str) -> tuple[str, ...]:
    """The groups of `pattern` in a report (a name in RESULTS, or a text)."""
    source = (ROOT / RESULTS[where]).read_text(encoding="utf-8") if where in RESULTS else where
    match = re.search(pattern, source)
    if match is None:
        raise SystemExit(f"{RESULTS.get(where, where)}: nothing there matches {pattern!r}; adapt this script")
    return match.groups()


def figures() -> dict[str, str]:
    """Every figure by its name in PHRASES, as README writes it."""
    return {
        **scenario_figures(),
        **tensor_figures(),
        **network_figures(),
        **plan_figures(),
        **report_figures(),
        **readme_swarm.swarm_figures(sim, text, brief, found),
    }


def scenario_figures() -> dict[str, str]:
    """Of `sim run`, `sim compare` and `sim place`."""
    runs = {name: sim("run", scenario) for name, scenario in RUNS.items()}
    slower = {name: sim("compare", "four_devices", name) for name in ("five_devices", "wifi5_contended")}
    what_if = {name: {row["change"]: row for row in run["what_if"]} for name, run in runs.items()}
    verdict = " ".join(slower["five_devices"]["verdicts"])
    alone, without = what_if["thunderbolt"]["leave macbook out"], what_if["pinned"]["leave pixel out"]
    effective, needed = found(verdict, r"now ([\d.]+) GB/s effective.*by speed alone: ([\d.]+) GB/s")
    needs, have = found(str(sim("run", "oversize")), r"model needs (\d+) GB, all \d devices have (\d+)")
    return {f"{name}.rate": text(run["tokens_per_s"]) for name, run in runs.items()} | {
        "four.median": f"{runs['four']['tokens_per_s']['median']:.1f}",
        "thunderbolt.median": f"{runs['thunderbolt']['tokens_per_s']['median']:.1f}",
        "four.share": percent(runs["four"]["bottleneck"]["share"]),
        "four.best": text(sim("place", "four_devices")["best"]["tokens_per_s"]),
        "five.slower": text(difference(slower["five_devices"], "five_devices"), -1),
        "wifi5.slower": text(difference(slower["wifi5_contended"], "wifi5_contended"), -1),
        "five.break_even": f"{round(float(needed), -1):.0f}",
        "five.effective": f"{float(effective):.0f}",
        "thunderbolt.alone": text(alone["tokens_per_s"]),
        "pinned.without": text(without["tokens_per_s"]),
        "pinned.better": percent(without["probability_better"]),
        "oversize.needs": needs,
        "oversize.have": have,
    }


def tensor_figures() -> dict[str, str]:
    """Of the five scenarios of tensor parallelism, each beside what it is to be held against."""
    studios = sim("compare", "four_mac_studios")
    turns = {(one["of"], one["judged"]): one for one in studios["crossovers"]}
    halos, pis = simulator.load("two_strix_halos"), simulator.load("four_pis")
    sockets = EngineSpec(name="vllm", sharding="tensor", backend="sockets")
    pair = [way for way in sim("place", "uneven_pair")["strategies"]["ranking"] if way["tokens_per_s"]]
    return {
        "studios.tensor": text(of(studios, "four_mac_studios")),
        "studios.pipeline": text(of(studios, "four_mac_studios_pipeline")),
        "studios.delay": f"{turns['latency', 'decode']['turns_at'] * 1e6:.0f}",
        "studios.context": f"{round(turns['context', 'first token']['turns_at'], -3):,.0f}",
        "sparks.rate": rate(simulator.load("two_sparks")),
        "sparks.alone": rate(of_first(simulator.load("two_sparks"), 1)),
        "pis.rate": rate(pis),
        "pis.two": rate(of_first(pis, 2)),
        "pis.alone": rate(of_first(pis, 1)),
        "halos.rate": rate(halos),
        "halos.ethernet": rate(on(halos, "ethernet_5g", sockets)),
        "halos.alone": rate(of_first(halos, 1)),
        "uneven.alone": text(pair[0]["tokens_per_s"]),
        "uneven.tensor": text(pair[-1]["tokens_per_s"]),
    }


def of(comparison: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The rate of a scenario of a comparison."""
    return next(row["tokens_per_s"] for row in comparison["ranking"] if row["scenario"] == name)


def of_first(scenario: simulator.Scenario, count: int) -> simulator.Scenario:
    """The first devices alone."""
    names = list(scenario.devices)[:count]
    return scenario.model_copy(update={"devices": {name: scenario.devices[name] for name in names}})


def on(scenario: simulator.Scenario, network: str, engine: EngineSpec) -> simulator.Scenario:
    """The same devices on another network."""
    devices = {
        name: spec.model_copy(update={"link": LinkSpec(kind=network)})
        for name, spec in scenario.devices.items()
    }
    return scenario.model_copy(update={"devices": devices, "engine": engine})


def rate(scenario: simulator.Scenario) -> str:
    """Tokens/s of one chat."""
    prediction = simulator.predict(scenario, with_what_ifs=False)
    return text(prediction.summary.tokens_per_s.model_dump())


def difference(comparison: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a scenario of a comparison has more than the reference, in tokens/s."""
    return next(row["difference"] for row in comparison["ranking"] if row["scenario"] == name)


def network_figures() -> dict[str, str]:
    """How long one hidden state travels, the engine's own
    work for it included, and how long a recovery takes.
    """
    model = prepare(simulator.load("four_devices")).job.model
    weights = model.layers * model.layer_bytes + model.head_bytes
    return {
        "four.weights": f"{weights / 1e9:.0f}",
        "hop.size": f"{model.activation_bytes / 1e3:.0f}",
        "hop.wifi6": hop("four_devices", "macbook", "pixel"),
        "hop.wifi24": hop("five_devices", "macbook", "old_phone"),
        "hop.thunderbolt": hop("thunderbolt_macs", "mini", "macbook").split(" [")[0],
        "recovery.heavy": brief(sim("dropout", "dropout_heavy_laptop")["recovery_s"]),
        "recovery.phone": brief(sim("dropout", "dropout_phone")["recovery_s"]),
    }


def hop(name: str, source: str, sink: str, messages: int = 64) -> str:
    """Milliseconds of one hidden state between two devices, over 1000 worlds: '4.5 ms [2.1, 14]'."""
    job = prepare(simulator.load(name)).job
    draws, path = Draws(job, 0, 1000), job.cluster.path(source, sink)
    taken_s = draws.delay_s(path, "readme", messages) + job.model.activation_bytes * draws.seconds_per_byte(
        path
    )
    median, low, high = (f"{1e3 * q:.2g}" for q in np.quantile(taken_s, (0.5, 0.05, 0.95)))
    return f"{median} ms [{low}, {high}]"


def plan_figures() -> dict[str, str]:
    """Of `sim plan` and `sim cost`."""
    plan, cost = sim("plan", "plan_70b_at_home", *BUDGET), sim("cost", "thunderbolt_macs")[0]
    asked = [option for option in plan["options"] if option["is_asked_model"]]
    free, best = asked[0], max(asked, key=lambda option: option["tokens_per_s"]["median"])
    prices = [row["per_million"] for row in cost["cloud"]]
    # where the dearest API breaks even, were the cluster fast enough for so many tokens a day
    even = cost["fixed_per_day"] / (max(prices) - cost["electricity_per_million"]["median"])
    million = {key: round(cost["per_million"][key]) for key in ("median", "p05", "p95")}
    return {
        "plan.mixes": f"{plan['considered']:,}",
        "plan.best": text(best["tokens_per_s"]),
        "plan.price": f"{best['price']:.0f}",
        "plan.free": f"{free['tokens_per_s']['median']:.2f}",
        "plan.now": f"{plan['as_it_is']['tokens_per_s']['median']:.2f}",
        "cost.million": f"{million['median']} [{million['p05']}, {million['p95']}]",
        "cost.electricity": f"{cost['electricity_per_million']['median']:.2f}",
        "cost.least": f"{min(prices):.2f}",
        "cost.most": f"{max(prices):.2f}",
        "cost.break_even": f"{even:.1f}",
        "cost.day": f"{cost['most_per_day']['median'] / 1e6:.2f}",
    }


PARTS = {"seen": "looked-at", "counted": "counted"}


def published_figures(name: str, kind: str, parts: Iterable[str] = PARTS) -> dict[str, str]:
    """Figures of one line of the published ground, of these of its parts."""
    figures = {}
    for key, part in ((key, PARTS[key]) for key in parts):
        pattern = rf"\| {kind} \| {part} \| (\d+) \| \d+ \| (\d+)% .*\| (\d+)% \(.*\) \| [\d.]+ \|\n"
        n, error, held = found("published", pattern)
        figures |= {f"{name}.{key}": n, f"{name}.{key}_error": error, f"{name}.{key}_held": held}
    return figures


def report_figures() -> dict[str, str]:
    """Of the reports under `results/`, which their own commands made."""
    studies = [study(name) for name in ("local", "first", "second", "third", "fourth", "sixth")]
    local, exo = studies[0], study("exo")
    published = found("published", r"(\d+) of \d+ rows are predicted")
    chips, decode, inside = found("catalog", r"\| decode \| \d+ \| (\d+) \| ([\d.]+)% .* (\d+)% \|\n")
    missed = {row["row"]: float(row["error"]) for row in csv.DictReader((ROOT / RESULTS["rows"]).open())}
    early, late = (int(part) for part in found("exo", r"differed by (-?\d+) to \+(\d+) %"))
    return {
        **published_figures("clusters", "clusters"),
        **published_figures("single", "single devices"),
        **published_figures("swarms", "swarms", ["seen"]),
        **published_figures("tensor", "tensor, one chat"),
        "published.rows": published[0],
        "published.spark": f"{100 * missed['V38']:.0f}",
        "catalog.chips": chips,
        "catalog.error": f"{float(decode):.0f}",
        "catalog.held": inside,
        "exo.recordings": found("exo", r"(\d+) recordings of a real EXO")[0],
        "exo.splits": str(
            len(re.findall(r"\n## Split: ", (ROOT / RESULTS["exo"]).read_text(encoding="utf-8")))
        ),
        **{f"exo.{key}": exo[key] for key in ("predictions", "error", "held")},
        "exo.repeats": str(max(-early, late)),
        **{f"local.{key}": local[key] for key in ("predictions", "error", "worst", "held")},
        **{f"mlx.{key}": value for key, value in study("mlx").items()},
        **{f"swarm.{key}": value for key, value in study("swarm").items()},
        "swarm.trained": found("swarm", r"Calibrated on (\d+) placements")[0],
        "mlx.trained": found("mlx", r"Calibrated on (\d+) placements")[0],
        "mlx.strategies": found("mlx", r"\| new strategy \| (\d+) \|")[0],
        "local.trained": found("local", r"Calibrated on (\d+) placements")[0],
        "local.all_held": str(
            sum(round(int(one["predictions"]) * int(one["held"]) / 100) for one in studies)
        ),
        "local.all": str(sum(int(one["predictions"]) for one in studies)),
        **dropout_figures(),
    }


def study(name: str) -> dict[str, str]:
    """The headline of a report of predictions and measurements."""
    pattern = (
        r"\*\*(\d+) predictions(?: of \d+ measurements)?: median inter-token time off by ([\d.]+)% at the "
        r"median.*? ([\d.]+)% at worst"
        r".*held \d+% / \d+% / (\d+)%"
    )
    return dict(zip(("predictions", "error", "worst", "held"), found(name, pattern), strict=True))


def dropout_figures() -> dict[str, str]:
    """Of the last two series of dropouts on the local cluster."""
    series = {"third": "dropout 3", "fourth": "dropout 4"}
    off = {
        key: found(name, r"Recovery time: median error (\d+)%.*?largest (\d+)%")
        for key, name in series.items()
    }
    rate = {key: found(name, r"Tokens/s after: median error ([\d.]+)%")[0] for key, name in series.items()}
    cases = r"\n\| \w+ \| [\d.]+ \[[\d., ]+\] \| ([\d.]+) \|"
    reports = [(ROOT / RESULTS[name]).read_text(encoding="utf-8") for name in series.values()]
    measured = [float(value) for report in reports for value in re.findall(cases, report)]
    return {
        **{f"dropout.{key}": median for key, (median, _) in off.items()},
        "dropout.worst": str(max(int(worst) for _, worst in off.values())),
        **{f"dropout.{key}_rate": value for key, value in rate.items()},
        "dropout.least": f"{min(measured):.1f}",
        "dropout.most": f"{max(measured):.1f}",
    }


def inputs() -> dict[str, str]:
    """Hashes of what the figures are made from. A change of
    the code that moves one moves a golden file too.
    """
    data = (path for path in (ROOT / "simulator").rglob("*") if path.suffix in (".yaml", ".csv", ".gz"))
    groups = {
        "scenarios/": (ROOT / "scenarios").glob("*.yaml"),
        "tests/golden/": (ROOT / "tests" / "golden").glob("*.json"),
        "the catalogue's data": data,
        "results/": (ROOT / path for path in RESULTS.values()),
    }
    return {name: digest(paths) for name, paths in groups.items()}


def digest(paths: Iterable[Path]) -> str:
    """Of names and contents, in the order of the names."""
    total = sha256()
    for path in sorted(paths):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def pattern(phrase: str) -> re.Pattern[str]:
    """The phrase in README, wherever its lines break; a group stands for each figure."""
    parts = re.split(r"\{([\w.]+)\}", phrase)
    words = [r"\s+".join(re.escape(word) for word in part.split(" ")) for part in parts[::2]]
    return re.compile(f"({FIGURE})".join(words))


def stale(readme: str, known: Mapping[str, str]) -> list[str]:
    """What README says otherwise than `known`: one line per figure, or per phrase that is no longer there."""
    complaints = []
    for phrase in PHRASES:
        match, names = pattern(phrase).search(readme), re.findall(r"\{([\w.]+)\}", phrase)
        if match is None:
            complaints.append(f"README no longer says {phrase!r}; change the phrase in PHRASES too")
            continue
        complaints += [
            f"{name}: README says {said!r}, computed is {known.get(name)!r}"
            for name, said in zip(names, match.groups(), strict=True)
            if " ".join(said.split()) != known.get(name)
        ]
    return complaints


def renewed(readme: str, known: Mapping[str, str]) -> str:
    """README with these figures; all else is kept, line breaks included."""
    for phrase in PHRASES:
        match, names = pattern(phrase).search(readme), re.findall(r"\{([\w.]+)\}", phrase)
        if match is not None:
            for number in range(len(names), 0, -1):  # from the end, so that places before stay where they are
                start, end = match.span(number)
                readme = readme[:start] + known[names[number - 1]] + readme[end:]
    return readme


def check() -> list[str]:
    """What is stale, without computing anything."""
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    now = inputs()
    moved = [
        f"{name} changed since the figures were made" for name in now if now[name] != kept["inputs"].get(name)
    ]
    return moved + stale(README.read_text(encoding="utf-8"), kept["figures"])


def main() -> None:
    """Check, or compute and write."""
    if "--check" not in sys.argv[1:]:
        known = figures()
        FIGURES.write_text(
            json.dumps({"inputs": inputs(), "figures": known}, indent=1) + "\n", encoding="utf-8"
        )
        README.write_text(renewed(README.read_text(encoding="utf-8"), known), encoding="utf-8")
        prediction = simulator.predict(simulator.load("five_devices"), with_what_ifs=False)
        simulator.chart(prediction, "where_time_goes").save(str(PICTURE))
    complaints = check()
    print("\n".join(complaints) or f"{len(PHRASES)} sentences of README hold")
    if complaints:
        sys.exit("run: python scripts/readme_figures.py")


if __name__ == "__main__":
    main()
