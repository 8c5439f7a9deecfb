"""The fine-tune: one recipe, one prepared dataset, one model. A laptop, a test and a Ray worker call the same function.

No Ray and no MLflow in here: `report` is told how it goes, and its answer says whether to go on. The checkpoint is on
disk before `report` is called, so whatever ends the trial, it can go on from there.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr import checkpoint
from hausa_asr.batching import Masking, Plan, load, micro_batches
from hausa_asr.evaluate import EvalReport, autocast, evaluate
from hausa_asr.manifest import SAMPLE_RATE, Split
from hausa_asr.model import ctc_logits, ctc_losses, encode_audio, frame_lengths, load_model, new_model, set_trainable
from hausa_asr.recipe import Answer, FinetuneConfig, FinetuneResult, Progress, step_folder
from hausa_asr.schedules import lr_factor, trainable

MAX_NONFINITE_STEPS = 10
"""Updates in a row without a finite gradient after which a trial has diverged for good."""
SAMPLE_TRANSCRIPTS = 10
"""How many dev utterances are shown, reference beside hypothesis, with every report."""


@dataclass(frozen=True)
class Data:
    """What a fine-tune reads: it learns from `train` and is selected on `dev`."""

    train: Split
    dev: Split


Report = Callable[[Progress], Answer]


@dataclass
class _Window:
    """Sums since the last report, for the averages that a report shows."""

    loss: float = 0.0
    grad_norm: float = 0.0
    masked: float = 0.0
    steps: int = 0
    nonfinite: int = 0
    utterances: int = 0
    audio_s: float = 0.0
    seconds: float = 0.0


@dataclass
class _Run:
    """A fine-tune under way."""

    config: FinetuneConfig
    data: Data
    folder: Path
    device: torch.device
    rank: int
    world: int
    plan: Plan
    masking: Masking
    model: Wav2Vec2ForCTC
    processor: Wav2Vec2Processor
    optimizer: torch.optim.Optimizer
    step: int
    best: dict[str, float]
    window: _Window
    nonfinite_in_a_row: int = 0


def finetune(
    config: FinetuneConfig, data: Data, report: Report, *, base: str, folder: Path, device: torch.device | None = None
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

    Raises:
        UserError: the base checkpoint cannot be used.
    """
    if device is None:
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    saved = checkpoint.latest(folder)
    run = _start(config, data, base, folder, device, saved)
    progress = _progress_at(saved, folder) if saved else None
    while True:
        if progress is not None:
            answer = _tell(report, progress, run.rank, run.world)
            if progress.diverged:
                return FinetuneResult("diverged", progress)
            if progress.last:
                return FinetuneResult("finished", progress)
            if answer is not Answer.CONTINUE:
                return FinetuneResult("paused" if answer is Answer.PAUSE else "stopped", progress)
        due = False
        while not due:
            _update(run)
            left = run.plan.updates - run.step
            # One just before the last would tell nothing new.
            due = run.step % config.eval_every_steps == 0 and left > config.eval_every_steps / 4
            due = due or left == 0 or run.nonfinite_in_a_row >= MAX_NONFINITE_STEPS
        progress = _evaluate(run)


