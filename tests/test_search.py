"""The space, the searcher and the study are rebuilt from the ledger; conditions and seeds hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from test_ledger import report

from hausa_asr.config import load
from hausa_asr.errors import UserError
from sweeps.ledger import Ledger
from sweeps.searcher import DIVERGED, DIVERGED_LOSS, SweepSearcher
from sweeps.space import active, check, ordered, parameters, propose

DEMO = Path(__file__).parent.parent / "sweeps/configs/demo.yaml"
CONDITIONAL = [
    "space.freeze_transformer_fraction={choices: [0.0, 0.25, 0.5]}",
    "space.unfreeze={choices: [all, top_down], when: {freeze_transformer_fraction: {above: 0}}}",
    "space.lr_peak=[{low: 1e-4, high: 5e-4, log: true, when: {freeze_transformer_fraction: {at_least: 0.25}}},"
    " {low: 2e-5, high: 2e-4, log: true}]",
    "space.mask_time_length={low: 3, high: 10}",
]


def searcher_of(config: Any, ledger: Ledger) -> SweepSearcher:
    return SweepSearcher(config, ledger, lambda trial: {"trial": trial.id, **trial.settings})


def end(ledger: Ledger, searcher: SweepSearcher, trial: str, state: str, wer: float, reason: str = "") -> None:
    ledger.append("reported", trial=trial, **report(10, wer, wer * 2))
    ledger.append("ended", trial=trial, state=state, reason=reason)
    tune_id = next(key for key, value in searcher.trial_of.items() if value == trial)
    searcher.on_trial_complete(tune_id)


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


def test_baseline_first_then_as_many_as_wanted(tmp_path: Path) -> None:
    config = load(DEMO, ["search.trials=4"])
    ledger = Ledger(tmp_path)
    searcher = searcher_of(config, ledger)
    first = searcher.suggest("x0")
    assert first["trial"] == "t000"
    assert ledger.state.baseline().settings == config.baseline
    rest = [searcher.suggest(f"x{n}") for n in range(1, 4)]
    assert [one["trial"] for one in rest] == ["t001", "t002", "t003"]
    assert searcher.suggest("x4") == Searcher.FINISHED
    assert Ledger(tmp_path).state.trials.keys() == {"t000", "t001", "t002", "t003"}


def test_the_same_seed_and_results_give_the_same_proposals(tmp_path: Path) -> None:
    def proposals(folder: Path, seed: int) -> list[dict[str, Any]]:
        folder.mkdir()
        ledger = Ledger(folder)
        searcher = searcher_of(load(DEMO, ["search.trials=12", f"search.seed={seed}"]), ledger)
        for n in range(12):
            searcher.suggest(f"x{n}")
            end(ledger, searcher, f"t{n:03d}", "finished" if n % 2 else "pruned", 1 / (n + 1))
        return [trial.settings for trial in ledger.state.trials.values()]

    assert proposals(tmp_path / "a", 1) == proposals(tmp_path / "b", 1) != proposals(tmp_path / "c", 2)


def test_states_are_told_as_they_are(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    searcher = searcher_of(load(DEMO, ["search.trials=6"]), ledger)
    for n in range(6):
        searcher.suggest(f"x{n}")
    end(ledger, searcher, "t000", "finished", 0.4)
    end(ledger, searcher, "t001", "pruned", 0.9, "too slow")
    end(ledger, searcher, "t002", "failed", math.nan, DIVERGED)
    end(ledger, searcher, "t003", "failed", 0.8, "CUDA out of memory")
    searcher.on_trial_complete("x4", error=True)

    def shown(study: optuna.Study) -> list[tuple[Any, ...]]:
        return [
            (t.state, t.value if t.state == TrialState.COMPLETE else None, t.intermediate_values) for t in study.trials
        ]

    told = shown(searcher._study)
    assert told[0] == (TrialState.COMPLETE, 0.4, {10: 0.8})
    assert told[1] == (TrialState.PRUNED, None, {10: 1.8})
    assert told[2] == (TrialState.PRUNED, None, {1: DIVERGED_LOSS})
    assert told[3][0] is told[4][0] is TrialState.FAIL
    assert told[5][0] is TrialState.RUNNING
    assert ledger.state.trials["t004"].state == "failed"
    # Rebuilt from the ledger it is the same study, in the order of ends, with the open trials last.
    assert sorted(map(repr, shown(searcher_of(load(DEMO, ["search.trials=6"]), Ledger(tmp_path))._study))) == sorted(
        map(repr, told)
    )


def test_a_resumed_sweep_hands_out_the_unfinished_first_and_can_be_given_more_trials(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    searcher = searcher_of(load(DEMO, ["search.trials=3"]), ledger)
    for n in range(3):
        searcher.suggest(f"x{n}")
    end(ledger, searcher, "t001", "finished", 0.5)
    again = Ledger(tmp_path)
    resumed = searcher_of(load(DEMO, ["search.trials=4"]), again)
    handed = [resumed.suggest(f"y{n}") for n in range(4)]
    assert [one["trial"] for one in handed[:3]] == ["t000", "t002", "t003"]
    assert handed[3] == Searcher.FINISHED
    assert handed[1] == {"trial": "t002", **ledger.state.trials["t002"].settings}
    assert handed[2] != {**handed[2], **ledger.state.trials["t001"].settings}
    end(again, resumed, "t002", "finished", 0.3)
    assert sum(t.state is TrialState.COMPLETE for t in resumed._study.trials) == 2


def test_starting_points_come_after_the_baseline_once_each_and_teach_the_sampler(tmp_path: Path) -> None:
    config = load(None, [*CONDITIONAL, "starting_points=published", "search.trials=9"], environment={})
    ledger = Ledger(tmp_path)
    searcher = searcher_of(config, ledger)
    for number in range(4):
        assert searcher.suggest(f"tune{number}") != Searcher.FINISHED
    sources = [trial.source for trial in ledger.state.trials.values()]
    # `seed` is the baseline itself and is not run twice.
    assert sources == ["baseline", *(f"starting point {name}" for name in ("mofe-b", "robust-event", "fairseq-xlsr"))]
    fairseq = ledger.state.trials["t003"]
    assert config.recipe(fairseq.settings).batch_s == 1600
    for trial in list(ledger.state.trials):
        end(ledger, searcher, trial, "finished", 0.5)
    again = searcher_of(config, Ledger(tmp_path))
    assert again._study.trials[3].params["lr_peak"] == pytest.approx(3e-4)
    for number in range(3):
        again.suggest(f"other{number}")
    sources = [trial.source for trial in again._ledger.state.trials.values()]
    assert sources[4:] == ["starting point omnilingual", "starting point tuned-xlsr53", "search"]


def test_a_wrong_starting_point_is_named() -> None:
    with pytest.raises(UserError, match=r"starting_points.mine.lr_peek: no such setting; did you mean lr_peak"):
        load(None, ["starting_points.mine={lr_peek: 1e-4}"], environment={})
