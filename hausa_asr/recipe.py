"""What a fine-tune and its caller exchange: a recipe in; reports, and answers to them; how it ended.

Plain data and nothing else, so the driver of a sweep and the settings read this without importing torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

SCHEDULES = ("linear", "cosine", "tri_stage")
UNFREEZE = ("all", "top_down")
COMPILE = ("auto", "on", "off")
FEATURE_CACHE = ("auto", "off")
AVERAGE_OF = LAST, BEST = ("last", "best")
"""The values of the settings `schedule`, `unfreeze`, `compile`, `feature_cache` and `average_of`."""

STEP_PREFIX, CHECKPOINT, TRAINING = "step-", "base.json", "training.pt"
"""A trial's checkpoints: how the names of their folders begin, a file that each has, and a file of the newest only,
from which training can resume."""
GPU_ENERGY = "system/gpu_energy_kwh"
"""The metric of the energy that all GPUs of a trial used since its last report, by their own meters."""
CACHE_VARIABLE = "HAUSA_ASR_CACHE"
"""The environment variable that names a folder for cached features, such as one on a local disk of the node."""
CACHE, FEATURES = "_data", "features"
"""Below the storage, for all sweeps (none can be called so): prepared datasets; and below that cached features."""
_SLACK = 1.1
"""A split so much longer than wanted is taken whole."""


@dataclass(frozen=True)
class FinetuneConfig:
    """One recipe for a fine-tune: its length, batches, learning rates, masks, freezing, dropout and augmentation.

    Every field can be fixed or searched by a sweep. Durations are in seconds of audio.

    Attributes:
        base: the base checkpoint, which `finetune` is given apart; "" for the sweep's (`model.base`). Search it to
            compare several, such as XLS-R and MMS.
        length_s: the trial's length: seconds of audio trained on, repetitions included.
        batch_s: seconds of audio per update, over all ranks.
        micro_batch_s: seconds of audio, padding included, that one rank computes at once; a memory limit only.
        eval_every_steps: updates between two evaluations on dev, each with a report.
        train_share: the share of the train split that is trained on, by duration, drawn at random by `seed`.
        dev_part_s: evaluations score a speaker-balanced part of dev, this many seconds, fixed for all trials; 0: all.
            Finalists and the winner are scored on all of dev at the end.
        checkpoint_every_s: seconds of wall clock after which a checkpoint gets the optimizer's state again, which is
            what a crash can cost. Sooner where writing it takes little; always where a trial may be paused. 0: always.
        lr_peak: the peak learning rate.
        head_lr_mult: the CTC head's learning rate as a multiple of the others'; every published recipe has 1.
        warmup_fraction: share of the updates in which the learning rate rises to its peak.
        schedule: the learning rate after the warm-up: `linear` or `cosine` decay, or `tri_stage` (hold, then decay).
        weight_decay: AdamW's weight decay, on matrices only.
        adam_beta1: how much of its running mean of gradients AdamW keeps in each update.
        adam_beta2: the same of its running mean of their squares: 0.98 in fairseq's recipes, 0.999 in Hugging Face's.
        ema_fraction: evaluate and export an exponential moving average of the weights, over about this share of the
            updates; 0 for the last weights. It takes the memory of one more copy of them.
        average: end the trial with the mean of the weights from this many of its evaluations; 0 for no mean. It is
            scored in place of the last weights, and exported if it is the trial's best. Each worker keeps these weights
            in host memory, and every checkpoint to resume from has them too.
        average_of: which evaluations: the `last`, or the `best` on dev.
        max_grad_norm: gradients are clipped to this norm; 0 for no clipping.
        mask_time_prob: share of the frames to mask (the Hugging Face meaning: about the share that ends up masked).
        mask_time_length: frames per mask, 20 ms each.
        mask_feature_prob: share of the features to mask.
        mask_feature_length: features per mask.
        freeze_feature_encoder: keep the convolutions as they are in the base checkpoint.
        freeze_transformer_fraction: share of the updates in which only the CTC head learns.
        unfreeze: after the head-only phase, unfreeze `all` layers at once, or `top_down`, one after another.
        rewarm_fraction: share of the updates in which a newly unfrozen layer's learning rate rises from 0 to that of
            the others. Its optimizer state is new, so at the full rate its first steps would be the largest of all.
        adapter_dim: the width of the adapters (as in MMS) in every transformer layer, or 0 for none. With adapters,
            only they and the CTC head learn.
        hidden_dropout: dropout of hidden states.
        attention_dropout: dropout of attention weights.
        activation_dropout: dropout inside the feed-forward layers.
        feat_proj_dropout: dropout of the projected features, the encoder's input.
        final_dropout: dropout of the CTC head's input.
        layerdrop: the chance that a transformer layer is skipped in an update.
        speed_perturb: play clips at random at 1 - x, 1 or 1 + x times their speed, where x is this number; 0 for no
            change.
        noise_prob: the chance that noise is added to a clip.
        noise_snr_db: the signal-to-noise ratio of the loudest noise; the ratio is drawn from here to 20 dB above.
        seed: the random seed of the head, the order of batches, masks, augmentation and dropout.
        gradient_checkpointing: compute the layers again in the backward pass instead of keeping their activations:
            less memory, a third more time, the same result.
        compile: run torch.compile on the transformer's layers, once for all trials of a process; `auto` does not, for
            now: on the one GPU measured, none was faster. `on` saves some memory there.
        feature_cache: `auto` reads the output of frozen convolutions from disk where that is valid.

    Example:
        >>> recipe = FinetuneConfig(length_s=7_200, lr_peak=3e-5, freeze_transformer_fraction=0.1)
        >>> recipe.schedule
        'tri_stage'
    """

    base: str = ""
    length_s: float = 36_000.0
    batch_s: float = 140.0
    micro_batch_s: float = 80.0
    eval_every_steps: int = 100
    train_share: float = 1.0
    dev_part_s: float = 3600.0
    checkpoint_every_s: float = 600.0
    lr_peak: float = 1e-4
    head_lr_mult: float = 1.0
    warmup_fraction: float = 0.1
    schedule: str = "tri_stage"
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    ema_fraction: float = 0.0
    average: int = 0
    average_of: str = LAST
    max_grad_norm: float = 1.0
    mask_time_prob: float = 0.3
    mask_time_length: int = 10
    mask_feature_prob: float = 0.1
    mask_feature_length: int = 64
    freeze_feature_encoder: bool = True
    freeze_transformer_fraction: float = 0.0
    unfreeze: str = "all"
    rewarm_fraction: float = 0.02
    adapter_dim: int = 0
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.0
    layerdrop: float = 0.0
    speed_perturb: float = 0.0
    noise_prob: float = 0.0
    noise_snr_db: float = 10.0
    seed: int = 0
    gradient_checkpointing: bool = False
    compile: str = "auto"
    feature_cache: str = "auto"

    @property
    def can_cache_features(self) -> bool:
        """Whether the feature cache is of use: the convolutions' output must be the same in every epoch."""
        frozen = self.freeze_feature_encoder or self.adapter_dim > 0
        return self.feature_cache == "auto" and frozen and self.speed_perturb == 0 and self.noise_prob == 0

    @property
    def state_bytes(self) -> int:
        """Bytes, at most, of a checkpoint to resume from, for each weight that learns: all are float32.

        Itself, Adam's two moments, and where weights are averaged, itself or each of those in the mean.
        """
        return 4 * (3 + (self.ema_fraction > 0) + self.average)


