"""One update of a fine-tune, and what it needs: the state of a run, its start, and the step itself.

`finetune` drives it; the benchmarks time it. Nothing in the step waits for the device but the CTC loss, whose lengths
torch copies over: losses, norms and whether an update was skipped are added up there, and read when a report is due.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.errors import UserError
from hausa_asr.model.feature_cache import cached, worthwhile
from hausa_asr.model.forward import (
    autocast,
    ctc_logits,
    ctc_losses,
    encode_audio,
    frame_lengths,
    set_trainable,
    uses_layer_norm,
)
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training import checkpoint
from hausa_asr.training.augment import Augmentation
from hausa_asr.training.loader import Loader
from hausa_asr.training.masking import Masking
from hausa_asr.training.optimizer import Optimizer
from hausa_asr.training.schedules import Trainable, trainable
from hausa_asr.training.updates import Plan
from hausa_asr.utterance import SAMPLE_RATE, Split

MAX_NONFINITE_STEPS = 10
"""Updates in a row without a finite gradient after which a trial has diverged for good."""


@dataclass(frozen=True)
class Data:
    """What a fine-tune reads: it learns from `train` and is selected on `dev`.

    `fingerprint` names these utterances; without one their features are not cached.
    """

    train: Split
    dev: Split
    fingerprint: str = ""


class Window:
    """Sums since the last report, for the averages that a report shows. Those of the loss stay on the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, device=device)  # good updates, their losses, their gradient norms, skipped updates
        self.masked = 0.0
        self.updates = 0
        self.utterances = 0
        self.audio_s = 0.0
        self.started = time.monotonic()


@dataclass
class Run:
    """A fine-tune under way."""

    config: FinetuneConfig
    data: Data
    base: str
    folder: Path
    device: torch.device
    rank: int
    world: int
    plan: Plan
    loader: Loader
    model: Wav2Vec2ForCTC
    processor: Wav2Vec2Processor
    optimizer: Optimizer
    step: int
    best: dict[str, float]
    window: Window
    skipped_in_a_row: torch.Tensor  # () on the device
    parts: Trainable | None = None  # what learns; None before the first update
    learning: list[torch.nn.Parameter] = field(default_factory=list)


def start(
    config: FinetuneConfig,
    data: Data,
    base: str,
    folder: Path,
    device: torch.device,
    saved: checkpoint.Checkpoint | None,
    cache: Path | None,
) -> Run:
    """A run at its beginning, or where its newest checkpoint, `saved`, left it; the rest is as in `finetune`.

    Raises:
        UserError: the base checkpoint cannot be used, or the ranks see different checkpoints.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    _set_up(device)
    _check_agreed(saved.step if saved else 0, folder, world)
    if saved:
        model, processor = checkpoint.load(saved.folder, base)
    else:
        model, processor = new_model(
            base,
            seed=config.seed,
            hidden_dropout=config.hidden_dropout,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.activation_dropout,
            feat_proj_dropout=config.feat_proj_dropout,
            final_dropout=config.final_dropout,
            layerdrop=config.layerdrop,
            adapter_dim=config.adapter_dim,
        )
    model.to(device).train()  # type: ignore[arg-type]
    if cache and data.fingerprint and worthwhile(config):
        splits = {"train": data.train, "dev": data.dev}
        splits = cached(splits, data.fingerprint, model, processor, cache, device)
        data = Data(splits["train"], splits["dev"])
    if config.gradient_checkpointing:
        # `transformers` 5.23 has renamed it. Not the reentrant kind, which fails with layerdrop.
        enable: Any = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
        _compile(model, strict=config.compile == "on")
    plan = Plan(data.train.n_samples, config.batch_s, config.length_s, config.seed)
    optimizer = Optimizer(model, config, plan.updates)
    if saved:
        optimizer.load_state_dict(saved.training_state())
    masking = Masking(
        time_prob=config.mask_time_prob,
        time_length=config.mask_time_length,
        feature_prob=config.mask_feature_prob,
        feature_length=config.mask_feature_length,
        seed=config.seed,
    )
    loader = Loader(
        data.train,
        plan,
        masking,
        Augmentation(config.speed_perturb, config.noise_prob, config.noise_snr_db, config.seed),
        do_normalize=processor.feature_extractor.do_normalize,
        frames_of=lambda n_samples: frame_lengths(model, n_samples),
        hidden=model.config.hidden_size,
        micro_batch_s=config.micro_batch_s,
        few_lengths=uses_layer_norm(model),
        rank=rank,
        world=world,
        device=device,
    )
    return Run(
        config=config,
        data=data,
        base=base,
        folder=folder,
        device=device,
        rank=rank,
        world=world,
        plan=plan,
        loader=loader,
        model=model,
        processor=processor,
        optimizer=optimizer,
        step=saved.step if saved else 0,
        best=saved.progress["best"] if saved else {},
        window=Window(device),
        skipped_in_a_row=torch.zeros((), device=device),
    )


def _check_agreed(step: int, folder: Path, world: int) -> None:
    """Refuse to start where ranks see different checkpoints: they would train different models as one.

    Raises:
        UserError: the trial's folder is not the same for all.
    """
    if world == 1:
        return
    steps: list = [None] * world
    dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise UserError(
            f"The workers of the trial see different checkpoints of it, at steps {sorted(set(steps))}.",
            where=folder,
            fix="Use a storage that all nodes share.",
        )


def _set_up(device: torch.device) -> None:
    """What holds for the whole process."""
    if device.type == "cpu":
        # oneDNN keeps what it has planned for each shape of a convolution, by default a thousand of them: gigabytes.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    if device.type == "cuda":
        # cuDNN's attention plans anew for every shape, about a second each on some GPUs.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("high")


def _compile(model: Wav2Vec2ForCTC, strict: bool) -> None:
    """Compile the transformer's layers, once for all of them and for every shape."""
    torch._dynamo.config.recompile_limit = 64  # training or not, frozen or not, with a mask or without
    torch._dynamo.config.suppress_errors = not strict  # a layer that does not compile runs as it is
    for layer in model.wav2vec2.encoder.layers:
        layer.compile(dynamic=True)


