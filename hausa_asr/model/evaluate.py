"""A model and a split to an `EvalReport`; audio to text. Called by the fine-tune, the sweep and `transcribe`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.decoding.greedy import greedy
from hausa_asr.metrics import cer, wer
from hausa_asr.model.forward import autocast, ctc_logits, ctc_losses, encode_audio, frame_lengths, uses_layer_norm
from hausa_asr.text import fold
from hausa_asr.training.loader import Batch, collate
from hausa_asr.training.updates import evaluation_batches, pad_lengths
from hausa_asr.utterance import Example, Split

EVAL_BATCH_S = 120.0
"""Seconds of audio per evaluation batch, padding included; without gradients that fits wherever training does."""


@dataclass(frozen=True)
class EvalReport:
    """How good a model is on a split, over all its utterances, whatever the number of ranks.

    Attributes:
        loss: mean over utterances of the CTC loss per label, in nats, with no mask and no dropout.
        wer, cer: word and character error rate of greedy decoding over the whole split, 1.0 for 100 %.
        wer_folded, cer_folded: the same with hooked letters and apostrophes folded on both sides.
        ids, references, hypotheses, speakers: one entry per utterance, in the order of the split.
        runtime_s: wall-clock seconds.
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


@torch.inference_mode()
def evaluate(
    model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, split: Split, *, batch_s: float = EVAL_BATCH_S
) -> EvalReport:
    """Score a model on a split, each rank a share of it; every rank returns the whole report.

    Args:
        model: the model; left in the mode (train or eval) that it was in.
        processor: its processor.
        split: N examples.
        batch_s: seconds of audio at once, padding included.
    """
    started = time.monotonic()
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    n_samples = np.asarray(split.n_samples)
    mine = np.arange(len(split))[rank::world]
    rows: list[tuple] = []
    layer_norm = uses_layer_norm(model)
    edges = pad_lengths(n_samples) if layer_norm else None
    sizes = n_samples if edges is None else edges[np.searchsorted(edges, n_samples)]
    do_normalize = processor.feature_extractor.do_normalize
    for part in evaluation_batches(sizes[mine], batch_s, one_by_one=not layer_norm):
        indices = [int(mine[i]) for i in part]
        examples = [split[index] for index in indices]
        batch = collate(examples, do_normalize, lambda n: frame_lengths(model, n), edges).to(device)
        logits = _logits(model, batch, device)
        losses = ctc_losses(logits, batch.frames, batch.labels, batch.label_lengths).tolist()
        for index, example, loss, text in zip(indices, examples, losses, greedy(logits, batch.frames), strict=True):
            rows.append((index, example.id, loss, example.text, text, example.speaker))
    model.train(was_training)
    if world > 1:
        shares: list = [None] * world
        dist.all_gather_object(shares, rows)
        rows = [row for share in shares for row in share]
    rows.sort()
    _, ids, losses, references, hypotheses, speakers = (list(column) for column in zip(*rows, strict=True))
    folded_references, folded_hypotheses = [fold(t) for t in references], [fold(t) for t in hypotheses]
    return EvalReport(
        loss=float(np.mean(losses)),
        wer=wer(references, hypotheses),
        cer=cer(references, hypotheses),
        wer_folded=wer(folded_references, folded_hypotheses),
        cer_folded=cer(folded_references, folded_hypotheses),
        ids=ids,
        references=references,
        hypotheses=hypotheses,
        speakers=speakers,
        runtime_s=time.monotonic() - started,
    )


@torch.inference_mode()
def transcribe(
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    samples: Sequence[np.ndarray],
    *,
    batch_s: float = EVAL_BATCH_S,
) -> list[str]:
    """The texts of N recordings, each (S,) float32 mono at 16 kHz, in their order."""
    nothing = np.zeros(0, dtype=np.int64)
    device = next(model.parameters()).device
    texts = [""] * len(samples)
    lengths = np.array([len(one) for one in samples])
    for indices in evaluation_batches(lengths, batch_s, one_by_one=not uses_layer_norm(model)):
        examples = [Example("", samples[index], nothing, "", "") for index in indices]
        batch = collate(examples, processor.feature_extractor.do_normalize, lambda n: frame_lengths(model, n))
        logits = _logits(model, batch.to(device), device)
        for index, text in zip(indices, greedy(logits, batch.frames), strict=True):
            texts[index] = text
    return texts


def _logits(model: Wav2Vec2ForCTC, batch: Batch, device: torch.device) -> torch.Tensor:
    """(B, T, V) without masks, from samples or from cached features."""
    with autocast(device):
        features = batch.features
        if features is None:
            assert batch.samples is not None
            features = encode_audio(model, batch.samples, frozen=True)
        return ctc_logits(model, features, batch.frames)
