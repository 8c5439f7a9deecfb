"""Rows, samples, settings and tags as MLflow takes them: its names, its lengths, and finite figures only.

In: plain values. Out: MLflow's entities. Called by `tracker`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Metric, RunTag
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

NONFINITE = "nonfinite"


@dataclass(frozen=True)
class MetricsRow:
    """The metrics of one evaluation: optimizer step, wall clock in ms since 1970, values by name."""

    step: int
    time_ms: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """One transcribed utterance of the dev split; `wer` is its own, 1.0 for 100 %."""

    id: str
    reference: str
    hypothesis: str
    wer: float


def metrics_of(row: MetricsRow) -> tuple[list[Metric], str]:
    """MLflow's metrics of a row, and its non-finite values in words ("" if there are none)."""
    values = {key: float(value) for key, value in row.metrics.items()}
    bad = {key: value for key, value in values.items() if not math.isfinite(value)}
    words = ""
    if bad:
        values[NONFINITE] = float(len(bad))
        words = ", ".join(f"{key}={value}" for key, value in bad.items()) + f" at step {row.step}"
    return [Metric(key, value, row.time_ms, row.step) for key, value in values.items() if key not in bad], words


def params_of(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings as params: names with dots and MLflow's letters only, values within its length."""
    flat: dict[str, str] = {}
    nested = (list, tuple, Mapping)
    for key, value in settings.items():
        name = prefix + str(key)
        if isinstance(value, Mapping) and value:
            flat.update(params_of(value, f"{name}."))
        else:
            text = (
                json.dumps(value, default=json_value, ensure_ascii=False) if isinstance(value, nested) else str(value)
            )
            flat[_key(name)] = _cut(text, MAX_PARAM_VAL_LENGTH)
    return flat


def json_value(value: Any) -> object:
    """A value that JSON has no form for, as a number or as text."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else str(value)


def _key(name: str) -> str:
    return re.sub(r"[^/\w.\- :]", "_", name)[:MAX_ENTITY_KEY_LENGTH]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with names and values that MLflow takes."""
    return {_key(key): _cut(str(value), MAX_TAG_VAL_LENGTH) for key, value in tags.items()}


def run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """The same as MLflow's entities."""
    return [RunTag(key, value) for key, value in cut_tags(tags).items()]


def quoted(value: str) -> str:
    """A string in MLflow's filter language, which has no escapes."""
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise ValueError(f"a trial's name can't have both kinds of quotes: {value}")
