"""Find utterances whose transcript and sound disagree, for a person to listen to.

In: a model and a split. Out: `Suspect`s, the most suspicious first. The measure is how much likelier the model finds
what it heard than what is written: the difference of their CTC losses, in nats for each letter. Hard recordings have no
large difference, since the model is sure of neither. Called by `hausa-asr suspects`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import jiwer
import numpy as np

from hausa_asr.decoding.path import greedy_texts
from hausa_asr.metrics import cer
from hausa_asr.utterance import SAMPLE_RATE, Split

if TYPE_CHECKING:
    import torch
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

_AT_ONCE = 256
"""Utterances that are heard together."""
_FEWEST_NATS = 0.4
"""A suspect has at least this much against it: a sentence of 30 letters is then 160,000 times less likely."""
_SPREADS = 4.0
"""And it stands out by this many robust standard deviations from what the model's own mistakes cost."""
_NOTHING_LIKE_IT = 0.7
"""A CER from which another sentence was read."""
_TOLD, _LETTERS = 2, 40
"""Of an utterance's differences: how many are named, and how many letters of each."""


@dataclass(frozen=True)
class Suspect:
    """An utterance whose transcript may be wrong.

    Attributes:
        place: its index in the split.
        id, speaker: of the utterance.
        seconds: its length.
        nats: how much likelier what was heard is than what is written, for each letter of the longer one.
        why: what seems wrong, in words.
        written, heard: the two texts.
    """

    place: int
    id: str
    speaker: str
    seconds: float
    nats: float
    why: str
    written: str
    heard: str


@dataclass(frozen=True)
class Heard:
    """U utterances as a model heard them, in the order of the split: texts, and (U,) nats as in `Suspect`."""

    written: list[str]
    heard: list[str]
    nats: np.ndarray


def suspects(
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    split: Split,
    watch: Callable[[int], None] = lambda done: None,
) -> tuple[list[Suspect], float]:
    """Find the suspects of a split.

    Args:
        model, processor: the model, on the device that is to compute. One that has learnt from these very transcripts
            believes them rather than one that has not, the more so the more often it saw them (see `cross_fit`).
        split: N examples, at least one.
        watch: called with the number of utterances that were heard.

    Returns:
        The suspects, the most suspicious first; and the nats from which an utterance is one.
    """
    return suspicious(split, listen(model, processor, split, watch))


def suspicious(split: Split, found: Heard) -> tuple[list[Suspect], float]:
    """The suspects among utterances that were heard. Returns what `suspects` does."""
    limit = limit_of(found.nats)
    places = [int(place) for place in np.argsort(-found.nats, kind="stable") if found.nats[place] >= limit]
    return [_suspect(split, place, found) for place in places], limit


def limit_of(nats: np.ndarray) -> float:
    """From how many nats an utterance is suspicious, given those of all.

    The scale is that of the roots, which are nearer to a bell curve than the differences, most of which are small.
    """
    roots = np.sqrt(np.maximum(nats, 0.0))
    middle = float(np.median(roots))
    spread = 1.4826 * float(np.median(np.abs(roots - middle)))
    return max(_FEWEST_NATS, (middle + _SPREADS * spread) ** 2)


def listen(
    model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split, watch: Callable[[int], None] = lambda done: None
) -> Heard:
    """Transcribe a split, and compare the losses of what was heard and of what is written."""
    import torch

    from hausa_asr.model.evaluate import recording_logits

    was_training = model.training
    model.eval()
    written, heard, nats = [], [], []
    for first in range(0, len(split), _AT_ONCE):
        examples = [split[index] for index in range(first, min(first + _AT_ONCE, len(split)))]
        logits = recording_logits(model, processor, [one.samples for one in examples])
        texts = greedy_texts(logits)
        for example, one, text in zip(examples, logits, texts, strict=True):
            chances = torch.from_numpy(one).double().log_softmax(-1)
            less = _loss(chances, example.text) - _loss(chances, text)
            nats.append(less / max(1, len(example.text), len(text)))
        written += [example.text for example in examples]
        heard += texts
        watch(len(written))
    model.train(was_training)
    return Heard(written, heard, np.array(nats))


def _loss(chances: torch.Tensor, text: str) -> float:
    """The CTC loss of a text, in nats; one that does not fit into the frames costs what a wholly wrong one may."""
    import torch

    from hausa_asr.ctc import frames_needed
    from hausa_asr.text import encode

    labels = encode(text)
    if frames_needed(labels) > len(chances):
        return float(-chances.min(dim=-1).values.sum())
    lengths = torch.tensor([len(chances)]), torch.tensor([len(labels)])
    target = torch.tensor([labels], dtype=torch.long)
    return float(torch.nn.functional.ctc_loss(chances[:, None], target, *lengths, reduction="sum"))


def _suspect(split: Split, place: int, found: Heard) -> Suspect:
    example = split[place]
    written, heard = found.written[place], found.heard[place]
    seconds = round(len(example.samples) / SAMPLE_RATE, 2)
    why = reason(written, heard)
    return Suspect(place, example.id, example.speaker, seconds, round(float(found.nats[place]), 2), why, written, heard)


def reason(written: str, heard: str) -> str:
    """What seems wrong with a transcript, in words: its ends first, then the longest differences."""
    if not heard:
        return "nothing was heard"
    if cer([written], [heard]) >= _NOTHING_LIKE_IT:
        return "nothing like it was heard"
    parts = sorted(_parts(written, heard))
    more = f"; and {len(parts) - _TOLD} more" if len(parts) > _TOLD else ""
    return "; ".join(text for *_, text in parts[:_TOLD]) + more or "spaces differ"


def _parts(written: str, heard: str) -> Iterator[tuple[bool, int, str]]:
    """Each difference: whether it is not at an end, less its letters, and in words."""
    one, other = written.split(), heard.split()
    chunks = jiwer.process_words(written, heard).alignments[0]
    runs = [(same, list(run)) for same, run in groupby(chunks, lambda chunk: chunk.type == "equal")]
    for number, (same, run) in enumerate(runs):
        here = " ".join(one[run[0].ref_start_idx : run[-1].ref_end_idx])
        there = " ".join(other[run[0].hyp_start_idx : run[-1].hyp_end_idx])
        place = " at the beginning" if number == 0 else " at the end" if number == len(runs) - 1 else ""
        size = -max(len(here), len(there))
        if same or here.replace(" ", "") == there.replace(" ", ""):
            continue
        if not there:
            yield not place, size, f"not heard{place}: {_short(here)}"
        elif not here:
            yield not place, size, f"not written{place}: {_short(there)}"
        else:
            yield True, size, f"{_short(here)} was heard as {_short(there)}"


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."
