"""Settings: from a YAML file, the environment and `--set a.b=c`, all checked at once before anything starts.

A file describes a sweep; `hausa-asr finetune` and `hausa-asr prepare` read the parts of it that they need. Every
problem is listed in one message, with the nearest valid name for one that is misspelt. What comes out are plain
values: a `FinetuneConfig`, or the settings of one room.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from hausa_asr.errors import UserError
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.data import DataSettings, Strict
from hausa_asr.settings.recipe import (
    PUBLISHED_RECIPE,
    PUBLISHED_STARTING_POINTS,
    RECIPE_FIELDS,
    Dimension,
    FinetuneSettings,
    check_setting,
    in_words,
    nearest,
)

__all__ = [
    "PUBLISHED_RECIPE",
    "RECIPE_FIELDS",
    "ClusterSettings",
    "DataSettings",
    "Dimension",
    "ResourceSettings",
    "SweepConfig",
    "check_setting",
    "in_ray_job",
    "load",
    "make_absolute",
]

STORAGE_VARIABLE = "HAUSA_ASR_STORAGE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
PUBLISHED = "published"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class ModelSettings(Strict):
    """The base checkpoint: `demo`, a hub id such as facebook/wav2vec2-xls-r-300m, or a folder."""

    base: str = Field("demo", min_length=1)


class SearchSettings(Strict):
    """How many trials, the baseline among them, and how they are chosen."""

    trials: int = Field(12, ge=1, description="how many settings are tried; a budget may end the search before")
    seed: int = Field(0, ge=0)
    random_trials: int = Field(5, ge=0, description="drawn at random before the sampler models anything")
    warm_start: list[str] = Field(
        [], description="earlier sweeps of the storage, or `mlflow:EXPERIMENT`, whose trials the sampler learns from"
    )


class PruningSettings(Strict):
    """Asynchronous successive halving with promotion, on rungs in seconds of audio trained on."""

    rule: Literal["asha", "none"] = "asha"
    rank_by: Literal["auto", "loss", "wer"] = Field(
        "loss", description="eval loss, WER, or `auto`: at each rung loss until most trials have left the CTC plateau"
    )
    reduction: int = Field(4, ge=2, description="one trial in so many passes a rung")
    first_rung: float = Field(0.2, gt=0, lt=1, description="the first rung, as a share of a trial's length")
    finish_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="when no new setting is left, the best that wait go on until so large a share of all has ended",
    )
    audit_share: float = Field(
        0.05, ge=0, le=1, description="share of the trials that lose at a rung that run on, to see what pruning costs"
    )


class BudgetSettings(Strict):
    """What a sweep may take, finalists included; whatever is reached first ends it. Nothing is set by default."""

    hours: float | None = Field(None, gt=0, description="GPU-hours; CPU-hours where trials have no GPU")
    money: float | None = Field(None, gt=0, description="in the currency of price_per_hour, which it needs")
    wall_s: float | None = Field(None, gt=0, description="seconds that a driver is at work, resumes added up")
    price_per_hour: float | None = Field(None, ge=0, description="of one GPU, or of one CPU where trials have no GPU")


class FinalistSettings(Strict):
    """The best settings and the baseline are trained again on fresh seeds, and the winner is named by those."""

    k: int = Field(3, ge=0, description="how many settings beside the baseline; 0 names the lowest dev WER instead")
    seeds: int = Field(3, ge=1, description="fresh seeds for each of them")
    length_s: float | None = Field(None, gt=0, description="seconds of audio for each; a trial's length by default")


class ResourceSettings(Strict):
    """What one trial takes."""

    workers_per_trial: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)
    cpus_per_worker: float = Field(1, gt=0)
    audio_s_per_s: float | None = Field(
        None, gt=0, description="seconds of audio that one trial trains on per second, for the plan; measured else"
    )


class MlflowSettings(Strict):
    """Where every trial is recorded."""

    uri: str = Field("sqlite:///mlflow.db", min_length=1)
    experiment: str = Field("hausa-asr", min_length=1)


class ClusterSettings(Strict):
    """The Ray cluster: an `address`, else the one that RAY_ADDRESS or a Ray job gives, else a local one."""

    address: str | None = None
    local_cpus: int | None = Field(None, ge=1, description="CPUs of the local Ray; all of them by default")
    startup_timeout_s: float = Field(
        300.0, gt=0, description="seconds until a worker has taken a trial, else its slot is started anew"
    )
    nodes: list[dict[str, float]] = Field(
        [], description="for --plan: nodes to plan for, such as [{CPU: 32, GPU: 8}], in place of those there are"
    )


class SweepConfig(Strict):
    """All settings of a sweep."""

    name: str | None = Field(None, pattern=_NAME)
    storage: str = Field("runs", min_length=1)
    max_checkpoint_gb: float | None = Field(
        None, gt=0, description="what a sweep's checkpoints may take; above it losers' optimizer states are dropped"
    )
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    baseline: dict[str, Any] = PUBLISHED_RECIPE
    starting_points: dict[str, dict[str, Any]] = Field(
        {}, description="recipes by name that are tried after the baseline; `published` stands for six in print"
    )
    space: dict[str, list[Dimension]] = Field({})
    search: SearchSettings = SearchSettings()
    pruning: PruningSettings = PruningSettings()
    budget: BudgetSettings = BudgetSettings()
    finalists: FinalistSettings = FinalistSettings()
    resources: ResourceSettings = ResourceSettings()
    mlflow: MlflowSettings = MlflowSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _money_has_a_price(self) -> SweepConfig:
        if self.budget.money is not None and not self.budget.price_per_hour:
            raise ValueError("budget.money needs budget.price_per_hour")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_dimension_is_a_list(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("space"), Mapping):
            space = {k: v if isinstance(v, list) else [v] for k, v in values["space"].items()}
            values = {**values, "space": space}
        if isinstance(values, Mapping) and values.get("starting_points") == PUBLISHED:
            values = {**values, "starting_points": PUBLISHED_STARTING_POINTS}
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
    points = {
        point: {name: check_setting(name, value) for name, value in settings.items()}
        for point, settings in config.starting_points.items()
    }
    return config.model_copy(update={"baseline": baseline, "starting_points": points, "space": space})


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
    """What is wrong with the baseline, the starting points and the space, by the recipe's own limits."""
    problems = []
    baseline, space = values.get("baseline"), values.get("space")
    recipes = {"baseline": baseline}
    points = values.get("starting_points")
    if isinstance(points, Mapping):
        recipes |= {f"starting_points.{name}": recipe for name, recipe in points.items()}
    for where, recipe in recipes.items():
        for name, value in (recipe if isinstance(recipe, Mapping) else {}).items():
            try:
                check_setting(name, value)
            except ValueError as error:
                problems.append(f"{where}.{name}: {error}")
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
                    problems.append(f"space.{name}.when: {parent!r} is not searched{nearest(parent, space)}")
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
    dotted = ".".join(path)
    if path[:1] == ["space"]:  # a single dimension has been wrapped into a list, whose index would puzzle
        dotted = re.sub(r"\.0(\.|$)", r"\1", dotted)
    if error["type"] == "extra_forbidden":
        return f"{dotted}: no such setting{nearest(path[-1], _names_at(path[:-1]))}"
    return f"{dotted or 'settings'}: {in_words(error)}, got {error['input']!r}"[:300]


def _names_at(path: Sequence[str]) -> Sequence[str]:
    model: Any = SweepConfig
    for part in path:
        if model is None or part.isdigit():
            continue
        field = model.model_fields.get(part)
        inner: Any = Dimension if part == "space" else field.annotation if field else None
        inner = next(iter(get_args(inner)), inner)  # a list's: what it is a list of
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
    return list(model.model_fields) if model else []


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
        relative += config.data.relative()
        if relative:
            raise UserError(
                "A Ray job works in a copy of the folder that is cleaned away, so these would be lost:\n"
                + "\n".join(f"  - {one}" for one in relative),
                fix="Set them with ray job submit --runtime-env-json '{\"env_vars\": {...}}', as the README shows.",
            )
    uri = f"sqlite:///{_absolute(sqlite[1])}" if sqlite else config.mlflow.uri
    base = _absolute(config.model.base) if os.path.isdir(config.model.base) else config.model.base
    return config.model_copy(
        update={
            "storage": _absolute(config.storage),
            "mlflow": config.mlflow.model_copy(update={"uri": uri}),
            "data": config.data.absolute(),
            "model": config.model.model_copy(update={"base": base}),
        }
    )
