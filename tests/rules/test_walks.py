"""The walks in docs/how_a_sweep_works.md lead through functions that exist, and their rooms are counted right."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how_a_sweep_works.md").read_text(encoding="utf-8")
WALKS = {
    part.split("\n")[0]: re.findall(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`: ", part, re.M)
    for part in PAGE.partition("## Three walks")[2].split("\n### ")[1:]
}
STEPS = [(walk, file, name) for walk, steps in WALKS.items() for file, name in steps]


@cache
def functions(file: str) -> set[str]:
    """Functions of a file, and methods with their class."""
    names = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names


@pytest.mark.parametrize(("walk", "file", "name"), STEPS, ids=[f"{file}:{name}" for _, file, name in STEPS])
def test_each_step_is_a_function_of_its_file(walk: str, file: str, name: str) -> None:
    assert (ROOT / file).is_file(), file
    assert name in functions(file), f"{walk}: {file} has no {name}"


def test_there_are_three_and_their_rooms_are_counted_right() -> None:
    assert len(WALKS) == 3 and all(len(steps) >= 8 for steps in WALKS.values())
    for walk, steps in WALKS.items():
        entered = [room for room, _ in groupby(file.rpartition("/")[0] for file, _ in steps)]
        rooms = len(set(entered))
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {walk} |"))
        assert [cell.strip() for cell in row.split("|")[4:6]] == [str(rooms), str(len(entered) - rooms)]
