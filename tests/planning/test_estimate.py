"""The estimate against the real thing: lengths by the real rule, budgets by what a refusal says would fit."""

from __future__ import annotations

import math
import random
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from helpers.plans import CONFIGS, HOURS_500, LAPTOP, NODE, an_earlier_sweep, planned
from sweeps.planning.admission import check, refusals
from sweeps.planning.expected_length import ahead_s, mean_s
from sweeps.pruning.rule import Rule, Score
from sweeps.pruning.rungs import ready_s, rungs, rungs_s
from sweeps.sampling.candidates import Candidates

# -- the four plans ----------------------------------------------------------------------------------------------


def test_a_sweep_that_fits_is_described_in_full(tmp_path: Path) -> None:
    config, prediction, text = planned("xlsr_300m", tmp_path, NODE, "budget.price_per_hour=3", "max_checkpoint_gb=900")
    check(config, prediction)
    assert "8 trials side by side" in text
    assert re.search(r"time +\d+:\d+:\d\d +\d+:\d+:\d\d +\d+:\d+:\d\d\n", text)
    assert re.search(r"GPU-hours +[\d.]+ +[\d.]+ +[\d.]+\n", text)
    assert re.search(r"cost +[\d.]+ +[\d.]+ +[\d.]+\n", text)
    assert "a guess" in text
    assert "refused" not in text


def test_where_stock_tune_would_wait_for_ever_ours_runs_and_says_so(tmp_path: Path) -> None:
    config, prediction, text = planned("demo", tmp_path, LAPTOP, "resources.workers_per_trial=2")
    check(config, prediction)
    assert "1 trial at a time" in text
    assert "would wait for ever here" in text


def test_a_gpu_on_a_machine_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        planned("xlsr_300m", tmp_path, LAPTOP)
    assert "gpus_per_worker=0" in str(refused.value.fix)


def test_over_budget_is_refused_with_what_would_fit_and_that_fits(tmp_path: Path) -> None:
    of = (NODE, "resources.audio_s_per_s=1000", "max_checkpoint_gb=900", "finalists.k=1", "finalists.seeds=1")
    config, prediction, text = planned("xlsr_300m", tmp_path, *of, "budget.hours=1")
    with pytest.raises(UserError, match=r"budget\.hours allows 1\.00 GPU-hours") as refused:
        check(config, prediction)
    assert "refused" in text
    enough = int(re.search(r"search\.trials to (\d+)", str(refused.value.fix))[1])  # type: ignore[index]
    hours = re.search(r"budget\.hours to ([\d.]+)", str(refused.value.fix))[1]  # type: ignore[index]
    for change, fits in (
        (f"search.trials={enough}", True),
        (f"search.trials={enough + 1}", False),
        (f"budget.hours={hours}", True),
        (f"budget.hours={float(hours) - 0.02}", False),
    ):
        config, prediction, _ = planned("xlsr_300m", tmp_path, *of, "budget.hours=1", change)
        assert (not refusals(config, prediction)) is fits, change


def test_where_only_a_sweep_without_finalists_fits_that_is_said(tmp_path: Path) -> None:
    of = (LAPTOP, "resources.audio_s_per_s=100", "budget.hours=0.02")
    config, prediction, _ = planned("demo", tmp_path, *of, "finalists.k=3", "finalists.seeds=3")
    [(_, fix)] = refusals(config, prediction)
    assert "finalists.k to 0 and search.trials to" in fix
    trials = fix.rpartition(" ")[2]
    config, prediction, _ = planned("demo", tmp_path, *of, "finalists.k=0", f"search.trials={trials}")
    assert not refusals(config, prediction)


# -- large and small corpora -------------------------------------------------------------------------------------


def test_the_dev_of_a_large_corpus_does_not_take_the_time_of_training(tmp_path: Path) -> None:
    speeds = []
    for change in ("finetune.dev_part_s=0", "finetune.dev_part_s=3600"):
        _, prediction, _ = planned("xlsr_300m", tmp_path, NODE, change, seconds=HOURS_500)
        assert prediction.speed is not None
        speeds.append(prediction.speed.audio_s_per_s)
    _, without, _ = planned("xlsr_300m", tmp_path, NODE, seconds={"train": 1.0, "dev": 0.0})
    assert without.speed is not None
    whole, part = (1 - speed / without.speed.audio_s_per_s for speed in speeds)
    assert whole == pytest.approx(0.83, abs=0.01)
    assert part < 0.1


@pytest.mark.parametrize(("hours", "warned"), [(0.5, True), (5, False), (500, True)])
def test_a_length_far_from_what_has_worked_is_warned_of(tmp_path: Path, hours: float, warned: bool) -> None:
    seconds = {"train": hours * 3600.0}
    _, prediction, text = planned("xlsr_300m", tmp_path, NODE, seconds=seconds)
    assert prediction.epochs == pytest.approx(420_000 / (hours * 3600))
    assert ("set finetune.length_epochs" in text) is warned
    assert f"{prediction.epochs:.3g} times the train split" in text
    assert "length_epochs" not in planned("demo", tmp_path, LAPTOP, seconds=seconds)[2]


