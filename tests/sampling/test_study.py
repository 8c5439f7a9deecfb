"""The space, what the sampler is told and what it proposes; all of it is rebuilt from the ledger."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from helpers.events import report
from sweeps.record.ledger import Ledger
from sweeps.record.state import DIVERGED, TrialRecord
from sweeps.sampling.space import active, check, ordered, parameters, propose
from sweeps.sampling.study import DIVERGED_LOSS, NEAR, Study
from sweeps.sampling.warm_start import earlier

DEMO = Path(__file__).parents[2] / "sweeps/configs/demo.yaml"
CONDITIONAL = [
    "space.freeze_transformer_fraction={choices: [0.0, 0.25, 0.5]}",
    "space.unfreeze={choices: [all, top_down], when: {freeze_transformer_fraction: {above: 0}}}",
    "space.lr_peak=[{low: 1e-4, high: 5e-4, log: true, when: {freeze_transformer_fraction: {at_least: 0.25}}},"
    " {low: 2e-5, high: 2e-4, log: true}]",
    "space.mask_time_length={low: 3, high: 10}",
]


def test_conditions_hold_in_every_proposal() -> None:
    config = load(None, CONDITIONAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [propose(config.space, study.ask()) for _ in range(60)]
    assert {s["freeze_transformer_fraction"] for s in drawn} == {0.0, 0.25, 0.5}
    for settings in drawn:
        frozen = settings["freeze_transformer_fraction"] > 0
        assert ("unfreeze" in settings) == frozen
        low, high = (1e-4, 5e-4) if settings["freeze_transformer_fraction"] >= 0.25 else (2e-5, 2e-4)
        assert low <= settings["lr_peak"] <= high
        assert settings["mask_time_length"] in range(3, 11)
        assert config.recipe(settings).lr_peak == settings["lr_peak"]


def test_a_parent_comes_before_its_child_and_a_circle_is_refused() -> None:
    config = load(None, CONDITIONAL)
    names = ordered(config.space)
    assert names.index("freeze_transformer_fraction") < names.index("unfreeze")
    circle = load(None, [
        "space.hidden_dropout={low: 0, high: 0.1, when: {layerdrop: {above: 0}}}",
        "space.layerdrop={low: 0, high: 0.1, when: {hidden_dropout: {above: 0}}}",
    ])  # fmt: skip
    with pytest.raises(UserError, match="depend on each other"):
        check(circle)


def test_an_empty_space_runs_the_baseline_alone_or_not_at_all() -> None:
    check(load(None, ["search.trials=1"]))
    with pytest.raises(UserError, match="space is empty"):
        check(load(None, ["search.trials=2"]))


def test_settings_from_elsewhere_count_as_far_as_the_space_knows_them() -> None:
    config = load(None, CONDITIONAL)
    settings = {"freeze_transformer_fraction": 0.5, "lr_peak": 3e-4, "unfreeze": "sideways", "hidden_dropout": 0.3}
    values, distributions = parameters(config.space, settings)
    assert values == {"freeze_transformer_fraction": 0.5, "lr_peak": 3e-4}
    assert set(distributions) == set(values)
    assert parameters(config.space, {"freeze_transformer_fraction": 0.0, "lr_peak": 3e-4})[0].get("lr_peak#1") is None
    assert active(config.space, "lr_peak", {"freeze_transformer_fraction": 0.0}) == 1


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def proposed(ledger: Ledger, study: Study, settings: dict[str, Any], source: str = "search") -> TrialRecord:
    name = f"t{len(ledger.state.trials):03d}"
    ledger.append("proposed", trial=name, settings=settings, source=source)
    ledger.append("started", trial=name)
    study.update(ledger.state.trials[name])
    return ledger.state.trials[name]


def search(folder: Path, seed: int, count: int, stop_after: int | None = None) -> list[dict[str, Any]]:
    """A search in which the sampler proposes and results follow from the settings; stopped and taken up again."""
    config = load(DEMO, [f"search.seed={seed}", "search.random_trials=4"])
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder)
    study = Study(config)
    for trial in ledger.state.searched:
        study.update(trial)
    for number in range(len(ledger.state.trials), count):
        if number == stop_after:
            return search(folder, seed, count)
        settings = study.propose(number)
        assert settings is not None
        trial = proposed(ledger, study, settings)
        wer = abs(math.log10(settings["lr_peak"]) + 2.8)
        if number % 3:
            ledger.append("reported", trial=trial.id, **report(10, wer, wer * 2))
            state = "finished" if number % 2 else "pruned"
            ledger.append("ended", trial=trial.id, state=state, reason="")
            study.update(trial)
    return [trial.settings for trial in ledger.state.trials.values()]


def test_the_same_seed_and_results_give_the_same_proposals_with_a_stop_or_without(tmp_path: Path) -> None:
    once = search(tmp_path / "a", 1, 14)
    assert once == search(tmp_path / "b", 1, 14)
    assert once == search(tmp_path / "c", 1, 14, stop_after=9)
    assert once != search(tmp_path / "d", 2, 14)


def test_states_are_told_as_they_are(tmp_path: Path) -> None:
    config, ledger = load(DEMO), Ledger(tmp_path)
    study = Study(config)
    trials = [proposed(ledger, study, {"lr_peak": 1e-3 * (n + 1)}) for n in range(8)]
    ends: list[dict[str, Any]] = [
        {"state": "finished", "reason": ""},
        {"state": "pruned", "reason": "it lost"},
        {"state": "failed", "reason": DIVERGED},
        {"state": "failed", "reason": "CUDA out of memory"},
    ]
    for trial, end, wer in zip(trials, ends, (0.5, 1.0, 1.5, 2.0), strict=False):
        for step in (10, 20):
            ledger.append("reported", trial=trial.id, **report(step, wer, wer * 20 / step))
        ledger.append("ended", trial=trial.id, **end)
    ledger.append("reported", trial="t004", **report(10, 0.7, 1.5))
    ledger.append("paused", trial="t004", cause="rung", reason="it waits")
    ledger.append("ended", trial="t006", state="failed", reason="diverged")  # before its first report
    for trial in trials:
        study.update(trial)
    told = [(t.state, t.value if t.state is TrialState.COMPLETE else None, t.intermediate_values) for t in study.trials]
    assert told[:7] == [
        (TrialState.COMPLETE, 0.5, {100: 1.0, 200: 0.5}),
        (TrialState.PRUNED, None, {100: 2.0, 200: 1.0}),
        (TrialState.PRUNED, None, {100: DIVERGED_LOSS}),
        (TrialState.FAIL, None, {100: 4.0, 200: 2.0}),
        (TrialState.PRUNED, None, {100: 1.5}),
        (TrialState.RUNNING, None, {}),
        (TrialState.PRUNED, None, {1: DIVERGED_LOSS}),
    ]
    # Rebuilt from the ledger it is the same study.
    again = Study(config)
    for trial in Ledger(tmp_path).state.trials.values():
        again.update(trial)
    assert [(t.state, t.params, t.intermediate_values) for t in again.trials] == [
        (t.state, t.params, t.intermediate_values) for t in study.trials
    ]


def test_a_paused_trial_that_goes_on_is_running_again_and_ends_complete(tmp_path: Path) -> None:
    config, ledger = load(DEMO), Ledger(tmp_path)
    study = Study(config)
    trial = proposed(ledger, study, {"lr_peak": 1e-3})
    ledger.append("reported", trial=trial.id, **report(10, 0.9, 2.0))
    ledger.append("paused", trial=trial.id, cause="rung", reason="")
    study.update(trial)
    ledger.append("started", trial=trial.id)
    study.update(trial)
    assert study.propose(1) is not None
    assert study.trials[0].state is TrialState.RUNNING
    ledger.append("reported", trial=trial.id, **report(100, 0.3, 0.5))
    ledger.append("ended", trial=trial.id, state="finished", reason="")
    study.update(trial)
    assert (study.trials[0].state, study.trials[0].value) == (TrialState.COMPLETE, 0.3)


def test_nothing_is_tried_twice_not_even_nearly_until_the_space_is_used_up(tmp_path: Path) -> None:
    small = load(None, ["space.schedule={choices: [linear, cosine, tri_stage]}", "space.layerdrop={choices: [0, 0.1]}"])
    ledger, study = Ledger(made(tmp_path / "small")), Study(small)
    for number in range(6):
        settings = study.propose(number)
        assert settings is not None
        proposed(ledger, study, settings)
    assert len({tuple(sorted(t.settings.items())) for t in ledger.state.trials.values()}) == 6
    assert study.propose(6) is None

    narrow = load(None, ["space.lr_peak={low: 1.0e-4, high: 2.0e-4, log: true}"])
    ledger, study = Ledger(made(tmp_path / "narrow")), Study(narrow)
    for number in range(25):
        settings = study.propose(number)
        assert settings is not None
        proposed(ledger, study, settings)
    places = sorted(math.log2(t.settings["lr_peak"] / 1e-4) for t in ledger.state.trials.values())
    assert min(b - a for a, b in pairwise(places)) >= NEAR


def an_earlier_sweep(config: SweepConfig, name: str, fingerprint: str = "f") -> Ledger:
    ledger = Ledger(Path(config.storage) / name)
    ledger.append("sweep", name=name, fingerprint=fingerprint, prepared="")
    study = Study(config)
    for number, (state, rate) in enumerate((("finished", 3e-4), ("pruned", 1e-4), ("failed", 2e-4), ("finished", 9.0))):
        settings = {"freeze_transformer_fraction": 0.5, "unfreeze": "all", "lr_peak": rate, "hidden_dropout": 0.3}
        trial = proposed(ledger, study, settings)
        ledger.append("reported", trial=trial.id, **report(10, 0.2 + number / 10, 1.0 + number))
        ledger.append("ended", trial=trial.id, state=state, reason="")
    return ledger


def test_a_warm_start_takes_earlier_trials_with_their_values_as_far_as_the_space_knows_them(tmp_path: Path) -> None:
    changes = [
        *CONDITIONAL,
        f"storage={tmp_path}",
        "search.warm_start=[before]",
        f"mlflow.uri=sqlite:///{tmp_path}/m.db",
    ]
    config = load(None, changes, environment={})
    made(tmp_path / "before")
    an_earlier_sweep(config, "before", "other data")
    warm = earlier(config, "now", "f")
    found, notes = warm.trials, warm.notes
    assert [(t.state, t.value if t.state is TrialState.COMPLETE else None) for t in found] == [
        (TrialState.COMPLETE, 0.2), (TrialState.PRUNED, None), (TrialState.COMPLETE, 0.5),
    ]  # fmt: skip
    assert found[0].params == {"freeze_transformer_fraction": 0.5, "unfreeze": "all", "lr_peak": 3e-4}
    assert "lr_peak" not in found[2].params, "outside the new range"
    assert "3 of 4 trials of before; 4 were scored on other data" in notes[0]
    study = Study(config, found)
    assert len(study.trials) == 3
    settings = study.propose(0)
    assert settings is not None
    with pytest.raises(UserError, match="before"):
        earlier(load(None, [*changes, "search.warm_start=[nowhere]"], environment={}), "now", "f")


def test_a_warm_start_from_an_mlflow_experiment(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    changes = [*CONDITIONAL, f"storage={tmp_path}", "search.warm_start=['mlflow:before']", f"mlflow.uri={uri}"]
    config = load(None, changes, environment={})
    tracker = Tracker(uri, "before")
    parent = tracker.start_sweep("s", {}, {})
    recipe = {"freeze_transformer_fraction": 0.25, "lr_peak": 2e-4, "unfreeze": "top_down", "seed": 3}
    for name, state in (("t000", "finished"), ("t001", "pruned")):
        run = tracker.start_trial(parent, "s", name, recipe, {"source": "search"})
        tracker.log(run, [MetricsRow(10, 0, {"wer": 0.3, "cer": 0.1, "loss": 0.7, "seen_s": 100.0})])
        tracker.end_trial(run, state, "", {"best_wer": 0.25, "best_cer": 0.1, "best_loss": 0.6})
    again = tracker.start_trial(parent, "s", "t000-s1", recipe, {"source": "finalist", "finalist_of": "t000"})
    tracker.end_trial(again, "finished", "", {"best_wer": 0.2, "best_cer": 0.1, "best_loss": 0.6})
    warm = earlier(config, "now", "f")
    found = warm.trials
    assert "2 of 2 trials" in warm.notes[0], "a finalist is no trial"
    assert [t.state for t in found] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert (found[0].value, found[1].intermediate_values) == (0.25, {100: 0.7})
    assert found[0].params == {"freeze_transformer_fraction": 0.25, "unfreeze": "top_down", "lr_peak": 2e-4}
    assert earlier(config, "s", "f").trials == [], "a sweep does not learn from itself"


def test_a_wrong_starting_point_is_named() -> None:
    with pytest.raises(UserError, match=r"starting_points.mine.lr_peek: no such setting; did you mean lr_peak"):
        load(None, ["starting_points.mine={lr_peek: 1e-4}"], environment={})
