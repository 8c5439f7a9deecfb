"""Waveform augmentation: change the speed of utterances and add noise. Samples in, samples out.

The draw depends only on the seed, the epoch and the utterance's id, like its masks. With augmentation the audio differs
in every epoch, so the feature cache is off. Called by the loader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchaudio.functional import add_noise, speed

from hausa_asr.ctc import frames, frames_needed
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.training.masking import draw_from
from hausa_asr.utterance import SAMPLE_RATE, Example

SNR_RANGE_DB = 20.0
"""From the loudest noise to the faintest, which is barely audible."""


@dataclass(frozen=True)
class Augmentation:
    """The changes that a clip may get.

    Attributes:
        speed_perturb: x, for a clip played at 1 - x, 1 or 1 + x times its speed, each equally likely (Ko et al. 2015,
            with 0.1); 0 for no change.
        noise_prob: the chance that noise is added.
        noise_snr_db: the signal-to-noise ratio of the loudest noise; the faintest is `SNR_RANGE_DB` above.
        seed: the trial's.
    """

    speed_perturb: float
    noise_prob: float
    noise_snr_db: float
    seed: int

    @classmethod
    def of(cls, config: FinetuneConfig) -> Augmentation:
        """The augmentation of a recipe."""
        return cls(config.speed_perturb, config.noise_prob, config.noise_snr_db, config.seed)

    @property
    def on(self) -> bool:
        """Whether any clip can change."""
        return self.speed_perturb > 0 or self.noise_prob > 0

    def __call__(self, example: Example, epoch: int) -> Example:
        """Augment an example for one epoch; its samples are (S,) float32, perhaps of another length."""
        if not self.on:
            return example
        rng = draw_from("augment", self.seed, epoch, example.id)
        samples = torch.from_numpy(example.samples)
        factor = 1.0 + self.speed_perturb * float(rng.integers(-1, 2))
        if self.speed_perturb and factor != 1.0:
            # In whole hundredths: other factors need a resampling filter with thousands of phases.
            faster, _ = speed(samples, SAMPLE_RATE, round(factor, 2))
            if frames(faster.shape[0]) >= frames_needed(example.labels.tolist()):  # else CTC can't align the transcript
                samples = faster
        if rng.random() < self.noise_prob:
            noise = torch.from_numpy(_noise(rng, samples.shape[0]))
            snr_db = self.noise_snr_db + SNR_RANGE_DB * rng.random()
            samples = add_noise(samples, noise, torch.tensor(snr_db, dtype=torch.float32))
        return example._replace(samples=samples.numpy())


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size,) float32 noise between white and brown: its power falls as the frequency to the power of 0 to 2."""
    spectrum = np.fft.rfft(rng.standard_normal(size).astype(np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-rng.uniform(0.0, 1.0))
    return np.fft.irfft(spectrum, size).astype(np.float32)
