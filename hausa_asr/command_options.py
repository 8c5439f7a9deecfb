"""What several commands share: options, settings, and how results print. Called by the files of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hausa_asr.settings.sweep import SweepConfig

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts, and nothing else.")]

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings, a YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Replace one setting, such as finetune.lr_peak=1e-4. Repeat it for more."
    ),
]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="SWEEP", help="Go on with this sweep, where it stopped: its name, or its folder."),
]
Retry = Annotated[
    list[str] | None,
    typer.Option(
        "--retry",
        metavar="TRIAL",
        help="With --resume: try this failed trial again, from its last checkpoint. Repeat it for more.",
    ),
]


def print_json(value: dict[str, Any]) -> None:
    """Print one object, readable by people and scripts; NaN and infinity are errors."""
    print(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False))


def settings_of(config: Path | None, overrides: list[str]) -> SweepConfig:
    """The settings, with paths absolute."""
    from hausa_asr.settings.load import load, make_absolute

    return make_absolute(load(config, overrides), in_job=False)


def rates(wer: float | None, cer: float | None) -> str:
    """Error rates in a line; what is not known is left out."""
    return ", ".join(f"{name} {value:.4f}" for name, value in (("WER", wer), ("CER", cer)) if value is not None)
