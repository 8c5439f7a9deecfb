"""What a user reads when something is wrong are sentences: what, where, what to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for package in ("hausa_asr", "sweeps") for path in sorted((ROOT / package).rglob("*.py"))]


def messages(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, part (`what` or `fix`) and text of each `UserError` in a file; what is filled in stands as {}."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
            parts = [("what", node.args[0])] if node.args else []
            parts += [("fix", keyword.value) for keyword in node.keywords if keyword.arg == "fix"]
            for part, value in parts:
                for text in texts(value):
                    yield node.lineno, part, text


def texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be, as far as they are written there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield "".join([*(next(texts(side), "{}") for side in (node.left, node.right))])


ALL = [(path.relative_to(ROOT).as_posix(), *message) for path in FILES for message in messages(path)]


def test_there_are_many() -> None:
    assert len(ALL) > 120


@pytest.mark.parametrize(("file", "line", "part", "text"), ALL, ids=[f"{one[0]}:{one[1]}:{one[2]}" for one in ALL])
def test_it_is_a_sentence(file: str, line: int, part: str, text: str) -> None:
    first = text.lstrip("'`{(")[:1]
    assert first.isupper() or text.startswith(("{", "`", "--")) or "." in text.split()[0], f"{text!r} begins small"
    assert text.endswith((".", "?", "}")), f"{text!r} has no full stop"  # or ends with a list that is filled in
