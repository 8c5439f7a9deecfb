"""A tiny fine-tune on made-up speech, and its reports."""

from __future__ import annotations

from pathlib import Path

from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training.finetune import Data, finetune

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
    """Fine-tune, with some answers by step (else CONTINUE); how it ended, and its reports."""
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return (answers or {}).get(progress.step, Answer.CONTINUE)

    result = finetune(recipe, data, report, base=str(base), folder=folder)
    return result.end, reports


def losses(reports: list[Progress]) -> list[tuple[int, float, float]]:
    """The step, the train loss and the dev loss of each report."""
    return [(p.step, p.metrics["train_loss"], p.metrics["loss"]) for p in reports]