def update(run: Run) -> None:
    """One optimizer update on one global batch."""
    config, model, step, train = run.config, run.model, run.step, run.data.train
    _free(run)
    # Dropout and layerdrop follow from the step too, so that a resumed trial repeats nothing and skips nothing.
    torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + run.rank)
    _, indices = run.plan.batch(step)
    assert run.parts is not None
    frozen = config.freeze_feature_encoder or not run.parts.projection or config.adapter_dim > 0
    loss, masked = torch.zeros((), device=run.device), 0.0
    for batch in run.loader.update(step):
        with autocast(run.device):
            features = batch.features
            if features is None:
                assert batch.samples is not None
                features = encode_audio(model, batch.samples, frozen=frozen)
            logits = ctc_logits(model, features, batch.frames, batch.time_mask, batch.feature_mask)
        losses = ctc_losses(logits, batch.frames, batch.labels, batch.label_lengths)
        # Over the utterances of the *global* batch, so that ranks and micro-batches add up to its mean.
        part_loss = losses.sum() / len(indices)
        part_loss.backward()
        loss += part_loss.detach()
        masked += batch.masked / len(indices)
    loss = _sum_over_ranks(run.learning, loss, run)
    norm, skipped = run.optimizer.step(step, run.learning, loss)

    window = run.window
    good = 1.0 - skipped
    window.sums += torch.stack([good, good * loss.nan_to_num(), good * norm.nan_to_num(), skipped])
    run.skipped_in_a_row = (run.skipped_in_a_row + 1.0) * skipped
    window.masked += masked
    window.updates += 1
    window.utterances += len(indices)
    window.audio_s += float(train.n_samples[indices].sum()) / SAMPLE_RATE
    run.step += 1


def has_diverged(run: Run) -> bool:
    """Whether no update has been good for long; waits for the device, so it is asked now and then only."""
    return run.skipped_in_a_row.item() >= MAX_NONFINITE_STEPS


def _free(run: Run) -> None:
    """Turn gradients on for what learns in the update at hand."""
    config = run.config
    layers = len(run.model.wav2vec2.encoder.layers)
    parts = trainable(run.step, run.plan.updates, layers, config.freeze_transformer_fraction, config.unfreeze)
    if parts != run.parts:
        set_trainable(
            run.model, parts, feature_encoder=not config.freeze_feature_encoder, adapters=config.adapter_dim > 0
        )
        run.parts = parts
        run.learning = [parameter for parameter in run.model.parameters() if parameter.requires_grad]


def _sum_over_ranks(learning: list[torch.nn.Parameter], loss: torch.Tensor, run: Run) -> torch.Tensor:
    """Add up gradients and loss over the ranks, in one message.

    Plain sums and no DistributedDataParallel: freezing, layerdrop and a rank without an utterance need no special
    case, since a parameter without a gradient on some rank counts as zero there. (On several ranks a layer that all
    of them have dropped has gradients of zero, with one it has none: AdamW's momentum then moves it or does not.)
    """
    if run.world == 1:
        return loss
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learning]
    flat = torch.cat([grad.flatten() for grad in grads] + [loss.flatten()])
    dist.all_reduce(flat)
    *parts, summed = flat.split([grad.numel() for grad in grads] + [1])
    for parameter, part in zip(learning, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return summed[0]
