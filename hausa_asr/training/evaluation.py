"""One evaluation of a fine-tune: dev is scored while a thread copies or writes the checkpoint, and a report is made.

In: a run, and the figures of its updates since the last report. Out: the report; checkpoints by `checkpointing`.
Called by `finetune`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Progress, order, step_folder
from hausa_asr.training.checkpointing import begin, finish, keep, write_scores
from hausa_asr.training.one_update import agree_on_micro_batches, has_diverged
from hausa_asr.training.report import scored
from hausa_asr.training.run import Run, Window
from hausa_asr.training.saving import Best, Saving

SAMPLE_TRANSCRIPTS = 10
"""Dev utterances in every report, each with its reference and hypothesis."""


def evaluated(run: Run, metrics: dict[str, float], *, is_saved: bool, at_rung: bool = False) -> Progress:
    """Evaluate the weights, or at the trial's end the mean that comes in their place; its arguments are `_score`'s."""
    mean = run.mean
    if mean is None:
        return _score(run, metrics, is_saved=is_saved, at_rung=at_rung)
    if not ends_in_mean(run):
        progress = _score(run, metrics, is_saved=is_saved, at_rung=at_rung)
        mean.take(run.step, progress.metrics)
        return progress
    last = evaluate(run.model, run.processor, run.data.dev, batch_s=run.eval_batch_s)
    mean.take(run.step, {"wer": last.wer, "cer": last.cer, "loss": last.loss})
    with mean.applied():
        return _score(run, {**metrics, "wer_before_average": last.wer}, is_saved=is_saved, before_s=last.runtime_s)


def ends_in_mean(run: Run) -> bool:
    """Whether this is the trial's end, where the mean of some of its weights comes in the place of the last."""
    return run.mean is not None and run.step == run.plan.updates


def _score(
    run: Run, metrics: dict[str, float], *, is_saved: bool, at_rung: bool = False, before_s: float = 0.0
) -> Progress:
    """Score dev while a thread copies or writes the checkpoint, and make the report.

    Args:
        run: the run.
        metrics: the figures of the updates since the last report.
        is_saved: the checkpoint of this step is there and lacks only its scores.
        at_rung: the trial may be paused here, so its state is written, though not waited for.
        before_s: seconds that the last weights took, where those of their mean are scored now.
    """
    saving: Saving | Best | None = None
    if run.share.rank == 0 and not is_saved:
        saving = begin(run, at_rung)
    try:
        scores = evaluate(run.model, run.processor, run.data.dev, batch_s=run.eval_batch_s)
        run.eval_batch_s = scores.batch_s
        agree_on_micro_batches(run)
        metrics = {**scored(run, scores), **metrics}
        metrics["eval_runtime_s"] += before_s
        if not run.best or order(metrics) < order(run.best):
            run.best = {"step": run.step} | {name: metrics[name] for name in ("wer", "cer", "loss")}
        samples = list(zip(scores.ids, scores.references, scores.hypotheses, strict=True))[:SAMPLE_TRANSCRIPTS]
        progress = progress_of(run, metrics, samples)
    except BaseException:
        if saving is not None:
            saving.abandon()
        raise
    if run.share.rank == 0 and is_saved:
        write_scores(run, progress)
    elif isinstance(saving, Saving):
        finish(run, saving, progress)
    elif saving is not None:
        keep(run, saving, progress)
    return progress


def progress_of(run: Run, metrics: dict[str, float], samples: Sequence[tuple[str, str, str]] = ()) -> Progress:
    """The report of this step, whether dev is scored or not."""
    return Progress(
        step=run.step,
        updates=run.plan.updates,
        seen_s=metrics["seen_s"],
        metrics=metrics,
        best=run.best,
        samples=list(samples),
        checkpoint=str(step_folder(run.folder, run.step)),
        best_checkpoint=str(step_folder(run.folder, int(run.best.get("step", run.step)))),
        last=run.step == run.plan.updates,
        # has_diverged too, since weights that skipped updates left unchanged still have a finite loss.
        diverged=has_diverged(run) or not math.isfinite(metrics.get("loss", 0.0)),
    )


def seconds_of(window: Window, device: torch.device) -> float:
    """Wall-clock seconds of the updates since the last report."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - window.started
