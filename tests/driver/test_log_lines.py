"""A sweep's log, as text and as an object a line."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from helpers.whole_sweeps import ROOT, environment
from sweeps.driver.log_lines import formatter

CODE = """
import logging, sys
from pathlib import Path
from sweeps.driver.log_lines import log_to
log_to(Path(sys.argv[1]) / "sweep.log")
log = logging.getLogger("sweeps")
log.info("%s: a slot broke: %s", "t004-s1", "ɗaya \\n biyu")
log.info("MLflow answers again")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("the report could not be written")
logging.getLogger("mlflow").warning("t004 is no trial of ours")
"""


def written(folder: Path, **more: str) -> list[str]:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)], cwd=ROOT, env=environment(**more), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (folder / "sweep.log").read_text(encoding="utf-8").splitlines()


def test_an_object_a_line_for_collectors(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path / "night", HAUSA_ASR_LOG="json")]
    assert [line.get("trial") for line in lines] == ["t004-s1", None, None, None]
    assert {line["sweep"] for line in lines} == {"night"}
    assert lines[0]["message"] == "t004-s1: a slot broke: ɗaya \n biyu" and lines[0]["level"] == "INFO"
    assert "ZeroDivisionError" in lines[2]["exception"] and lines[3]["logger"] == "mlflow"
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_text_by_default(tmp_path: Path) -> None:
    lines = written(tmp_path / "night")
    assert "INFO sweeps t004-s1: a slot broke" in lines[0]


def test_another_kind_is_refused() -> None:
    assert isinstance(formatter("night", {}), logging.Formatter)
    with pytest.raises(UserError, match="'xml'"):
        formatter("night", {"HAUSA_ASR_LOG": "xml"})
