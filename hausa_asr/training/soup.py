"""Average the weights of several fine-tunes of one base, if that lowers dev WER: a "model soup".

Fine-tunes that start from the same base and the same head end in one valley more often than not, and then the mean of
their weights is a model of its own, as fast as any one of them (Wortsman et al., 2022). In: checkpoints of finished
trials, and dev. Out: the mean of those that helped, and a paired interval that says whether it may replace the best
single model. Called by the sweeps' end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.errors import UserError
from hausa_asr.files import folder_written_whole
from hausa_asr.metrics import Gain, counts_by_utterance, paired_gain
from hausa_asr.model.device import ready_device
from hausa_asr.model.evaluate import EvalReport, evaluate
from hausa_asr.recipe import CHECKPOINT, order
from hausa_asr.training import checkpoint
from hausa_asr.training.checkpoint import PROGRESS
from hausa_asr.training.checkpoint_files import write_model
from hausa_asr.utterance import Split

MOST = 8
"""Checkpoints in an average, unless the caller says otherwise."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Tasted:
    """One checkpoint that was tried: the dev WER of the average with it, and whether it stayed in."""

    checkpoint: Path
    wer: float
    kept: bool


@dataclass(frozen=True)
class Soup:
    """What `greedy` made.

    Attributes:
        members: the checkpoints in the average, the best single one first; that one alone if no other helped.
        tasted: every checkpoint that was tried after the first, in order.
        single: dev scores of the best single model.
        soup: dev scores of the average; the same object as `single` if no other helped.
        gain: the soup against the single model, on dev. The members were chosen on dev too, so on other speech it is
            a little smaller: test tells.
        model, processor: the average, in `eval` mode, on the device that it was scored on.
    """

    members: list[Path]
    tasted: list[Tasted]
    single: EvalReport
    soup: EvalReport
    gain: Gain
    model: Wav2Vec2ForCTC
    processor: Wav2Vec2Processor

    @property
    def accepted(self) -> bool:
        """Whether the average may replace the best single model: the whole interval of its gain is below 0."""
        return len(self.members) > 1 and self.gain.is_clear


def average(checkpoints: Sequence[str | Path], *, base: str | None = None) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """Load the mean of several checkpoints, in `eval` mode on the CPU, with the processor of the first.

    Args:
        checkpoints: folders of checkpoints (`step-000120`), at least one. They should come from the same base and the
            same seed of the head, else their mean is noise; only their shapes are checked here.
        base: their base checkpoint, if it was moved since.

    Raises:
        UserError: they have different weights or shapes, or one cannot be loaded.
        ValueError: no checkpoint.
    """
    if not checkpoints:
        raise ValueError("an average needs at least one checkpoint")
    model, processor = checkpoint.load(checkpoints[0], base)
    mean = _weights(model)
    for count, folder in enumerate(checkpoints[1:], start=2):
        mean = _mean_with(mean, Path(folder), count, base)
    model.load_state_dict(mean)
    return model, processor


