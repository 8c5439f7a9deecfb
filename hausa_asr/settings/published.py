"""Recipes in print: the Hausa run that every sweep is measured by, and six starting points.

Plain values, by the names of `FinetuneConfig`. Read by the settings of a sweep.
"""

from __future__ import annotations

from typing import Any

PUBLISHED = "published"
"""In a settings file: `starting_points: published` stands for those below."""

PUBLISHED_RECIPE: dict[str, Any] = {
    "lr_peak": 5e-5,
    "schedule": "linear",
    "warmup_fraction": 0.33,
    "mask_time_prob": 0.05,
    "mask_time_length": 10,
    "mask_feature_prob": 0.0,
    "freeze_transformer_fraction": 0.0,
    "layerdrop": 0.1,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "head_lr_mult": 1.0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "max_grad_norm": 1.0,
    "ema_fraction": 0.0,
    "average": 0,
    "freeze_feature_encoder": True,
    "speed_perturb": 0.0,
    "noise_prob": 0.0,
}
"""The Hausa run that every sweep is measured by: linear warm-up to 5e-5 by step 1,000 of about 3,000. What it does not
state is as in the Hugging Face recipe for XLSR-53 that it follows: its stated dropouts, and the defaults of
`run_speech_recognition_ctc.py` and its Trainer for the others (activation dropout 0.0, betas 0.9 and 0.999, gradients
clipped to a norm of 1.0, no averaged weights, frozen convolutions, clips as they are)."""

_WIDE_MASKS = {"mask_time_prob": 0.75, "mask_time_length": 10, "mask_feature_prob": 0.25, "mask_feature_length": 64}
_NO_DROPOUT = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0}
PUBLISHED_STARTING_POINTS: dict[str, dict[str, Any]] = {
    "seed": PUBLISHED_RECIPE,
    "mofe-b": {**PUBLISHED_RECIPE, "lr_peak": 9.6e-5, "warmup_fraction": 0.4},
    "robust-event": {
        "lr_peak": 7.5e-5, "schedule": "linear", "warmup_fraction": 0.2, "freeze_transformer_fraction": 0.0,
        **_WIDE_MASKS, **_NO_DROPOUT, "activation_dropout": 0.1, "layerdrop": 0.0, "adam_beta2": 0.999,
    },
    "fairseq-xlsr": {
        "lr_peak": 1.2e-4, "schedule": "tri_stage", "warmup_fraction": 0.1, "freeze_transformer_fraction": 0.25,
        "unfreeze": "all", **_WIDE_MASKS, **_NO_DROPOUT, "activation_dropout": 0.1, "layerdrop": 0.1,
        "batch_s": 240.0, "adam_beta2": 0.98,
    },
    "omnilingual": {
        "lr_peak": 1e-5, "schedule": "tri_stage", "warmup_fraction": 0.1, "freeze_transformer_fraction": 0.0,
        **_NO_DROPOUT, "layerdrop": 0.0, "adam_beta2": 0.98,
    },
    "tuned-xlsr53": {
        "lr_peak": 1e-4, "schedule": "linear", "warmup_fraction": 0.2, "freeze_transformer_fraction": 0.0,
        "mask_time_prob": 0.082, "mask_time_length": 10, "mask_feature_prob": 0.25, "mask_feature_length": 64,
        "attention_dropout": 0.094, "activation_dropout": 0.055, "hidden_dropout": 0.047, "feat_proj_dropout": 0.04,
        "final_dropout": 0.0, "layerdrop": 0.041, "adam_beta2": 0.999,
    },
}  # fmt: skip
"""Recipes in print, tried before the search proposes any: the Hausa run above; Mofe/xls-r-hausa-40, which differs from
a worse one in its rate only; the Hugging Face Robust Speech event's XLS-R recipe; fairseq's XLS-R fine-tune
(`xlsr/config/finetune.yaml`), brought from 13,000 and more updates of 1,600 s to a sweep's few thousand of 240 s (its
rate of 3e-4 by the square root of the batch, as suits Adam; its head alone for a quarter of the updates in place of
half); Omnilingual ASR's low rate without freezing; and a tuned XLSR-53. Warm-ups in steps are given as the share that
they were of a run."""