# -- refusals and warnings ---------------------------------------------------------------------------------------


def test_a_refusal_gives_every_reason_at_once(tmp_path: Path) -> None:
    config, prediction, _ = planned(
        "xlsr_1b", tmp_path, NODE, "resources.audio_s_per_s=10", "max_checkpoint_gb=1", "budget.hours=1",
        "budget.wall_s=60", "budget.money=1", "budget.price_per_hour=2",
    )  # fmt: skip
    with pytest.raises(UserError) as refused:
        check(config, prediction)
    for part in ("max_checkpoint_gb", "budget.hours", "budget.wall_s", "budget.money"):
        assert part in refused.value.what
        assert part in str(refused.value.fix)


def test_what_is_only_expected_to_be_too_long_is_no_reason_to_refuse(tmp_path: Path) -> None:
    of = (NODE, "resources.audio_s_per_s=1000", "max_checkpoint_gb=900")
    _, prediction, _ = planned("xlsr_300m", tmp_path, *of)
    assert prediction.low and prediction.expected
    between = (prediction.low.hours + prediction.expected.hours) / 2
    config, prediction, text = planned("xlsr_300m", tmp_path, *of, f"budget.hours={between}")
    check(config, prediction)
    trial = int(re.search(r"end the search at about trial (\d+) of 40", text)[1])  # type: ignore[index]
    assert 10 < trial < 40


def test_a_guess_warns_and_a_measurement_refuses(tmp_path: Path) -> None:
    of = (NODE, "max_checkpoint_gb=900")
    _, prediction, _ = planned("xlsr_300m", tmp_path, *of)
    assert prediction.low and prediction.speed and prediction.speed.guessed
    of = (*of, f"budget.hours={0.2 * prediction.low.hours}")
    config, guessed, text = planned("xlsr_300m", tmp_path, *of)
    assert not refusals(config, guessed)
    assert "if the guessed speed is right" in text
    measured = f"resources.audio_s_per_s={prediction.speed.audio_s_per_s}"
    config, known, text = planned("xlsr_300m", tmp_path, *of, measured)
    assert refusals(config, known)


def test_an_unknown_base_gets_no_figures(tmp_path: Path) -> None:
    config, prediction, text = planned("xlsr_300m", tmp_path, NODE, "model.base=some/checkpoint", "budget.hours=1")
    check(config, prediction)
    assert prediction.expected is None
    assert prediction.disk_expected is None
    assert "set resources.audio_s_per_s" in text
    _, prediction, _ = planned("xlsr_300m", tmp_path, NODE, "model.base=some/checkpoint", "resources.audio_s_per_s=99")
    assert prediction.expected is not None


# -- time --------------------------------------------------------------------------------------------------------


def test_without_pruning_it_is_plain_arithmetic(tmp_path: Path) -> None:
    _, prediction, _ = planned(
        "demo", tmp_path, LAPTOP, "pruning.rule=none", "resources.audio_s_per_s=50", "search.trials=10",
        "finalists.k=2", "finalists.seeds=1", "budget.price_per_hour=6",
    )  # fmt: skip
    assert prediction.low == prediction.expected == prediction.high
    assert prediction.high
    assert prediction.high.audio_s == 13 * 4500
    assert prediction.high.hours == pytest.approx(13 * 90 / 3600)
    assert prediction.high.money == pytest.approx(6 * 13 * 90 / 3600)
    assert (5 + 2) * 90 <= prediction.high.wall_s <= (5 + 2) * 90 + 60  # three finalists on two slots take two turns


@pytest.mark.parametrize(("finalists", "models"), [(("2", "3"), 9), (("0", "1"), 2)])
def test_scoring_the_last_models_on_all_of_dev_and_test_takes_its_time(
    tmp_path: Path, finalists: tuple[str, str], models: int
) -> None:
    of = ("demo", tmp_path, LAPTOP, "resources.audio_s_per_s=50", f"finalists.k={finalists[0]}",
          f"finalists.seeds={finalists[1]}")  # fmt: skip
    seconds = {"train": 2000.0, "dev": 3000.0, "test": 6000.0}
    _, known, _ = planned(*of, seconds=seconds)
    _, unknown, _ = planned(*of, seconds={"train": 2000.0})
    assert known.expected and unknown.expected
    a_model_s = 9000 / (3 * 50)  # the forward pass is a third of an update
    assert known.expected.wall_s - unknown.expected.wall_s == pytest.approx(math.ceil(models / 2) * a_model_s)
    assert known.expected.hours == unknown.expected.hours, "the ledger's hours end with the last run"