def part_s(whole_s: float, wanted_s: float) -> float:
    """Seconds, up to a clip, of the part that trials are scored on, of a dev split of `whole_s` in all.

    Args:
        whole_s: of the split.
        wanted_s: `dev_part_s`; 0 for all.
    """
    return wanted_s if 0 < _SLACK * wanted_s < whole_s else whole_s


class Answer(Enum):
    """The answer to a report: go on or not. PAUSE and STOP both end the call; the checkpoint is on disk either way."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Progress:
    """The report of one evaluation.

    Attributes:
        step: updates done.
        updates: updates of the whole trial.
        seen_s: seconds of audio trained on.
        metrics: the figures of this evaluation; NaN if no update since the last one had finite gradients.
        best: `step`, `wer`, `cer` and `loss` of the best checkpoint so far.
        samples: dev utterances as (id, reference, hypothesis).
        checkpoint: the folder of the newest checkpoint that the trial can resume from, perhaps an earlier step's:
            complete when this is reported, and gone when a newer one is. "" before the first one. At the trial's end
            that of its last step.
        best_checkpoint: the folder of the best checkpoint so far; while the trial goes on it may not be written yet.
        last: the trial ends here, at its full length, whatever the answer.
        diverged: the trial has diverged and ends here, whatever the answer.
    """

    step: int
    updates: int
    seen_s: float
    metrics: dict[str, float]
    best: dict[str, float]
    samples: list[tuple[str, str, str]]
    checkpoint: str
    best_checkpoint: str
    last: bool
    diverged: bool = False


LEFT = "left"
"""How a fine-tune ended whose caller asked it to leave between two reports."""


@dataclass(frozen=True)
class FinetuneResult:
    """How a fine-tune ended.

    Attributes:
        end: `finished`, `stopped`, `paused`, `diverged`, or `left` where the caller asked for that between reports.
        progress: the last report; of a trial that left what a report would have had, without scores.
    """

    end: str
    progress: Progress


def order(scores: Mapping[str, float]) -> tuple[float, float, float]:
    """The key of the best checkpoint, lower is better: WER, then CER and loss, which differ when WER is always 1."""
    return float(scores["wer"]), float(scores["cer"]), float(scores["loss"])


def without_base(config: FinetuneConfig) -> dict[str, Any]:
    """A recipe by name, without its base checkpoint, whose local path does not belong into a published model card."""
    return {name: value for name, value in asdict(config).items() if name != "base"}


def step_folder(trial: Path, step: int) -> Path:
    """The folder of a trial's checkpoint at a step, which need not exist."""
    return trial / f"{STEP_PREFIX}{step:06d}"
