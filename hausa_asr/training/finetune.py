"""Fine-tune one model: a recipe, train and dev splits and a base checkpoint in; checkpoints and reports out.

A laptop, a test and a Ray worker call the same function. It knows neither Ray nor MLflow: the caller's `report` gets
the figures of each evaluation and answers whether to go on. Checkpoints to resume from are written while training goes
on, one at a time. A report names the newest that is complete, so the trial can resume from there, whatever ends it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from hausa_asr.model.batch import Share
from hausa_asr.model.device import chosen_device
from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import Answer, FinetuneConfig, FinetuneResult, Progress, step_folder
from hausa_asr.training import checkpoint
from hausa_asr.training.checkpointing import (
    begin,
    finish,
    keep,
    make_resumable,
    named,
    write_best,
    write_scores,
    write_unscored,
)
from hausa_asr.training.one_update import MAX_NONFINITE_STEPS, agree_on_micro_batches, has_diverged, update
from hausa_asr.training.report import progress_at, scored, trained
from hausa_asr.training.run import Data, Run, Window, close, start
from hausa_asr.training.saving import Best, Saving
from hausa_asr.training.updates import evaluations

__all__ = ["Data", "Report", "finetune"]

SAMPLE_TRANSCRIPTS = 10
"""Dev utterances in every report, each with its reference and hypothesis."""

_HURRY_EVERY = 5
"""Updates between two questions whether the machine is about to go."""

Report = Callable[[Progress], Answer]
"""Called after each evaluation with its figures; the answer says whether to go on."""


def finetune(
    config: FinetuneConfig,
    data: Data,
    report: Report,
    *,
    base: str,
    folder: Path,
    device: torch.device | None = None,
    cache: Path | None = None,
    keep_free: float = 0.0,
    evaluate_at_s: Sequence[float] = (),
    hurry: Callable[[], bool] | None = None,
    put: Callable[[], None] | None = None,
) -> FinetuneResult:
    """Fine-tune a wav2vec 2.0 checkpoint for Hausa by one recipe, or resume it.

    Trains a new CTC head and the encoder on `data.train`. Every `config.eval_every_steps` updates it scores `data.dev`
    and calls `report`. Two checkpoints are kept in `folder`: the newest to resume from, and the best by dev WER.

    If `folder` has checkpoints of this trial, training resumes from the newest as if it had not stopped (bit for bit on
    a CPU; on a GPU the last bits of sums differ from run to run). It first sends that checkpoint's report again,
    with the same step, since the first may have been lost. Where training can resume:
    at `evaluate_at_s`, where the answer was to pause or stop, and in between about every `config.checkpoint_every_s`.
    Where that was neither, it is written while training goes on, and the next one is left out until it is. What goes
    wrong with it is raised after the update that is being made. All is on disk when the call has ended, the best
    checkpoint too.

    Under `torch.distributed` every rank calls this with the same arguments. The ranks share each global batch, and only
    rank 0 calls `report`.

    Args:
        config: the recipe.
        data: the train and dev splits: sequences of `utterance.Example` with their lengths in `n_samples`.
        report: called after each evaluation with its figures (`recipe.Progress`). Answers `Answer.CONTINUE` to go on,
            or `Answer.PAUSE` or `Answer.STOP` to end the call.
        base: the base checkpoint: an id on the Hugging Face hub, a folder, or `demo`, the tiny one in the package.
        folder: the trial's folder for its checkpoints; made if it is missing.
        device: where to compute; by default a GPU if there is one, else the CPU. A GPU without an index is the current
            one.
        cache: a folder for the features of frozen convolutions, shared by all trials; None for no cache.
        keep_free: bytes of the disk that the cache leaves for checkpoints.
        evaluate_at_s: further evaluations, each at the first update by which that many seconds of audio were trained
            on: the rungs of a sweep.
        hurry: asked by all ranks every few updates: whether the machine is about to go. Then, once, a checkpoint to
            resume from is written at this step, the trial is evaluated, and `report` is called. Where the machine goes
            before that, whoever resumes the trial evaluates it there first.
        put: called on rank 0, perhaps by a thread, when checkpoints have come or gone in `folder`: to put them where
            the trial can go on. Until it returns the new one does not count as complete.

    Returns:
        How it ended (`finished`, `stopped`, `paused` or `diverged`), and the last report. The best checkpoint is at
        `result.progress.best_checkpoint`.

    Raises:
        UserError: the base checkpoint cannot be used, or the trial's own checkpoints cannot.
        NodeFault: the torch that is installed has no code for the GPU.
        TooLittleMemory: not even one utterance fits.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hausa_asr.recipe import Answer, FinetuneConfig
        >>> from hausa_asr.text import encode
        >>> from hausa_asr.training.finetune import Data, finetune
        >>> from hausa_asr.utterance import Example
        >>> class Clips(list):  # a split: examples, and their lengths in samples at 16 kHz
        ...     @property
        ...     def n_samples(self):
        ...         return np.array([len(example.samples) for example in self])
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
        >>> example = Example("clip-1", noise, np.array(encode("ina kwana")), "ina kwana", "a speaker")
        >>> def report(progress):
        ...     print(f"step {progress.step} of {progress.updates}")
        ...     return Answer.CONTINUE
        >>> recipe = FinetuneConfig(length_s=12, batch_s=3, eval_every_steps=2)
        >>> data = Data(train=Clips([example] * 3), dev=Clips([example]))
        >>> result = finetune(recipe, data, report, base="demo", folder=Path(tempfile.mkdtemp()) / "trial")
        step 2 of 4
        step 4 of 4
        >>> result.end
        'finished'
    """
    device = chosen_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL uses the current device
    saved = checkpoint.latest(folder)
    run = start(config, data, base, folder, device, saved, cache, keep_free, evaluate_at_s)
    run.put = put or run.put
    progress = progress_at(saved, folder) if saved and saved.is_scored else None
    unscored = saved.progress["metrics"] if saved and not saved.is_scored else None
    rungs = evaluations(run.plan, run.plan.updates, evaluate_at_s)
    try:
        if unscored is not None:
            with run.ema.applied() if run.ema else nullcontext():
                progress = _evaluate(run, unscored, is_saved=True)
        while True:
            if progress is not None:
                if progress.diverged:
                    run.states.finish()
                    write_best(run)
                    run.put()
                answer = _answer(report, named(run, progress), run.share)
                if progress.diverged:
                    return FinetuneResult("diverged", named(run, progress))
                if progress.last:
                    return FinetuneResult("finished", named(run, progress))
                if answer is not Answer.CONTINUE:
                    with run.ema.applied() if run.ema else nullcontext():
                        make_resumable(run, progress)
                    return FinetuneResult("paused" if answer is Answer.PAUSE else "stopped", named(run, progress))
            run.window = Window(device)
            hurried = False
            while not _is_due(run) and not hurried:
                update(run)
                run.states.check()
                hurried = hurry is not None and run.step % _HURRY_EVERY == 0 and hurry()
            hurry = None if hurried else hurry
            metrics = trained(run, _seconds(run.window, run.device))
            with run.ema.applied() if run.ema else nullcontext():
                hurried = hurried and not _ends_in_mean(run)  # which is made of what is scored
                if hurried and run.share.rank == 0:
                    write_unscored(run, _progress(run, metrics))
                progress = _evaluate(run, metrics, is_saved=hurried, at_rung=run.step in rungs)
    except BaseException:
        with suppress(Exception):  # the first fault is the one to report
            run.states.abandon()
            write_best(run)
        raise
    finally:
        close(run)


def _is_due(run: Run) -> bool:
    """Whether an evaluation is due: at the steps given, or because the trial has diverged."""
    if run.window.updates == 0:
        return False
    if run.step in run.due:
        return True
    return run.step % MAX_NONFINITE_STEPS == 0 and has_diverged(run)


def _ends_in_mean(run: Run) -> bool:
    """Whether this is the trial's end, where the mean of some of its weights comes in the place of the last."""
    return run.mean is not None and run.step == run.plan.updates


