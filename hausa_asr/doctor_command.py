"""The command `hausa-asr doctor`: looks at this machine before a sweep does, and says what to mend. Called by `cli`.

Long, since all that it looks at is here, one function each.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import typer

from hausa_asr.command_options import Config, Json, Set, print_json, settings_of
from hausa_asr.errors import EXIT_USER_ERROR, NodeFault, UserError, first_line
from hausa_asr.storage import objects, retry
from hausa_asr.storage.address import filesystem, here, is_remote

if TYPE_CHECKING:
    from hausa_asr.settings.sweep import SweepConfig

_DISTRIBUTION = "hausa-asr-sweeps"
_EXTRAS = {
    "demo": ("espeakng_loader", "the demo's speech"),
    "lm": ("flashlight", "decoding with a language model"),
    "onnx": ("onnxruntime", "best-model --onnx"),
    "serve": ("gradio", "hausa-asr serve"),
}
"""Each extra with a module that it brings, and what that is for."""
_WRITTEN_MB, _SLOW_MB_S, _LEAST_GB = 32, 50.0, 20.0
"""What is written to measure the storage; below the others a sweep of large models waits for it, or fills it."""
_LEAST_SHM_GB = 1.0
_SKEW_S = 5.0
"""Clocks that differ by more make a mess of what is newest."""
_PATIENCE_S, _STORE_S, _RAY_S = 4.0, 8.0, 20.0


class Finding(NamedTuple):
    """What one check found, in words; `fix` says what to do about a `note` or a `fault`."""

    kind: Literal["ok", "note", "fault"]
    what: str
    fix: str = ""


def doctor(config: Config = None, set_: Set = None, json_: Json = False) -> None:
    """Check that this machine can run a sweep, and say what to mend.

    Looks at the installed packages, the GPUs, whether several workers can sum their gradients, the audio decoders, the
    storage with its speed and locks, MLflow, the clocks, the base checkpoints, the dataset and the Ray cluster of the
    settings. Starts no Ray, and removes what it writes. Run it on each kind of node. The exit code is 2 if something
    must be mended.

    \b
    hausa-asr doctor
    hausa-asr doctor --config my_sweep.yaml
    """
    settings = settings_of(config, set_ or [])
    found: list[Finding] = []
    for check in CHECKS:
        for one in _guarded(check, settings):
            found.append(one)
            if not json_:
                print(f"{one.kind:<6} {one.what}" + (f"\n       {one.fix}" if one.fix else ""), flush=True)
    if json_:
        print_json({"findings": [one._asdict() for one in found]})
    if any(one.kind == "fault" for one in found):
        raise typer.Exit(EXIT_USER_ERROR)


def _guarded(check: Check, settings: SweepConfig) -> Iterator[Finding]:
    """What a check finds; what it stumbles over is a fault too."""
    try:
        yield from check(settings)
    except UserError as error:
        yield Finding("fault", " ".join(str(error).split("\n")[0].split()), error.fix or "")
    except Exception as error:  # of any library: a doctor does not die of what it looks at
        yield Finding("fault", f"{check.__name__}: {first_line(error)}")


def packages(settings: SweepConfig) -> Iterator[Finding]:
    """The packages that the project requires, in the versions that it was tested with."""
    from packaging.requirements import Requirement

    wrong = []
    for line in metadata.requires(_DISTRIBUTION) or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            there = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            there = "missing"
        if there == "missing" or not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there} ({wanted.specifier} is wanted)")
    python = ".".join(map(str, sys.version_info[:3]))
    if wrong:
        yield Finding("fault", f"packages: {', '.join(wrong)}", "Install anew: pip install -e .")
    else:
        yield Finding("ok", f"Python {python}, and all packages in the versions that are wanted")
        yield from _compiled()
    for extra, (module, use) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Finding("note", f"not installed: {use}", f"If you want it: pip install '{_DISTRIBUTION}[{extra}]'")


def _compiled() -> Iterator[Finding]:
    """A note if Python compiles the packages again in each process, which makes each start some three times as long."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).with_name("modeling_utils.py")  # a large module that each of a sweep's workers imports
    compiled = Path(importlib.util.cache_from_source(str(source)))
    folder = next(parent for parent in compiled.parents if parent.exists())
    if not compiled.exists() and (sys.dont_write_bytecode or not os.access(folder, os.W_OK)):
        why = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else f"{folder} can't be written"
        yield Finding("note", f"Python keeps no compiled packages ({why}), so each process starts slowly",
                      f"Compile them once: python -m compileall -q {source.parents[1]}")  # fmt: skip


