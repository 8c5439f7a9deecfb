"""What `hausa_asr` offers: found lazily, documented so that it stands alone, with examples that run."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import hausa_asr


@pytest.mark.parametrize("name", hausa_asr.__all__)
def test_the_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # an example leaves its folder
    offered = getattr(hausa_asr, name)
    assert name in dir(hausa_asr)
    text = inspect.getdoc(offered) or ""
    assert "Example" in text and ">>>" in text, f"{name} has no example"
    tests = doctest.DocTestFinder(recurse=False).find(offered, name, globs={name: offered})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    assert runner.tries > 0 and runner.failures == 0, "".join(output)


def test_another_name_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="no attribute 'finetuned'"):
        hausa_asr.finetuned  # noqa: B018


def test_importing_it_costs_nothing() -> None:
    code = "import sys, time; t = time.perf_counter(); import hausa_asr; print(time.perf_counter() - t); "
    code += "print([n for n in ('torch', 'numpy', 'pydantic', 'ray', 'mlflow', 'jiwer') if n in sys.modules])"
    took = []
    for _ in range(3):  # the least of three: other processes may be at work
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, loaded = done.stdout.split("\n")[:2]
        assert loaded == "[]"
        took.append(float(seconds))
        assert time.perf_counter() - began < 60
    assert min(took) < 0.1
