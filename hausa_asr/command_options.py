"""What several commands share: the option `--json`, and how it prints. Called by the files of the command line."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts, and nothing else.")]


def print_json(value: dict[str, Any]) -> None:
    """Print one object, readable by people and scripts; NaN and infinity are errors."""
    print(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False))
