"""Estimate how fast a trial trains and how many weights its checkpoints hold, before it runs and without torch.

In: the settings and the storage with earlier sweeps. Out: figures with their source; a guess is marked as one. Called
by `estimate`.
"""

from __future__ import annotations

import json
import math
import statistics
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import hausa_asr
from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig, part_s
from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.epochs import evaluation_interval_s
from sweeps.record.ledger import read_state
from sweeps.record.names import LEDGER_FILE, SETTINGS_FILE
from sweeps.wording import many

_SWEEPS_READ, _TRIALS_READ, _SWEEPS_LOOKED_AT = 4, 20, 30
"""The newest like sweeps are read up to this many trials; more would cost time and add little."""
_PACE_BY = ("adapter_dim", "gradient_checkpointing", "freeze_feature_encoder", "batch_s", "eval_every_steps",
            "dev_part_s")  # fmt: skip
"""Settings by which trials of one base checkpoint differ most in pace: what learns, and what is scored how often."""

# A guess from the model's size. Training takes 6 operations per weight and frame, forward and backward, there are 50
# frames a second, and attention adds about a tenth: within 11 % of what torch's FlopCounter gives for clips of 10 s
# with frozen convolutions (wav2vec2-base 34.6, XLS-R 300M 105, 1B 310 GFLOP per second of audio).
_FORWARD, _BACKWARD, _BACKWARD_OF_ADAPTERS = 2, 4, 2
FRAMES_PER_S, _ATTENTION = 50, 1.1
_UNKNOWN_GPU = 20.0
"""TFLOP/s that a fine-tune of wav2vec 2.0 by others reached on an A100: 3.12 updates of 12 clips a second, fp16
(SpeechBrain, pull request 2010)."""
_SHARE = 170 / 989
"""What our fine-tune of XLS-R 300M reached on an H200 (docs/results.md), as a share of the card's peak."""
_PEAKS = {
    "B200": 2250, "H200": 989, "H100": 989, "H800": 989, "A100": 312, "A800": 312, "L40S": 362, "L40": 181,
    "RTX 6000 Ada": 364, "RTX A6000": 155, "4090": 165, "A30": 165, "A40": 150, "A10G": 70, "A10": 125, "L4": 121,
    "3090": 71, "T4": 65,
}  # fmt: skip
"""TFLOP/s of dense matrix products in half precision, by a part of the card's name (NVIDIA's datasheets)."""
NO_BFLOAT16 = {"T4": 0.35}
"""Cards that compute in float32 here get this part of that."""
_CPU_FLOPS = 0.03e12
"""The demo's model trains at about 100 audio-seconds per second and thread (docs/log.md)."""
_SECOND_WORKER = 0.85
"""Two workers were 1.71 times as fast as one (`python benchmarks/scaling.py`)."""
_WITH_CACHE = 1.4
"""With the feature cache, which a measurement lacks, a trial is up to 1.37 times as fast (`benchmarks/cache.py`)."""
_USUAL_EVALUATION = 0.1
"""Time of evaluation per second of training, if the length of dev is not known."""


@dataclass(frozen=True)
class Base:
    """The size of a base checkpoint.

    Attributes:
        weights: how many it has, those of its convolutions among them.
        convolutions: how many its convolutions have.
        hidden: the transformer's hidden size.
        layers: the transformer's layers.
        features: how many figures the convolutions give for a frame.
    """

    weights: int
    convolutions: int
    hidden: int
    layers: int
    features: int = 512


_XLSR_300M = Base(315_438_720, 4_210_176, 1024, 24)
_XLSR_1B = Base(962_497_408, 4_210_176, 1280, 48)
_KNOWN = {
    "facebook/wav2vec2-base": Base(94_371_712, 4_200_448, 768, 12),
    "facebook/wav2vec2-large-xlsr-53": _XLSR_300M,
    "facebook/wav2vec2-xls-r-300m": _XLSR_300M,
    "facebook/wav2vec2-xls-r-1b": _XLSR_1B,
    "facebook/wav2vec2-xls-r-2b": Base(2_159_259_648, 4_210_176, 1920, 48),
    "facebook/mms-300m": _XLSR_300M,
    "facebook/mms-1b": _XLSR_1B,
    "facebook/mms-1b-all": _XLSR_1B,
}


