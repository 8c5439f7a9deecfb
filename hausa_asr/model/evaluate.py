"""Score a model on a split, or transcribe recordings with it. Called by the fine-tune, the sweeps and `transcribe`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.decoding.greedy import greedy
from hausa_asr.decoding.path import greedy_texts
from hausa_asr.metrics import edit_counts
from hausa_asr.model.batch import Batch, FittingBatches, Share, collate, evaluation_batches, pad_lengths
from hausa_asr.model.device import check_smaller_may_fit
from hausa_asr.model.forward import autocast, ctc_logits, ctc_losses, encode_audio, frame_lengths
from hausa_asr.model.windows import WHOLE_S, Samples, Survey, Window, normalised, survey, windows, word_ends
from hausa_asr.text import PAD, VOCAB, WORD, fold
from hausa_asr.utterance import SAMPLE_RATE, Example, Split

EVAL_BATCH_S = 120.0
"""Seconds of audio per evaluation batch, padding included; fewer where memory is too little."""
_SURE = 20.0
"""The logit of a blank where a recording is silent, and of the space where a word ends; all others are 0."""


@dataclass(frozen=True)
class EvalReport:
    """A model's scores on a split, over all its utterances, for any number of ranks.

    Attributes:
        loss: mean over utterances of the CTC loss per label, in nats, with no mask and no dropout.
        wer, cer: word and character error rate of greedy decoding over the whole split, 1.0 for 100 %.
        wer_folded, cer_folded: the same with hooked letters and apostrophes folded on both sides.
        ids, references, hypotheses, speakers: one entry per utterance, in the order of the split.
        runtime_s: wall-clock seconds.
        batch_s: seconds of audio that this rank scored at once, fewer than asked for if memory was too little.
    """

    loss: float
    wer: float
    cer: float
    wer_folded: float
    cer_folded: float
    ids: list[str]
    references: list[str]
    hypotheses: list[str]
    speakers: list[str]
    runtime_s: float
    batch_s: float = EVAL_BATCH_S


class _Scored(NamedTuple):
    """One utterance, scored; `place` is its index in the split."""

    place: int
    id: str
    loss: float
    reference: str
    hypothesis: str
    speaker: str


@torch.inference_mode()
def evaluate(
    model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split, *, batch_s: float = EVAL_BATCH_S
) -> EvalReport:
    """Score a model on a split. Each rank scores a share; every rank returns the whole report.

    Args:
        model: the model; left in the mode (train or eval) that it was in.
        processor: its processor.
        split: N examples, at least one.
        batch_s: seconds of audio at once, padding included; halved while memory is too little.

    Raises:
        ValueError: the split is empty.
        TooLittleMemory: not even one utterance fits.
    """
    if len(split) == 0:
        raise ValueError("a split without utterances has no scores")
    started = time.monotonic()
    share = Share.current()
    was_training = model.training
    model.eval()
    mine, batch_s = _scored(model, processor, split, share.of(np.arange(len(split))), batch_s)
    model.train(was_training)
    parts = share.gathered((mine, _counted(mine)))
    rows = sorted(row for part, _ in parts for row in part)
    errors, lengths = sum(counted for _, counted in parts)
    rates = errors / np.maximum(1, lengths)
    return EvalReport(
        loss=float(np.mean([row.loss for row in rows])),
        wer=float(rates[0]),
        cer=float(rates[1]),
        wer_folded=float(rates[2]),
        cer_folded=float(rates[3]),
        ids=[row.id for row in rows],
        references=[row.reference for row in rows],
        hypotheses=[row.hypothesis for row in rows],
        speakers=[row.speaker for row in rows],
        runtime_s=time.monotonic() - started,
        batch_s=batch_s,
    )


def _counted(rows: list[_Scored]) -> np.ndarray:
    """(2, 4) errors and lengths of references: of words, characters, and both with letters folded.

    Each rank counts its own utterances, since for an hour of speech this takes a second.
    """
    references, hypotheses = [row.reference for row in rows], [row.hypothesis for row in rows]
    folded = [fold(text) for text in references], [fold(text) for text in hypotheses]
    return np.hstack([edit_counts(references, hypotheses), edit_counts(*folded)])


def _scored(
    model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split, indices: np.ndarray, batch_s: float
) -> tuple[list[_Scored], float]:
    """Score some utterances of a split, in the order that batches best; also how many seconds at once have fit."""
    device = next(model.parameters()).device
    do_normalize = processor.feature_extractor.do_normalize
    n_samples = np.asarray(split.n_samples)
    edges = pad_lengths(n_samples)
    sizes = edges[np.searchsorted(edges, n_samples)]
    rows: list[_Scored] = []
    batches = FittingBatches(sizes, indices, batch_s, "dev is scored")
    for chosen in batches:
        examples = [split[int(index)] for index in chosen]
        batch = collate(examples, do_normalize, lambda n: frame_lengths(model, n), edges)
        found = _losses_and_texts(model, batch, device)
        if found is None:
            batches.halve()
            continue
        for index, example, loss, text in zip(chosen, examples, *found, strict=True):
            rows.append(_Scored(int(index), example.id, loss, example.text, text, example.speaker))
    return rows, batches.batch_s


def _losses_and_texts(
    model: Wav2Vec2ForCTC, batch: Batch, device: torch.device
) -> tuple[list[float], list[str]] | None:
    """The CTC losses and greedy transcripts of a batch; None if memory is too little for it and a smaller may fit."""
    try:
        there = batch.to(device)
        logits = _logits(model, there, device)
        losses = ctc_losses(logits, there.frames, there.labels, there.label_lengths).tolist()
        return losses, greedy(logits, there.frames)
    except RuntimeError as error:
        check_smaller_may_fit(error, len(batch.frames))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def transcribe_samples(
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    samples: Sequence[np.ndarray],
    *,
    batch_s: float = EVAL_BATCH_S,
) -> list[str]:
    """Transcribe N recordings greedily, in their order. Arguments as in `recording_logits`."""
    return greedy_texts(recording_logits(model, processor, samples, batch_s=batch_s))


@torch.inference_mode()
def recording_logits(
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    samples: Sequence[Samples],
    *,
    batch_s: float = EVAL_BATCH_S,
    whole_s: float = WHOLE_S,
) -> list[np.ndarray]:
    """The logits of N recordings, each (T, V) float32 on the CPU, in their order.

    Long recordings are heard in windows (`windows`); their silences are blanks, and words end in their clear pauses.

    Args:
        model: in `eval` mode, as `load_model` gives it.
        processor: its processor.
        samples: (S,) float32 of each, mono at 16 kHz.
        batch_s: seconds of audio at once, padding included.
        whole_s: recordings of up to this many seconds are heard whole, as `evaluate` hears all.
    """
    no_labels = np.zeros(0, dtype=np.int64)
    device = next(model.parameters()).device
    levels = processor.feature_extractor.do_normalize
    lengths = [int(frame_lengths(model, torch.tensor(len(one)))) for one in samples]
    surveys = [survey(one) if len(one) > whole_s * SAMPLE_RATE else Survey(np.zeros(0), 0.0) for one in samples]
    of = [
        (number, window)
        for number, one in enumerate(samples)
        for window in windows(surveys[number].levels, len(one), lengths[number])
    ]

    def heard(number: int, window: Window) -> np.ndarray:
        part = samples[number][window.start : window.end]
        return normalised(part, surveys[number].spread) if levels else part

    whole: list[np.ndarray] = [np.zeros((0, 0))] * len(samples)
    for indices in evaluation_batches(np.array([window.end - window.start for _, window in of]), batch_s):
        chosen = [of[index] for index in indices]
        examples = [Example("", heard(number, window), no_labels, "", "") for number, window in chosen]
        batch = collate(examples, False, lambda n: frame_lengths(model, n))
        logits = _logits(model, batch.to(device), device).float().cpu().numpy()
        for (number, window), one in zip(chosen, logits, strict=True):
            if not whole[number].size:
                whole[number] = np.zeros((lengths[number], one.shape[1]), dtype=np.float32)
                whole[number][:, VOCAB[PAD]] = _SURE
            whole[number][window.first : window.first + window.keep] = one[window.skip : window.skip + window.keep]
    for logits, known in zip(whole, surveys, strict=True):
        ends = [at for at in word_ends(known.levels) if at < len(logits)]
        logits[ends], logits[ends, VOCAB[WORD]] = 0.0, _SURE
    return whole


def _logits(model: Wav2Vec2ForCTC, batch: Batch, device: torch.device) -> torch.Tensor:
    """(B, T, V) without masks, from samples or from cached features."""
    with autocast(device):
        features = batch.features
        if features is None:
            assert batch.samples is not None and batch.n_samples is not None
            features = encode_audio(model, batch.samples, batch.n_samples, frozen=True)
        return ctc_logits(model, features, batch.frames)
