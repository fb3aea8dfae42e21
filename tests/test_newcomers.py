"""Slips of people who were new here: each ends in one message that says the way out, never in a traceback or silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import simulator
from calibrate.benchmarks import read_benchmarks
from sim.main import main
from simulator import errors
from simulator.errors import LiveError, PlacementError, ScenarioError, SimulatorError
from simulator.files import loads
from simulator.model_spec import ModelSpec
from simulator.own import ENVIRONMENT, UserCatalog
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]
SMALL = """
name: small
model: {name: own, layers: 8, hidden: 1000, layer_bytes: 100 MB}
devices:
  a: {kind: MacBook Air M4}
  b: {kind: MacBook Air M2}
"""


def sim(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sim", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_one_rule_for_exit_codes() -> None:
    """docs/exit-codes.md: 2 asked wrongly, 3 fits nowhere, 1 the world."""
    tree = [SimulatorError]
    for one in tree:
        tree += one.__subclasses__()
    for one in tree:
        world = issubclass(one, LiveError | errors.CalibrationError)
        assert one.exit_code == (3 if issubclass(one, PlacementError) else 1 if world else 2), one
    text = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    assert [f"| {code} |" in text for code in range(4)] == [True] * 4


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("run", "no_such_scenario"), 2),
        (("run", "five_devices", "--seed", "x"), 2),
        (("run", "five_devices", "--measured", "fast"), 2),
        (("run", "oversize"), 3),
        (("dropout", "dropout_phone", "--device", "nobody"), 2),
        (("--catalog", "nofile", "catalog", "engines"), 2),
        (("catalog", "engines", "--catalog", "nofile"), 2),
        (("catalog", "devices", "--search", "qqqq"), 2),
        (("init", "there.yaml"), 2),
        (("calibrate", "nothing.jsonl"), 2),
        (("live", "agent-matrix-of-nothing"), 2),
    ],
)
def test_commands_keep_to_it(
    args: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("name: x\n", encoding="utf-8")
    assert sim(monkeypatch, *args) == code


def test_a_catalogue_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim(monkeypatch, "catalog", "engines", "--catalog", "nofile") == 2
    assert "error: nofile: there is no such file" in capsys.readouterr().err


def test_what_is_said_goes_before_the_users_catalogue_even_where_it_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("devices:\n  air: {kind: MacBook Air M4, allow_paging: true, background_load: 20 %}\n")
    monkeypatch.setenv(ENVIRONMENT, str(file))
    said = SMALL.replace("{kind: MacBook Air M4}", "{kind: air, allow_paging: false}")
    path = tmp_path / "small.yaml"
    path.write_text(said)
    device = simulator.load(path).devices["a"]
    assert (device.kind, device.allow_paging, device.background_load) == ("MacBook Air M4", False, 0.2)


@pytest.mark.parametrize("text", [r'"air\e[31m"', r'"air\u009b31m"', r'"air\nm"', r'"\x07"'])
def test_what_a_terminal_obeys_is_refused_in_names(text: str) -> None:
    with pytest.raises(ScenarioError, match="control character"):
        loads(f"devices:\n  {text}: {{kind: MacBook Air M4}}\n", UserCatalog)


@pytest.mark.parametrize("escape", [r"\e[31m", r"\u009b31m", r"\0"])
def test_what_a_terminal_obeys_is_refused_in_texts(escape: str) -> None:
    with pytest.raises(ScenarioError, match="control character") as error:
        loads(SMALL + f'question: "why {escape}"\n', Scenario)
    assert error.value.args[0].isprintable()


def test_a_notebook_is_told_what_it_should_have_said() -> None:
    for call in (simulator.predict, lambda name: simulator.compare([name]), simulator.compare):
        with pytest.raises(ScenarioError, match="takes a Scenario and got a str; simulator.load"):
            call("five_devices")  # type: ignore[operator]
    scenario = simulator.load("five_devices")
    with pytest.raises(ScenarioError, match="replace: foo.*unknown"):
        scenario.replace(foo=1)
    with pytest.raises(ScenarioError, match="replace: replications"):
        scenario.replace(replications=0)
    with pytest.raises(ScenarioError, match="workload.output_token.*did you mean 'output_tokens'"):
        scenario.replace(workload={"output_token": 3})


def test_a_dropout_when_the_reply_is_over_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for token in ("256", "9999"):
        args = ("dropout", "dropout_heavy_laptop", "--device", "heavy", "--at-token", token, "--no-charts")
        assert sim(monkeypatch, *args) == 2
        assert f"{token} must be at most 255: the reply has 256 tokens" in capsys.readouterr().err


def test_a_number_too_small_to_divide_by_is_a_fault_of_its_row(tmp_path: Path) -> None:
    text = (ROOT / "tests/data/benchmarks/rtx4080.sql").read_text(encoding="utf-8")
    file = tmp_path / "tiny.sql"
    for tiny in ("1e-310", "5e-324", "1e-12"):
        file.write_text(text.replace("118.881588", tiny), encoding="utf-8")
        (fault,) = read_benchmarks([file]).faults
        assert f"avg_ts is '{tiny}' and must be a number, 0 or from 1e-09" in fault


def test_a_models_file_gives_it_its_name() -> None:
    for said, name in (
        ({"hf_config": "models/Qwen3-8B/config.json"}, "Qwen3-8B"),
        ({"hf_config": "config.json"}, "config"),
        ({"hf_config": "qwen.json"}, "qwen"),
        ({"gguf": "a/Llama-3-8B-Q4_K_M.gguf"}, "Llama-3-8B-Q4_K_M"),
        ({"gguf": "a/x.gguf", "name": "mine"}, "mine"),
    ):
        assert ModelSpec.model_validate(said).name == name


def test_every_series_of_dropouts_can_be_reported() -> None:
    """Earlier ones say of each case whether its tokens were right in one word, later ones in two."""
    code = "import sys; sys.argv=['x','report','second']; sys.path.insert(0,'scripts'); import study_dropout as s; "
    code += "print(s._right(True), '|', s._right({'a': True, 'b': False}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "yes | yes, NO\n"
