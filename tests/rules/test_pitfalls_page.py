"""docs/pitfalls.md names only files and tests that exist, and says something of every pitfall."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/pitfalls.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines() if line.startswith("|")
]


@cache
def functions_of(path: Path) -> set[str]:
    """The test functions at the top of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_table_has_a_pitfall_a_guard_and_a_test_in_every_row() -> None:
    assert ROWS[0] == ["pitfall", "guard", "test"]
    assert len(ROWS) > 35
    for row in ROWS[2:]:
        assert len(row) == 3, row
        assert all(row), row
    pitfalls = [row[0] for row in ROWS[2:]]
    assert len(set(pitfalls)) == len(pitfalls)


@pytest.mark.parametrize("row", ROWS[2:], ids=lambda row: re.sub(r"\W+", " ", row[0])[:40].strip())
def test_files_and_functions_of_a_row_exist(row: list[str]) -> None:
    _, guard, test = row
    files = re.findall(r"`([\w/]+\.(?:py|toml|yaml))`", guard)
    assert files or guard.startswith("None: "), "a guard is in a file, or the row says that there is none"
    for file in files:
        assert (ROOT / file).is_file(), file
    named = re.findall(r"`([^`]+)`", test)
    assert named or test.startswith("none, "), "a test is named, or the row says why there is none"
    for name in named:
        file, _, function = name.partition("::")
        assert (ROOT / file).is_file(), file
        assert function in functions_of(ROOT / file), f"{file} has no {function}"