def gpus(settings: SweepConfig) -> Iterator[Finding]:
    """The GPUs as torch sees them."""
    import torch

    from hausa_asr.model.device import check_code, computes_in_bfloat16

    resources = settings.resources
    least, most = (resources.gpus_per_worker * one for one in (resources.least_workers, resources.most_workers))
    wanted = f"{most:g}" if least == most else f"{least:g} to {most:g}"
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            yield Finding("fault", f"there is a driver for GPUs, but torch {torch.__version__} sees none",
                          "See what nvidia-smi prints; the driver may be older than torch's CUDA.")  # fmt: skip
        elif most:
            yield Finding("note", f"no GPU here; the settings ask for {wanted} for each trial",
                          "Run this on a node with GPUs, or set resources.gpus_per_worker=0.")  # fmt: skip
        else:
            yield Finding("ok", f"no GPU, and none is asked for; torch {torch.__version__}, {os.cpu_count()} CPUs")
        return
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        try:
            check_code(device)
        except NodeFault as fault:
            yield Finding("fault", f"GPU {number}: {fault.what}", fault.fix or "")
            continue
        about, real = torch.cuda.get_device_properties(number), computes_in_bfloat16(device)
        name = f"GPU {number}: {about.name}, {about.total_memory / 2**30:.0f} GiB"
        yield Finding("ok" if real else "note", name + (", bfloat16" if real else ", no bfloat16"),
                      "" if real else "It computes in float32: slower, and more memory.")  # fmt: skip


def workers_together(settings: SweepConfig) -> Iterator[Finding]:
    """Whether several workers of a trial, as many as this machine has room for, can sum their gradients."""
    import torch

    from hausa_asr.training.group_check import BYTES, seconds_of_a_sum

    resources = settings.resources
    if resources.most_workers < 2:
        return
    on_gpus = resources.gpus_per_worker > 0
    workers = min(resources.most_workers, torch.cuda.device_count() if on_gpus else 2)
    if workers < 2:
        yield Finding("note", f"a trial's {resources.most_workers} workers: not tried with under two GPUs here",
                      "Where they are on several nodes, they need a fast network between these.")  # fmt: skip
        return
    if on_gpus and not torch.distributed.is_nccl_available():
        yield Finding("fault", "several GPUs, and no NCCL in torch", "Install torch with CUDA from its own index.")
        return
    backend = "nccl" if on_gpus else "gloo"
    try:
        took_s = seconds_of_a_sum(workers, backend)
    except Exception as error:
        why = str(error).strip().splitlines()[-1]
        yield Finding("fault", f"{workers} workers can't sum their gradients by {backend}: {why}",
                      "Try again with NCCL_DEBUG=INFO; in a container, give it more of /dev/shm.")  # fmt: skip
        return
    yield Finding("ok", f"{workers} workers sum {BYTES >> 20} MiB by {backend} in {1000 * took_s:.0f} ms")


def audio(settings: SweepConfig) -> Iterator[Finding]:
    """Both decoders: a second of flac through libsndfile, one of AAC through FFmpeg."""
    from hausa_asr.audio.self_check import decode_both

    yield Finding("ok", f"audio: {decode_both()}")


def storage(settings: SweepConfig) -> Iterator[Finding]:
    """The folder for sweeps: its room, its speed, its locks, and its clock, which on a network is another's."""
    if is_remote(settings.storage):
        yield from _store(settings.storage)
    place = here(settings.storage)
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield Finding("fault", f"storage {place}: {there} can't be written", "Set storage to a folder of yours.")
        return
    try:
        yield from _measured(place, there)
    except OSError as error:
        yield Finding("fault", f"storage {place}: nothing can be written there ({error.strerror})",
                      "Set storage to a folder of yours, or make room.")  # fmt: skip


def _store(address: str) -> Iterator[Finding]:
    """What an object store is like: whether we may write, read and delete there, and how fast it answers."""
    probe, began = f"{address}/.hausa-asr-doctor-{os.getpid()}", time.monotonic()
    try:
        with retry.patience(_STORE_S):
            objects.write(probe, b"here")
            written_s = time.time()
            objects.read(probe)
            system, path = filesystem(probe)
            skew_s = abs(system.modified(path).timestamp() - written_s)
            objects.delete([probe])
    except UserError as error:
        yield Finding("fault", f"storage {address}: {error.what}", error.fix or "")
        return
    took_ms = 1000 * (time.monotonic() - began)
    yield Finding("ok", f"storage {address}: an object written, read and deleted in {took_ms:,.0f} ms; "
                  "the next line is this node's scratch folder")  # fmt: skip
    if skew_s > _SKEW_S:
        yield Finding("fault", f"storage {address}: its clock is {skew_s:.0f} s off this machine's", "Set this by NTP.")


