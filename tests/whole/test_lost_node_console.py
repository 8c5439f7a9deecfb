"""What a person sees on a terminal when a node of a cluster dies: lines of ours, and nothing of Ray's."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, RUN, SETTINGS, hear_interrupts, ledger_of

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
RAYS_TIME_S = 15.0
"""After a node's death Ray has printed what it has to print."""


def test_a_node_that_goes_is_a_line_of_ours(tmp_path: Path, audio: Path, layer_norm_base: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    sweep = tmp_path / "runs/nodes"
    shown: list[bytes] = []
    with ray_nodes.cluster() as nodes:
        nodes.add()
        second = nodes.add()
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*RUN, "--config", str(path), "--set", "name=nodes", "--set", "pruning.rule=none", "--set",
             "finetune.length_s=24000", "--set", f"cluster.address={nodes.address}"],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=hear_interrupts,
            env={**nodes.environment, "COLUMNS": "200", "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        reader = threading.Thread(target=_read, args=(ours, shown), daemon=True)
        reader.start()
        try:
            _wait(lambda: len({one["slot"] for one in ledger_of(sweep) if one["event"] == "reported"}) == 2, 240)
            second.kill()
            _wait(lambda: any(one["event"] == "slots" for one in ledger_of(sweep)), 90)
            time.sleep(RAYS_TIME_S)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)
        finally:
            if process.poll() is None:
                process.kill()
            reader.join(10)
            text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(shown).decode())
            print(text)
    assert process.returncode == 130
    assert "raylet" not in text and "marked dead" not in text
    assert "marked dead" in (sweep / "sweep.log").read_text()
    [line] = {line.strip() for line in text.splitlines() if "a node has gone" in line}
    assert line.endswith("1 slot now")


def _wait(condition, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _read(terminal: int, shown: list[bytes]) -> None:
    while True:
        try:
            new = os.read(terminal, 65536)
        except OSError:  # the process has ended
            return
        if not new:
            return
        shown.append(new)
