"""Sum a tensor over several processes, as the workers of a trial do with their gradients, to see that they can.

In: how many, and by which library. Out: the seconds of one sum, or the reason why there is none. Called by
`hausa-asr doctor`.
"""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

BYTES = 64 * 2**20
_WITHIN = timedelta(seconds=60)


def seconds_of_a_sum(workers: int, backend: str) -> float:
    """Sum 64 MiB over processes of this machine, and say how long that took, after one sum to warm up.

    Args:
        workers: how many processes; with `nccl` as many GPUs.
        backend: `nccl` or `gloo`.

    Raises:
        Exception: they could not, with the reason of the first that failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_sum, args=(workers, backend, folder), nprocs=workers)
        return float((Path(folder) / "seconds").read_text(encoding="ascii"))


def _sum(rank: int, workers: int, backend: str, folder: str) -> None:
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=workers, timeout=_WITHIN)
    for _ in range(2):
        ones = torch.ones(BYTES // 4, device=device)
        began_s = time.monotonic()
        dist.all_reduce(ones)
        wrong = int((ones != workers).sum())  # waits for the device
        took_s = time.monotonic() - began_s
    if wrong:
        raise RuntimeError(f"{wrong} of {len(ones)} sums are wrong")
    if rank == 0:
        (Path(folder) / "seconds").write_text(str(took_s), encoding="ascii")
    dist.destroy_process_group()
