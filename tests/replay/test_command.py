"""The command `python -m sweeps.replay` on files of made-up curves, as a person calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hausa_asr.errors import UserError
from helpers.curves import curve, line, made_up
from sweeps.replay.__main__ import app
from sweeps.replay.curves import read


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    settings = made_up(15, 3)
    lines = [line(one, n, seed) for n, seeds in enumerate(settings) for seed, one in enumerate(seeds)]
    (tmp_path / "curves.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "curves.jsonl"


def test_curves_are_read_as_recorded_and_a_torn_line_is_left_out(recorded: Path) -> None:
    whole = recorded.read_text()
    recorded.write_text(whole + '{"number": 15, "seed"')
    settings = read(recorded)
    assert [len(seeds) for seeds in settings] == [2, 2, 2] + [1] * 12
    assert settings[0][0].source == "baseline" and settings[0][0].ready_s == 100.0 and settings[0][0].eval_s == 1.0
    assert settings[3][0].settings["schedule"] == "cosine" and all(len(seeds[0].place) == 3 for seeds in settings)
    shorter = json.loads(whole.splitlines()[0]) | {"kind": "quarter", "number": 99}
    recorded.write_text(whole + json.dumps(shorter) + "\n")
    assert len(read(recorded)) == 15, "a complete quarter is no curve of the full length"
    recorded.write_text('{"number": 15}\n' + whole)
    with pytest.raises(UserError, match="no recorded curve"):
        read(recorded)


FLAT = ("time_vs_random", "worst_time_vs_random", "time_vs_wer_asha", "time_vs_wer_asha_high", "top_decile_stopped")
QUICK = ["--replays", "8", "--resamples", "3", "--part-replays", "3"]


def figures_of(arguments: list[str], file: Path) -> tuple[dict[str, Any], str]:
    """Run the command; its JSON and what it prints."""
    done = CliRunner().invoke(app, [*QUICK, *arguments, "--json", str(file)])
    assert done.exit_code == 0, done.output
    return json.loads(file.read_text()), done.output


def test_the_command_writes_table_picture_and_figures_of_a_single_table(recorded: Path, tmp_path: Path) -> None:
    asked = ["--curves", str(recorded), "--workers", "1,4", "--rule", "ours:reduction=4", "--rule", "median"]
    figures, output = figures_of([*asked, "--picture", str(tmp_path / "out.png")], tmp_path / "out.json")
    for key in (
        *FLAT,
        "time_vs_random_low",
        "time_vs_random_high",
        "time_vs_loss_asha",
        "floor_vs_random",
        "least_vs_random",
    ):
        assert isinstance(figures[key], float), key
    assert figures["time_vs_random_low"] <= figures["time_vs_random"] <= figures["time_vs_random_high"]
    assert figures["worst_time_vs_random"] == figures["time_vs_random_high"]
    assert figures["time_vs_wer_asha_low"] <= figures["time_vs_wer_asha"] <= figures["time_vs_wer_asha_high"]
    assert (figures["workers"], figures["settings"], figures["curves"], figures["replays"]) == (4, 15, 18, 8)
    wanted = {"full", "asha_wer_2", "asha_loss", "ours", "ours:reduction=4", "asha_loss:reduction=4", "median"}
    assert set(figures["rules"]) == wanted and set(figures["rules"]["ours"]) == {"1", "4"}
    assert {"time_vs_full", "work_vs_full", "wer_at_quarter", "wer_at_half", "top_stopped", "reached"} <= set(
        figures["rules"]["median"]["4"]
    )
    assert figures["tables"]["curves"]["time_vs_random"] == pytest.approx(figures["time_vs_random"])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "ours:reduction=4" in output and "15 trials, 4 workers" in output and "Geometric mean" not in output
    assert figures_of([*asked], tmp_path / "again.json")[0] == figures


def test_several_tables_are_put_together_and_the_worst_is_named(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(line(seeds[0], n) for n, seeds in enumerate(made_up(25, 8))), encoding="utf-8")
    asked = ["--curves", str(recorded), "--curves", str(other), "--trials", "10", "--trials", "20"]
    figures, output = figures_of([*asked, "--rule", "ours"], tmp_path / "out.json")
    assert set(figures["tables"]) == {"curves", "other"} and set(FLAT) <= set(figures)
    one, two = figures["tables"].values()
    for key in ("time_vs_random", "time_vs_wer_asha"):
        assert figures[key] == pytest.approx((one[key] * two[key]) ** 0.5)
        low, high = figures[f"{key}_interval"]
        assert low <= figures[key] <= high
    assert figures["worst_time_vs_random"] == max(one["time_vs_random_high"], two["time_vs_random_high"])
    assert figures["time_vs_wer_asha_high"] == max(one["time_vs_wer_asha_high"], two["time_vs_wer_asha_high"])
    assert figures["top_decile_stopped"] == max(one["top_decile_stopped"], two["top_decile_stopped"])
    # The first table has 15 settings, so its sweeps of 20 trials try all of them.
    assert set(two["other_trials"]) == {"20"} and (one["trials"], two["trials"]) == (10, 10)
    assert output.count("Geometric mean over 2 tables") == 2 and "15 trials, 4 workers" in output


def test_without_a_file_all_tables_are_replayed_each_for_a_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        settings = enumerate(made_up(8, 3))
        lines = [line(one, number, seed) for number, seeds in settings for seed, one in enumerate(seeds)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr("sweeps.replay.__main__.CURVES", tmp_path)
    done = CliRunner().invoke(app, ["--rule", "plain", "--resamples", "2", "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "out.json").read_text())
    assert set(figures["tables"]) == {"first", "second"}
    assert {one["replays"] for one in figures["tables"].values()} == {90}
    assert "90 replays" in done.output and "12 each of 2 random parts" in done.output


def test_only_whole_schedules_are_curves(recorded: Path) -> None:
    settings = read(recorded)
    short = curve("0", [1.0, 0.001])
    with recorded.open("a", encoding="utf-8") as file:
        file.write(line(short, 0, kind="quarter") + line(short, 90, kind="eighth") + line(short, 91, kind="full"))
        file.write(line(short, 92, kind="half")[:-40])
    again = read(recorded)
    assert [seeds[0].name for seeds in again] == [*(seeds[0].name for seeds in settings), "91"]
    assert [len(seeds) for seeds in again[:-1]] == [len(seeds) for seeds in settings]
    assert again[-1][0].settings == {"lr_peak": pytest.approx(0.0092), "schedule": "cosine"}


def test_a_table_that_is_being_recorded_can_be_replayed(recorded: Path, tmp_path: Path) -> None:
    asked = ["--curves", str(recorded), "--rule", "plain"]
    whole, _ = figures_of(asked, tmp_path / "whole.json")
    recorded.write_text(recorded.read_text() + line(curve("9", [0.5, 0.1]), 9)[:200])
    assert figures_of(asked, tmp_path / "torn.json")[0] == whole


def test_what_cannot_be_replayed_is_said_in_words(tmp_path: Path) -> None:
    for arguments in (
        ["--curves", str(tmp_path / "none")],
        ["--workers", "0"],
        ["--first-rung", "2"],
        ["--trials", "2"],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2 and "Traceback" not in done.output


def test_help_does_not_wait_for_the_heavy_packages() -> None:
    heavy = ["torch", "ray", "mlflow", "optuna", "matplotlib"]
    code = f"import sys, sweeps.replay.__main__; print([n for n in {heavy} if n in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr
