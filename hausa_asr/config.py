"""Settings: from a YAML file, the environment and `--set a.b=c`, all checked at once before anything starts.

A file describes a sweep; `hausa-asr finetune` and `hausa-asr prepare` read the parts of it that they need. Every
problem is listed in one message, with the nearest valid name for one that is misspelt. What comes out are plain
values: a `FinetuneConfig`, or the settings of one room.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.schedules import SCHEDULES, UNFREEZE

STORAGE_VARIABLE = "HAUSA_ASR_STORAGE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

_fraction = {"ge": 0.0, "le": 1.0}
_LIMITS: dict[str, dict[str, Any]] = {
    "length_s": {"gt": 0.0},
    "batch_s": {"gt": 0.0},
    "micro_batch_s": {"gt": 0.0},
    "eval_every_steps": {"ge": 1},
    "lr_peak": {"gt": 0.0},
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
    "dropout": {"ge": 0.0, "lt": 1.0},
    "activation_dropout": {"ge": 0.0, "lt": 1.0},
    "layerdrop": {"ge": 0.0, "lt": 1.0},
    "seed": {"ge": 0},
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
    "dropout": 0.1,
}
"""The Hausa run that every sweep is measured by: linear warm-up to 5e-5 by step 1,000 of about 3,000. What it does not
state is as in the Hugging Face recipe for XLSR-53 that it follows."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _recipe_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(FinetuneConfig):
        kind = _KINDS[str(field.type)]
        fields[field.name] = (kind, Field(default=field.default, **_LIMITS[field.name]))
    return create_model("FinetuneSettings", __base__=_Strict, **fields)


FinetuneSettings: Any = _recipe_model()
RECIPE_FIELDS = tuple(_LIMITS)


def check_setting(name: str, value: Any) -> Any:
    """One setting of a recipe, checked and brought to its type.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    if name not in _LIMITS:
        raise ValueError(f"no such setting{_nearest(name, RECIPE_FIELDS)}")
    try:
        return getattr(FinetuneSettings(**{name: value}), name)
    except ValidationError as error:
        raise ValueError(f"{_words(error.errors()[0])}, got {value!r}") from None


class Dimension(_Strict):
    """One searched setting: a range (`low`, `high`, `log`) or `choices`, perhaps only `when` others are so.

    `when` maps another searched setting to one test: `is`, `above`, `at_least`, `below`, `at_most` or `in`.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = None
    when: dict[str, dict[Literal["is", "above", "at_least", "below", "at_most", "in"], Any]] = {}

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


class DataSettings(_Strict):
    """Where the speech comes from: a corpus that is prepared on first use, or a `prepared` dataset."""

    corpus: Literal["demo", "folder"] = "demo"
    path: str | None = Field(None, description="folder: the folder with the audio files")
    manifest: str | None = Field(None, description="folder: its CSV, TSV or JSONL, where there are several")
    audio_column: str = "path"
    text_column: str = "text"
    split_column: str = "split"
    speaker_column: str = "speaker"
    duration_column: str = "duration_s"
    prepared: str | None = Field(None, description="a prepared dataset, from `hausa-asr prepare`")
    min_s: float = Field(0.3, gt=0)
    max_s: float = Field(30.0, gt=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _folder_has_path(self) -> DataSettings:
        if self.corpus == "folder" and not self.path and not self.prepared:
            raise ValueError("the corpus 'folder' needs path: the folder with the audio files")
        if self.min_s >= self.max_s:
            raise ValueError("min_s must be below max_s")
        return self


class ModelSettings(_Strict):
    """The base checkpoint: `demo`, a hub id such as facebook/wav2vec2-xls-r-300m, or a folder."""

    base: str = Field("demo", min_length=1)


class SearchSettings(_Strict):
    """How many trials, the baseline among them, and how they are chosen."""

    trials: int = Field(12, ge=1)
    seed: int = Field(0, ge=0)
    random_trials: int = Field(5, ge=0, description="drawn at random before the sampler models anything")


class PruningSettings(_Strict):
    """Asynchronous successive halving on the eval loss, on rungs in seconds of audio trained on."""

    rule: Literal["asha", "none"] = "asha"
    reduction: int = Field(3, ge=2, description="one trial in so many passes a rung")
    first_rung: float = Field(0.3, gt=0, lt=1, description="the first rung, as a share of a trial's length")


class ResourceSettings(_Strict):
    """What one trial takes."""

    workers_per_trial: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)
    cpus_per_worker: float = Field(1, gt=0)


class MlflowSettings(_Strict):
    """Where every trial is recorded."""

    uri: str = Field("sqlite:///mlflow.db", min_length=1)
    experiment: str = Field("hausa-asr", min_length=1)


