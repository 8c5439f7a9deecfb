"""Write docs/settings.md from the typed settings: `python -m hausa_asr.settings.page`.

In: the models of `sweep`, `data` and `recipe`, and the docstring of `FinetuneConfig`. Out: one table per section. A
test holds that the page is current.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hausa_asr.files import write_whole
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import STORAGE_VARIABLE, TRACKING_VARIABLE
from hausa_asr.settings.published import PUBLISHED, PUBLISHED_RECIPE, PUBLISHED_STARTING_POINTS
from hausa_asr.settings.recipe import Dimension
from hausa_asr.settings.sweep import SweepConfig

PAGE = Path(__file__).parents[2] / "docs/settings.md"
_NOT_SEARCHED = {
    "seed", "length_epochs", "length_s", "micro_batch_s", "eval_every_steps", "dev_part_s", "checkpoint_every_s",
    "gradient_checkpointing", "compile", "feature_cache",
}  # fmt: skip
"""Settings of chance, length, memory and speed. To search them would compare trials that are not alike."""
_HEADINGS = ("setting", "may be", "default", "what it does")
_OPENING = f"""# Settings

Every setting of a sweep. Write those that you change into a YAML file; `sweeps/configs/` has one for each base
checkpoint. This page is made from the code: `python -m hausa_asr.settings.page`.

- **On the command line**, `--set NAME=VALUE` replaces one setting, such as `--set search.trials=8`. Repeat it for more.
  The value is YAML, so quote one with spaces: `--set "space.layerdrop={{low: 0.0, high: 0.2}}"`.
- **In the environment**, `{STORAGE_VARIABLE}` replaces `storage`, and `{TRACKING_VARIABLE}` replaces `mlflow.uri`.
  With `--resume` it does so if that server has the sweep's run.
- **If a setting is given twice**, `--set` wins over the environment, and the environment over the file.
- **Mistakes** are all listed in one message before anything starts, with the nearest valid name.
- **Units.** Names that end in `_s` are in seconds. Names that end in `_fraction` are shares of a trial's updates, from
  0 to 1.
- **Paths** are relative to the folder where you type the command. A Ray job works in a copy of that folder, so it
  refuses relative paths.
