"""The estimate against the real thing: lengths by the real rule, speed by real ledgers, disk by real checkpoints."""

from __future__ import annotations

import dataclasses
import random
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import sweeps
from hausa_asr.errors import UserError
from hausa_asr.recipe import Answer
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.training import checkpoint, saving
from hausa_asr.training.finetune import Data
from helpers.fine_tunes import RECIPE, run
from helpers.speech import ToneSplit
from sweeps.planning import estimate
from sweeps.planning.admission import check, describe, refusals
from sweeps.planning.estimate import Prediction, predict
from sweeps.planning.expected_length import ahead_s, mean_s
from sweeps.planning.slots import admit, local_nodes
from sweeps.planning.speed import Speed, base_of, speed_of, trained_weights
from sweeps.pruning.rule import Rule, Score
from sweeps.pruning.rungs import ready_s, rungs, rungs_s
from sweeps.record.ledger import Ledger
from sweeps.sampling.candidates import Candidates

CONFIGS = Path(sweeps.__file__).parent / "configs"
NODE = "cluster.nodes=[{CPU: 32, GPU: 8}]"
LAPTOP = "cluster.nodes=[{CPU: 2}]"


def planned(
    preset: str, storage: Path, *changes: str, seconds: dict[str, float] | None = None
) -> tuple[SweepConfig, Prediction, str]:
    config = load(CONFIGS / f"{preset}.yaml", [f"storage={storage}", *changes], environment={})
    nodes = local_nodes(config.cluster)
    plan = admit(config.resources, nodes, config.search.trials)
    prediction = predict(config, plan, storage, seconds)
    return config, prediction, describe(config, nodes, plan, prediction)


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

HOURS_500 = {"train": 450 * 3600.0, "dev": 50 * 3600.0, "test": 0.0}


def test_the_dev_of_a_large_corpus_does_not_take_the_time_of_training(tmp_path: Path) -> None:
    speeds = []
    for change in ("finetune.dev_part_s=0", "finetune.dev_part_s=3600"):
        _, prediction, _ = planned("xlsr_300m", tmp_path, NODE, change, seconds=HOURS_500)
        assert prediction.speed is not None
        speeds.append(prediction.speed.audio_s_per_s)
    _, without, _ = planned("xlsr_300m", tmp_path, NODE, seconds={"train": 1.0, "dev": 0.0})
    assert without.speed is not None
    whole, part = (1 - speed / without.speed.audio_s_per_s for speed in speeds)
    assert whole == pytest.approx(0.81, abs=0.01)
    assert part < 0.1


def test_the_features_to_cache_are_in_the_plan(tmp_path: Path) -> None:
    _, prediction, text = planned("xlsr_300m", tmp_path, NODE, seconds=HOURS_500)
    assert prediction.features == (450 * 3600 + 3600) * 50 * 512 * 2
    assert "cached features 83.1 GB" in text
    for change in ("finetune.feature_cache=off", "finetune.freeze_feature_encoder=false", "finetune.noise_prob=0.5"):
        assert planned("xlsr_300m", tmp_path, NODE, change, seconds=HOURS_500)[1].features == 0
    assert planned("xlsr_300m", tmp_path, NODE)[1].features is None


def test_features_without_room_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAUSA_ASR_CACHE", raising=False)
    seconds = {"train": 1e9, "dev": 3600.0}
    assert "no room for 51.2 TB of cached features" in planned("xlsr_300m", tmp_path, NODE, seconds=seconds)[2]
    monkeypatch.setenv("HAUSA_ASR_CACHE", "/scratch")
    assert "no room for" not in planned("xlsr_300m", tmp_path, NODE, seconds=seconds)[2]


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


# -- speed -------------------------------------------------------------------------------------------------------


def an_earlier_sweep(storage: Path, name: str, pace: float, *changes: str) -> Ledger:
    config = load(CONFIGS / "demo.yaml", changes, environment={})
    folder = storage / name
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(config.to_yaml(), encoding="utf-8")
    ledger = Ledger(folder)
    scores = {"wer": 0.5, "cer": 0.2, "loss": 1.0}
    for trial in ("t000", "t001", "t002"):
        ledger.append("proposed", trial=trial, settings={}, source="search")
        ledger.append("started", trial=trial)
        started = ledger.state.trials[trial].started
        assert started is not None
        ledger.append(
            "reported", trial=trial, step=70, updates=280, seen_s=1000.0, metrics=scores, best={"step": 70, **scores},
            last=False, diverged=False, time=started + 1000 / pace,
        )  # fmt: skip
    return ledger


def test_speed_is_the_settings_then_the_measured_then_a_guess(tmp_path: Path) -> None:
    config = load(CONFIGS / "demo.yaml", [], environment={})
    guess = speed_of(config, tmp_path)
    assert guess and guess.guessed and "guess" in guess.source
    assert 70 < guess.audio_s_per_s < 130  # the demo trains at about 100 (docs/log.md)
    an_earlier_sweep(tmp_path, "other-base", 3.0, "model.base=/else/where")
    an_earlier_sweep(tmp_path, "other-workers", 5.0, "resources.workers_per_trial=2")
    damaged = an_earlier_sweep(tmp_path, "damaged", 7.0)
    damaged.path.write_text("no JSON\n" + damaged.path.read_text())
    again = speed_of(config, tmp_path)
    assert again == guess
    an_earlier_sweep(tmp_path, "like-this", 120.0)
    measured = speed_of(config, tmp_path)
    assert measured and not measured.guessed
    assert measured.audio_s_per_s == pytest.approx(120)
    assert "3 trials of like-this" in measured.source
    set_ = load(CONFIGS / "demo.yaml", ["resources.audio_s_per_s=77"], environment={})
    said = speed_of(set_, tmp_path)
    assert said and said.audio_s_per_s == 77


