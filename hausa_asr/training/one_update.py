"""Make one update of a fine-tune: the gradients of a global batch, added up over micro-batches and ranks, and a step.

Only the CTC loss waits for the device, since torch copies its lengths over. Losses, norms and skipped updates are added
up on the device, and read when a report is due. Called by `finetune`; the benchmarks time it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from hausa_asr.model.batch import Batch
from hausa_asr.model.device import check_smaller_may_fit
from hausa_asr.model.forward import autocast, ctc_logits, ctc_losses, encode_audio
from hausa_asr.training.freezing import set_trainable, trainable
from hausa_asr.training.run import Run
from hausa_asr.utterance import SAMPLE_RATE

log = logging.getLogger("hausa_asr.trial")

MAX_NONFINITE_STEPS = 10
"""A trial has diverged after this many updates in a row without finite gradients."""
_BUCKET = 25_000_000
"""Gradients in one message, 100 MB of float32."""


def update(run: Run) -> None:
    """Make one optimizer update on one global batch."""
    step = run.step
    _set_learning(run)
    _, indices = run.plan.batch(step)
    while (summed := _add_gradients(run, len(indices))) is None:
        _cut_smaller(run)
    loss, masked = summed
    loss = _sum_over_ranks(run.learning, loss, run.share.world)
    norm, skipped = run.optimizer.step(step, run.learning, loss)

    if run.ema is not None:
        run.ema.update(step, run.learning)

    window = run.window
    good = 1.0 - skipped
    window.sums += torch.stack([good, good * loss.nan_to_num(), good * norm.nan_to_num(), skipped])
    run.skipped_in_a_row = (run.skipped_in_a_row + 1.0) * skipped
    window.masked += masked
    window.updates += 1
    window.utterances += len(indices)
    window.audio_s += float(run.data.train.n_samples[indices].sum()) / SAMPLE_RATE
    run.step += 1


def _add_gradients(run: Run, utterances: int) -> tuple[torch.Tensor, float] | None:
    """Run this rank's micro-batches of the next update forward and backward, so that their gradients add up.

    Args:
        run: the run.
        utterances: of the *global* batch: divided by these, ranks and micro-batches add up to its mean.

    Returns:
        Their part of the loss, () on the device, and of the share of masked frames; None if the device had too little
        memory and smaller micro-batches may fit.

    Raises:
        TooLittleMemory: not even one utterance fits.
    """
    # Dropout and layerdrop follow from the step, so a resumed trial draws the same numbers.
    torch.manual_seed((run.config.seed * 1_000_003 + run.step) * 1_009 + run.share.rank)
    loss, masked = torch.zeros((), device=run.device), 0.0
    batches = run.loader.update(run.step)
    try:
        for batch in batches:
            part_loss = _losses(run, batch).sum() / utterances
            part_loss.backward()
            loss += part_loss.detach()
            masked += batch.masked / utterances
    except RuntimeError as error:
        check_smaller_may_fit(error, max(len(batch.frames) for batch in batches))
        return None
    return loss, masked


def _cut_smaller(run: Run) -> None:
    """After a lack of memory: halve this rank's micro-batches; `agree_on_micro_batches` is for the others."""
    for parameter in run.model.parameters():
        parameter.grad = None
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    run.loader.cut_to(run.loader.micro_batch_s / 2)
    log.warning("too little memory: micro-batches have %g s of audio from now on", run.loader.micro_batch_s)


def agree_on_micro_batches(run: Run) -> None:
    """Cut the micro-batches of all ranks to the size that fits on each; every rank must call this.

    At an evaluation, not at each update: that would let all ranks wait for each other once more.
    """
    run.loader.cut_to(min(run.share.gathered(run.loader.micro_batch_s)))


def _losses(run: Run, batch: Batch) -> torch.Tensor:
    """The CTC losses of a micro-batch, (B,)."""
    assert run.parts is not None
    frozen = run.config.freeze_feature_encoder or not run.parts.projection or run.config.adapter_dim > 0
    with autocast(run.device):
        features = batch.features
        if features is None:
            assert batch.samples is not None and batch.n_samples is not None
            features = encode_audio(run.model, batch.samples, batch.n_samples, frozen=frozen)
        logits = ctc_logits(run.model, features, batch.frames, batch.time_mask, batch.feature_mask)
    return ctc_losses(logits, batch.frames, batch.labels, batch.label_lengths)


def has_diverged(run: Run) -> bool:
    """Whether the last `MAX_NONFINITE_STEPS` updates were all skipped. Waits for the device."""
    return run.skipped_in_a_row.item() >= MAX_NONFINITE_STEPS


def _set_learning(run: Run) -> None:
    """Turn gradients on for the parts that learn in the next update."""
    config = run.config
    layers = len(run.model.wav2vec2.encoder.layers)
    parts = trainable(run.step, run.plan.updates, layers, config.freeze_transformer_fraction, config.unfreeze)
    if parts != run.parts:
        set_trainable(
            run.model, parts, feature_encoder=not config.freeze_feature_encoder, adapters=config.adapter_dim > 0
        )
        run.parts = parts
        run.learning = [parameter for parameter in run.model.parameters() if parameter.requires_grad]


def _sum_over_ranks(learning: list[torch.nn.Parameter], loss: torch.Tensor, world: int) -> torch.Tensor:
    """Add up gradients and loss over the ranks, in messages of about 100 MB.

    Plain sums and no DistributedDataParallel: a parameter without a gradient on some rank counts as zero there, so
    freezing, layerdrop and a rank without an utterance need no special case. One difference: a layer that all of
    several ranks dropped has gradients of zero, so AdamW's momentum still moves it; on one rank it has none.
    """
    if world == 1:
        return loss
    summed = loss.reshape(1).clone()
    pending: list[Any] = [dist.all_reduce(summed, async_op=True)]
    for bucket in _buckets(learning):
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in bucket])
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)  # the old one is freed, so no more than a bucket is there twice
        pending.append(dist.all_reduce(flat, async_op=True))
    for message in pending:
        message.wait()
    return summed[0]


def _buckets(parameters: list[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Cut a list of parameters into parts of about `_BUCKET` weights."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(one.numel() for one in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
