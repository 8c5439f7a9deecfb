"""A fine-tune under way: start or resume it (`start`), and make one update (`update`).

Called by `finetune`; the benchmarks time it. In an update only the CTC loss waits for the device, since torch copies
its lengths over. Losses, norms and skipped updates are added up on the device, and read when a report is due.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.dataset.dev_part import dev_part
from hausa_asr.errors import UserError
from hausa_asr.model.batch import Batch, Share
from hausa_asr.model.feature_cache import cached, worthwhile
from hausa_asr.model.forward import autocast, ctc_logits, ctc_losses, encode_audio
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training import checkpoint
from hausa_asr.training.freezing import Trainable, set_trainable, trainable
from hausa_asr.training.loader import Loader, ModelInput
from hausa_asr.training.optimizer import Optimizer
from hausa_asr.training.updates import UpdatePlan
from hausa_asr.utterance import SAMPLE_RATE, Split

MAX_NONFINITE_STEPS = 10
"""A trial has diverged after this many updates in a row without finite gradients."""


@dataclass(frozen=True)
class Data:
    """The data of a fine-tune.

    Attributes:
        train: the utterances to learn from.
        dev: the utterances to evaluate on.
        fingerprint: a name for exactly these utterances; without one their features are not cached.
    """

    train: Split
    dev: Split
    fingerprint: str = ""


class Window:
    """Sums over the updates since the last report, for its averages. `sums` stays on the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, device=device)  # good updates, their losses, their gradient norms, skipped updates
        self.masked = 0.0
        self.updates = 0
        self.utterances = 0
        self.audio_s = 0.0
        self.started = time.monotonic()


@dataclass
class Run:
    """The state of a fine-tune."""

    config: FinetuneConfig
    data: Data
    base: str
    folder: Path
    device: torch.device
    share: Share
    plan: UpdatePlan
    loader: Loader
    model: Wav2Vec2ForCTC
    processor: Wav2Vec2Processor
    optimizer: Optimizer
    step: int
    best: dict[str, float]
    window: Window
    skipped_in_a_row: torch.Tensor  # () on the device
    schedule: checkpoint.Schedule
    resumable: int  # the step of the newest checkpoint to resume from; 0 if there is none
    digests: checkpoint.Digests = field(default_factory=dict)
    parts: Trainable | None = None  # the parts that learn; None before the first update
    learning: list[torch.nn.Parameter] = field(default_factory=list)


def chosen_device(wanted: torch.device | None) -> torch.device:
    """The device to compute on: the one that is wanted, else a GPU, else the CPU.

    A GPU without an index is the current one. It gets its index here: `torch.cuda.set_device` refuses one without.
    """
    device = wanted or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def start(
    config: FinetuneConfig,
    data: Data,
    base: str,
    folder: Path,
    device: torch.device,
    saved: checkpoint.Checkpoint | None,
    cache: Path | None,
    keep_free: float = 0.0,
) -> Run:
    """Start a run, or resume it from its newest checkpoint, `saved`; the other arguments are those of `finetune`.

    Raises:
        UserError: the base checkpoint cannot be used, or the ranks see different checkpoints.
    """
    share = Share.current()
    _set_up(device)
    _check_agreed(saved.step if saved else 0, folder, share)
    model, processor = checkpoint.load(saved.folder, base) if saved else new_model(base, config)
    model.to(device).train()  # type: ignore[arg-type]
    data = _with_dev_part(data, config.dev_part_s)
    if cache and data.fingerprint and worthwhile(config):
        splits = {"train": data.train, "dev": data.dev}
        splits = cached(splits, data.fingerprint, model, processor, cache, device, keep_free)
        data = replace(data, train=splits["train"], dev=splits["dev"])
    _prepare_layers(model, config)
    plan = UpdatePlan(data.train.n_samples, config.batch_s, config.length_s, config.seed)
    optimizer = Optimizer(model, config, plan.updates)
    if saved and not saved.is_end:
        optimizer.load_state_dict(saved.training_state())
    return Run(
        config=config,
        data=data,
        base=base,
        folder=folder,
        device=device,
        share=share,
        plan=plan,
        loader=Loader(data.train, plan, config, ModelInput.of(model, processor), share, device),
        model=model,
        processor=processor,
        optimizer=optimizer,
        step=saved.step if saved else 0,
        best=saved.progress["best"] if saved else {},
        window=Window(device),
        skipped_in_a_row=torch.zeros((), device=device),
        schedule=checkpoint.Schedule(config.checkpoint_every_s),
        resumable=saved.step if saved else 0,
    )


def _with_dev_part(data: Data, seconds: float) -> Data:
    """The data with the part of dev that is scored; its name differs, since so do the features to cache."""
    part = dev_part(data.dev, seconds)
    if part is data.dev:
        return data
    return replace(data, dev=part, fingerprint=data.fingerprint and f"{data.fingerprint}-dev-{len(part)}")


