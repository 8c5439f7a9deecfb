"""Spaces to search: a preset, and changes of the settings."""

from __future__ import annotations

from pathlib import Path

DEMO = Path(__file__).parents[2] / "sweeps/configs/demo.yaml"
CONDITIONAL = [
    "space.freeze_transformer_fraction={choices: [0.0, 0.25, 0.5]}",
    "space.unfreeze={choices: [all, top_down], when: {freeze_transformer_fraction: {above: 0}}}",
    "space.lr_peak=[{low: 1e-4, high: 5e-4, log: true, when: {freeze_transformer_fraction: {at_least: 0.25}}},"
    " {low: 2e-5, high: 2e-4, log: true}]",
    "space.mask_time_length={low: 3, high: 10}",
]
