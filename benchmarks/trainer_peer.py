"""The peer of the step benchmark: the Hugging Face Trainer, its loop spelled out, and the clock for both sides."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.text import PAD, VOCAB
from hausa_asr.utterance import SAMPLE_RATE


def recipe(task: dict[str, Any]) -> FinetuneConfig:
    """The recipe of every row; `length_s` is more than is ever trained."""
    return FinetuneConfig(
        length_s=task["batch_s"] * task.get("plan_updates", 10_000),
        batch_s=task["batch_s"],
        micro_batch_s=task["micro_batch_s"],
        mask_time_prob=0.3,
        mask_feature_prob=0.1,
        mask_feature_length=16 if task["model"] == "demo" else 64,
        activation_dropout=0.1,
        schedule="linear",
        lr_peak=1e-4,
        compile=task.get("compile", "auto"),
    )


def timed(
    task: dict[str, Any], device: torch.device, update: Callable[[], None], seen: Callable[[], float]
) -> dict[str, float]:
    """Seconds of audio per second over the counted updates."""
    for _ in range(task["warm_up"]):
        update()
    wait(device)
    started, before = time.monotonic(), seen()
    for _ in range(task["updates"]):
        update()
    wait(device)
    wall_s, audio_s = time.monotonic() - started, seen() - before
    return {
        "audio_s_per_s": audio_s / wall_s,
        "audio_s": audio_s,
        "wall_s": wall_s,
        "peak_gib": bench.peak_gib(device),
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ItsDataset(torch.utils.data.Dataset):
    """What the example's `prepare_dataset` leaves: normalised input values and labels."""

    def __init__(self, split: bench.MadeUpSplit) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._split[index]
        audio = (example.samples - example.samples.mean()) / np.sqrt(example.samples.var() + 1e-7)
        return {"input_values": audio, "labels": example.labels}


class ItsCollator:
    """`DataCollatorCTCWithPadding` of the example: pad to the longest, labels with -100. Counts the audio."""

    def __init__(self, attention_mask: bool) -> None:
        self.audio_s: list[float] = []
        self._attention_mask = attention_mask

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.audio_s.append(sum(len(row["input_values"]) for row in rows) / SAMPLE_RATE)
        size, letters = max(len(row["input_values"]) for row in rows), max(len(row["labels"]) for row in rows)
        values, labels = torch.zeros(len(rows), size), torch.full((len(rows), letters), -100)
        mask = torch.zeros(len(rows), size, dtype=torch.long)
        for i, row in enumerate(rows):
            values[i, : len(row["input_values"])] = torch.from_numpy(row["input_values"])
            labels[i, : len(row["labels"])] = torch.from_numpy(row["labels"])
            mask[i, : len(row["input_values"])] = 1
        batch = {"input_values": values, "labels": labels}
        return {**batch, "attention_mask": mask} if self._attention_mask else batch


def its_model(task: dict[str, Any], base: str) -> Any:
    """The example's model: `from_pretrained` with its masks and dropouts, convolutions frozen."""
    from transformers import Wav2Vec2ForCTC

    from hausa_asr.model.base_check import base_path
    from hausa_asr.model.wav2vec2 import quiet

    config = recipe(task)
    with quiet():
        model = Wav2Vec2ForCTC.from_pretrained(
            base_path(base),
            vocab_size=len(VOCAB),
            pad_token_id=VOCAB[PAD],
            ctc_loss_reduction="mean",
            ctc_zero_infinity=True,
            mask_time_prob=config.mask_time_prob,
            mask_feature_prob=config.mask_feature_prob,
            mask_feature_length=config.mask_feature_length,
            activation_dropout=config.activation_dropout,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
        )
    model.freeze_feature_encoder()
    return model


def trainer(task: dict[str, Any], device: torch.device, base: str, work: Path) -> dict[str, float]:
    """The Hugging Face Trainer, as the CTC example calls it."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = its_model(task, base)
    collator = ItsCollator(model.config.feat_extract_norm == "layer")
    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step in (task["warm_up"], task["warm_up"] + task["updates"]):
                wait(device)
                stamps.append(time.monotonic())

    arguments = TrainingArguments(
        output_dir=str(work / "trainer"),
        per_device_train_batch_size=task["clips"],
        max_steps=task["warm_up"] + task["updates"],
        learning_rate=1e-4,
        warmup_steps=10,
        bf16=device.type == "cuda",
        use_cpu=device.type == "cpu",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_drop_last=True,
    )

    class ByLength(Trainer):
        """`train_sampling_strategy="group_by_length"`, which finds lengths by itself in a `datasets` table only."""

        def _get_train_sampler(self, *rest: Any) -> Any:
            return by_length(task) if task.get("by_length") else super()._get_train_sampler(*rest)

    dataset = ItsDataset(bench.MadeUpSplit(task["utterances"]))
    ByLength(model, arguments, data_collator=collator, train_dataset=dataset, callbacks=[Clock()]).train()
    audio_s = sum(collator.audio_s[task["warm_up"] : task["warm_up"] + task["updates"]])
    wall_s = stamps[1] - stamps[0]
    peak = bench.peak_gib(device)
    return {"audio_s_per_s": audio_s / wall_s, "audio_s": audio_s, "wall_s": wall_s, "peak_gib": peak}


def by_length(task: dict[str, Any]) -> Any:
    """The Trainer's sampler that groups clips of like length."""
    from transformers.trainer_pt_utils import LengthGroupedSampler

    return LengthGroupedSampler(task["clips"], lengths=[int(n) for n in bench.lengths(task["utterances"])])


def loop(task: dict[str, Any], device: torch.device, base: str, work: Path) -> dict[str, float]:
    """The Trainer's loop without the Trainer."""
    model = its_model(task, base).to(device).train()
    collator = ItsCollator(model.config.feat_extract_norm == "layer")
    dataset = ItsDataset(bench.MadeUpSplit(task["utterances"]))
    sampler = by_length(task) if task.get("by_length") else None
    loader = torch.utils.data.DataLoader(
        dataset, task["clips"], shuffle=sampler is None, sampler=sampler, collate_fn=collator, drop_last=True,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))

    def batches() -> Any:
        while True:
            yield from loader

    source = batches()
    done = 0

    def update() -> None:
        nonlocal done
        batch = {name: value.to(device, non_blocking=True) for name, value in next(source).items()}
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        done += 1

    return timed(task, device, update, lambda: sum(collator.audio_s[:done]))
