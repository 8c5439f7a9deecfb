"""The settings of a recipe and of its search: what each may be, and the published recipe that sweeps are measured by.

Part of `config.py`, which checks them together with all the others; the space and the export check single settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from hausa_asr.recipe import COMPILE, FEATURE_CACHE, FinetuneConfig
from hausa_asr.settings.data import Strict
from hausa_asr.training.schedules import SCHEDULES, UNFREEZE

_fraction = {"ge": 0.0, "le": 1.0}
_LIMITS: dict[str, dict[str, Any]] = {
    "length_s": {"gt": 0.0},
    "batch_s": {"gt": 0.0},
    "micro_batch_s": {"gt": 0.0},
    "eval_every_steps": {"ge": 1},
    "lr_peak": {"gt": 0.0},
    "head_lr_mult": {"gt": 0.0},
    "warmup_fraction": _fraction,
    "schedule": {"pattern": f"^({'|'.join(SCHEDULES)})$"},
    "weight_decay": {"ge": 0.0},
    "max_grad_norm": {"ge": 0.0},
    "mask_time_prob": {"ge": 0.0, "lt": 1.0},
    "mask_time_length": {"ge": 1},
    "mask_feature_prob": {"ge": 0.0, "lt": 1.0},
    "mask_feature_length": {"ge": 1},
    "freeze_feature_encoder": {},
    "freeze_transformer_fraction": _fraction,
    "unfreeze": {"pattern": f"^({'|'.join(UNFREEZE)})$"},
    "rewarm_fraction": _fraction,
    "adapter_dim": {"ge": 0},
    "hidden_dropout": {"ge": 0.0, "lt": 1.0},
    "attention_dropout": {"ge": 0.0, "lt": 1.0},
    "activation_dropout": {"ge": 0.0, "lt": 1.0},
    "feat_proj_dropout": {"ge": 0.0, "lt": 1.0},
    "final_dropout": {"ge": 0.0, "lt": 1.0},
    "layerdrop": {"ge": 0.0, "lt": 1.0},
    "speed_perturb": {"ge": 0.0, "le": 0.5},
    "noise_prob": _fraction,
    "noise_snr_db": {"ge": -10.0, "le": 60.0},
    "seed": {"ge": 0},
    "gradient_checkpointing": {},
    "compile": {"pattern": f"^({'|'.join(COMPILE)})$"},
    "feature_cache": {"pattern": f"^({'|'.join(FEATURE_CACHE)})$"},
}
"""What each setting of a recipe may be; a test holds that none of `FinetuneConfig` is left out."""

_KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


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
}
"""The Hausa run that every sweep is measured by: linear warm-up to 5e-5 by step 1,000 of about 3,000. What it does not
state is as in the Hugging Face recipe for XLSR-53 that it follows."""

_WIDE_MASKS = {"mask_time_prob": 0.75, "mask_time_length": 10, "mask_feature_prob": 0.25, "mask_feature_length": 64}
_NO_DROPOUT = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0}
PUBLISHED_STARTING_POINTS: dict[str, dict[str, Any]] = {
    "seed": PUBLISHED_RECIPE,
    "mofe-b": {**PUBLISHED_RECIPE, "lr_peak": 9.6e-5, "warmup_fraction": 0.4},
    "robust-event": {
        "lr_peak": 7.5e-5, "schedule": "linear", "warmup_fraction": 0.2, "freeze_transformer_fraction": 0.0,
        **_WIDE_MASKS, **_NO_DROPOUT, "activation_dropout": 0.1, "layerdrop": 0.0,
    },
    "fairseq-xlsr": {
        "lr_peak": 3e-4, "schedule": "tri_stage", "warmup_fraction": 0.1, "freeze_transformer_fraction": 0.5,
        "unfreeze": "all", **_WIDE_MASKS, **_NO_DROPOUT, "activation_dropout": 0.1, "layerdrop": 0.1,
        "batch_s": 1600.0, "eval_every_steps": 10,
    },
    "omnilingual": {
        "lr_peak": 1e-5, "schedule": "tri_stage", "warmup_fraction": 0.1, "freeze_transformer_fraction": 0.0,
        **_NO_DROPOUT, "layerdrop": 0.0,
    },
    "tuned-xlsr53": {
        "lr_peak": 1e-4, "schedule": "linear", "warmup_fraction": 0.2, "freeze_transformer_fraction": 0.0,
        "mask_time_prob": 0.082, "mask_time_length": 10, "mask_feature_prob": 0.25, "mask_feature_length": 64,
        "attention_dropout": 0.094, "activation_dropout": 0.055, "hidden_dropout": 0.047, "feat_proj_dropout": 0.04,
        "final_dropout": 0.0, "layerdrop": 0.041,
    },
}  # fmt: skip
"""Recipes in print, tried before the search proposes any: the Hausa run above; Mofe/xls-r-hausa-40, which differs from
a worse one in its rate only; the Hugging Face Robust Speech event's XLS-R recipe; fairseq's XLS-R fine-tune (head alone
for half of the updates, 1,600 s an update, `xlsr/config/finetune.yaml`); Omnilingual ASR's low rate without freezing;
and a tuned XLSR-53. Warm-ups in steps are given as the share that they were of a run."""


def _recipe_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(FinetuneConfig):
        kind = _KINDS[str(field.type)]
        fields[field.name] = (kind, Field(default=field.default, **_LIMITS[field.name]))
    return create_model("FinetuneSettings", __base__=Strict, **fields)


FinetuneSettings: Any = _recipe_model()
RECIPE_FIELDS = tuple(_LIMITS)


def check_setting(name: str, value: Any) -> Any:
    """One setting of a recipe, checked and brought to its type.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    if name not in _LIMITS:
        raise ValueError(f"no such setting{nearest(name, RECIPE_FIELDS)}")
    try:
        return getattr(FinetuneSettings(**{name: value}), name)
    except ValidationError as error:
        raise ValueError(f"{in_words(error.errors()[0])}, got {value!r}") from None


class Dimension(Strict):
    """One searched setting: a range (`low`, `high`, `log`) or `choices`, perhaps only `when` others are so.

    `when` maps another searched setting to one test: `is`, `above`, `at_least`, `below`, `at_most` or `in`.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = None
    when: dict[str, dict[Literal["is", "above", "at_least", "below", "at_most", "in"], Any]] = Field({})

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None):
            raise ValueError("give either low and high, or choices")
        if self.choices is not None and not self.choices:
            raise ValueError("choices is empty")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
            if self.log and self.low <= 0:
                raise ValueError("a log range starts above 0")
        return self


def in_words(error: Any) -> str:
    """What is wrong, from one error of pydantic."""
    text = error["msg"].removeprefix("Value error, ")
    pattern = re.search(r"\^\((.*)\)\$", text)
    if pattern:
        return "must be one of " + ", ".join(pattern[1].split("|"))
    return text[:1].lower() + text[1:]


def nearest(name: str, known: Any) -> str:
    """The end of a message about a name that is not known."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