@dataclass(frozen=True)
class Speed:
    """How fast one trial goes.

    Attributes:
        audio_s_per_s: seconds of audio trained on per second of a busy slot, evaluation included.
        source: of the figure, in words.
        guessed: whether it is a guess, not a measurement.
        slack: by what factor a trial may be faster than that.
        workers: of such a trial; None for the most.
        scoring_s: seconds that one worker takes to score a model on all of dev and test; 0 where that is not known.
    """

    audio_s_per_s: float
    source: str
    guessed: bool
    slack: float = 1.0
    workers: int | None = None
    scoring_s: float = 0.0


def base_of(name: str) -> Base | None:
    """Look up the size of a base checkpoint by its hub id, `demo` or folder; None if it is not known."""
    if name in _KNOWN:
        return _KNOWN[name]
    folder = Path(hausa_asr.__file__).parent / "demo_base" if name == "demo" else Path(name)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        features = int(config["conv_dim"][-1])
        with (folder / "model.safetensors").open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return None
    counts = {key: math.prod(value["shape"]) for key, value in header.items() if key != "__metadata__"}
    convolutions = sum(count for key, count in counts.items() if "feature_extractor." in key)
    return Base(sum(counts.values()), convolutions, hidden, layers, features)


def largest_base(config: SweepConfig) -> Base | None:
    """The size of the largest base checkpoint that trials start from; None if that of any is not known."""
    sizes = [base_of(name) for name in config.bases]
    return None if None in sizes else max((one for one in sizes if one), key=lambda one: one.weights)


def trained_weights(config: SweepConfig, base: Base) -> int:
    """Count the weights that learn, and so are in a checkpoint, in the largest trial that the settings allow."""
    widths = values(config, "adapter_dim")
    if min(widths) > 0:  # per layer: norm, down, up (transformers' Wav2Vec2AttnAdapterLayer)
        width, hidden = max(widths), base.hidden
        return base.layers * (2 * hidden + hidden * width + width + width * hidden + hidden)
    return base.weights - (base.convolutions if all(values(config, "freeze_feature_encoder")) else 0)


def speed_of(
    config: SweepConfig,
    storage: Path,
    seconds: Mapping[str, float] | None = None,
    gpus: Sequence[str] = (),
    workers: int | None = None,
) -> Speed | None:
    """Estimate how fast a trial trains: from the settings, else from earlier sweeps, else a guess.

    Args:
        config: the sweep's settings.
        storage: the folder with earlier sweeps.
        seconds: of each split, as far as they are known; with those of dev the guess of the evaluation time is better.
        gpus: the kinds of GPU in the cluster; none if they are not known. Earlier sweeps count that had the same; the
            guess is for the slowest.
        workers: of a trial; by default the most.

    Returns:
        None if nothing is known of the base checkpoint.
    """
    workers, seconds = workers or config.resources.most_workers, seconds or {}

    def known(pace: float, source: str) -> Speed:
        scoring = pace / _together(workers) * (1 + _backward(config) / _FORWARD)  # scoring is the forward pass alone
        return Speed(pace, source, guessed=False, workers=workers, scoring_s=_scored_s(seconds) / scoring)

    if config.resources.audio_s_per_s is not None:
        return known(config.resources.audio_s_per_s, "resources.audio_s_per_s")
    measured, sweeps = [], []
    for folder, had in _like_sweeps(config, storage, workers):
        try:
            state = read_state(folder)
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # another version's ledger, or a damaged one
        if config.resources.gpus_per_worker and (not gpus or state.gpus != set(gpus)):
            continue  # cards differ by up to fifty times, so what others took, or unknown ones, says nothing of these
        like = (
            one for one in state.trials.values() if all((report.workers or had) == workers for report in one.reports)
        )
        paces = [trial.seen_s / trial.spent_s for trial in like if trial.seen_s > 0 and trial.spent_s > 0]
        measured += paces
        sweeps += [folder.name] if paces else []
        if len(measured) >= _TRIALS_READ or len(sweeps) >= _SWEEPS_READ:
            break
    if measured:
        return known(statistics.median(measured), f"measured on {many(len(measured), 'trial')} of {', '.join(sweeps)}")
    return _guess(config, seconds, gpus, workers)


def measured(
    config: SweepConfig, training: float, scoring: float, seconds: Mapping[str, float], workers: int | None = None
) -> Speed:
    """The speed of a trial, from what one worker was measured at.

    Args:
        config: the sweep's settings.
        training, scoring: seconds of audio per second of one worker.
        seconds: of each split.
        workers: of a trial; by default the most.
    """
    workers, recipe = workers or config.resources.most_workers, config.recipe()
    rate = training * _together(workers)
    scored_s = part_s(seconds.get("dev", 0.0), recipe.dev_part_s)
    per_audio_s = 1 / rate + scored_s / (scoring * workers) / evaluation_interval_s(config)
    where = " on one worker" if workers > 1 else ""
    return Speed(
        1 / per_audio_s, f"measured just now{where}", False, _WITH_CACHE, workers, _scored_s(seconds) / scoring
    )


