"""What is said may be lost, on a full disk or a closed terminal; a sweep never is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT
from sweeps.driver.console import console_of
from sweeps.record import ledger

_SCRIPT = """
import sys, time
from sweeps.driver.console import console_of

console = console_of(sys.stdout)
for number in range(100):
    console.print(f"line {number}")
    time.sleep(0.01)
print("done", file=sys.stderr)
"""


def test_a_full_disk_below_the_console_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    went_on = False
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing it fails
        console = console_of(full)
        for _ in range(1000):
            console.print("t004  running  step 40/103")
        monkeypatch.setattr(sys, "stderr", full)
        ledger._say("The sweep's ledger can't be written.")
        went_on = True
    assert went_on


def test_a_reader_that_leaves_costs_neither_the_rest_nor_the_exit_status() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr is not None and process.stderr.read() == "done\n"
    assert process.wait(60) == 0


def test_what_is_written_comes_out_as_from_any_console(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        console = console_of(file)
        assert not console.is_terminal and console.encoding == "utf-8"
        console.print("ƙofa")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "ƙofa\n"
