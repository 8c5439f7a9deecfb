"""The space: conditions, ranges, and which of a trial's settings the sampler is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from helpers.plans import CONFIGS
from helpers.spaces import CONDITIONAL, DEMO
from sweeps.pruning.rungs import rungs_s
from sweeps.sampling.candidates import Candidates
from sweeps.sampling.conditions import active, ordered
from sweeps.sampling.encode import Encoder
from sweeps.sampling.space import check, parameters, propose


def drawn_by_optuna(config: SweepConfig, count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [propose(config.space, study.ask()) for _ in range(count)]


def drawn_from_all(config: SweepConfig, count: int) -> list[dict[str, Any]]:
    rng, candidates = np.random.default_rng(0), Candidates(config.space)
    return [candidates.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("draw", [drawn_by_optuna, drawn_from_all])
def test_conditions_hold_in_every_proposal(draw: Callable[[SweepConfig, int], list[dict[str, Any]]]) -> None:
    config = load(None, CONDITIONAL)
    drawn = draw(config, 60)
    assert {s["freeze_transformer_fraction"] for s in drawn} == {0.0, 0.25, 0.5}
    assert len({s["mask_time_length"] for s in drawn}) > 2
    for settings in drawn:
        frozen = settings["freeze_transformer_fraction"] > 0
        assert ("unfreeze" in settings) == frozen
        low, high = (1e-4, 5e-4) if settings["freeze_transformer_fraction"] >= 0.25 else (2e-5, 2e-4)
        assert low <= settings["lr_peak"] <= high
        assert settings["mask_time_length"] in range(3, 11)
        assert config.recipe(settings).lr_peak == settings["lr_peak"]


def test_candidates_cover_a_log_range_evenly() -> None:
    config = load(DEMO)
    rng, candidates = np.random.default_rng(0), Candidates(config.space)
    rates = [candidates.draw(rng)["lr_peak"] for _ in range(400)]
    assert 0.4 < np.mean([rate < math.sqrt(3e-4 * 1e-2) for rate in rates]) < 0.6


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


def test_what_a_baseline_leaves_to_the_recipe_is_known_too_where_a_proposal_would_have_it() -> None:
    config = load(None, [*CONDITIONAL, "finetune.lr_peak=1.5e-4"])
    defaults = Encoder(config).defaults
    values, _ = parameters(config.space, {"mask_time_length": 5}, defaults)
    assert values == {"freeze_transformer_fraction": 0.0, "lr_peak#1": 1.5e-4, "mask_time_length": 5}
    values, _ = parameters(config.space, {"freeze_transformer_fraction": 0.5}, defaults)
    assert values == {"freeze_transformer_fraction": 0.5, "unfreeze": "all", "lr_peak": 1.5e-4, "mask_time_length": 10}
    for settings in drawn_by_optuna(config, 20):
        assert parameters(config.space, settings, defaults) == parameters(config.space, settings)


def test_a_wrong_starting_point_is_named() -> None:
    with pytest.raises(UserError, match=r"starting_points.mine.lr_peek: no such setting; did you mean lr_peak"):
        load(None, ["starting_points.mine={lr_peek: 1e-4}"], environment={})


@pytest.mark.parametrize("preset", sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "demo"))
def test_few_random_settings_of_a_preset_have_too_few_updates(preset: str) -> None:
    config = load(CONFIGS / f"{preset}.yaml", [], environment={})
    fixed, first_s = config.recipe(), rungs_s(config)[0]
    recipes = [config.recipe(settings) for settings in drawn_from_all(config, 1000)]
    young = [one.batch_s > 2 * fixed.batch_s for one in recipes]
    assert np.mean(young) < 0.1, f"by {first_s:,.0f} s they have made less than half of the updates of the fixed recipe"
    learning = [one.length_s / one.batch_s * (1 - one.freeze_transformer_fraction) for one in recipes]
    assert np.mean(np.array(learning) < 900) < 0.1, "as few as starting points may not have"
