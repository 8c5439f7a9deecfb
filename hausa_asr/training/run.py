"""A fine-tune under way: its state, started anew or resumed (`start`), and ended (`close`).

Called by `finetune`; `update` moves it on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.dataset.parts import dev_part, train_part
from hausa_asr.errors import UserError
from hausa_asr.model.batch import Share
from hausa_asr.model.compiled import compile_layers
from hausa_asr.model.device import computes_in_bfloat16, set_up
from hausa_asr.model.evaluate import EVAL_BATCH_S
from hausa_asr.model.feature_cache import cached
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training import checkpoint
from hausa_asr.training.checkpoint_files import Digests
from hausa_asr.training.checkpoint_mean import CheckpointMean
from hausa_asr.training.ema import Ema
from hausa_asr.training.energy import EnergyMeter
from hausa_asr.training.freezing import Trainable, set_trainable
from hausa_asr.training.loader import Loader, ModelInput
from hausa_asr.training.optimizer import Optimizer
from hausa_asr.training.saving import KEPT_FOR_MEAN, WEIGHTS_BESIDE_EMA, Best
from hausa_asr.training.states import States
from hausa_asr.training.updates import UpdatePlan, evaluations
from hausa_asr.utterance import Split

log = logging.getLogger("hausa_asr.trial")

_BEST_BYTES = 4
"""Of the best model beside a checkpoint to resume from, for each weight that learns."""


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
    ema: Ema | None
    mean: CheckpointMean | None
    due: frozenset[int]  # the steps of the evaluations
    states: States
    energy: EnergyMeter
    digests: Digests = field(default_factory=dict)
    unwritten: Best | None = None  # the best checkpoint, where it is not on disk yet
    put: Callable[[], None] = lambda: None  # puts new checkpoints into the store
    parts: Trainable | None = None  # the parts that learn; None before the first update
    learning: list[torch.nn.Parameter] = field(default_factory=list)
    eval_batch_s: float = EVAL_BATCH_S  # seconds of audio that are scored at once


def start(
    config: FinetuneConfig,
    data: Data,
    base: str,
    folder: Path,
    device: torch.device,
    saved: checkpoint.Checkpoint | None,
    cache: Path | None,
    keep_free: float = 0.0,
    evaluate_at_s: Sequence[float] = (),
) -> Run:
    """Start a run, or resume it from its newest checkpoint, `saved`; the other arguments are those of `finetune`.

    Raises:
        UserError: the base checkpoint cannot be used, or the ranks see different checkpoints.
    """
    share = Share.current()
    set_up(device)
    _check_agreed(saved.step if saved else 0, folder, share)
    model, processor = checkpoint.load(saved.folder, base) if saved else new_model(base, config)
    model.to(device).train()  # type: ignore[arg-type]
    if device.type == "cuda" and not computes_in_bfloat16(device):
        name = torch.cuda.get_device_name(device)
        log.warning("%s has no bfloat16, so it computes in float32, which is slower and takes more memory", name)
    data = replace(data, dev=dev_part(data.dev, config.dev_part_s))
    if cache and data.fingerprint and config.can_cache_features:
        given = {"train": data.train, "dev": data.dev}
        keep_free = max(keep_free, bytes_at_most(model, config))
        splits = cached(
            given, data.fingerprint, model, processor, cache, device, keep_free, base=base, checkpoints=folder
        )
        data = replace(data, train=splits["train"], dev=splits["dev"])
    # After the cache, which has the features of all of train.
    data = replace(data, train=train_part(data.train, config.train_share, config.seed))
    _prepare_layers(model, config)
    plan = UpdatePlan(data.train.n_samples, config.batch_s, config.length_s, config.seed)
    due = evaluations(plan, config.eval_every_steps, evaluate_at_s)
    optimizer = Optimizer(model, config, plan.updates)
    learning = _learning(model, config)
    ema = Ema(model, config.ema_fraction, plan.updates) if config.ema_fraction else None
    mean = CheckpointMean(model, learning, config.average, config.average_of, due) if config.average else None
    if saved and not saved.is_end:
        state = saved.training_state()
        weights, kept = state.pop(WEIGHTS_BESIDE_EMA, {}), state.pop(KEPT_FOR_MEAN, [])
        if mean:
            mean.resume(kept)
            if saved.is_scored:  # these weights, which were written before they were scored
                mean.take(saved.step, saved.progress["metrics"])
        if ema:
            ema.resume(model, weights)
        optimizer.load_state_dict(state)
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
        ema=ema,
        mean=mean,
        due=due,
        states=States(config.checkpoint_every_s, config.state_bytes * _size(learning), saved.step if saved else 0),
        energy=EnergyMeter(device),
    )


def bytes_at_most(model: Wav2Vec2ForCTC, config: FinetuneConfig) -> int:
    """Bytes that a trial's checkpoints take at most: each stays until its successor is complete."""
    return 2 * (config.state_bytes + _BEST_BYTES) * _size(_learning(model, config))


def _learning(model: Wav2Vec2ForCTC, config: FinetuneConfig) -> dict[str, torch.nn.Parameter]:
    """The weights that learn by the trial's end, by name."""
    every = Trainable(projection=True, first_layer=0)
    set_trainable(model, every, feature_encoder=not config.freeze_feature_encoder, adapters=config.adapter_dim > 0)
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _size(weights: Mapping[str, torch.nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights.values())


def close(run: Run) -> None:
    """End a run, and let go of its memory: a worker starts its next trial in the same process."""
    run.loader.close()


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


def _prepare_layers(model: Wav2Vec2ForCTC, config: FinetuneConfig) -> None:
    """Turn on gradient checkpointing and torch.compile, as the recipe says."""
    if config.gradient_checkpointing:
        # `transformers` 5.23 has renamed it. Not the reentrant kind, which fails with layerdrop.
        enable: Any = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
        layer: Any
        for layer in model.wav2vec2.encoder.layers:
            layer.gradient_checkpointing = False  # the encoder's holds: `forward` does it around each layer
    if config.compile == "on":  # `auto` does not compile, since that paid nowhere yet
        compile_layers(model)
