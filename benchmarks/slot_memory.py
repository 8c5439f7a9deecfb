"""What a slot takes in memory beside its worker, and how that grows with the number of slots.

    python benchmarks/slot_memory.py [--slots 4] [--json FILE]

Method. A local Ray of as many virtual CPUs as slots, each slot the real actor of a sweep with its Ray Train worker
group, without a trial: so what is measured is there before the first one. Slots are started one after another; when
each one's worker waits for a job, the proportional set size (shared pages divided among those who share them) of all
processes of this Ray is read and added up by what Ray calls them. The slope is that of the last half of the slots.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a plain checkout will do

import bench  # noqa: E402

from hausa_asr.settings.sweep import ClusterSettings  # noqa: E402
from sweeps.on_ray.cluster import connected, prepare_environment  # noqa: E402

_WORKER = "RayTrainWorker"
_PATIENCE_S = 180.0
_STARTED_BYTES = 100 * 2**20


def processes(temp: str) -> Counter[str]:
    """Bytes of the processes of the Ray that keeps its files in a folder, by kind."""
    servers = {entry.name for entry in Path("/proc").glob("[0-9]*") if temp.encode() in _read(entry / "cmdline")}
    found: Counter[str] = Counter()
    for entry in Path("/proc").glob("[0-9]*"):
        command = _read(entry / "cmdline").decode(errors="replace").replace("\0", " ").strip()
        parent = _read(entry / "stat").decode(errors="replace").rpartition(")")[2].split()[1:2]
        if entry.name not in servers and not servers & set(parent):  # Ray's workers are children of its raylet
            continue
        lines = dict(line.split(":", 1) for line in _read(entry / "smaps_rollup").decode().splitlines()[1:])
        if "Pss" not in lines:  # it has just ended
            continue
        name = re.match(r"ray::(?:IDLE|\w+)", command)
        found[name[0].removeprefix("ray::") if name else "servers"] += 1024 * int(lines["Pss"].split()[0])
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def measure(count: int) -> list[dict[str, float]]:
    """Memory by kind of process with no slot, one, two, and so on."""
    settings = ClusterSettings(local_cpus=count)
    prepare_environment(settings)
    import ray

    with tempfile.TemporaryDirectory() as folder, connected(settings, Path(folder) / "none/logs"):
        from sweeps.on_ray.slot import Slot

        temp = ray._private.worker._global_node.get_session_dir_path()
        found, slots = [dict(processes(temp))], []
        spec: dict[str, Any] = {
            "order": 0, "offer": {"workers": 1}, "most_workers": 1, "gpus_per_worker": 0,
            "resources_per_worker": {"CPU": 1}, "threads": 1, "labels": {},
            "avoid": [], "train_storage": folder, "startup_timeout_s": 300.0, "report_timeout_s": 600.0,
            "goodbye_s": 20.0, "idle_s": 1.0, "leave_key": "nobody asks", "calls_key": "nobody calls",
        }  # fmt: skip
        for number in range(1, count + 1):
            slots.append(ray.remote(num_cpus=0)(Slot).remote(config={"job": None, "slot": spec}))
            deadline = time.monotonic() + _PATIENCE_S
            before = found[-1].get(_WORKER, 0)
            while processes(temp)[_WORKER] < before + _STARTED_BYTES:
                if time.monotonic() > deadline:
                    raise SystemExit("a slot does not start")
                time.sleep(1)
            time.sleep(10)  # what it imports
            found.append(dict(processes(temp)))
            print(f"{number} slots: {sum(found[-1].values()) / 2**30:.2f} GiB", file=sys.stderr)
        ray.get([slot.stop.remote() for slot in slots], timeout=60)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=4, help="how many to start (4)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    found = measure(given.slots)
    half = given.slots // 2
    kinds = sorted({kind for one in found for kind in one}, key=lambda kind: -found[-1].get(kind, 0))
    slope = {kind: (found[-1].get(kind, 0) - found[half].get(kind, 0)) / (given.slots - half) for kind in kinds}
    rows = [[kind, f"{found[-1].get(kind, 0) / 2**20:.0f}", f"{slope[kind] / 2**20:.0f}"] for kind in kinds]
    print(bench.table(["process", f"MiB with {given.slots} slots", "MiB for each more"], rows))
    beside = sum(value for kind, value in slope.items() if kind != _WORKER)
    print(
        f"\nbeside its worker a slot takes {beside / 2**20:.0f} MiB, the worker {slope.get(_WORKER, 0) / 2**20:.0f} MiB"
    )
    bench.write(given.json, {"bytes": found, "slope": slope})


if __name__ == "__main__":
    main()
