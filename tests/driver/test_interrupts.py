"""Interrupts: the first asks, the next ends, whatever Ray and the shell have done to SIGINT, and none is swallowed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.whole_sweeps import ROOT

_SCRIPT = """
import os, signal, sys, time
from sweeps.driver.interrupts import Interrupts, end_at_sigterm

how, number = sys.argv[1], getattr(signal, sys.argv[2])
if how == "blocked":  # as Ray does in its servers
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
if how == "ignored":  # as a shell does with what it runs in the background, a Ray and its jobs too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
else:
    signal.signal(signal.SIGINT, signal.default_int_handler)
end_at_sigterm()
ended, said = [], []

def interrupted():
    os.kill(os.getpid(), number)
    time.sleep(0.2)  # in which a handler may raise

with Interrupts(lambda: said.append("at once")) as interrupts:
    signal.signal(signal.SIGUSR1, lambda *_: ended.append("run"))  # what Tune does
    interrupts.hasten = lambda: ended.append("hasten")
    interrupted()
    for _ in range(50):
        if said:
            break
        time.sleep(0.1)
    assert interrupts.asked and ended == ["hasten", "run"] and said == ["at once"], (ended, said)
    try:
        interrupted()
        sys.exit("the second was swallowed")
    except KeyboardInterrupt:
        pass
assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
with Interrupts(lambda: said.append("again")) as calm:
    pass
assert not calm.asked and said == ["at once"]
try:
    interrupted()
    sys.exit("one that came after the search was swallowed")
except KeyboardInterrupt:
    print("as it should be")
"""


@pytest.mark.parametrize(
    ("how", "number"), [("heard", "SIGINT"), ("heard", "SIGTERM"), ("blocked", "SIGTERM"), ("ignored", "SIGTERM")]
)
def test_the_first_asks_the_next_ends_and_one_that_comes_after_the_search_is_heard(how: str, number: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", _SCRIPT, how, number], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (asked.returncode, asked.stdout.strip()) == (0, "as it should be"), asked.stderr