class ClusterSettings(_Strict):
    """The Ray cluster: an `address`, else the one that RAY_ADDRESS or a Ray job gives, else a local one."""

    address: str | None = None
    local_cpus: int | None = Field(None, ge=1, description="CPUs of the local Ray; all of them by default")
    startup_timeout_s: float = Field(
        300.0, gt=0, description="seconds until a worker has taken a trial, else its slot is started anew"
    )


class SweepConfig(_Strict):
    """All settings of a sweep."""

    name: str | None = Field(None, pattern=_NAME)
    storage: str = Field("runs", min_length=1)
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    baseline: dict[str, Any] = PUBLISHED_RECIPE
    space: dict[str, list[Dimension]] = {}
    search: SearchSettings = SearchSettings()
    pruning: PruningSettings = PruningSettings()
    resources: ResourceSettings = ResourceSettings()
    mlflow: MlflowSettings = MlflowSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="before")
    @classmethod
    def _one_dimension_is_a_list(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("space"), Mapping):
            space = {k: v if isinstance(v, list) else [v] for k, v in values["space"].items()}
            values = {**values, "space": space}
        return values

    def recipe(self, settings: Mapping[str, Any] | None = None) -> FinetuneConfig:
        """The fixed recipe, with some of its settings replaced."""
        return FinetuneConfig(**{**self.finetune.model_dump(), **(settings or {})})

    def to_yaml(self) -> str:
        """The settings as a file that `load` reads again."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def load(path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> SweepConfig:
    """Read and check settings. What counts: `overrides`, then the environment, then the file, then the defaults.

    Args:
        path: a YAML file; None for the defaults.
        overrides: `a.b=value` each, the value in YAML.
        environment: where HAUSA_ASR_STORAGE and MLFLOW_TRACKING_URI are looked up.

    Raises:
        UserError: the file cannot be read, or with all the problems found.
    """
    values = _read(path) if path else {}
    for variable, dotted in ((STORAGE_VARIABLE, "storage"), (TRACKING_VARIABLE, "mlflow.uri")):
        if environment.get(variable):
            _put(values, dotted, environment[variable])
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.strip():
            raise UserError(f"--set takes NAME=VALUE, got {override!r}.", fix="Write for example --set search.trials=4")
        try:
            _put(values, dotted.strip(), yaml.safe_load(text))
        except yaml.YAMLError:
            raise UserError(f"--set {override!r}: the value is not YAML.", fix="Quote it.") from None
    where = str(path) if path else "--set"
    try:
        config = SweepConfig.model_validate(values)
        problems = []
    except ValidationError as error:
        config = None
        problems = [_problem(one) for one in error.errors()]
    problems += _recipe_problems(values)
    if problems or config is None:
        count = f"{len(problems)} settings are" if len(problems) > 1 else "A setting is"
        raise UserError(f"{count} wrong:\n" + "\n".join(f"  - {problem}" for problem in problems), where=where)
    baseline = {name: check_setting(name, value) for name, value in config.baseline.items()}
    space = {name: [_typed(name, one) for one in alternatives] for name, alternatives in config.space.items()}
    return config.model_copy(update={"baseline": baseline, "space": space})


def _typed(name: str, dimension: Dimension) -> Dimension:
    """A dimension whose choices and conditions have the settings' types: YAML reads 1e-4 as a text."""
    when = {
        parent: {
            test: [check_setting(parent, one) for one in wanted] if test == "in" else check_setting(parent, wanted)
            for test, wanted in tests.items()
        }
        for parent, tests in dimension.when.items()
    }
    choices = dimension.choices and [check_setting(name, choice) for choice in dimension.choices]
    return dimension.model_copy(update={"choices": choices, "when": when})


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("There is no such settings file.", where=path, fix="Give the path of a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file cannot be read: {error}", where=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "bad syntax"
        raise UserError(f"The settings file is not YAML: {problem}.", where=f"{path}{line}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError("The settings file does not hold names and values.", where=path)
    return values


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = values.get(parent)
        values[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        values = values[parent]
    values[last] = value


def _recipe_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the baseline and the space, which are checked against the recipe's own limits."""
    problems = []
    baseline, space = values.get("baseline"), values.get("space")
    for name, value in (baseline if isinstance(baseline, Mapping) else {}).items():
        try:
            check_setting(name, value)
        except ValueError as error:
            problems.append(f"baseline.{name}: {error}")
    space = space if isinstance(space, Mapping) else {}
    for name, alternatives in space.items():
        if name == "seed":
            problems.append("space.seed: the seed is chance and no setting; it is not searched")
            continue
        for one in alternatives if isinstance(alternatives, list) else [alternatives]:
            if not isinstance(one, Mapping):
                continue
            tried = list(one["choices"]) if isinstance(one.get("choices"), list) else []
            tried += [one[end] for end in ("low", "high") if end in one]
            for value in tried:
                try:
                    check_setting(name, value)
                except ValueError as error:
                    problems.append(f"space.{name}: {error}")
                    break
            when = one.get("when")
            for parent, tests in when.items() if isinstance(when, Mapping) else ():
                if parent not in space:
                    problems.append(f"space.{name}.when: {parent!r} is not searched{_nearest(parent, space)}")
                elif isinstance(tests, Mapping):
                    problems += _condition_problems(f"space.{name}.when.{parent}", parent, tests)
    return problems


def _condition_problems(where: str, parent: str, tests: Mapping[str, Any]) -> list[str]:
    problems = []
    for test, wanted in tests.items():
        if test == "in" and not isinstance(wanted, list):
            problems.append(f"{where}.in: give a list, got {wanted!r}")
            continue
        for value in wanted if isinstance(wanted, list) else [wanted]:
            try:
                typed = check_setting(parent, value)
            except ValueError as error:
                problems.append(f"{where}.{test}: {error}")
                continue
            if test not in ("is", "in") and (isinstance(typed, str | bool)):
                problems.append(f"{where}.{test}: {parent} has no order; use is or in")
    return problems


def _problem(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    # A single dimension has been wrapped into a list, whose index would puzzle.
    dotted = re.sub(r"\.0(\.|$)", r"\1", ".".join(path))
    if error["type"] == "extra_forbidden":
        return f"{dotted}: no such setting{_nearest(path[-1], _names_at(path[:-1]))}"
    return f"{dotted or 'settings'}: {_words(error)}, got {error['input']!r}"[:300]


def _words(error: Any) -> str:
    text = error["msg"].removeprefix("Value error, ")
    pattern = re.search(r"\^\((.*)\)\$", text)
    if pattern:
        return "must be one of " + ", ".join(pattern[1].split("|"))
    return text[:1].lower() + text[1:]


def _names_at(path: Sequence[str]) -> Sequence[str]:
    model: Any = SweepConfig
    for part in path:
        if model is None or part.isdigit():
            continue
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        model = (
            Dimension
            if part == "space"
            else inner
            if isinstance(inner, type) and issubclass(inner, BaseModel)
            else model
        )
    return list(model.model_fields) if model else []


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def in_ray_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the driver of a Ray job, whose working directory is a copy that is cleaned away."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in environment


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def make_absolute(config: SweepConfig, *, in_job: bool) -> SweepConfig:
    """The settings with every path absolute, made so once at the start of a sweep.

    Raises:
        UserError: in a Ray job a relative storage or database would be lost with the job's working directory.
    """
    sqlite = re.match(r"^sqlite:///(?!/)(.*)$", config.mlflow.uri)
    if in_job:
        relative = []
        if not os.path.isabs(os.path.expanduser(config.storage)):
            relative.append(f"storage: {config.storage} (set {STORAGE_VARIABLE} to an absolute path)")
        if sqlite:
            how = f"set {TRACKING_VARIABLE} to a server's address or to sqlite:////absolute/mlflow.db"
            relative.append(f"mlflow.uri: {config.mlflow.uri} ({how})")
        if os.path.isdir(config.model.base) and not os.path.isabs(config.model.base):
            relative.append(f"model.base: {config.model.base} (give an absolute path that every node has)")
        if relative:
            raise UserError(
                "A Ray job works in a copy of the folder that is cleaned away, so these would be lost:\n"
                + "\n".join(f"  - {one}" for one in relative),
                fix="Set them with ray job submit --runtime-env-json '{\"env_vars\": {...}}', as the README shows.",
            )
    uri = f"sqlite:///{_absolute(sqlite[1])}" if sqlite else config.mlflow.uri
    data = {name: _absolute(value) for name in ("path", "prepared") if (value := getattr(config.data, name))}
    manifest = config.data.manifest
    if manifest and not os.path.exists(os.path.join(data.get("path", ""), manifest)):  # else it is beside the audio
        data["manifest"] = _absolute(manifest)
    base = _absolute(config.model.base) if os.path.isdir(config.model.base) else config.model.base
    return config.model_copy(
        update={
            "storage": _absolute(config.storage),
            "mlflow": config.mlflow.model_copy(update={"uri": uri}),
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update={"base": base}),
        }
    )