def _guess(config: SweepConfig, seconds: Mapping[str, float], gpus: Sequence[str], workers: int) -> Speed | None:
    base, wanted, recipe = largest_base(config), config.resources, config.recipe()
    if base is None:
        return None
    backward, operations = _backward(config), base.weights * FRAMES_PER_S * _ATTENTION
    if wanted.gpus_per_worker:
        tflops, kind = min((_tflops(one), one) for one in gpus or [""])
        flops, device = (
            tflops * 1e12 * wanted.gpus_per_worker,
            f"{tflops:.3g} TFLOP/s per GPU ({kind or 'of any kind'})",
        )
    else:
        flops, device = _CPU_FLOPS * max(1, int(wanted.cpus_per_worker)), f"{_CPU_FLOPS * 1e3 / 1e12:g} GFLOP/s per CPU"
    evaluation = _USUAL_EVALUATION
    if "dev" in seconds:
        dev_s = part_s(seconds["dev"], recipe.dev_part_s)
        evaluation = dev_s * _FORWARD / (_FORWARD + backward) / evaluation_interval_s(config)
    source = f"a guess, from {base.weights / 1e6:,.3g} M weights and {device}"
    pace = flops * _together(workers) / ((_FORWARD + backward) * operations) / (1 + evaluation)
    return Speed(pace, source, True, workers=workers, scoring_s=_scored_s(seconds) * _FORWARD * operations / flops)


def _together(workers: int) -> float:
    """How many times as fast as one worker a trial's workers train."""
    return workers if workers == 1 else workers * _SECOND_WORKER


def _backward(config: SweepConfig) -> int:
    return _BACKWARD_OF_ADAPTERS if min(values(config, "adapter_dim")) > 0 else _BACKWARD


def _scored_s(seconds: Mapping[str, float]) -> float:
    """Seconds of audio that a finished model is scored on."""
    return seconds.get("dev", 0.0) + seconds.get("test", 0.0)


def _tflops(gpu: str) -> float:
    """Guess what a fine-tune reaches on a GPU of this name."""
    name = next((one for one in sorted(_PEAKS, key=len, reverse=True) if one in gpu), None)
    return _UNKNOWN_GPU if name is None else _PEAKS[name] * _SHARE * NO_BFLOAT16.get(name, 1.0)


def values(config: SweepConfig, setting: str) -> list[Any]:
    """The values that a setting can have in a trial: its choices, or the ends of its range."""
    searched = [choice for one in config.space.get(setting, ()) for choice in one.choices or (one.low, one.high)]
    return searched or [getattr(config.recipe(), setting)]


def _like_sweeps(config: SweepConfig, storage: Path, workers: int) -> Iterator[tuple[Path, int | None]]:
    """Yield the folders of earlier sweeps whose trials have as much to do as these, the newest first.

    That is with the same base checkpoint, the same workers and the same settings of `_PACE_BY`.

    With each the number of workers of its trials; None of a range, where the reports say it.
    """
    like = _work(config.model_dump(mode="json", exclude_none=True))
    try:
        ledgers = sorted(storage.glob(f"*/{LEDGER_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    for ledger in ledgers[:_SWEEPS_LOOKED_AT]:
        try:
            # The C parser is ten times as fast, and the user waits.
            text = (ledger.parent / SETTINGS_FILE).read_text(encoding="utf-8")
            settings = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            had = settings["resources"]["workers_per_trial"]
            can = had["min"] <= workers <= had["max"] if isinstance(had, dict) else had == workers
            if can and _work(settings) == like:
                yield ledger.parent, None if isinstance(had, dict) else had
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            continue


def _work(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the pace of a sweep's trials hangs on, by its settings as they are saved; its GPUs left out."""
    resources, recipe, space = settings["resources"], settings.get("finetune", {}), settings.get("space", {})
    fixed = (recipe.get(name, getattr(FinetuneConfig(), name)) for name in _PACE_BY)
    searched = (space.get(name) for name in ("base", *_PACE_BY))
    return settings["model"]["base"], resources["gpus_per_worker"], resources["cpus_per_worker"], *fixed, *searched
