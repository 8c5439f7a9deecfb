"""Slots that wait without a trial are called through the store of a real Ray's head."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers.whole_sweeps import ROOT
from sweeps.on_ray.calls import idle_s
from sweeps.on_ray.scheduler import INTERRUPTED_S

_SCRIPT = """
import json, threading, time
from pathlib import Path
from hausa_asr.settings.sweep import ClusterSettings
from sweeps.on_ray.cluster import connected, prepare_environment

settings = ClusterSettings(local_cpus=1)
prepare_environment(settings)
with connected(settings, Path("/nowhere/logs")):
    from ray.experimental.internal_kv import _internal_kv_exists, _internal_kv_put
    from sweeps.on_ray import calls as module
    from sweeps.on_ray.calls import Calls, wait_for_call

    def waits(name):
        one = threading.Thread(target=wait_for_call, args=(calls.key, name, 0.05), daemon=True)
        one.start()
        return one

    def ended(one):
        one.join(30)
        return not one.is_alive()

    found, calls = {}, Calls()
    first, second = waits("a"), waits("b")
    calls.call(["a"])
    found["the called one ends"], found["the other waits"] = ended(first), second.is_alive()
    calls.answered("a")
    calls.call(["mark"])
    found["the mark is there"] = ended(waits("mark"))
    again = waits("a")
    time.sleep(0.5)
    found["who has answered waits anew"] = again.is_alive()
    module._AGAIN_S = 0.2
    calls.call(["c"])
    assert ended(waits("c"))
    _internal_kv_put(calls.key, b"", overwrite=True)  # as after a head that lost it
    found["a lost call is written again"] = ended(waits("c"))
    calls.call_all()
    found["all end"] = ended(second) and ended(again)
    calls.close()
    found["nothing is left"] = not _internal_kv_exists(calls.key)
    print(json.dumps(found))
"""


def test_a_slot_waits_until_it_is_called_and_the_others_wait_on() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 7
    assert not [what for what, is_so in found.items() if not is_so]


def test_slots_look_the_more_rarely_the_more_of_them_wait() -> None:
    assert idle_s(1) == 0.2, "a few take a promoted trial at once"
    looks_per_s = sum(1 / idle_s(waiting) for waiting in range(1, 513))
    assert looks_per_s < 200, "each costs the head something"
    assert idle_s(5000) < INTERRUPTED_S, "at an interrupt each hears of it, and its workers end by themselves"
