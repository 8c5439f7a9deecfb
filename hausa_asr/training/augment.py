"""Waveform augmentation: speed and noise, drawn for each utterance by itself. Samples in, samples out.

What happens to an utterance follows from the seed, the epoch and its id, as its masks do. With any of it switched on
the audio differs in every epoch, so the feature cache is off. Called by `loading`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torchaudio.functional import add_noise, speed

from hausa_asr.training.masking import draw_from
from hausa_asr.utterance import SAMPLE_RATE, Example

SNR_RANGE_DB = 20.0
"""From the loudest noise to the faintest, which can hardly be heard."""
_FRAME = 320  # samples between two frames of a wav2vec 2.0 encoder
_WINDOW = 400


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a clip.

    Attributes:
        speed_perturb: the clip is played at 1 - x, 1 or 1 + x times its speed, each as likely (Ko et al. 2015, with
            0.1); 0 turns it off.
        noise_prob: the chance that noise is added.
        noise_snr_db: the loudest noise's signal-to-noise ratio; the faintest is `SNR_RANGE_DB` above.
        seed: the trial's.
    """

    speed_perturb: float
    noise_prob: float
    noise_snr_db: float
    seed: int

    @property
    def on(self) -> bool:
        """Whether anything can happen at all."""
        return self.speed_perturb > 0 or self.noise_prob > 0

    def __call__(self, example: Example, epoch: int) -> Example:
        """The example as it sounds in one epoch: its samples are (S,) float32, perhaps of another length."""
        if not self.on:
            return example
        rng = draw_from("augment", self.seed, epoch, example.id)
        samples = torch.from_numpy(example.samples)
        factor = 1.0 + self.speed_perturb * float(rng.integers(-1, 2))
        if self.speed_perturb and factor != 1.0:
            # In whole hundredths, or the resampling filter would need thousands of phases.
            faster, _ = speed(samples, SAMPLE_RATE, round(factor, 2))
            if _fits(faster.shape[0], example.labels):
                samples = faster
        if rng.random() < self.noise_prob:
            noise = torch.from_numpy(_noise(rng, samples.shape[0]))
            snr_db = self.noise_snr_db + SNR_RANGE_DB * rng.random()
            samples = add_noise(samples, noise, torch.tensor(snr_db, dtype=torch.float32))
        return example._replace(samples=samples.numpy())


def _fits(n_samples: int, labels: np.ndarray) -> bool:
    """Whether CTC can still align: a frame for each label, and one more between two that are equal."""
    needed = len(labels) + sum(int(a == b) for a, b in pairwise(labels))
    return (n_samples - _WINDOW) // _FRAME + 1 >= needed


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size,) float32 noise between white and brown: its power falls with the frequency to the power of 0 to 2."""
    spectrum = np.fft.rfft(rng.standard_normal(size).astype(np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-rng.uniform(0.0, 1.0))
    return np.fft.irfft(spectrum, size).astype(np.float32)
