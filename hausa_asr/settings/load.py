"""Read settings: from a YAML file, the environment and `--set a.b=c`, all checked at once before anything starts.

A file describes a sweep; `hausa-asr finetune` and `hausa-asr prepare` read the parts of it that they need. Every
problem is listed in one message, with the nearest valid name for one that is misspelt. Out comes a `SweepConfig`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hausa_asr.errors import UserError
from hausa_asr.settings.recipe import Dimension, check_setting, in_words, nearest
from hausa_asr.settings.resources import WORKERS_TAGS
from hausa_asr.settings.sweep import FinalistSettings, SweepConfig
from hausa_asr.storage.address import absolute, is_url
from hausa_asr.userinfo import keep_for_mlflow, places_with_userinfo

STORAGE_VARIABLE = "HAUSA_ASR_STORAGE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


def load(path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> SweepConfig:
    """Read and check settings. What counts: `overrides`, then the environment, then the file, then the defaults.

    Args:
        path: a YAML file; None for the defaults.
        overrides: `a.b=value` each, the value in YAML.
        environment: where HAUSA_ASR_STORAGE and MLFLOW_TRACKING_URI are looked up.

    Credentials in `mlflow.uri` go into this process's environment, where MLflow finds them; no settings hold any.

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
            raise UserError(
                f"--set takes NAME=VALUE, got {override!r}.", fix="Write for example --set search.trials=4."
            )
        try:
            _put(values, dotted.strip(), yaml.safe_load(text))
        except yaml.YAMLError:
            raise UserError(f"--set {dotted.strip()}: the value is not YAML.", fix="Quote it.") from None
    where = str(path) if path else "--set"
    _keep_secrets(values, where)
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


def _keep_secrets(values: dict[str, Any], where: str) -> None:
    """Take the credentials out of `mlflow.uri`, before anything shows or writes it; refuse them anywhere else."""
    mlflow = values.get("mlflow")
    if isinstance(mlflow, Mapping) and isinstance(uri := mlflow.get("uri"), str):
        _put(values, "mlflow.uri", keep_for_mlflow(uri))
    if os.environ.get(TRACKING_VARIABLE):
        os.environ[TRACKING_VARIABLE] = keep_for_mlflow(os.environ[TRACKING_VARIABLE])
    places = list(places_with_userinfo(values))
    if places:
        raise UserError(
            f"An address holds a user name or a password, which would be written with the settings: "
            f"{', '.join(places)}.",
            where=where,
            fix="Leave it out of the address: keys are taken from the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and "
            "the like) or from the library's own files.",
        )


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
        raise UserError(f"The settings file cannot be read: {error}.", where=path) from None
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
    """Find what is wrong with the baseline, the starting points and the space, by the recipe's own limits."""
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
    if path[:2] == ["resources", "workers_per_trial"]:
        path = [part for part in path if part not in WORKERS_TAGS]
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
        model = next(_models_in(inner), model)
    return list(model.model_fields) if model else []


def _models_in(kind: Any) -> Iterator[Any]:
    """The models among what a setting may be: itself, what it is a list of, or one of several forms."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _models_in(inner)


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
        if not is_url(config.storage) and not os.path.isabs(os.path.expanduser(config.storage)):
            relative.append(
                f"storage: {config.storage} (set {STORAGE_VARIABLE} to an absolute path or an s3:// address)"
            )
        if sqlite:
            how = f"set {TRACKING_VARIABLE} to a server's address or to sqlite:////absolute/mlflow.db"
            relative.append(f"mlflow.uri: {config.mlflow.uri} ({how})")
        for base in config.bases:
            if os.path.isdir(base) and not os.path.isabs(base):
                relative.append(f"base checkpoint: {base} (give an absolute path that every node has)")
        named = config.finalists.language_model
        if named not in (None, "train") and not os.path.isabs(str(named)):
            relative.append(f"finalists.language_model: {named} (give an absolute path that every node has)")
        relative += config.data.relative()
        if relative:
            raise UserError(
                "A Ray job works in a copy of the folder that is cleaned away, so these would be lost:\n"
                + "\n".join(f"  - {one}" for one in relative),
                fix="Set them with ray job submit --runtime-env-json '{\"env_vars\": {...}}', as the README shows.",
            )
    uri = f"sqlite:///{_absolute(sqlite[1])}" if sqlite else config.mlflow.uri
    space = {
        name: [one.model_copy(update=_absolute_bases(one)) for one in ranges] if name == "base" else ranges
        for name, ranges in config.space.items()
    }
    return config.model_copy(
        update={
            "storage": absolute(config.storage),
            "mlflow": config.mlflow.model_copy(update={"uri": uri}),
            "data": config.data.absolute(),
            "model": config.model.model_copy(update={"base": _absolute_base(config.model.base)}),
            "space": space,
            "finalists": config.finalists.model_copy(update=_absolute_language_model(config.finalists)),
        }
    )


def _absolute_language_model(finalists: FinalistSettings) -> dict[str, str]:
    """The language model with its whole path; `train` is none."""
    named = finalists.language_model
    return {} if named is None or named == "train" else {"language_model": _absolute(named)}


def _absolute_bases(one: Dimension) -> dict[str, Any]:
    """The choices of base checkpoints, those that are folders with their whole path."""
    return {"choices": [_absolute_base(choice) for choice in one.choices or []]}


def _absolute_base(base: str) -> str:
    """A base checkpoint's folder with its whole path; a hub id as it is."""
    return _absolute(base) if os.path.isdir(base) else base
