"""Load the batches of a trial: a plan and a split in, an update's padded and masked batches out.

The CPU's work is done here, beside the device's: reading, augmentation, normalisation, padding to one of a few lengths,
masks. Called by the fine-tune.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.model.batch import Batch, Frames, Share, collate
from hausa_asr.model.forward import frame_lengths
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training.augment import Augmentation
from hausa_asr.training.masking import Masking
from hausa_asr.training.updates import UpdatePlan, micro_batches
from hausa_asr.utterance import Example, Split

AHEAD = 3
"""Updates that are prepared beforehand for a GPU. For a CPU none: its cores are busy training."""


@dataclass(frozen=True)
class ModelInput:
    """How one model takes its audio.

    Attributes:
        do_normalize, frames_of: as in `collate`.
        hidden: features of the transformer's input, for their mask.
    """

    do_normalize: bool
    frames_of: Frames
    hidden: int

    @classmethod
    def of(cls, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor) -> ModelInput:
        """The input of a model."""
        return cls(
            do_normalize=processor.feature_extractor.do_normalize,
            frames_of=lambda n_samples: frame_lengths(model, n_samples),
            hidden=model.config.hidden_size,
        )


class Loader:
    """The batches of a trial, by its updates.

    Args:
        split: the utterances to train on.
        plan: which utterances make up which update.
        config: the recipe; of its settings, the size of micro-batches, masks and augmentation.
        model_input: how the model takes its audio.
        share: this rank's.
        device: where batches are wanted. For a GPU, threads prepare `AHEAD` updates.

    Attributes:
        micro_batch_s: seconds of audio, padding included, in a micro-batch.
    """

    def __init__(
        self,
        split: Split,
        plan: UpdatePlan,
        config: FinetuneConfig,
        model_input: ModelInput,
        share: Share,
        device: torch.device,
    ) -> None:
        self._split, self._plan, self._input = split, plan, model_input
        self._masking, self._augmentation = Masking.of(config), Augmentation.of(config)
        self.micro_batch_s, self._share, self._device = config.micro_batch_s, share, device
        self._pool = ThreadPoolExecutor(2, "loader") if device.type == "cuda" else None
        self._ready: dict[int, Future[list[Batch]]] = {}

    def update(self, step: int) -> list[Batch]:
        """This rank's micro-batches of an update, on the device; none if it has no utterance of the batch."""
        if self._pool is None:
            return self._load(step)
        for ahead in range(step, min(step + 1 + AHEAD, self._plan.updates)):
            if ahead not in self._ready:
                self._ready[ahead] = self._pool.submit(self._load, ahead)
        return [batch.to(self._device) for batch in self._ready.pop(step).result()]

    def cut_to(self, micro_batch_s: float) -> None:
        """Cut smaller micro-batches from now on. Their sums are the same, so the results are."""
        if micro_batch_s == self.micro_batch_s:
            return
        for future in self._ready.values():
            future.cancel()
        self._ready.clear()
        self.micro_batch_s = micro_batch_s

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, step: int) -> list[Batch]:
        epoch, indices = self._plan.batch(step)
        parts = micro_batches(indices, self._split.n_samples, self._plan.edges, self.micro_batch_s, self._share)
        return [self._batch([self._augmentation(self._split[index], epoch) for index in part], epoch) for part in parts]

    def _batch(self, examples: list[Example], epoch: int) -> Batch:
        batch = collate(examples, self._input.do_normalize, self._input.frames_of, self._plan.edges)
        if self._masking.on:
            frames = batch.frames.tolist()
            masks = self._masking.batch(batch.ids, epoch, frames, self._input.hidden, self._padded_frames(batch))
            masked = float((masks.time.sum(dim=1) / batch.frames).sum())
            batch = replace(batch, time_mask=masks.time, feature_mask=masks.feature, masked=masked)
        return batch.pinned() if self._pool is not None else batch

    def _padded_frames(self, batch: Batch) -> int:
        """T, padding included."""
        if batch.features is not None:
            return batch.features.shape[1]
        assert batch.samples is not None
        return int(self._input.frames_of(torch.tensor([batch.samples.shape[1]])))