def _start(
    config: FinetuneConfig,
    data: Data,
    base: str,
    folder: Path,
    device: torch.device,
    saved: checkpoint.Checkpoint | None,
) -> _Run:
    """A run at its beginning, or where its newest checkpoint left it."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if device.type == "cpu":
        # oneDNN keeps what it has planned for each shape of a convolution, by default a thousand of them: gigabytes.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    if saved:
        model, processor = load_model(saved.folder)
    else:
        model, processor = new_model(
            base,
            seed=config.seed,
            dropout=config.dropout,
            activation_dropout=config.activation_dropout,
            layerdrop=config.layerdrop,
        )
    model.to(device).train()  # type: ignore[arg-type]
    optimizer = _optimizer(model, config)
    if saved:
        optimizer.load_state_dict(saved.training_state())
    masking = Masking(
        time_prob=config.mask_time_prob,
        time_length=config.mask_time_length,
        feature_prob=config.mask_feature_prob,
        feature_length=config.mask_feature_length,
        seed=config.seed,
    )
    return _Run(
        config=config,
        data=data,
        folder=folder,
        device=device,
        rank=rank,
        world=world,
        plan=Plan(data.train.n_samples, config.batch_s, config.length_s, config.seed),
        masking=masking,
        model=model,
        processor=processor,
        optimizer=optimizer,
        step=saved.step if saved else 0,
        best=saved.progress["best"] if saved else {},
        window=_Window(),
    )


def _optimizer(model: Wav2Vec2ForCTC, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW with fairseq's betas. A frozen part has no gradient, so it gets no state until it learns."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=config.lr_peak, betas=(0.9, 0.98), eps=1e-8, fused=fused)


def _update(run: _Run) -> None:
    """One optimizer update on one global batch."""
    started = time.monotonic()
    config, model, step, train = run.config, run.model, run.step, run.data.train
    layers = len(model.wav2vec2.encoder.layers)
    parts = trainable(step, run.plan.updates, layers, config.freeze_transformer_fraction, config.unfreeze)
    set_trainable(model, parts, feature_encoder=not config.freeze_feature_encoder)
    learning = [p for p in model.parameters() if p.requires_grad]
    for group in run.optimizer.param_groups:
        group["lr"] = _lr(run, step)
    # Dropout and layerdrop follow from the step too, so that a resumed trial repeats nothing and skips nothing.
    torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + run.rank)

    epoch, indices = run.plan.batch(step)
    loss, masked = 0.0, 0.0
    for part in micro_batches(indices, train.n_samples, config.micro_batch_s, run.rank, run.world):
        batch = load(train, part, run.processor.feature_extractor.do_normalize)
        frames = frame_lengths(model, batch.n_samples)
        masks = run.masking.batch(batch.ids, epoch, frames.tolist(), model.config.hidden_size)
        masked += float((masks[0].sum(dim=1) / frames).sum())
        batch = batch.to(run.device)
        with autocast(run.device):
            features = encode_audio(model, batch.samples, frozen=config.freeze_feature_encoder or not parts.projection)
            logits = ctc_logits(model, features, frames, *(mask.to(run.device) for mask in masks))
        losses = ctc_losses(logits, frames, batch.labels, batch.label_lengths)
        # Over the utterances of the *global* batch, so that ranks and micro-batches add up to its mean.
        part_loss = losses.sum() / len(indices)
        part_loss.backward()
        loss += part_loss.item()
    loss, masked = _sum_over_ranks(learning, [loss, masked / len(indices)], run)
    norm = torch.nn.utils.clip_grad_norm_(learning, config.max_grad_norm or math.inf).item()

    window = run.window
    if math.isfinite(norm) and math.isfinite(loss):
        run.optimizer.step()
        run.nonfinite_in_a_row = 0
        window.steps += 1
        window.loss, window.grad_norm, window.masked = (
            window.loss + loss,
            window.grad_norm + norm,
            window.masked + masked,
        )
    else:
        run.nonfinite_in_a_row += 1
        window.nonfinite += 1
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    window.utterances += len(indices)
    window.audio_s += float(train.n_samples[indices].sum()) / SAMPLE_RATE
    window.seconds += time.monotonic() - started


def _lr(run: _Run, step: int) -> float:
    config = run.config
    return config.lr_peak * lr_factor(config.schedule, step, run.plan.updates, config.warmup_fraction)


def _sum_over_ranks(learning: list[torch.nn.Parameter], figures: list[float], run: _Run) -> list[float]:
    """Add up gradients and figures over the ranks, in one message.

    Plain sums and no DistributedDataParallel: freezing, layerdrop and a rank without an utterance need no special
    case, since a parameter without a gradient on some rank counts as zero there.
    """
    if run.world == 1:
        return figures
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learning]
    flat = torch.cat([grad.flatten() for grad in grads] + [torch.tensor(figures, device=run.device)])
    dist.all_reduce(flat)
    *parts, summed = flat.split([grad.numel() for grad in grads] + [len(figures)])
    for parameter, part in zip(learning, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return summed.tolist()


def _evaluate(run: _Run) -> Progress:
    """Score dev, keep the checkpoint, and say how it stands."""
    scores = evaluate(run.model, run.processor, run.data.dev)
    metrics = _metrics(run, scores)
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
        diverged=run.nonfinite_in_a_row >= MAX_NONFINITE_STEPS or not math.isfinite(scores.loss),
    )
    if run.rank == 0:
        best_step = int(run.best["step"])
        checkpoint.save(run.folder, run.step, run.model, run.processor, run.optimizer, asdict(progress), best_step)
    run.window = _Window()
    return progress


def _order(scores: dict[str, float]) -> tuple[float, float, float]:
    """What the best checkpoint has least of: WER first; on the plateau, where it is blind, CER and the loss tell."""
    return scores["wer"], scores["cer"], scores["loss"]


def _metrics(run: _Run, scores: EvalReport) -> dict[str, float]:
    """The figures of a report; their names are those of MLflow and of `result.json`."""
    window = run.window
    steps, seconds = max(1, window.steps), max(1e-9, window.seconds)
    return {
        "wer": scores.wer,
        "cer": scores.cer,
        "wer_folded": scores.wer_folded,
        "cer_folded": scores.cer_folded,
        "loss": scores.loss,
        "train_loss": window.loss / steps if window.steps else math.nan,
        "lr": _lr(run, run.step - 1),
        "grad_norm": window.grad_norm / steps if window.steps else math.nan,
        "masked_fraction": window.masked / steps,
        "nonfinite_steps": float(window.nonfinite),
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