def _check_agreed(step: int, folder: Path, share: Share) -> None:
    """Refuse ranks that see different checkpoints: together they would train a mixture of models.

    Raises:
        UserError: the trial's folder is not the same for all.
    """
    steps = set(share.gathered(step))
    if len(steps) > 1:
        raise UserError(
            f"The workers of the trial see different checkpoints of it, at steps {sorted(steps)}.",
            where=folder,
            fix="Use a storage folder that all nodes share.",
        )


def _set_up(device: torch.device) -> None:
    """Set torch's options for the process."""
    if device.type == "cpu":
        # oneDNN caches a plan for each shape of a convolution, by default a thousand of them: gigabytes.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    if device.type == "cuda":
        # cuDNN's attention makes a plan for every shape, about a second each on some GPUs.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("high")


def _prepare_layers(model: Wav2Vec2ForCTC, config: FinetuneConfig) -> None:
    """Turn on gradient checkpointing and torch.compile, as the recipe says."""
    if config.gradient_checkpointing:
        # `transformers` 5.23 has renamed it. Not the reentrant kind, which fails with layerdrop.
        enable: Any = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    if config.compile != "on":  # `auto` does not compile either, since that paid nowhere yet
        return
    torch._dynamo.config.recompile_limit = 64  # training or not, frozen or not, with a mask or without
    for layer in model.wav2vec2.encoder.layers:
        layer.compile(dynamic=True)


def update(run: Run) -> None:
    """Make one optimizer update on one global batch."""
    config, step = run.config, run.step
    _set_learning(run)
    # Dropout and layerdrop follow from the step too, so a resumed trial draws the same numbers.
    torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + run.share.rank)
    _, indices = run.plan.batch(step)
    loss, masked = torch.zeros((), device=run.device), 0.0
    for batch in run.loader.update(step):
        # Over the utterances of the *global* batch, so ranks and micro-batches add up to its mean.
        part_loss = _losses(run, batch).sum() / len(indices)
        part_loss.backward()
        loss += part_loss.detach()
        masked += batch.masked / len(indices)
    loss = _sum_over_ranks(run.learning, loss, run.share.world)
    norm, skipped = run.optimizer.step(step, run.learning, loss)

    window = run.window
    good = 1.0 - skipped
    window.sums += torch.stack([good, good * loss.nan_to_num(), good * norm.nan_to_num(), skipped])
    run.skipped_in_a_row = (run.skipped_in_a_row + 1.0) * skipped
    window.masked += masked
    window.updates += 1
    window.utterances += len(indices)
    window.audio_s += float(run.data.train.n_samples[indices].sum()) / SAMPLE_RATE
    run.step += 1


def _losses(run: Run, batch: Batch) -> torch.Tensor:
    """The CTC losses of a micro-batch, (B,)."""
    assert run.parts is not None
    frozen = run.config.freeze_feature_encoder or not run.parts.projection or run.config.adapter_dim > 0
    with autocast(run.device):
        features = batch.features
        if features is None:
            assert batch.samples is not None
            features = encode_audio(run.model, batch.samples, frozen=frozen)
        logits = ctc_logits(run.model, features, batch.frames, batch.time_mask, batch.feature_mask)
    return ctc_losses(logits, batch.frames, batch.labels, batch.label_lengths)


def has_diverged(run: Run) -> bool:
    """Whether the last `MAX_NONFINITE_STEPS` updates were all skipped. Waits for the device."""
    return run.skipped_in_a_row.item() >= MAX_NONFINITE_STEPS


def _set_learning(run: Run) -> None:
    """Turn gradients on for the parts that learn in the next update."""
    config = run.config
    layers = len(run.model.wav2vec2.encoder.layers)
    parts = trainable(run.step, run.plan.updates, layers, config.freeze_transformer_fraction, config.unfreeze)
    if parts != run.parts:
        set_trainable(
            run.model, parts, feature_encoder=not config.freeze_feature_encoder, adapters=config.adapter_dim > 0
        )
        run.parts = parts
        run.learning = [parameter for parameter in run.model.parameters() if parameter.requires_grad]


def _sum_over_ranks(learning: list[torch.nn.Parameter], loss: torch.Tensor, world: int) -> torch.Tensor:
    """Add up gradients and loss over the ranks, in one message.

    Plain sums and no DistributedDataParallel: a parameter without a gradient on some rank counts as zero there, so
    freezing, layerdrop and a rank without an utterance need no special case. One difference: a layer that all of
    several ranks dropped has gradients of zero, so AdamW's momentum still moves it; on one rank it has none.
    """
    if world == 1:
        return loss
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learning]
    flat = torch.cat([grad.flatten() for grad in grads] + [loss.flatten()])
    dist.all_reduce(flat)
    *parts, summed = flat.split([grad.numel() for grad in grads] + [1])
    for parameter, part in zip(learning, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return summed[0]
