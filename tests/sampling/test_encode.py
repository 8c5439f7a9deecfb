"""Settings as numbers: every kind of setting, what is left out, and what is out of range."""

from __future__ import annotations

import numpy as np
import pytest

from hausa_asr.settings.load import load
from helpers.spaces import CONDITIONAL, DEMO
from sweeps.prediction.columns import CHOICE, UNKNOWN
from sweeps.sampling.encode import encode


def test_numbers_choices_and_words_have_their_places() -> None:
    config = load(None, [
        "space.lr_peak={low: 1e-5, high: 1e-3, log: true}",
        "space.hidden_dropout={low: 0, high: 0.2}",
        "space.mask_time_length={low: 3, high: 13}",
        "space.adapter_dim={choices: [0, 64, 8]}",
        "space.schedule={choices: [linear, cosine]}",
        "space.freeze_feature_encoder={choices: [true, false]}",
    ])  # fmt: skip
    here = {
        "lr_peak": 1e-4, "hidden_dropout": 0.05, "mask_time_length": 13, "adapter_dim": 8, "schedule": "cosine",
        "freeze_feature_encoder": True,
    }  # fmt: skip
    assert encode(config, here) == pytest.approx([0.5, 0.25, 1.0, 0.5, 0, CHOICE, CHOICE, 0])
    out = {**here, "lr_peak": 1.0, "hidden_dropout": -1.0, "schedule": "tri_stage", "adapter_dim": 36}
    assert encode(config, out) == pytest.approx([1.3, -0.3, 1.0, 0.75, UNKNOWN, UNKNOWN, CHOICE, 0])


def test_what_is_left_out_is_at_the_recipes_default() -> None:
    config = load(DEMO)
    whole = {name: getattr(config.recipe(), name) for name in config.space}
    assert np.array_equal(encode(config, {}), encode(config, whole))
    assert not np.array_equal(encode(config, {}), encode(config, {"lr_peak": 3e-4}))


def test_alternative_ranges_share_one_scale() -> None:
    config = load(None, CONDITIONAL)
    at = [
        encode(config, {"freeze_transformer_fraction": share, "lr_peak": rate, "unfreeze": "all"})
        for share, rate in ((0.5, 1e-4), (0.0, 1e-4), (0.0, 2e-5), (0.5, 5e-4))
    ]
    lr_peak = np.flatnonzero(at[2] != at[1])
    assert len(lr_peak) == 1
    assert [float(one[lr_peak[0]]) for one in at] == pytest.approx([0.5, 0.5, 0.0, 1.0])
