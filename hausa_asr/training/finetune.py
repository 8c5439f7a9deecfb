"""Fine-tune one model: a recipe, train and dev splits and a base checkpoint in; checkpoints and reports out.

A laptop, a test and a Ray worker call the same function. It knows neither Ray nor MLflow: the caller's `report` gets
the figures of each evaluation and answers whether to go on. Checkpoints to resume from are written while training goes
on, one at a time. A report names the newest that is complete, so the trial can resume from there, whatever ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from hausa_asr.model.batch import Share
from hausa_asr.model.device import chosen_device
from hausa_asr.recipe import LEFT, Answer, FinetuneConfig, FinetuneResult, Progress
from hausa_asr.training import checkpoint
from hausa_asr.training.checkpointing import make_resumable, named, write_best, write_unscored
from hausa_asr.training.evaluation import ends_in_mean, evaluated, progress_of, seconds_of
from hausa_asr.training.one_update import MAX_NONFINITE_STEPS, has_diverged, update
from hausa_asr.training.report import energy, progress_at, trained
from hausa_asr.training.run import Data, Run, Window, close, start
from hausa_asr.training.updates import evaluations

__all__ = ["Data", "Report", "finetune"]

_ASK_EVERY = 5
"""Updates between two questions whether the machine is about to go, or the trial is to leave."""

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
    leave: Callable[[], bool] | None = None,
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
            resume from is written at this step (not at the end of a trial that ends in a mean), the trial is evaluated,
            and `report` is called. Where the machine goes before that, whoever resumes the trial evaluates it there
            first.
        leave: asked by rank 0 every few updates: whether to end at this step, without a report. Then a checkpoint to
            resume from is written; whoever resumes the trial evaluates it there first.
        put: called on rank 0, perhaps by a thread, when checkpoints have come or gone in `folder`: to put them where
            the trial can go on. Until it returns the new one does not count as complete.

    Returns:
        How it ended (`finished`, `stopped`, `paused`, `diverged` or `left`), and the last report. The best checkpoint
        is at `result.progress.best_checkpoint`.

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
                progress = evaluated(run, unscored, is_saved=True)
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
                if leave is not None and _is_to_leave(run, leave):
                    return FinetuneResult(LEFT, _left(run))
                hurried = hurry is not None and run.step % _ASK_EVERY == 0 and hurry()
            hurry = None if hurried else hurry
            metrics = trained(run, seconds_of(run.window, run.device))
            with run.ema.applied() if run.ema else nullcontext():
                hurried = hurried and not ends_in_mean(run)  # which is made of what is scored
                if hurried and run.share.rank == 0:
                    write_unscored(run, progress_of(run, metrics))
                progress = evaluated(run, metrics, is_saved=hurried, at_rung=run.step in rungs)
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


def _is_to_leave(run: Run, leave: Callable[[], bool]) -> bool:
    """Whether the trial is to leave here, as rank 0 hears of it."""
    if run.step % _ASK_EVERY or ends_in_mean(run):
        return False
    return bool(run.share.gathered(run.share.rank == 0 and leave())[0])


def _left(run: Run) -> Progress:
    """Write what the trial goes on from, without a score of this step."""
    progress = progress_of(run, {**trained(run, seconds_of(run.window, run.device)), **energy(run)})
    with run.ema.applied() if run.ema else nullcontext():
        if run.share.rank == 0:
            write_unscored(run, progress)
    return progress


def _answer(report: Report, progress: Progress, share: Share) -> Answer:
    """Report on rank 0 and give all ranks its answer."""
    answer = [report(progress) if share.rank == 0 else None]
    if share.world > 1:
        dist.broadcast_object_list(answer, src=0)
    assert answer[0] is not None
    return answer[0]