def _evaluate(run: Run, metrics: dict[str, float], *, is_saved: bool, at_rung: bool = False) -> Progress:
    """Evaluate the weights, or at the trial's end the mean that comes in their place; its arguments are `_score`'s."""
    if run.mean is None or not _ends_in_mean(run):
        progress = _score(run, metrics, is_saved=is_saved, at_rung=at_rung)
        if run.mean is not None:
            run.mean.take(run.step, progress.metrics)
        return progress
    last = evaluate(run.model, run.processor, run.data.dev, batch_s=run.eval_batch_s)
    run.mean.take(run.step, {"wer": last.wer, "cer": last.cer, "loss": last.loss})
    with run.mean.applied():
        return _score(run, {**metrics, "wer_before_average": last.wer}, is_saved=is_saved)


def _score(run: Run, metrics: dict[str, float], *, is_saved: bool, at_rung: bool = False) -> Progress:
    """Score dev while a thread copies or writes the checkpoint, and make the report.

    Args:
        run: the run.
        metrics: the figures of the updates since the last report.
        is_saved: the checkpoint of this step is there and lacks only its scores.
        at_rung: the trial may be paused here, so its state is written, though not waited for.
    """
    saving: Saving | Best | None = None
    if run.share.rank == 0 and not is_saved:
        saving = begin(run, at_rung)
    try:
        scores = evaluate(run.model, run.processor, run.data.dev, batch_s=run.eval_batch_s)
        run.eval_batch_s = scores.batch_s
        agree_on_micro_batches(run)
        metrics = {**scored(run, scores), **metrics}
        if not run.best or _order(metrics) < _order(run.best):
            run.best = {"step": run.step} | {name: metrics[name] for name in ("wer", "cer", "loss")}
        samples = list(zip(scores.ids, scores.references, scores.hypotheses, strict=True))[:SAMPLE_TRANSCRIPTS]
        progress = _progress(run, metrics, samples)
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


def _progress(run: Run, metrics: dict[str, float], samples: Sequence[tuple[str, str, str]] = ()) -> Progress:
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


def _seconds(window: Window, device: torch.device) -> float:
    """Wall-clock seconds of the updates since the last report."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - window.started


def _order(scores: dict[str, float]) -> tuple[float, float, float]:
    """The key of the best checkpoint, lower is better: WER, then CER and loss, which differ when WER is always 1."""
    return scores["wer"], scores["cer"], scores["loss"]


def _answer(report: Report, progress: Progress, share: Share) -> Answer:
    """Report on rank 0 and give all ranks its answer."""
    answer = [report(progress) if share.rank == 0 else None]
    if share.world > 1:
        dist.broadcast_object_list(answer, src=0)
    assert answer[0] is not None
    return answer[0]