def searched_s(rule: Rule, length_s: float, scores: dict[str, float], finish_share: float) -> float:
    """Seconds of audio that the real rule lets trials with fixed scores train on, one after another."""
    ends = [*rule.marks, length_s]
    waiting: dict[str, int] = {}
    to_come = list(scores)
    audio_s, through = 0.0, 0
    while True:
        trial = rule.promotable(waiting)
        if trial is not None:
            at = waiting.pop(trial) + 1
        elif to_come:
            trial, at = to_come.pop(0), 0
        elif through < finish_share * len(scores) and (trial := rule.second_look(waiting)) is not None:
            audio_s += length_s - rule.marks[waiting.pop(trial)]
            through += 1
            continue
        else:
            return audio_s
        for rung in range(at, len(ends)):
            audio_s += ends[rung] - (ends[rung - 1] if rung else 0.0)
            if rung == len(rule.marks):
                through += 1
                break
            rule.record(rung, trial, Score(scores[trial], 1.0, 1.0, False))
            if not rule.rank(rung, trial).passed:
                waiting[trial] = rung
                break


@pytest.mark.parametrize(("trials", "reduction", "first"), [(10, 2, 0.35), (40, 3, 0.25), (40, 3, 0.05), (120, 4, 0.1)])
def test_expected_lengths_are_what_the_rule_makes_of_chance(trials: int, reduction: int, first: float) -> None:
    config = SweepConfig.model_validate(
        {
            "finetune": {"length_s": 1000, "batch_s": 1, "eval_every_steps": 1},
            "pruning": {"reduction": reduction, "first_rung": first},
        }
    )
    drawn = []
    for seed in range(40):
        chance = random.Random(seed)
        rule = Rule(rungs(1000, first, reduction), reduction, "loss")
        drawn.append(
            searched_s(rule, 1000, {str(n): chance.random() for n in range(trials)}, config.pruning.finish_share)
            / trials
        )
    assert mean_s(config, trials) == pytest.approx(sum(drawn) / len(drawn), rel=0.05)


def test_settings_that_warm_up_past_a_rung_are_expected_to_pass_it_where_they_do() -> None:
    change = ["pruning.first_rung=0.1", "pruning.reduction=3"]
    means = {}
    for rank_by in ("loss", "predicted"):
        config = load(CONFIGS / "xlsr_300m.yaml", [*change, f"pruning.rank_by={rank_by}"], environment={})
        means[rank_by] = mean_s(config, 40) / config.recipe().length_s
    chance, candidates = random.Random(1), Candidates(config.space)
    recipes = [config.recipe(candidates.draw(chance)) for _ in range(400)]
    ready = [ready_s(one, rungs_s(config)[0], config.recipe()) for one in recipes]
    late = [sum(one > mark for one in ready) / 400 for mark in rungs_s(config)]
    assert late[0] > 0.3 and late[-1] == 0, "all are ready by the last rung, many not by the first"
    # By one figure these pass the first rung unranked; all others are stopped there or go on as at random.
    ranked = means["predicted"]
    first, second = (mark / config.recipe().length_s for mark in rungs_s(config)[:2])
    assert ranked < means["loss"] < 1.0
    assert means["loss"] > ranked + 0.5 * late[0] * (second - first)


def test_a_trial_is_expected_to_go_on_for_longer_the_more_rungs_it_has_passed() -> None:
    changes = {"finetune": {"length_s": 1000}, "pruning": {"first_rung": 0.3, "reduction": 3, "finish_share": 0.4}}
    config = SweepConfig.model_validate(changes)
    ends = [seen_s + ahead_s(config, seen_s, 40) for seen_s in (0, 299, 300, 900, 1000)]
    assert ends == sorted(ends)
    assert 300 < ends[0] < ends[2] < 1000 == ends[-1]


# -- at once -----------------------------------------------------------------------------------------------------


def test_every_preset_is_planned_in_two_seconds_without_the_heavy_packages(tmp_path: Path) -> None:
    for number in range(3):
        an_earlier_sweep(tmp_path, f"earlier-{number}", 90.0)
    code = (
        "import sys\nfrom pathlib import Path\nfrom hausa_asr.settings.load import load\n"
        "from sweeps.planning.slots import admit, local_nodes\nfrom sweeps.planning.estimate import predict\n"
        "from sweeps.planning.admission import describe\n"
        f"for path in sorted(Path({str(CONFIGS)!r}).glob('*.yaml')):\n"
        f"    config = load(path, [{NODE!r}], environment={{}})\n"
        "    nodes = local_nodes(config.cluster)\n    plan = admit(config.resources, nodes, config.search.trials)\n"
        f"    print(describe(config, nodes, plan, predict(config, plan, Path({str(tmp_path)!r}))))\n"
        "heavy = {'torch', 'ray', 'optuna', 'mlflow', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # other tests run beside this one
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("slots ") == len(list(CONFIGS.glob("*.yaml")))
    assert took_s < 2, took_s
