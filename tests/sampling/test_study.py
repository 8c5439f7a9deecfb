"""What the sampler is told and what it proposes; all of it is rebuilt from the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from hausa_asr.settings.load import load
from helpers.events import report
from helpers.searches import ended, made, proposed, searched
from helpers.spaces import CONDITIONAL, DEMO
from sweeps.prediction.predictor import Predictor
from sweeps.pruning.rule import Rule, Score
from sweeps.record.ledger import Ledger
from sweeps.record.trial import BASELINE, DIVERGED
from sweeps.sampling.candidates import Candidates
from sweeps.sampling.conditions import active
from sweeps.sampling.encode import Encoder
from sweeps.sampling.study import NEAR, Study

RUNG_S, LENGTH_S = 100.0, 1_000.0
TPE = "search.sampler=tpe"


def search(folder: Path, sampler: str, seed: int, count: int, stop_after: int | None = None) -> list[dict[str, Any]]:
    """A search in which results follow from the settings, late ones in another order; stopped and taken up again."""
    config = load(DEMO, [f"search.seed={seed}", f"search.sampler={sampler}", "search.random_trials=4"])
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder)
    study = Study(config)
    for trial in ledger.state.searched:
        study.update(trial)
    for number in range(len(ledger.state.trials), count):
        if number == stop_after:
            return search(folder, sampler, seed, count)
        settings = study.propose(number)
        assert settings is not None
        proposed(ledger, study, settings)
        for late in {0: (), 1: (number, number - 1), 2: (number - 4,)}[number % 3]:
            if late >= 0 and ledger.state.trials[f"t{late:03d}"].is_open:
                trial = ledger.state.trials[f"t{late:03d}"]
                ended(ledger, study, trial, abs(math.log10(trial.settings["lr_peak"]) + 2.8))
    return [trial.settings for trial in ledger.state.trials.values()]


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_the_same_seed_and_results_give_the_same_proposals_with_a_stop_or_without(tmp_path: Path, sampler: str) -> None:
    once = search(tmp_path / "a", sampler, 1, 16)
    assert once == search(tmp_path / "b", sampler, 1, 16, stop_after=9)
    assert once == search(tmp_path / "c", sampler, 1, 16, stop_after=13)
    assert once[:6] != search(tmp_path / "d", sampler, 2, 6)


def at_the_rung(rule: Rule, trial: str, wer: float) -> None:
    rule.record(0, trial, Score(loss=wer, wer=wer, cer=wer / 2, turned=True))


def with_rungs() -> tuple[Rule, Predictor]:
    rule = Rule([RUNG_S], 2)
    return rule, Predictor(rule.shares(LENGTH_S))


def test_all_are_told_where_they_are_expected_to_end(tmp_path: Path) -> None:
    config, ledger = load(DEMO, [TPE]), Ledger(tmp_path)
    rule, predictor = with_rungs()
    study = Study(config, predictor=predictor)
    trials = [proposed(ledger, study, {**config.baseline, "lr_peak": 1e-3 * (n + 1)}) for n in range(7)]
    assert {one.state for one in study.trials} == {TrialState.RUNNING}, "nothing is known yet"
    ended(ledger, study, trials[0], 0.9)
    for trial, wer in zip(trials[1:4], (0.2, 0.4, 0.6), strict=True):
        at_the_rung(rule, trial.id, wer)
    ledger.append("paused", trial=trials[2].id, cause="rung", reason="it waits")
    ledger.append("ended", trial=trials[3].id, state="pruned", reason="it lost")
    ledger.append("ended", trial=trials[4].id, state="failed", reason=DIVERGED)  # before its first report
    ledger.append("ended", trial=trials[5].id, state="failed", reason="CUDA out of memory")
    for trial in trials:
        study.update(trial)
    told = study.trials
    expected = predictor.expected([trial.id for trial in trials])
    _, running, waits, pruned, diverged, crashed, new = told
    for one, trial in zip(told, trials, strict=True):
        if one is not crashed:
            assert (one.state, one.value) == (TrialState.COMPLETE, expected[trial.id].mean)
    assert crashed.state is TrialState.FAIL
    values = [one.value for one in (running, waits, pruned, diverged)]
    assert None not in values and values == sorted(values), "whether they finished or not"  # type: ignore[type-var]
    assert new.value is not None, "it was not ranked, but others with like settings were"
    # Rebuilt from the ledger it is the same study.
    again = Study(config, predictor=predictor)
    for trial in Ledger(tmp_path).state.trials.values():
        again.update(trial)
    assert [(t.state, t.params, t.value) for t in again.trials] == [(t.state, t.params, t.value) for t in told]


def test_a_bad_baseline_that_runs_to_its_end_is_not_the_samplers_best(tmp_path: Path) -> None:
    config, ledger = load(DEMO, [TPE]), Ledger(tmp_path)
    rule, predictor = with_rungs()
    study = Study(config, predictor=predictor)
    baseline = proposed(ledger, study, {**config.baseline, "lr_peak": 4e-4}, BASELINE)
    at_the_rung(rule, baseline.id, 0.95)
    ended(ledger, study, baseline, 0.9)
    rates = np.geomspace(6e-4, 9e-3, 16)
    for rate in rates:  # the higher, the better, and all but the baseline are stopped at the rung
        trial = proposed(ledger, study, {**config.baseline, "lr_peak": float(rate)})
        wer = 0.9 - 0.3 * math.log10(rate / 6e-4)
        at_the_rung(rule, trial.id, wer)
        ledger.append("reported", trial=trial.id, **report(10, wer, wer))
        ledger.append("ended", trial=trial.id, state="pruned", reason="it lost")
        study.update(trial)
    drawn = [study.propose(number) for number in range(17, 37)]
    assert np.median([one["lr_peak"] for one in drawn if one]) > 3e-3
    best = min(study.trials, key=lambda one: one.value if one.value is not None else math.inf)
    assert best.params["lr_peak"] == rates[-1]


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_settings_that_a_baseline_leaves_to_the_recipe_are_told(tmp_path: Path, sampler: str) -> None:
    config, ledger = load(DEMO, [f"search.sampler={sampler}"]), Ledger(tmp_path)
    study = Study(config)
    proposed(ledger, study, {"lr_peak": 1e-3}, BASELINE)
    known = study.trials[0].params
    full = {**Encoder(config).defaults, "lr_peak": 1e-3}
    assert set(known) == {name for name in config.space if active(config.space, name, full) is not None}
    assert known["warmup_fraction"] == config.finetune.warmup_fraction


def made_up_wer(settings: Mapping[str, Any]) -> float:
    """A WER with its best at a rate of 4e-3, with few masks and a cosine; other settings do not matter."""
    off = math.log10(settings["lr_peak"] / 4e-3) ** 2 + (settings["mask_time_prob"] - 0.1) ** 2
    return 0.2 + off + 0.05 * (settings["schedule"] != "cosine")


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_later_proposals_are_better_than_random_ones(tmp_path: Path, sampler: str) -> None:
    guided = []
    for seed in range(2):
        config = load(DEMO, [f"search.seed={seed}", f"search.sampler={sampler}", "search.random_trials=5"])
        guided.append(mean(searched(config, tmp_path / str(seed), 20, made_up_wer)[10:]))
    rng, candidates = np.random.default_rng(0), Candidates(config.space)
    random = mean(made_up_wer(candidates.draw(rng)) for _ in range(200))
    assert mean(guided) - 0.2 < 0.5 * (random - 0.2)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_conditions_hold_in_what_is_proposed(tmp_path: Path, sampler: str) -> None:
    config = load(None, [*CONDITIONAL, f"search.sampler={sampler}", "search.random_trials=3"])
    ledger, study = Ledger(tmp_path), Study(config)
    ended(ledger, study, proposed(ledger, study, dict(config.baseline), BASELINE), 0.5)
    for number in range(1, 16):
        settings = study.propose(number)
        assert settings is not None
        frozen = settings["freeze_transformer_fraction"] > 0
        assert ("unfreeze" in settings) == frozen
        low, high = (1e-4, 5e-4) if frozen else (2e-5, 2e-4)
        assert low <= settings["lr_peak"] <= high
        ended(ledger, study, proposed(ledger, study, settings), 1e-4 / settings["lr_peak"])


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_two_that_run_side_by_side_do_not_try_the_same(tmp_path: Path, sampler: str) -> None:
    config = load(DEMO, [f"search.sampler={sampler}", "search.random_trials=5"])
    ledger, study = Ledger(tmp_path), Study(config)
    for number in range(12):
        settings = study.propose(number)
        assert settings is not None
        ended(ledger, study, proposed(ledger, study, settings), made_up_wer(settings))
    side_by_side = []
    for number in range(12, 16):
        settings = study.propose(number)
        assert settings is not None
        side_by_side.append(Encoder(config)(proposed(ledger, study, settings).settings))
    apart = [np.abs(a - b).max() for at, a in enumerate(side_by_side) for b in side_by_side[:at]]
    assert np.median(apart) > 0.05


def test_a_paused_trial_that_goes_on_is_told_again(tmp_path: Path) -> None:
    config, ledger = load(DEMO, [TPE]), Ledger(tmp_path)
    rule, predictor = with_rungs()
    study = Study(config, predictor=predictor)
    trials = [proposed(ledger, study, {"lr_peak": 1e-3 * (n + 1)}) for n in range(3)]
    for trial, wer in zip(trials, (0.9, 0.8, 0.7), strict=True):
        at_the_rung(rule, trial.id, wer)
    ledger.append("paused", trial=trials[0].id, cause="rung", reason="")
    study.update(trials[0])
    worst = study.trials[0].value
    assert worst is not None and worst > 0
    for trial, wer in zip(trials, (0.1, 0.3, 0.2), strict=True):
        ended(ledger, study, trial, wer)
    best = study.trials[0].value
    assert best is not None and best < 0


def test_a_search_leaves_the_place_where_it_happened_to_begin(tmp_path: Path) -> None:
    config, ledger = load(DEMO), Ledger(tmp_path)
    study = Study(config)
    start = {"schedule": "tri_stage", "freeze_transformer_fraction": 0.25, "unfreeze": "all", "warmup_fraction": 0.25}
    for number in range(14):
        settings: dict[str, Any] | None = {**config.baseline, **start, "lr_peak": 4e-4 * (1 + number)}
        if number >= 4:
            settings = study.propose(number)
        assert settings is not None
        off = abs(math.log(settings["lr_peak"] / 2e-3)) + 0.3 * (settings["schedule"] == "tri_stage")
        ended(ledger, study, proposed(ledger, study, settings), 0.1 + 0.1 * off)
    tried = [trial.settings["schedule"] for trial in list(ledger.state.trials.values())[4:]]
    assert tried.count("tri_stage") < len(tried) / 2


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_nothing_is_tried_twice_not_even_nearly_until_the_space_is_used_up(tmp_path: Path, sampler: str) -> None:
    changes = [f"search.sampler={sampler}", "search.random_trials=2"]
    small = load(None, [
        *changes, "space.schedule={choices: [linear, cosine, tri_stage]}", "space.layerdrop={choices: [0, 0.1]}",
    ])  # fmt: skip
    ledger, study = Ledger(made(tmp_path / "small")), Study(small)
    for number in range(6):
        settings = study.propose(number)
        assert settings is not None
        ended(ledger, study, proposed(ledger, study, settings), number / 10)
    assert len({tuple(sorted(t.settings.items())) for t in ledger.state.trials.values()}) == 6
    assert study.propose(6) is None

    narrow = load(None, [*changes, "space.lr_peak={low: 1.0e-4, high: 2.0e-4, log: true}"])
    ledger, study = Ledger(made(tmp_path / "narrow")), Study(narrow)
    for number in range(25):
        settings = study.propose(number)
        assert settings is not None
        ended(ledger, study, proposed(ledger, study, settings), settings["lr_peak"])
    places = sorted(math.log2(t.settings["lr_peak"] / 1e-4) for t in ledger.state.trials.values())
    assert min(b - a for a, b in pairwise(places)) >= NEAR
