"""The command `hausa-asr watch`: the live table of a sweep that another process drives. Found by its entry point.

In: a sweep's folder. Out: what its driver shows, on this console, until the sweep has ended. Writes nothing.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hausa_asr.errors import UserError
from hausa_asr.storage.address import is_remote

if TYPE_CHECKING:
    from hausa_asr.settings.sweep import SweepConfig
    from sweeps.driver.board import Board
    from sweeps.record.follow import Follower
    from sweeps.record.state import Left, State

_EVERY_S = 1.0
_FETCH_EVERY_S = 10.0
"""The same where the sweep is in an object store; what is no more than a report is put there as often."""
EXIT_LEFT = 3
"""The driver has ended before the sweep has: somebody must act."""
_QUIET_S = 60.0
"""Shorter silences are never worth a word."""
_DEAD = 3.0
"""A driver that is silent for this many times its longest silence so far may have ended."""


def watch(
    sweep: Annotated[str, typer.Argument(help="The sweep: its name, or its folder.")],
    storage: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The folder of all sweeps; by default HAUSA_ASR_STORAGE, else runs."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Go on after the driver has ended, until somebody resumes the sweep.")
    ] = False,
) -> None:
    """Show the table of a sweep that runs elsewhere, until it ends.

    Ends as well when its driver has: the sweep has paused itself, was interrupted or its driver has died. Then it
    prints why and how to go on, unless --wait is given. Reads the sweep's folder and changes nothing in it, so it may
    be started and ended (Ctrl-C) at any time, on every machine that has the folder. Without a terminal it prints a line
    for each report.

    The exit status is 0 after a sweep with a winner, 1 after one without, and 3 if the driver has ended before the
    sweep has.

    \b
    hausa-asr watch my_sweep --storage /shared/runs
    hausa-asr watch /shared/runs/my_sweep
    hausa-asr watch s3://bucket/runs/my_sweep --wait
    """
    from sweeps.driver.sweep_folder import by_name, storage_of
    from sweeps.record.folders import bring
    from sweeps.record.follow import Follower

    name, overrides = by_name(sweep, [] if storage is None else [f"storage={storage}"])
    place = storage_of(overrides)
    console = Console()
    follower = Follower(bring(place, name))
    try:
        while (result := _result(follower.folder)) is None:
            _watch_a_driver(place, name, follower, console, wait)
    except KeyboardInterrupt:
        return
    bring(place, name)
    follower.poll()
    for line in _last_lines(follower, result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if result.get("best") is None:
        raise typer.Exit(1)


def _watch_a_driver(storage: str, name: str, follower: Follower, console: Console, wait: bool) -> None:
    """Show the table until the sweep ends, or another driver takes over: it may have other settings and slots.

    Raises:
        typer.Exit: the driver has ended before the sweep has, and `wait` is not given.
    """
    from sweeps.driver.board import Board
    from sweeps.driver.sweep_folder import saved
    from sweeps.record.folders import bring

    _, config = saved(storage, name)
    follower.poll()
    driver = follower.drivers

    def left(state: State) -> str:
        return _forecast(state, config, follower)

    board = Board(
        follower, config, 1, left, console, reports_before=follower.reports_before,
        waited_s=max(0.0, time.time() - follower.opened) if follower.opened else 0.0,
        remark=lambda: _remark(follower, config),
    )  # fmt: skip
    line = ""
    with board:
        _show_open(board, follower)
        said_s: float = 0.0
        last_left: Left | None = None
        has_ended = False
        every_s = _EVERY_S if not is_remote(storage) else _FETCH_EVERY_S
        while _result(follower.folder) is None:
            if has_ended := not wait and _has_ended(storage, name, follower, config):
                break
            time.sleep(every_s)
            bring(storage, name)
            for trial in follower.poll():
                board.update(trial)
            if follower.drivers != driver:
                return
            board.tick()
            if console.is_terminal:
                continue
            quiet_s = _quiet_s(follower)
            left_now = follower.state.left
            is_due = left_now != last_left if left_now is not None else quiet_s > max(2 * said_s, _QUIET_S)
            last_left = left_now
            if is_due and (remark := _remark(follower, config)):
                line = remark
                console.print(line, markup=False, highlight=False, soft_wrap=True)
                said_s = quiet_s
            said_s = min(said_s, quiet_s)
        for trial in follower.poll():
            board.update(trial)
    if has_ended:
        if (remark := _remark(follower, config)) != line:
            console.print(remark, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_LEFT)


def _has_ended(storage: str, name: str, follower: Follower, config: SweepConfig) -> bool:
    """Whether the driver has left the sweep or is silent for longer than it could be, and holds it no more."""
    from sweeps.record.folders import bring, has_driver

    if follower.state.left is None and not _may_be_dead(follower, config):
        return False
    if has_driver(storage, name):
        return False
    bring(storage, name)
    drivers = follower.drivers
    follower.poll()
    # Else it came to its end just now, or another driver went on with it.
    return _result(follower.folder) is None and follower.drivers == drivers


def _show_open(board: Board, follower: Follower) -> None:
    """Where lines are printed, begin with what runs now, or with what happened last."""
    trials = list(follower.state.trials.values())
    for trial in [one for one in trials if one.is_open] or trials[-1:]:
        board.update(trial.id)


def _forecast(state: State, config: SweepConfig, follower: Follower) -> str:
    from sweeps.planning.forecast import forecast

    now = state.clock if _may_be_dead(follower, config) and state.clock else time.time()
    return str(forecast(state, config, max(1, state.slots), now))


def _quiet_s(follower: Follower) -> float:
    return 0.0 if follower.state.clock is None else max(0.0, time.time() - follower.state.clock)


def _may_be_dead(follower: Follower, config: SweepConfig) -> bool:
    return _quiet_s(follower) > max(config.cluster.report_timeout_s, _DEAD * follower.longest_s)


def _remark(follower: Follower, config: SweepConfig) -> str:
    """How the driver has left the sweep, or since when it has written nothing, if that is longer than usual."""
    from sweeps.driver.sweep_folder import to_type
    from sweeps.record.state import INTERRUPTED, PAUSED_ITSELF
    from sweeps.wording import duration

    again = f"python sweeps/run.py --resume {to_type(follower.folder)}"
    if (left := follower.state.left) is not None:
        how = {PAUSED_ITSELF: "the sweep has paused itself", INTERRUPTED: "the sweep was interrupted"}
        line = f"{how.get(left.how, 'the driver has ended')} at {_at(left.time)}"
        line += f": {left.why.rstrip('.')}. " if left.why else ". "
        line += "Mend that, then go on" if left.how == PAUSED_ITSELF else "Go on"
        return f"{line} with:  {again}"
    quiet_s, clock = _quiet_s(follower), follower.state.clock
    if clock is None or quiet_s <= max(_QUIET_S, follower.longest_s):
        return ""
    line = f"nothing written since {_at(clock)}, {duration(quiet_s)} ago"
    if not _may_be_dead(follower, config):
        return line
    return f"{line}: its driver may have ended; then go on with:  {again}"


def _at(clock: float) -> str:
    return datetime.fromtimestamp(clock).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _result(folder: Path) -> dict[str, Any] | None:
    """What the sweep's end found; None before that. A driver that goes on with a sweep removes it."""
    from sweeps.record.names import RESULT_FILE

    try:
        return dict(json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"The sweep's result can't be read: {error}.", where=folder / RESULT_FILE) from error


def _last_lines(follower: Follower, result: dict[str, Any]) -> list[str]:
    """How the sweep ended; the verdict comes last, as its driver has it."""
    from sweeps.record.names import REPORT_FILE, RESULT_FILE
    from sweeps.verdict.verdict import Verdict
    from sweeps.wording import duration

    folder, best = follower.folder, result.get("best")
    lines = ["", f"sweep {folder.name} has ended, after {duration(follower.state.wall_s)} of work"]
    if best is None:
        return [*lines, "No trial got as far as a first evaluation."]
    lines += [f"{what:<9} {_scores(one)}" for what in ("best", "baseline") if (one := result.get(what))]
    lines.append(f"result    {folder / RESULT_FILE}")
    if (folder / REPORT_FILE).is_file():
        lines.append(f"report    {folder / REPORT_FILE}")
    if result.get("verdict"):
        return lines + Verdict.from_json(result["verdict"]).sentences()[::-1]
    return lines + ([result["headline"]] if result.get("headline") else [])


def _scores(one: dict[str, Any]) -> str:
    test = f", test WER {one['test_wer']:.3f}" if one.get("test_wer") is not None else ""
    return f"{one['id']}  dev WER {one['wer']:.3f}{test}"