"""
_SPACE = """What the sweep searches: any setting with a *yes* in [finetune](#finetune), as a range or as choices.

```yaml
space:
  schedule: {choices: [linear, tri_stage]}
  freeze_transformer_fraction: {choices: [0.0, 0.1, 0.5]}
  lr_peak:                                        # the first range whose condition holds
    - {low: 2.0e-5, high: 5.0e-4, log: true, when: {freeze_transformer_fraction: {at_least: 0.25}}}
    - {low: 2.0e-5, high: 2.0e-4, log: true}
```

A `when` tests another searched setting by `is`, `above`, `at_least`, `below`, `at_most` or `in`. If all conditions of a
setting fail, it keeps its value in `finetune`. `mask_time_prob` has the Hugging Face meaning: about the share of frames
that ends up masked. Papers print a tenth of it."""


def page() -> str:
    """The whole page, in Markdown."""
    sections = [_OPENING, _section("The sweep", "", _own_fields(SweepConfig)), _published()]
    for name, field in SweepConfig.model_fields.items():
        model = field.annotation
        if name == "finetune":
            sections.append(_recipe(model))
        elif name == "space":
            sections.append(_section("space", _SPACE, _rows(Dimension, "space.NAME.")))
        elif inspect.isclass(model) and issubclass(model, BaseModel):
            sections.append(_section(name, inspect.getdoc(model) or "", _rows(model, f"{name}.")))
    return "\n".join(sections)


def _section(title: str, about: str, rows: list[tuple[str, ...]], headings: tuple[str, ...] = _HEADINGS) -> str:
    return f"## {title}\n\n" + (f"{about}\n\n" if about else "") + _table(headings, rows) + "\n"


def _published() -> str:
    """What `baseline` and `starting_points: published` stand for."""
    baseline = ", ".join(
        f"`{name}` {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in PUBLISHED_RECIPE.items()
    )
    points = ", ".join(f"`{name}`" for name in PUBLISHED_STARTING_POINTS)
    text = (
        f"By default `baseline` is {baseline}. `starting_points: {PUBLISHED}` stands for {points}; their values and "
        "sources are in `hausa_asr/settings/published.py`."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _own_fields(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """The settings of a model that are not sections of their own."""
    return [row for row in _rows(model, "") if row[0].strip("`") not in SECTIONS]


SECTIONS = {
    name
    for name, field in SweepConfig.model_fields.items()
    if name == "space" or (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
}


def _rows(model: Any, prefix: str) -> list[tuple[str, ...]]:
    """A row for each setting of a model; after a list of sections also for what only its entries have."""
    rows: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        rows.append((f"`{prefix}{name}`", _kind(field), _default(field), field.description or ""))
        for entry in get_args(field.annotation):
            number = ".N" if get_origin(field.annotation) is list else ""
            if entry := _model(entry):
                inside = _rows(entry, f"{prefix}{name}{number}.")
                rows += [row for row in inside if row[0].rpartition(".")[2].strip("`") not in model.model_fields]
    return rows


def _model(kind: Any) -> Any:
    """A model, also behind an annotation; None of anything else."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return kind if inspect.isclass(kind) and issubclass(kind, BaseModel) else None


def _recipe(model: Any) -> str:
    """The recipe's table, with what can be searched; the descriptions are from `FinetuneConfig`'s docstring."""
    meanings = dict(_attributes(inspect.getdoc(FinetuneConfig) or ""))
    rows = [
        (*row[:3], "no" if name in _NOT_SEARCHED else "yes", meanings.get(name) or row[3])
        for name, row in zip(model.model_fields, _rows(model, "finetune."), strict=True)
    ]
    about = (
        "The recipe of a fine-tune. A value here holds for every trial, unless `space`, `baseline` or a starting point "
        "sets it.\nWhat is not searched sets a trial's length, memory and speed; keep it the same for all trials."
    )
    return _section("finetune", about, rows, (*_HEADINGS[:3], "can be searched", _HEADINGS[3]))


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and meanings of a docstring's attributes, each meaning as one sentence."""
    text = docstring.partition("Attributes:")[2].partition("\nExample:")[0]
    for match in re.finditer(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", text, re.M | re.S):
        meaning = " ".join(match[2].split())
        yield match[1], meaning[:1].upper() + meaning[1:]


def _kind(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    for one in field.metadata:
        choices = re.fullmatch(r"\^\((.*)\)\$", getattr(one, "pattern", None) or "")
        if choices:
            return " or ".join(f"`{choice}`" for choice in choices[1].split("|"))
    limits = _limits(field.metadata)
    return _type(field.annotation) + (f", {' and '.join(limits)}" if limits else "")


def _limits(metadata: Sequence[Any]) -> list[str]:
    """The bounds of a number, each with its sign."""
    signs = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
    bounds = [(sign, getattr(one, name, None)) for one in metadata for name, sign in signs]
    return [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]


_SEVERAL = {"text": "texts", "a section": "sections", "a value": "values"}


def _type(kind: Any) -> str:
    names = {"float": "number", "int": "whole number", "str": "text", "bool": "`true` or `false`", "NoneType": ""}
    if inspect.isclass(kind) and not get_args(kind):
        return "a section" if issubclass(kind, BaseModel) else names.get(kind.__name__, "a value")
    if get_origin(kind) is Annotated:
        inside, *metadata = get_args(kind)
        limits = [text for one in metadata if isinstance(one, FieldInfo) for text in _limits(one.metadata)]
        return " ".join([_type(inside), *limits])
    inside = [one for one in get_args(kind) if one is not type(None)]
    if str(kind).startswith("typing.Literal"):
        return " or ".join(f"`{one}`" for one in inside)
    if get_origin(kind) is list:
        one = _type(inside[0])
        return f"a list of {_SEVERAL.get(one, one)}"
    if get_origin(kind) is dict:
        return "names and values"
    return " or ".join(dict.fromkeys(filter(None, map(_type, inside)))) or "a value"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: give one"
    value = field.default
    if isinstance(value, BaseModel) or (isinstance(value, dict) and value):
        return "the published run"
    if value is None:
        return "not set"
    if value in ({}, [], ""):
        return "empty"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


if __name__ == "__main__":
    write_whole(PAGE, page())
    print(f"written: {PAGE}")
