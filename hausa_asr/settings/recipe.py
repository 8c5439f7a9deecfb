"""The settings of a recipe and of its search: what each may be.

Part of `sweep`, which checks them together with all the others; the space and the export check single settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from hausa_asr.recipe import AVERAGE_OF, COMPILE, FEATURE_CACHE, SCHEDULES, UNFREEZE, FinetuneConfig
from hausa_asr.settings.data import Strict

_fraction = {"ge": 0.0, "le": 1.0}
_LIMITS: dict[str, dict[str, Any]] = {
    "base": {},
    "length_s": {"gt": 0.0},
    "batch_s": {"gt": 0.0},
    "micro_batch_s": {"gt": 0.0},
    "eval_every_steps": {"ge": 1},
    "train_share": {"gt": 0.0, "le": 1.0},
    "dev_part_s": {"ge": 0.0},
    "checkpoint_every_s": {"ge": 0.0},
    "lr_peak": {"gt": 0.0},
    "head_lr_mult": {"gt": 0.0},
    "warmup_fraction": _fraction,
    "schedule": {"pattern": f"^({'|'.join(SCHEDULES)})$"},
    "weight_decay": {"ge": 0.0},
    "adam_beta1": {"ge": 0.0, "lt": 1.0},
    "adam_beta2": {"ge": 0.0, "lt": 1.0},
    "ema_fraction": _fraction,
    "average": {"ge": 0, "le": 50},
    "average_of": {"pattern": f"^({'|'.join(AVERAGE_OF)})$"},
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

_SWITCHES = ("compile", "feature_cache")
_KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


class _Switches(Strict):
    """Settings that may be `on` or `off`, which YAML reads as true and false where they are not quoted."""

    @model_validator(mode="before")
    @classmethod
    def _unquoted(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        words = {True: "on", False: "off"}
        switched = {name: words[values[name]] for name in _SWITCHES if isinstance(values.get(name), bool)}
        return {**values, **switched}


def _recipe_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(FinetuneConfig):
        kind = _KINDS[str(field.type)]
        fields[field.name] = (kind, Field(default=field.default, **_LIMITS[field.name]))
    epochs = Field(None, gt=0, description="The trial's length in passes over the train split, in place of `length_s`.")
    return create_model("FinetuneSettings", __base__=_Switches, length_epochs=(float | None, epochs), **fields)


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
    """One searched setting: a range (`low`, `high`, `log`) or `choices`, perhaps only `when` another setting fits.

    `when` maps another searched setting to one test: `is`, `above`, `at_least`, `below`, `at_most` or `in`.
    """

    low: float | None = Field(None, description="The lower end of a range.")
    high: float | None = Field(None, description="The upper end of a range.")
    log: bool = Field(False, description="Draw on a logarithmic scale, which suits learning rates.")
    choices: list[Any] | None = Field(None, description="The values to choose from, in place of a range.")
    when: dict[str, dict[Literal["is", "above", "at_least", "below", "at_most", "in"], Any]] = Field(
        {}, description="Use this range only if another searched setting passes this test."
    )

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
