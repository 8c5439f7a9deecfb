"""A tiny fine-tune on made-up speech, its reports, and a checkpoint without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.optimizer import Optimizer
from hausa_asr.training.saving import Saving

RECIPE = FinetuneConfig(
    length_s=300,
    batch_s=12,
    micro_batch_s=30,
    eval_every_steps=5,
    lr_peak=3e-3,
    warmup_fraction=0.2,
    schedule="linear",
    mask_time_prob=0.1,
    mask_time_length=3,
    mask_feature_prob=0.1,
    mask_feature_length=4,
    activation_dropout=0.0,
)


def run(
    recipe: FinetuneConfig, data: Data, base: Path, folder: Path, answers: dict[int, Answer] | None = None
) -> tuple[str, list[Progress]]:
    """Fine-tune, with some answers by step (else CONTINUE); how it ended, and its reports, the last as returned."""
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return (answers or {}).get(progress.step, Answer.CONTINUE)

    result = finetune(recipe, data, report, base=str(base), folder=folder)
    return result.end, [*reports[:-1], result.progress]


def wait_for(there: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait until something is so."""
    until_s = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def losses(reports: list[Progress]) -> list[tuple[int, float, float]]:
    """The step, the train loss and the dev loss of each report."""
    return [(p.step, p.metrics["train_loss"], p.metrics["loss"]) for p in reports]


def save_checkpoint(trial: Path, base: Path, seed: int = 0) -> Path:
    """A checkpoint as the fine-tune saves it, of a model whose random head is loud enough to say something."""
    model, processor = new_model(str(base), FinetuneConfig(seed=seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=1.0, generator=generator)
    optimizer = Optimizer(model, FinetuneConfig(), updates=10)
    metrics = {"wer": 0.9, "cer": 0.8, "wer_folded": 0.7, "cer_folded": 0.6, "loss": 2.0}
    saving = Saving(trial, 40, model, processor, optimizer, str(base))
    return saving.finish({"step": 40, "metrics": metrics, "best": {"step": 40}}, 40)
