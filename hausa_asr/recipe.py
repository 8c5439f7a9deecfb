"""The words between a fine-tune and whoever runs it: its settings, its reports, the answers to them, how it ended.

Plain data and nothing else: a driver that plans a thousand trials reads this without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


@dataclass(frozen=True)
class FinetuneConfig:
    """One recipe. Every field can be fixed or searched; times are in seconds of audio, rates are per update.

    Attributes:
        length_s: the trial's length: seconds of audio trained on, repetitions included.
        batch_s: seconds of audio per update, over all ranks.
        micro_batch_s: seconds of audio, padding included, that one rank computes at once; a memory limit only.
        eval_every_steps: updates between two evaluations on dev, each with a checkpoint and a report.
        lr_peak: the peak learning rate.
        head_lr_mult: the CTC head learns at so many times that rate; every published recipe has 1.
        warmup_fraction: share of the updates in which the learning rate rises to its peak.
        schedule: `linear`, `cosine` or `tri_stage`.
        weight_decay: AdamW's, on matrices only.
        max_grad_norm: gradients are clipped to this norm; 0 turns it off.
        mask_time_prob: share of the frames to mask (the Hugging Face meaning, about the share that ends masked).
        mask_time_length: frames per mask, 20 ms each.
        mask_feature_prob: share of the features to mask.
        mask_feature_length: features per mask.
        freeze_feature_encoder: the convolutions never learn.
        freeze_transformer_fraction: share of the updates in which only the CTC head learns.
        unfreeze: after that, `all` layers at once or `top_down`, one after another.
        rewarm_fraction: share of the updates in which what has just been freed rises from 0 to the learning rate of
            the rest; its optimizer state starts from nothing, so its first steps would be the largest of all.
        adapter_dim: 0, or the width of the adapters (as in MMS) that are put into every transformer layer; then only
            they and the CTC head learn.
        hidden_dropout: of hidden states.
        attention_dropout: of attention weights.
        activation_dropout: inside the feed-forward layers.
        feat_proj_dropout: of the projected features, the encoder's input.
        final_dropout: of the CTC head's input.
        layerdrop: the chance that a transformer layer is skipped in an update.
        speed_perturb: clips are played at 1 - x, 1 or 1 + x times their speed, as chance has it; 0 turns it off.
        noise_prob: the chance that noise is added to a clip.
        noise_snr_db: how loud it is at most: the signal-to-noise ratio is drawn from here to 20 dB above.
        seed: of the head, the order of batches, the masks, augmentation and dropout.
        gradient_checkpointing: compute the layers again in the backward pass instead of keeping their insides: less
            memory, a third more time, the same result.
        compile: `auto`, `on` or `off`: torch.compile the transformer's layers; `auto` does on a GPU.
        feature_cache: `auto` or `off`: read what frozen convolutions make of the audio from disk, where that is valid.
    """

    length_s: float = 36_000.0
    batch_s: float = 140.0
    micro_batch_s: float = 80.0
    eval_every_steps: int = 100
    lr_peak: float = 1e-4
    head_lr_mult: float = 1.0
    warmup_fraction: float = 0.1
    schedule: str = "tri_stage"
    weight_decay: float = 0.0
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


COMPILE = ("auto", "on", "off")
FEATURE_CACHE = ("auto", "off")
STEP_PREFIX, CHECKPOINT, TRAINING = "step-", "base.json", "training.pt"
"""Of a trial's checkpoints: how their folders' names begin, the file that each has, and the file that those have which
training can go on from."""


class Answer(Enum):
    """What a report is answered with. Both PAUSE and STOP end the call; the checkpoint is on disk either way."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Progress:
    """What is told at each evaluation.

    Attributes:
        step: updates done.
        updates: updates of the whole trial.
        seen_s: seconds of audio trained on.
        metrics: the figures of this evaluation; NaN where no update of the interval had finite gradients.
        best: `step`, `wer`, `cer` and `loss` of the best checkpoint so far.
        samples: dev utterances as (id, reference, hypothesis).
        checkpoint: this step's checkpoint folder.
        best_checkpoint: the best one's.
        last: the trial is at its end; the answer is not heeded.
        diverged: the trial has diverged and ends here; neither is it then.
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


@dataclass(frozen=True)
class FinetuneResult:
    """How a fine-tune ended.

    Attributes:
        end: `finished`, `stopped`, `paused` or `diverged`.
        progress: the last report.
    """

    end: str
    progress: Progress


def step_folder(trial: Path, step: int) -> Path:
    """Where a trial's checkpoint of a step is, or would be."""
    return trial / f"{STEP_PREFIX}{step:06d}"
