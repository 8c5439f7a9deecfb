"""The fine-tune learns, resumes exactly, freezes what it says, and is the same however its batches are cut."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import Wav2Vec2ForCTC

from hausa_asr.dataset.parts import dev_part
from hausa_asr.errors import UserError
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.forward import ctc_logits
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training import checkpoint, evaluation
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.freezing import set_trainable, trainable
from hausa_asr.training.run import _prepare_layers
from hausa_asr.training.updates import UpdatePlan, evaluations
from helpers.fine_tunes import RECIPE, losses, run
from helpers.speech import ToneSplit


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(8, 1))


@pytest.mark.slow
def test_learns_to_read_tones(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, length_s=3200, eval_every_steps=80, mask_time_prob=0.0, mask_feature_prob=0.0,
                                 lr_peak=5e-3, freeze_feature_encoder=False)  # fmt: skip
    end, reports = run(recipe, data, layer_norm_base, tmp_path)
    assert end == "finished"
    assert reports[0].metrics["wer"] > 0.9
    assert reports[-1].best["wer"] < 0.5
    assert reports[-1].last


def test_reports_have_every_figure_and_checkpoints_are_hugging_face_folders(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    _, reports = run(RECIPE, data, layer_norm_base, tmp_path)
    assert [p.step for p in reports][:3] == [5, 10, 15]
    assert reports[-1].step == reports[-1].updates
    assert reports[-1].seen_s >= RECIPE.length_s
    wanted = {"wer", "cer", "wer_folded", "cer_folded", "loss", "train_loss", "lr", "grad_norm", "samples_per_s",
              "audio_s_per_s", "eval_runtime_s", "seen_s", "masked_fraction", "system/process_memory_gb"}  # fmt: skip
    assert wanted <= set(reports[-1].metrics)
    assert 0.05 < reports[-1].metrics["masked_fraction"] < 0.2
    assert len(reports[-1].samples) == 8
    kept = {one.step for one in checkpoint.all_checkpoints(tmp_path)}
    assert kept == {reports[-1].step, int(reports[-1].best["step"])}
    assert checkpoint.best(tmp_path).step == reports[-1].best["step"]
    model, processor = checkpoint.load(reports[-1].best_checkpoint)
    assert not model.training
    assert processor.tokenizer("ɗan ƙasa").input_ids == ToneSplit(1, 0)[0].labels.tolist()


def test_trials_are_scored_on_the_part_of_dev_that_is_asked_for(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    _, reports = run(dataclasses.replace(RECIPE, dev_part_s=4), data, layer_norm_base, tmp_path, {10: Answer.STOP})
    heard = [sample[0] for sample in reports[-1].samples]
    part = dev_part(data.dev, 4)
    assert 0 < len(part) < len(data.dev)
    assert heard == [part[index].id for index in range(len(part))]
    model, processor = checkpoint.load(reports[-1].checkpoint)
    assert evaluate(model, processor, part).wer == reports[-1].metrics["wer"]


@pytest.mark.parametrize("stop", [5, 10])
def test_a_resumed_trial_equals_the_one_not_stopped(
    data: Data, layer_norm_base: Path, tmp_path: Path, stop: int
) -> None:
    # With everything that draws numbers or changes in the middle.
    recipe = dataclasses.replace(RECIPE, hidden_dropout=0.1, layerdrop=0.2, freeze_transformer_fraction=0.3,
                                 unfreeze="top_down", freeze_feature_encoder=False)  # fmt: skip
    _, whole = run(recipe, data, layer_norm_base, tmp_path / "whole")
    end, first = run(recipe, data, layer_norm_base, tmp_path / "parts", {stop: Answer.PAUSE})
    assert end == "paused"
    _, second = run(recipe, data, layer_norm_base, tmp_path / "parts")
    assert second[0].step == stop, "the newest checkpoint is reported once more"
    assert losses(first) + losses(second[1:]) == losses(whole)


def test_before_its_machine_goes_a_trial_writes_what_it_has_and_goes_on_elsewhere(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, eval_every_steps=10, hidden_dropout=0.1)
    _, whole = run(recipe, data, layer_norm_base, tmp_path / "whole")
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE if progress.step > 5 else Answer.PAUSE

    result = finetune(recipe, data, report, base=str(layer_norm_base), folder=tmp_path / "spot", hurry=lambda: True)
    assert (result.end, [one.step for one in reports]) == ("paused", [5]), "in between two evaluations"
    assert checkpoint.latest(tmp_path / "spot").step == 5
    _, elsewhere = run(recipe, data, layer_norm_base, tmp_path / "spot")
    assert [(p.step, p.metrics["loss"]) for p in elsewhere[1:]] == [(p.step, p.metrics["loss"]) for p in whole]


def test_a_machine_that_stays_after_all_costs_one_evaluation(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    recipe, steps = dataclasses.replace(RECIPE, eval_every_steps=10), []

    def report(progress: Progress) -> Answer:
        steps.append(progress.step)
        return Answer.CONTINUE

    finetune(recipe, data, report, base=str(layer_norm_base), folder=tmp_path, hurry=lambda: True)
    _, quiet = run(recipe, data, layer_norm_base, tmp_path / "quiet")
    assert steps == [5, *(p.step for p in quiet)]


def test_a_crash_in_mid_write_leaves_the_checkpoint_before(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    run(RECIPE, data, layer_norm_base, tmp_path, {10: Answer.STOP})
    torn = tmp_path / ".step-000015.partial"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    (tmp_path / "step-000020").mkdir()  # a folder without its progress.json is no checkpoint
    assert checkpoint.latest(tmp_path).step == 10
    end, reports = run(RECIPE, data, layer_norm_base, tmp_path)
    assert (end, reports[0].step) == ("finished", 10)


def test_stop_ends_it_and_a_finished_trial_only_reports_its_end_again(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    end, reports = run(RECIPE, data, layer_norm_base, tmp_path / "a", {5: Answer.STOP})
    assert (end, len(reports)) == ("stopped", 1)
    _, whole = run(RECIPE, data, layer_norm_base, tmp_path / "b")
    end, again = run(RECIPE, data, layer_norm_base, tmp_path / "b")
    assert (end, losses(again)) == ("finished", losses(whole)[-1:])


def test_micro_batches_change_nothing(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    _, whole = run(RECIPE, data, layer_norm_base, tmp_path / "one")
    _, cut = run(dataclasses.replace(RECIPE, micro_batch_s=3), data, layer_norm_base, tmp_path / "many")
    for one, many in zip(losses(whole), losses(cut), strict=True):
        assert many == pytest.approx(one, rel=2e-3)


def test_frozen_parts_stay_as_they_were(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, freeze_transformer_fraction=0.9, freeze_feature_encoder=False)
    _, reports = run(recipe, data, layer_norm_base, tmp_path, {10: Answer.STOP})
    before, _ = new_model(str(layer_norm_base), recipe)
    after, _ = checkpoint.load(reports[-1].checkpoint)
    changed = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not a.equal(b)}
    assert changed == {"lm_head.weight", "lm_head.bias"}


def test_freezing_the_convolutions_leaves_only_them(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    _, reports = run(RECIPE, data, layer_norm_base, tmp_path, {5: Answer.STOP})
    before, _ = new_model(str(layer_norm_base), RECIPE)
    after, _ = checkpoint.load(reports[-1].checkpoint)
    same = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if a.equal(b)}
    assert same
    assert all("feature_extractor" in name for name in same)


def test_top_down_unfreezing_reaches_the_top_layer_first(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, freeze_transformer_fraction=0.2, unfreeze="top_down", eval_every_steps=1)
    updates = run(recipe, data, layer_norm_base, tmp_path / "count", {1: Answer.STOP})[1][0].updates
    stop = round(0.2 * updates) + 1
    _, reports = run(recipe, data, layer_norm_base, tmp_path / "run", {stop: Answer.STOP})
    before, _ = new_model(str(layer_norm_base), recipe)
    after, _ = checkpoint.load(reports[-1].checkpoint)
    changed = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not a.equal(b)}
    assert any("encoder.layers.2." in name for name in changed)
    assert not any("layers.0." in name or "layers.1." in name or "feature_projection" in name for name in changed)


def numbers_kept(model: Wav2Vec2ForCTC, features: torch.Tensor, frames: torch.Tensor) -> int:
    """How many numbers autograd keeps of a forward pass, for the backward pass."""
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        ctc_logits(model, features, frames)
    return sum(saved)


def test_a_frozen_transformer_costs_no_backward_pass(layer_norm_base: Path) -> None:
    model, _ = new_model(str(layer_norm_base), FinetuneConfig())
    model.train()
    features, frames = torch.randn(2, 40, 16), torch.tensor([40, 40])
    kept = {}
    for fraction in (0.0, 0.5):
        set_trainable(model, trainable(0, 100, 3, fraction, "all"), feature_encoder=False)
        kept[fraction] = numbers_kept(model, features, frames)
    assert kept[0.5] < kept[0.0] / 10


def test_gradient_checkpointing_gives_the_same_losses_with_less_kept(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, layerdrop=0.2, hidden_dropout=0.1)
    _, plain = run(recipe, data, layer_norm_base, tmp_path / "plain", {10: Answer.STOP})
    with_it = dataclasses.replace(recipe, gradient_checkpointing=True)
    _, again = run(with_it, data, layer_norm_base, tmp_path / "again", {10: Answer.STOP})
    for one, other in zip(losses(again), losses(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-4)

    kept = {}
    for one in (recipe, with_it):
        model, _ = new_model(str(layer_norm_base), dataclasses.replace(one, layerdrop=0.0))
        _prepare_layers(model.train(), one)
        kept[one.gradient_checkpointing] = numbers_kept(model, torch.randn(2, 40, 16), torch.tensor([40, 40]))
    assert kept[True] < kept[False] / 2


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what was compiled is kept for the tests of this file, most of which compile the same."""
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler for a CPU")
@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed-again"])
def test_compiled_it_learns_the_same(
    again: bool, data: Data, layer_norm_base: Path, tmp_path: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with gradient checkpointing: within a compiled layer it would leave the updates no graph at all."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiler))
    recipe = dataclasses.replace(RECIPE, gradient_checkpointing=again)
    _, plain = run(recipe, data, layer_norm_base, tmp_path / "plain", {5: Answer.STOP})
    torch._dynamo.reset()
    before, at_evaluation = graphs(), []
    monkeypatch.setattr(
        evaluation, "evaluate", lambda *given, **more: at_evaluation.append(graphs()) or evaluate(*given, **more)
    )
    compiled = dataclasses.replace(recipe, compile="on")
    _, quick = run(compiled, data, layer_norm_base, tmp_path / "quick", {5: Answer.STOP})
    assert at_evaluation[0] > before, "of the updates"
    for one, other in zip(losses(quick), losses(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    model, _ = checkpoint.load(quick[-1].checkpoint)
    assert not any("_orig_mod" in name for name in model.state_dict())


def graphs() -> int:
    """How many graphs torch.compile has made in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def models_alive() -> int:
    gc.collect()
    return sum(type(one) is Wav2Vec2ForCTC for one in gc.get_objects())


def test_a_trials_model_goes_with_it(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    before = models_alive()
    for number in range(3):
        run(RECIPE, data, layer_norm_base, tmp_path / str(number), {5: Answer.STOP})
    assert models_alive() == before


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler for a CPU")
@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed-again"])
def test_compiled_trials_of_other_settings_share_their_graphs_and_leave_no_model(
    again: bool, data: Data, layer_norm_base: Path, tmp_path: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiler))
    torch._dynamo.reset()
    before, made = models_alive(), []
    for number in range(8 if again else 20):
        recipe = dataclasses.replace(
            RECIPE, compile="on", hidden_dropout=0.01 * number, attention_dropout=0.3 - 0.01 * number,
            activation_dropout=0.005 * number, layerdrop=0.01 * number, mask_time_prob=0.02 * number,
            freeze_transformer_fraction=0.1 * (number % 2), gradient_checkpointing=again,
        )  # fmt: skip
        run(recipe, data, layer_norm_base, tmp_path / str(number), {5: Answer.STOP})
        made.append(graphs())
    assert made[-1] == made[1] > 0, "the first that is frozen for a while has its own"
    assert models_alive() == before


def test_with_adapters_only_they_and_the_head_learn(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, adapter_dim=8, freeze_feature_encoder=False)
    _, reports = run(recipe, data, layer_norm_base, tmp_path)
    before, _ = new_model(str(layer_norm_base), recipe)
    after, _ = checkpoint.load(reports[-1].checkpoint)
    changed = {n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not a.equal(b)}
    assert changed
    assert all("adapter_layer" in name or name.startswith("lm_head") for name in changed)
    assert reports[-1].metrics["loss"] < reports[0].metrics["loss"]
    frozen = json.loads((Path(reports[-1].checkpoint) / "base.json").read_text())["frozen"]
    assert "wav2vec2.encoder.layers.0.attention.q_proj.weight" in frozen


def test_adapters_where_there_is_no_place_for_them_are_refused(
    data: Data, group_norm_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="take no adapters"):
        run(dataclasses.replace(RECIPE, adapter_dim=8), data, group_norm_base, tmp_path)


def test_some_bad_updates_are_skipped_and_counted_and_the_trial_goes_on(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    class OneBad(ToneSplit):
        def __getitem__(self, index: int):
            example = super().__getitem__(index)
            return example._replace(samples=example.samples * float("nan")) if index == 3 else example

    end, reports = run(RECIPE, Data(OneBad(24, 0), data.dev), layer_norm_base, tmp_path)
    assert end == "finished"
    epochs = reports[-1].metrics["epoch"]
    assert epochs - 1 <= sum(p.metrics["nonfinite_steps"] for p in reports) <= epochs + 1
    assert reports[-1].metrics["loss"] < reports[0].metrics["loss"]


def test_group_norm_checkpoints_train_too(data: Data, group_norm_base: Path, tmp_path: Path) -> None:
    end, reports = run(dataclasses.replace(RECIPE, length_s=600), data, group_norm_base, tmp_path)
    assert end == "finished"
    assert reports[-1].metrics["loss"] < reports[0].metrics["loss"]
    _, processor = checkpoint.load(reports[-1].checkpoint)
    assert processor.feature_extractor.return_attention_mask is False


def test_a_diverging_trial_ends_at_once_and_says_so(data: Data, layer_norm_base: Path, tmp_path: Path) -> None:
    class Broken(ToneSplit):
        def __getitem__(self, index: int):
            example = super().__getitem__(index)
            return example._replace(samples=example.samples * float("nan"))

    end, reports = run(RECIPE, Data(Broken(24, 0), data.dev), layer_norm_base, tmp_path)
    assert end == "diverged"
    assert reports[-1].metrics["nonfinite_steps"] > 0
    assert reports[-1].step <= 10
    assert reports[-1].diverged


def _rank(rank: int, world: int, port: int, base: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo")
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        assert rank == 0
        reports.append(progress)
        return Answer.STOP if progress.step == 15 else Answer.CONTINUE

    result = finetune(RECIPE, Data(ToneSplit(24, 0), ToneSplit(7, 1)), report, base=base, folder=Path(folder))
    assert result.end == "stopped"
    if rank == 0:
        shown = [(losses([p])[0], p.metrics["wer"], p.metrics["cer"], p.metrics["masked_fraction"]) for p in reports]
        (Path(folder) / "reports.json").write_text(json.dumps(shown))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(layer_norm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trial that two ranks have trained to step 15."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(_rank, args=(2, port, str(layer_norm_base), str(folder)), nprocs=2)
    return folder


@pytest.mark.slow
def test_two_ranks_equal_one_and_see_the_whole_dev_split(two: Path, layer_norm_base: Path, tmp_path: Path) -> None:
    split = Data(ToneSplit(24, 0), ToneSplit(7, 1))
    _, reports = run(RECIPE, split, layer_norm_base, tmp_path / "one", {15: Answer.STOP})
    for (loss, wer, cer, masked), one in zip(json.loads((two / "reports.json").read_text()), reports, strict=True):
        assert loss[1:] == pytest.approx(losses([one])[0][1:], rel=2e-3)
        assert masked == pytest.approx(one.metrics["masked_fraction"])
        if loss[0] == 5:
            assert (wer, cer) == pytest.approx((one.metrics["wer"], one.metrics["cer"]), abs=0.05)


@pytest.mark.slow
def test_what_two_ranks_began_one_goes_on_with_on_the_same_curve(
    two: Path, layer_norm_base: Path, tmp_path: Path
) -> None:
    """A node is lost, and the trial goes on with fewer workers; nothing of a rank is in its checkpoint."""
    split = Data(ToneSplit(24, 0), ToneSplit(7, 1))
    shutil.copytree(two, tmp_path / "on")
    end, on = run(RECIPE, split, layer_norm_base, tmp_path / "on")
    _, alone = run(RECIPE, split, layer_norm_base, tmp_path / "one")
    assert end == "finished" and on[0].step == 15, "its checkpoint first"
    assert [one.step for one in on] == [one.step for one in alone if one.step >= 15]
    for one, other in zip(losses(on), [one for one in losses(alone) if one[0] >= 15], strict=True):
        assert one[1:] == pytest.approx(other[1:], rel=5e-3)


def test_a_trial_is_evaluated_at_its_rungs_and_not_twice_in_a_row() -> None:
    plan = UpdatePlan(np.full(200, 16_000), batch_s=10, length_s=1000, seed=0)
    assert plan.updates == 100
    assert evaluations(plan, 40) == {40, 80, 100}
    assert evaluations(plan, 45) == {45, 100}, "90 is just before the end"
    # The first step by which that much was trained on; 40 is just before it, 80 is not.
    assert evaluations(plan, 40, [141.0, 425.0]) == {15, 43, 80, 100}
    assert evaluations(plan, 40, [100.0]) == {10, 40, 80, 100}
    assert evaluations(plan, 500, [0.0, 1000.0, 9999.0]) == {100}


def test_evaluations_at_rungs_change_nothing_of_what_is_learned(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    _, plain = run(RECIPE, data, layer_norm_base, tmp_path / "plain")
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    finetune(RECIPE, data, report, base=str(layer_norm_base), folder=tmp_path / "rungs", device=torch.device("cpu"),
             evaluate_at_s=[plain[0].seen_s * 1.5])  # fmt: skip
    extra = next(p for p in reports if p.step not in {p.step for p in plain})
    assert extra.seen_s >= plain[0].seen_s * 1.5
    assert reports[-1].metrics["loss"] == plain[-1].metrics["loss"]
