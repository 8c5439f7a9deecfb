"""Tune on dev how much a language model counts, and test it.

In: a language model, an exported model and a prepared dataset. Out: the weights with the lowest WER on dev, written
beside the language model; and for any split the WER with and without it, with the interval of the difference. Called by
`hausa-asr lm`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hausa_asr.dataset.parts import dev_part
from hausa_asr.dataset.prepared import split_of
from hausa_asr.decoding.beam import BeamDecoder
from hausa_asr.decoding.path import greedy_texts
from hausa_asr.decoding.weights import Weights, model_digest, store_weights
from hausa_asr.errors import UserError
from hausa_asr.metrics import (
    Gain,
    bootstrap_units,
    bootstrap_wer,
    counts_by_utterance,
    edit_counts,
    interval,
    paired_gain,
)
from hausa_asr.utterance import SAMPLE_RATE, Split

if TYPE_CHECKING:
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

_LM = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
_WORD = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""The weights and word scores that are tried; then those near the best."""
_PART_S = 1200.0
"""About how many seconds of dev are decoded with each pair of weights."""
_AT_ONCE = 256
"""Utterances that are read together."""


class Heard(NamedTuple):
    """A split as an acoustic model hears it: the logits of each utterance, what was said, and by whom."""

    logits: list[np.ndarray]
    references: list[str]
    speakers: list[str]
    audio_s: float


def hear(model: str, prepared: Path, split: str, most_s: float | None = None) -> Heard:
    """Compute a model's logits on a split.

    Args:
        model: an exported model's folder, or its id on the hub.
        prepared: a prepared dataset's folder.
        split: which of its splits.
        most_s: seconds of it at most, chosen as the sweeps choose from dev; all of it without.

    Raises:
        UserError: the model, the dataset or the split can't be had.
    """
    from hausa_asr.model.device import ready_device
    from hausa_asr.model.wav2vec2 import load_model

    whole = split_of(prepared, split)
    network, processor = load_model(model)
    network.to(ready_device())  # type: ignore[arg-type]
    return hear_with(network, processor, whole if most_s is None else dev_part(whole, most_s))


def hear_with(network: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split) -> Heard:
    """Compute a loaded model's logits on a split, on the device that it is on."""
    from hausa_asr.model.evaluate import recording_logits

    logits: list[np.ndarray] = []
    examples = []
    for part in range(0, len(split), _AT_ONCE):  # so that not all samples are in memory
        some = [split[index] for index in range(part, min(part + _AT_ONCE, len(split)))]
        logits += recording_logits(network, processor, [one.samples for one in some])
        examples += [one._replace(samples=one.samples[:0]) for one in some]
    return Heard(
        logits,
        [one.text for one in examples],
        [one.speaker for one in examples],
        float(np.asarray(split.n_samples).sum()) / SAMPLE_RATE,
    )


@dataclass(frozen=True)
class Tuned:
    """The best weights on dev.

    Attributes:
        weights: the best.
        wer, greedy_wer: on the part of dev, with them and without a language model.
        tried: how many pairs were tried.
        utterances: of dev, on which they were.
        file: where the weights are.
    """

    weights: Weights
    wer: float
    greedy_wer: float
    tried: int
    utterances: int
    file: Path


def tune(
    file: Path, model: str, prepared: Path, *, beam: int = 50, watch: Callable[[int, int], None] = lambda done, of: None
) -> Tuned:
    """Find the weights with the lowest WER on dev, and store them.

    Args:
        file: the language model.
        model, prepared: as in `hear`.
        beam: how many beginnings of a text the search keeps.
        watch: called with how many pairs were tried, of how many about.

    Raises:
        UserError: something can't be had, or the weights can't be written.
    """
    decoder = BeamDecoder(file, Weights())  # the stored ones may be another model's, or broken
    dev = hear(model, prepared, "dev", _PART_S)
    tried = try_weights(decoder, dev, beam, watch)
    best, greedy = best_of(tried), _greedy_wer(dev)
    about = {"dev_wer": tried[best].wer, "greedy_dev_wer": greedy, "model": model, "dataset": str(prepared)}
    about["model_digest"] = model_digest(Path(model))
    try:
        place = store_weights(file, best, **about)
    except OSError as error:
        raise UserError(
            f"The weights can't be written: {error}.", where=file.parent, fix="Make it writable."
        ) from error
    return Tuned(best, tried[best].wer, greedy, len(tried), len(dev.logits), place)


class Errors(NamedTuple):
    """Word and character error rate."""

    wer: float
    cer: float