def greedy(
    checkpoints: Sequence[str | Path],
    dev: Split,
    *,
    most: int = MOST,
    base: str | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> Soup:
    """Begin with the best checkpoint on dev and add each next one that lowers the dev WER of the average.

    They are tried in the order of the dev WER that their own `progress.json` reports; every try costs one evaluation.

    Args:
        checkpoints: as for `average`.
        dev: the dev split.
        most: members at most.
        base: their base checkpoint, if it was moved since.
        device: where to score; by default a GPU if there is one, else the CPU.
        seed: of the bootstrap.

    Raises:
        UserError, ValueError: as `average`.
    """
    if not checkpoints:
        raise ValueError("a soup needs at least one checkpoint")
    device = ready_device(device)
    first, *others = sorted((Path(folder) for folder in checkpoints), key=_order)
    model, processor = checkpoint.load(first, base)
    mean = _weights(model)
    model.to(device)  # type: ignore[arg-type]
    single = soup = evaluate(model, processor, dev)
    members, tasted = [first], []
    for folder in others:
        if len(members) >= most:
            break
        tried = _mean_with(mean, folder, len(members) + 1, base)
        model.load_state_dict(tried)
        scores = evaluate(model, processor, dev)
        kept = scores.wer < soup.wer
        tasted.append(Tasted(folder, scores.wer, kept))
        if kept:
            mean, soup = tried, scores
            members.append(folder)
    model.load_state_dict(mean)
    return Soup(members, tasted, single, soup, gain(soup, single, seed=seed), model, processor)


def gain(soup: EvalReport, single: EvalReport, *, resamples: int = 10_000, seed: int = 0) -> Gain:
    """Compare two models on one split by a paired bootstrap, by speaker where speakers are known.

    Raises:
        ValueError: they were not scored on the same utterances.
    """
    if soup.ids != single.ids:
        raise ValueError("the two models were not scored on the same utterances")
    counts = [counts_by_utterance(one.references, one.hypotheses) for one in (soup, single)]
    errors = np.stack([one.errors for one in counts])
    return paired_gain(errors, counts[0].words, soup.speakers, resamples=resamples, seed=seed)


def write(soup: Soup, folder: Path, *, base: str | None = None) -> Path:
    """Write the average as a checkpoint's folder, which `checkpoint.load` and the export read like any other.

    Args:
        soup: what `greedy` made.
        folder: the folder to make; its parent must exist.
        base: the base checkpoint, if it was moved since.

    Returns:
        `folder`.
    """
    abouts = [json.loads((member / CHECKPOINT).read_text(encoding="utf-8")) for member in soup.members]
    frozen = set.intersection(*(set(about["frozen"]) for about in abouts))
    metrics = {name: getattr(soup.soup, name) for name in ("loss", "wer", "cer", "wer_folded", "cer_folded")}
    progress = {"metrics": metrics, "members": [str(member) for member in soup.members]}
    with folder_written_whole(folder) as aside:
        write_model(aside, soup.model, soup.processor, base or abouts[0]["base"], frozen)
        (aside / PROGRESS).write_text(json.dumps(progress, ensure_ascii=False, indent=1), encoding="utf-8")
    return folder


def _order(folder: Path) -> tuple[float, float, float]:
    """The dev WER of a checkpoint, then CER and loss, which break ties; by its own report."""
    try:
        metrics = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["metrics"]
        return order(metrics)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "The checkpoint has no report of its dev WER (progress.json).",
            where=folder,
            fix="Give a checkpoint's folder (step-000120) with all of its files.",
        ) from error


def _weights(model: Wav2Vec2ForCTC) -> Weights:
    """A copy of a model's weights on the CPU."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in model.state_dict().items()}


def _mean_with(mean: Weights, folder: Path, count: int, base: str | None) -> Weights:
    """The mean of `count` checkpoints from that of `count - 1` and one more.

    It moves towards the new one by a share of their difference, so weights that all have in common stay exact.
    """
    weights = checkpoint.load(folder, base)[0].state_dict()
    if odd := _unlike(mean, weights):
        raise UserError(
            f"The checkpoint cannot be averaged with the others, since its {odd}.",
            where=folder,
            fix="Average checkpoints of one base and with the same adapter_dim only.",
        )
    return {
        name: torch.lerp(old, weights[name], 1 / count) if old.is_floating_point() else old
        for name, old in mean.items()
    }


def _unlike(mean: Weights, weights: Weights) -> str:
    """The first weight that two models do not share, in words; "" if they are alike."""
    for name in sorted(mean.keys() | weights.keys()):
        if name not in weights:
            return f"model has no {name}"
        if name not in mean:
            return f"{name} is in no other"
        if mean[name].shape != weights[name].shape:
            return f"{name} is {tuple(weights[name].shape)} and not {tuple(mean[name].shape)}"
    return ""
