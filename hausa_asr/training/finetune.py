"""The fine-tune: one recipe, one prepared dataset, one model. A laptop, a test and a Ray worker call the same function.

No Ray and no MLflow in here: `report` is told how it goes, and its answer says whether to go on. The checkpoint is on
disk before `report` is called, so whatever ends the trial, it can go on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from hausa_asr.model.evaluate import EvalReport, evaluate
from hausa_asr.recipe import Answer, FinetuneConfig, FinetuneResult, Progress, step_folder
from hausa_asr.training import checkpoint
from hausa_asr.training.run import MAX_NONFINITE_STEPS, Data, Run, Window, has_diverged, start, update
from hausa_asr.training.updates import Plan

__all__ = ["Data", "Report", "finetune"]

SAMPLE_TRANSCRIPTS = 10
"""How many dev utterances are shown, reference beside hypothesis, with every report."""


Report = Callable[[Progress], Answer]


def finetune(
    config: FinetuneConfig,
    data: Data,
    report: Report,
    *,
    base: str,
    folder: Path,
    device: torch.device | None = None,
    cache: Path | None = None,
    evaluate_at_s: Sequence[float] = (),
) -> FinetuneResult:
    """Fine-tune `base` on `data.train` by one recipe, from the trial's newest checkpoint if it has one.

    Under `torch.distributed` every rank calls this with the same arguments; the global batch is then shared between
    them and only rank 0 reports. A resumed trial starts with the report of its newest checkpoint once more, since
    its first telling may have been lost: reports are known by their step.

    Args:
        config: the recipe.
        data: train and dev.
        report: is told, and answers.
        base: the base checkpoint: a hub id, a folder, or `demo`.
        folder: the trial's folder, where its checkpoints are.
        device: the current CUDA device if there is one, else the CPU.
        cache: where the features of frozen convolutions are kept for all trials; None for no cache.
        evaluate_at_s: seconds of audio after which it is evaluated too, as soon as they were trained on: the rungs.

    Raises:
        UserError: the base checkpoint cannot be used.
    """
    if device is None:
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # messages between ranks go by the current one
    saved = checkpoint.latest(folder)
    run = start(config, data, base, folder, device, saved, cache)
    progress = _progress_at(saved, folder) if saved else None
    due = evaluations(run.plan, config.eval_every_steps, evaluate_at_s)
    try:
        while True:
            if progress is not None:
                answer = _tell(report, progress, run.rank, run.world)
                if progress.diverged:
                    return FinetuneResult("diverged", progress)
                if progress.last:
                    return FinetuneResult("finished", progress)
                if answer is not Answer.CONTINUE:
                    return FinetuneResult("paused" if answer is Answer.PAUSE else "stopped", progress)
            run.window = Window(device)
            while not _due(run, due):
                update(run)
            progress = _evaluate(run)
    finally:
        run.loader.close()


def evaluations(plan: Plan, every_steps: int, at_s: Sequence[float] = ()) -> frozenset[int]:
    """The steps after which a trial is evaluated: its end, those asked for, every so many where that tells something.

    Args:
        plan: the trial's batches.
        every_steps: updates between two evaluations. One shortly before another that is due tells nothing new, and is
            left out.
        at_s: seconds of audio; each means the first step after which they were trained on.
    """
    fixed = {int(np.searchsorted(plan.seen_s, mark - 1e-6)) for mark in at_s}
    fixed = {step for step in fixed if 0 < step < plan.updates} | {plan.updates}
    near = every_steps / 4
    regular = range(every_steps, plan.updates, every_steps)
    return frozenset(fixed | {step for step in regular if not any(0 < one - step <= near for one in fixed)})


def _due(run: Run, steps: frozenset[int]) -> bool:
    """Whether it is time for an evaluation."""
    if run.window.updates == 0:
        return False
    if run.step in steps:
        return True
    return run.step % MAX_NONFINITE_STEPS == 0 and has_diverged(run)


def _evaluate(run: Run) -> Progress:
    """Score dev while the checkpoint is written, and say how it stands."""
    window_s = _seconds(run.window, run.device)
    saving = None
    if run.rank == 0:
        saving = checkpoint.Saving(run.folder, run.step, run.model, run.processor, run.optimizer, run.base)
    try:
        scores = evaluate(run.model, run.processor, run.data.dev)
        metrics = _metrics(run, scores, window_s)
        if not run.best or _order(metrics) < _order(run.best):
            run.best = {"step": run.step, **{name: metrics[name] for name in ("wer", "cer", "loss")}}
        progress = Progress(
            step=run.step,
            updates=run.plan.updates,
            seen_s=metrics["seen_s"],
            metrics=metrics,
            best=run.best,
            samples=list(zip(scores.ids, scores.references, scores.hypotheses, strict=True))[:SAMPLE_TRANSCRIPTS],
            checkpoint=str(step_folder(run.folder, run.step)),
            best_checkpoint=str(step_folder(run.folder, int(run.best["step"]))),
            last=run.step == run.plan.updates,
            # Weights that no update has changed for long still score a finite loss.
            diverged=has_diverged(run) or not math.isfinite(scores.loss),
        )
    except BaseException:
        if saving is not None:
            saving.abandon()
        raise
    if saving is not None:
        saving.finish(asdict(progress), int(run.best["step"]))
    return progress


def _seconds(window: Window, device: torch.device) -> float:
    """Wall-clock seconds of the updates since the last report."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - window.started


def _order(scores: dict[str, float]) -> tuple[float, float, float]:
    """What the best checkpoint has least of: WER first; on the plateau, where it is blind, CER and the loss tell."""
    return scores["wer"], scores["cer"], scores["loss"]


def _metrics(run: Run, scores: EvalReport, window_s: float) -> dict[str, float]:
    """The figures of a report; their names are those of MLflow and of `result.json`."""
    window = run.window
    good, losses, norms, skipped = window.sums.tolist()
    masked = torch.tensor(window.masked, dtype=torch.float64)
    if run.world > 1:
        masked = masked.to(run.device)
        dist.all_reduce(masked)
    seconds = max(1e-9, window_s)
    return {
        "wer": scores.wer,
        "cer": scores.cer,
        "wer_folded": scores.wer_folded,
        "cer_folded": scores.cer_folded,
        "loss": scores.loss,
        "train_loss": losses / good if good else math.nan,
        "lr": run.optimizer.lr(run.step - 1),
        "grad_norm": norms / good if good else math.nan,
        "masked_fraction": masked.item() / window.updates,
        "nonfinite_steps": skipped,
        "samples_per_s": window.utterances / seconds,
        "audio_s_per_s": window.audio_s / seconds,
        "eval_runtime_s": scores.runtime_s,
        "seen_s": float(run.plan.seen_s[run.step]),
        "epoch": float(run.plan.batch(run.step - 1)[0]),
    }


def _progress_at(saved: checkpoint.Checkpoint, folder: Path) -> Progress:
    """The report of a checkpoint, with its paths where the trial's folder is now."""
    told = dict(saved.progress)
    told["samples"] = [tuple(sample) for sample in told["samples"]]
    told["checkpoint"] = str(saved.folder)
    told["best_checkpoint"] = str(step_folder(folder, int(told["best"]["step"])))
    return Progress(**told)


def _tell(report: Report, progress: Progress, rank: int, world: int) -> Answer:
    """Rank 0 tells; all ranks hear its answer."""
    answer = [report(progress) if rank == 0 else None]
    if world > 1:
        dist.broadcast_object_list(answer, src=0)
    assert answer[0] is not None
    return answer[0]