def _measured(place: Path, there: Path) -> Iterator[Finding]:
    """What a folder is like to write to."""
    free_gb = shutil.disk_usage(there).free / 1e9
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=there, prefix=".hausa-asr-doctor-") as file:
        began = time.monotonic()
        for _ in range(_WRITTEN_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        speed = _WRITTEN_MB / (time.monotonic() - began)
        skew_s = abs(os.stat(file.name).st_mtime - time.time())
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks = True
        except OSError:
            locks = False
    kind: Literal["ok", "note"] = "ok" if free_gb >= _LEAST_GB and speed >= _SLOW_MB_S else "note"
    yield Finding(kind, f"storage {place}: {free_gb:,.0f} GB free, {speed:,.0f} MB/s written",
                  "" if kind == "ok" else "`--plan` says what a sweep writes, and how much room it needs.")  # fmt: skip
    if not locks:
        yield Finding("fault", "storage: files can't be locked there, so two drivers could have one sweep",
                      "Mount it with locks, or use another folder.")  # fmt: skip
    if skew_s > _SKEW_S:
        yield Finding("fault", f"storage: its clock is {skew_s:.0f} s off this machine's", "Set both by NTP.")


def mlflow(settings: SweepConfig) -> Iterator[Finding]:
    """MLflow's database or server, and the server's clock."""
    from hausa_asr.tracking.store import place

    uri, shown, database = place(settings.mlflow.uri)
    if database is not None:
        there = next(folder for folder in (database, *database.parents) if folder.exists())
        if os.access(there, os.W_OK):
            yield Finding("ok", f"MLflow: {shown}" + ("" if database.exists() else ", which a sweep will make"))
        else:
            yield Finding("fault", f"MLflow: {there} can't be written", "Set mlflow.uri to a file of yours.")
        return
    if not uri.startswith("http"):
        yield Finding("note", f"MLflow: {shown} is not looked at")
        return
    from email.utils import parsedate_to_datetime

    import requests

    from hausa_asr.tracking.tracker import ask

    yield Finding("ok", f"MLflow: {shown} lets us in, and answers in {ask(uri):.2f} s")  # /health asks for no login
    with suppress(requests.RequestException, KeyError, ValueError):
        stated = requests.get(f"{uri.rstrip('/')}/health", timeout=_PATIENCE_S).headers["Date"]
        skew_s = abs(parsedate_to_datetime(stated).timestamp() - time.time())
        if skew_s > _SKEW_S:
            yield Finding("fault", f"MLflow's clock is {skew_s:.0f} s off this machine's", "Set both by NTP.")


def checkpoints(settings: SweepConfig) -> Iterator[Finding]:
    """The base checkpoints of the settings: there, and of wav2vec 2.0."""
    from hausa_asr.model.base_check import check_base

    for base in settings.bases:
        with retry.patience(_STORE_S):
            check_base(base)
        yield Finding("ok", f"base checkpoint {base}")


def dataset(settings: SweepConfig) -> Iterator[Finding]:
    """The prepared dataset of the settings, if they name one."""
    from hausa_asr.dataset.prepared import listed, load_prepared

    place = settings.data.prepared
    if place and is_remote(place):
        with retry.patience(_STORE_S):
            files = listed(place)
        yield Finding("ok", f"dataset {place}: whole, {sum(files.values()) / 1e9:,.2f} GB, not fetched")
    elif place:
        splits = load_prepared(place).splits
        counts = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
        yield Finding("ok", f"dataset {place}: {counts} utterances")


def cluster(settings: SweepConfig) -> Iterator[Finding]:
    """Where Ray will be: an address that answers, or shared memory for a local one."""
    address = settings.cluster.address or os.environ.get("RAY_ADDRESS", "")
    if ":" in address:
        parts = urlsplit(address if "://" in address else f"//{address}")
        try:
            socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=_PATIENCE_S).close()
        except OSError as error:
            yield Finding("fault", f"Ray: {address} does not answer ({error.strerror or error})",
                          "Start the head with `ray start --head`, or set cluster.address to another.")  # fmt: skip
            return
        yield Finding("ok", f"Ray: {address} answers")
        if "://" not in address:
            yield _versions(address)
        return
    try:
        shm_gb = shutil.disk_usage("/dev/shm").total / 1e9
    except OSError:
        return
    if shm_gb < _LEAST_SHM_GB:
        yield Finding("note", f"Ray: /dev/shm has {shm_gb:.2f} GB, so it keeps objects on the disk, which is slow",
                      "In a container: --shm-size=4g.")  # fmt: skip
    else:
        yield Finding("ok", f"Ray {metadata.version('ray')}, on this machine; /dev/shm has {shm_gb:.1f} GB")


def _versions(address: str) -> Finding:
    """What the cluster runs, which must be what is here; asked in a process of its own, as Ray may wait for long."""
    code = "import sys; from sweeps.on_ray.cluster import versions_of; print(*versions_of(sys.argv[1]))"
    ours = f"Ray {metadata.version('ray')}, Python {'.'.join(map(str, sys.version_info[:3]))}"
    try:
        done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=_RAY_S)
    except subprocess.TimeoutExpired:
        done = None
    if done is not None and done.returncode == 0:
        theirs = "Ray {}, Python {}".format(*done.stdout.split()[-2:])
        if theirs == ours:
            return Finding("ok", f"Ray: the cluster has {theirs}, as this machine")
        return Finding("fault", f"Ray: the cluster has {theirs}, this machine {ours}",
                       "Use one environment on all nodes: cluster/locks, or the image.")  # fmt: skip
    if done is not None and "token" in done.stderr:
        return Finding("fault", f"Ray: {address} refuses us, or this machine has no token",
                       "Set RAY_AUTH_MODE=token, and have the head's token in ~/.ray/auth_token.")  # fmt: skip
    return Finding("note", f"Ray: {address} does not say which version it has", "It may be no Ray; try `ray status`.")


Check = Callable[[Any], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    packages,
    gpus,
    workers_together,
    audio,
    storage,
    mlflow,
    checkpoints,
    dataset,
    cluster,
)
