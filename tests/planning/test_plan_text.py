"""What a user reads of time and length before a sweep: in the plan of a prepared dataset, and at the start."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hausa_asr.dataset.prepared import load_prepared
from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from helpers.plans import CONFIGS, LAPTOP, planned
from helpers.speech import prepared_speech
from helpers.whole_sweeps import finish, start
from sweeps.driver.sweep import open_sweep
from sweeps.planning.admission import in_a_line
from sweeps.planning.epochs import of_known_length
from sweeps.planning.slots import admit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_speech(tmp_path_factory.mktemp("prepared"))


def plan(storage: Path, *changes: str, code: int = 0) -> str:
    """What `python sweeps/run.py --plan` prints."""
    set_ = [part for change in (*changes, f"storage={storage}") for part in ("--set", change)]
    return finish(start("--config", CONFIGS / "demo.yaml", "--plan", *set_), code=code)


def test_the_plan_of_a_prepared_dataset_counts_its_dev_and_its_test(dataset: Path, tmp_path: Path) -> None:
    seconds = load_prepared(dataset).seconds
    changes = [LAPTOP, "finetune.batch_s=1", "finetune.eval_every_steps=1"]  # so that dev takes most of the time
    said = plan(tmp_path, f"data.prepared={dataset}", "finetune.length_epochs=40", *changes)
    assert f"of up to {40 * seconds['train']:,.0f} s of audio each, 40 times the train split" in said

    def figures(seconds: dict[str, float]) -> list[str]:
        text = planned("demo", tmp_path, f"finetune.length_s={40 * seconds['train']:.1f}", *changes, seconds=seconds)[2]
        return [line for line in text.splitlines() if re.match(r"speed|time|CPU-hours", line)]

    assert all(line in said.splitlines() for line in figures(seconds)), said
    assert not set(figures(seconds)) & set(figures({"train": seconds["train"]}))


def test_a_length_in_epochs_of_data_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    config = load(None, ["finetune.length_epochs=20"], environment={})
    with pytest.raises(UserError, match="known once it is prepared") as refused:
        of_known_length(config, {})
    assert refused.value.where == "finetune.length_epochs" and "hausa-asr prepare" in str(refused.value.fix)
    assert of_known_length(config, {"train": 100.0}).recipe().length_s == 2000
    plain = load(None, ["finetune.length_s=5"], environment={})
    assert of_known_length(plain, {}) is plain
    said = plan(tmp_path, "finetune.length_epochs=20", code=2)
    assert "known once it is prepared" in said and "Traceback" not in said


def test_the_start_says_how_often_a_trial_sees_the_train_split(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the entry point changes
    from sweeps.run import _describe

    prepared, said = load_prepared(dataset), io.StringIO()
    config = load(None, [f"storage={tmp_path}", "finetune.length_epochs=12.5", "model.base=demo"], environment={})
    config = config.with_length(prepared.seconds["train"])
    (tmp_path / "sweep").mkdir()
    sweep = open_sweep(config, tmp_path / "sweep", prepared, admit(config.resources, [{"CPU": 2}], 2))
    _describe(sweep, ["", "a note"], Console(file=said, width=200))
    lines = said.getvalue().splitlines()
    assert lines[1:] == ["a trial of full length sees the train split 12.5 times", "a note"]
    assert lines[0].startswith("12 trials, 2 side by side with 1 worker each; base checkpoint demo; logs in ")


def test_the_start_says_what_a_sweep_is_expected_to_take_in_a_line(tmp_path: Path) -> None:
    of = ("demo", tmp_path, LAPTOP, "pruning.rule=none", "search.trials=10", "finalists.k=2", "finalists.seeds=1")
    config, prediction, _ = planned(*of, "resources.audio_s_per_s=50", "budget.price_per_hour=6")
    # Ten trials and three finalists of 4,500 s on two slots: seven turns of 90 s, and 40 s for start and end.
    assert in_a_line(config, prediction) == (
        "expected to take 11:10 (11:10 to 11:10), 0.33 CPU-hours, 1.95 in money, at 50.0 s of audio per second and "
        "trial: resources.audio_s_per_s"
    )
    config, prediction, _ = planned("demo", tmp_path, LAPTOP)
    line = in_a_line(config, prediction)
    times = re.match(r"expected to take (\d+):(\d\d) \((\d+):(\d\d) to (\d+):(\d\d)\), [\d.]+ CPU-hours, at", line)
    assert times and "a guess" in line and "money" not in line
    expected, least, most = (60 * int(times[n]) + int(times[n + 1]) for n in (1, 3, 5))
    assert least < expected < most
    config, prediction, _ = planned("demo", tmp_path, LAPTOP, "model.base=some/checkpoint")
    assert in_a_line(config, prediction) == ""
