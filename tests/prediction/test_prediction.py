"""What is expected of trials: by their ranks at the rungs, and by the trials with like settings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from sweeps.prediction.predictor import Predictor
from sweeps.prediction.standing import standings
from sweeps.prediction.surrogate import Posterior, Surrogate
from sweeps.pruning.rule import Score

RNG = np.random.default_rng


def score(loss: float, wer: float = 1.0) -> Score:
    return Score(loss, wer, wer / 3, wer < 0.97)


def cohort(losses: dict[str, float]) -> dict[str, Score]:
    return {name: score(loss) for name, loss in losses.items()}


def test_ranks_count_for_more_the_later_they_are() -> None:
    losses = {name: float(number) for number, name in enumerate("abcdefgh")}
    early, late = (standings([(share, cohort(losses))], {}) for share in (0.1, 0.7))
    assert early["a"].mean < early["d"].mean < early["h"].mean
    assert late["a"].mean < early["a"].mean < 0
    assert late["a"].variance < early["a"].variance


def test_who_is_last_among_the_best_is_still_better_than_the_average() -> None:
    losses = {f"t{number:02d}": float(number) for number in range(32)}
    best = {name: losses[name] for name in list(losses)[:4]}
    found = standings([(0.2, cohort(losses)), (0.4, cohort(best))], {})
    last_of_the_best = found["t03"].mean
    assert found["t00"].mean < last_of_the_best < 0
    assert last_of_the_best < found["t16"].mean, "it stopped in the middle of the first rung"


def test_finished_trials_stand_by_their_wer_and_diverged_ones_last() -> None:
    found = standings([(0.2, cohort({"a": 1.0, "b": 2.0, "c": 3.0}))], {"b": 0.1, "a": 0.2}, {"d"})
    assert found["b"].mean < found["a"].mean < found["d"].mean
    assert found["d"].mean > found["c"].mean


def test_the_gradient_of_the_fit_is_right_and_it_finds_what_matters() -> None:
    rng = RNG(0)
    places = rng.random((60, 5))
    values = np.sin(4 * places[:, 0]) + 0.05 * rng.standard_normal(60)
    observed = places, values - values.mean(), np.full(60, 0.1)
    fitted, posterior = Surrogate(*observed), Posterior(*observed)
    assert check_grad(lambda x: posterior(x)[0], lambda x: posterior(x)[1], fitted.parameters + 0.1) < 1e-3
    lengths = fitted.parameters[:5]
    assert lengths[0] == min(lengths)
    new = rng.random((200, 5))
    assert np.corrcoef(fitted(new)[0], np.sin(4 * new[:, 0]))[0, 1] > 0.95


def predictor_of(share: float, losses: dict[str, float], places: dict[str, float]) -> Predictor:
    made = Predictor([(share, cohort(losses))])
    for name, place in places.items():
        made.place(name, np.array([place, 0.5]))
    return made


def test_slow_starters_that_end_well_are_known_by_their_settings() -> None:
    rng = RNG(1)
    names = [f"t{number:02d}" for number in range(24)]
    places = {name: float(rng.random()) for name in names}
    # Settings near 1 start slowly and end best: at the rung the loss rises with the setting, at the end WER falls.
    losses = {name: 1.0 + places[name] + 0.05 * float(rng.standard_normal()) for name in names}
    made = predictor_of(0.2, losses | {"slow": 1.97}, places | {"slow": 0.97})
    before = made.expected(["slow"])["slow"].mean
    for name in names:
        made.finish(name, 0.5 - 0.3 * places[name])
    assert before > 0.3
    assert made.expected(["slow"])["slow"].mean < before - 0.5


def test_gains_are_largest_where_the_best_are_and_fall_where_a_trial_runs() -> None:
    names = [f"t{number:02d}" for number in range(20)]
    places = {name: number / 19 for number, name in enumerate(names)}
    made = predictor_of(0.2, {}, places)
    assert made.gains(np.array([[0.3, 0.5]])) is None
    for name in names:
        made.finish(name, 0.2 + (places[name] - 0.7) ** 2)
    new = np.array([[0.1, 0.5], [0.71, 0.5]])
    gains = made.gains(new)
    assert gains is not None and gains[1] > gains[0]
    made.place("running", new[1])
    while_running = made.gains(new, ["running"])
    assert while_running is not None and while_running[1] < gains[1]


def test_the_chance_that_a_stopped_trial_would_have_won() -> None:
    losses = {f"t{number:02d}": float(number) for number in range(20)}
    made = Predictor([(0.2, cohort(losses))])
    made.finish("t00", 0.1)
    made.finish("t01", 0.2)
    worst = [f"t{number:02d}" for number in range(15, 20)]
    others = [f"t{number:02d}" for number in range(2, 20)]
    assert made.chance_missed("t00", []) == 0.0
    assert made.chance_missed("t00", worst) < made.chance_missed("t00", others) < 1.0


def test_earlier_sweeps_teach_before_the_first_trial_has_ended() -> None:
    made = Predictor([(0.2, {})])
    places = np.linspace(0, 1, 12)[:, None] * [[1.0, 0.0]]
    made.learn(places, (places[:, 0] - 0.4) * 3, np.full(12, 0.3))
    gains = made.gains(np.array([[0.1, 0.0], [0.9, 0.0]]))
    assert gains is not None and gains[0] > gains[1]


def test_a_decision_among_a_thousand_trials_is_no_other_than_among_few() -> None:
    rng = RNG(2)
    names = [f"t{number:04d}" for number in range(1000)]
    places = {name: float(rng.random()) for name in names}
    made = predictor_of(0.4, {name: places[name] for name in names}, places)
    expected = made.means(names)
    found = np.corrcoef([expected[name] for name in names], [places[name] for name in names])[0, 1]
    assert found == pytest.approx(1.0, abs=0.1)