def try_weights(
    decoder: BeamDecoder, heard: Heard, beam: int, watch: Callable[[int, int], None] = lambda done, of: None
) -> dict[Weights, Errors]:
    """Decode with all pairs of a grid, then with the neighbours of the best; arguments as in `tune`."""
    tried: dict[Weights, Errors] = {}
    about = len(_LM) * len(_WORD) + 8
    for weights in _grid(tried, beam):
        watch(len(tried), about)
        decoder.weigh(weights)
        errors, lengths = edit_counts(heard.references, decoder(heard.logits))
        wer, cer = errors / np.maximum(1, lengths)
        tried[weights] = Errors(float(wer), float(cer))
    return tried


def _grid(tried: dict[Weights, Errors], beam: int) -> Iterator[Weights]:
    """All pairs; then eight near the best."""
    yield from (Weights(lm, word, beam) for lm in _LM for word in _WORD)
    centre = best_of(tried)
    for lm in (centre.lm - 0.25, centre.lm, centre.lm + 0.25):
        for word in (centre.word - 0.75, centre.word, centre.word + 0.75):
            near = Weights(max(0.0, lm), word, beam)
            if near not in tried:
                yield near


def best_of(tried: dict[Weights, Errors]) -> Weights:
    """The lowest WER, then CER; of equals the one that relies least on the language model."""
    return min(tried, key=lambda one: (*tried[one], one.lm, abs(one.word)))


def _greedy_wer(heard: Heard) -> float:
    errors, lengths = edit_counts(heard.references, greedy_texts(heard.logits))
    return float(errors[0] / max(1, lengths[0]))


class Rate(NamedTuple):
    """A WER with its 95 % interval, and the seconds that decoding took for each second of audio."""

    wer: float
    low: float
    high: float
    rtf: float


@dataclass(frozen=True)
class Tested:
    """A split with and without a language model.

    Attributes:
        greedy, beam: the WER of each.
        gain: the WER with the model less the one without, on the same resampled utterances or speakers.
        weights: how the model was heard.
        utterances: of the split.
    """

    greedy: Rate
    beam: Rate
    gain: Gain
    weights: Weights
    utterances: int


def test(file: Path, model: str, prepared: Path, split: str = "test") -> Tested:
    """Score a split with and without a language model; arguments as in `tune`."""
    decoder = BeamDecoder(file)
    heard = hear(model, prepared, split)
    units = bootstrap_units(heard.speakers).numbers
    counted, rates = [], []
    for decode in (greedy_texts, decoder):
        began = time.monotonic()
        texts = decode(heard.logits)
        took_s = time.monotonic() - began
        counts = counts_by_utterance(heard.references, texts)
        ends = interval(bootstrap_wer(counts.errors[None], counts.words, units)[:, 0])
        rates.append(Rate(float(counts.errors.sum() / max(1, counts.words.sum())), *ends, took_s / heard.audio_s))
        counted.append(counts)
    gain = paired_gain(np.stack([counted[1].errors, counted[0].errors]), counted[0].words, heard.speakers)
    return Tested(rates[0], rates[1], gain, decoder.weights, len(heard.logits))


def listen_with(
    file: Path, network: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, dev: Split, test_split: Split | None, beam: int
) -> dict[str, Any]:
    """Tune a language model on dev for a loaded model, store nothing, and decode test with it.

    Args:
        file: the language model.
        network, processor: the model, on the device that is to compute.
        dev, test_split: the splits; about 20 minutes of dev are used. Without test there is no `test`.
        beam: how many beginnings of a text the search keeps.

    Returns:
        `weights`; `dev_wer` and `greedy_dev_wer`; of test `wer`, `cer` and by utterance `errors`, `words`, `speakers`.

    Raises:
        UserError: the language model can't be used.
    """
    decoder = BeamDecoder(file, Weights())
    part = hear_with(network, processor, dev_part(dev, _PART_S))
    tried = try_weights(decoder, part, beam)
    best = best_of(tried)
    found: dict[str, Any] = {"weights": best, "dev_wer": tried[best].wer, "greedy_dev_wer": _greedy_wer(part)}
    if test_split is None:
        return found
    decoder.weigh(best)
    heard = hear_with(network, processor, test_split)
    texts = decoder(heard.logits)
    errors, words = counts_by_utterance(heard.references, texts)
    totals, lengths = edit_counts(heard.references, texts)
    wer, cer = totals / np.maximum(1, lengths)
    rates = {"wer": float(wer), "cer": float(cer)}
    by_utterance = {"errors": errors.tolist(), "words": words.tolist(), "speakers": heard.speakers}
    return {**found, "test": {**rates, **by_utterance}}
