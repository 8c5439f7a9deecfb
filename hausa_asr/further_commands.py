"""Commands of `hausa-asr` that other packages bring, found by their entry points. Called by `cli`.

`hausa_asr` imports nothing of the packages above it, so `sweeps` declares its commands in pyproject.toml, in the group
`hausa_asr.commands`. A module is imported when its command is called or its help is shown, so it must import late
whatever takes long.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup

GROUP = "hausa_asr.commands"
"""Entry points of this group are functions, each one a command with the options that Typer reads from it."""


@cache
def _found() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


@cache
def _command(name: str) -> Any:
    alone = typer.Typer(
        add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )
    alone.command(name)(_found()[name].load())
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """The commands of `cli`, followed by those of other packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, our own first."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in _found() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; None if there is none."""
        own = super().get_command(ctx, cmd_name)
        return _command(cmd_name) if own is None and cmd_name in _found() else own