def test_the_guess_for_a_gpu_is_the_published_figure(tmp_path: Path) -> None:
    """About 190 hours of audio per GPU-hour: SpeechBrain on an A100, a model of XLS-R 300M's size."""
    config = load(CONFIGS / "xlsr_300m.yaml", ["finetune.dev_part_s=0"], environment={})
    speed = speed_of(config, tmp_path)
    assert speed and 150 < speed.audio_s_per_s < 200
    long_dev = speed_of(config, tmp_path, dev_s=140 * 100 * 3.0)  # scoring it takes as long as training between
    assert long_dev and long_dev.audio_s_per_s == pytest.approx(speed.audio_s_per_s * 1.1 / 2)


# -- disk --------------------------------------------------------------------------------------------------------


def test_checkpoints_are_as_large_as_predicted(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, length_s=48, eval_every_steps=2, freeze_transformer_fraction=0.0)
    run(recipe, Data(ToneSplit(8, 0), ToneSplit(2, 1)), Path("demo"), tmp_path, {2: Answer.STOP})
    files = [path for one in checkpoint.all_checkpoints(tmp_path) for path in one.folder.iterdir()]
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    base = base_of("demo")
    assert base is not None
    weights = trained_weights(SweepConfig(), base)
    assert sum(path.stat().st_size for path in newest.folder.iterdir()) == pytest.approx(12 * weights, rel=0.1)
    assert sum(path.stat().st_size for path in files) <= 16 * weights * 1.1


def test_as_many_bytes_are_written_as_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    replace = saving.os.replace
    monkeypatch.setattr(
        saving.os, "replace", lambda a, b: (written.append(sum(f.stat().st_size for f in a.iterdir())), replace(a, b))
    )
    predicted, real = [], []
    # At every evaluation; and at the first and at the end, and the best beside them.
    for every_s in (0.0, 1e9):
        recipe = {"length_s": 120.0, "batch_s": 12.0, "eval_every_steps": 2, "checkpoint_every_s": every_s}
        settings = [*(f"finetune.{name}={value}" for name, value in recipe.items()), "pruning.rule=none"]
        config = load(CONFIGS / "demo.yaml", [*settings, "search.trials=1", f"storage={tmp_path}"], environment={})
        monkeypatch.setattr(saving, "_WRITING_SHARE", 1e-9)
        monkeypatch.setattr(estimate, "_WRITING_SHARE", 1e-9)
        data = Data(ToneSplit(8, 0), ToneSplit(2, 1))
        run(dataclasses.replace(RECIPE, **recipe), data, Path("demo"), tmp_path / f"{every_s}")  # type: ignore[arg-type]
        real.append(sum(written))
        written.clear()
        predicted.append(estimate.bytes_written(config, Speed(100.0, "", guessed=False)))
    assert real[0] > 2 * real[1]
    for said, was in zip(predicted, real, strict=True):
        assert said is not None and 0.7 * was <= said <= 1.6 * was, (predicted, real)


def test_the_known_sizes_are_those_of_the_models(tmp_path: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = load(CONFIGS / "mms_1b.yaml", [], environment={})
    base = base_of(config.model.base)
    assert base is not None
    with torch.device("meta"):
        model = Wav2Vec2ForCTC(
            Wav2Vec2Config(
                hidden_size=1280, num_hidden_layers=48, intermediate_size=5120, num_attention_heads=16, vocab_size=33,
                feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, adapter_attn_dim=16,
            )
        )  # fmt: skip
    of = {name: weight.numel() for name, weight in model.named_parameters()}
    adapters = sum(count for name, count in of.items() if "adapter_layer" in name)
    assert trained_weights(config, base) == adapters
    assert base.convolutions == sum(count for name, count in of.items() if "feature_extractor" in name)
    head = sum(count for name, count in of.items() if name.startswith("lm_head"))
    assert base.weights == sum(of.values()) - adapters - head


def test_a_disk_that_is_too_small_is_refused_and_a_tight_one_warned_of(tmp_path: Path) -> None:
    config, prediction, _ = planned("xlsr_300m", tmp_path, NODE, "max_checkpoint_gb=20")
    assert any("max_checkpoint_gb" in reason for reason, _ in refusals(config, prediction))
    small = dataclasses.replace(prediction, disk_free=1e9)
    assert any("the disk of the storage" in reason for reason, _ in refusals(config, small))
    config, prediction, text = planned("xlsr_300m", tmp_path, NODE, "max_checkpoint_gb=60")
    assert not [reason for reason, _ in refusals(config, prediction) if "max_checkpoint_gb" in reason]
    assert "lose their optimizer states" in text


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
