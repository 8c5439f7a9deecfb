"""Start Ray's workers as forks of one process for each node, which has imported what they need.

An idle Ray worker that has imported Tune takes 112 MiB of its own and seconds to start. A fork of a process that has
imported it already takes 26 MiB and starts at once, so hundreds of workers fit on a small machine. Only for
benchmarks: a worker that trains must not come from a process with threads, which torch has.

In: what Ray runs for a new worker on a node of `ray_nodes.cluster(forks=...)`, where this file stands for Ray's own
`setup_worker.py`, which imports all of Ray, 2 s of CPU for each. Out: the worker. The first one on a node starts the
server beside the node's socket; it ends with the node's session. Linux. Used by `scale.py`.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

_KIND = socket.SOCK_SEQPACKET
_LARGEST = 1 << 20
_PATIENCE_S = 120.0
MODULES = "FORKED_MODULES"
"""The variable that names the modules that each worker needs, with commas."""
_DRAWS = 10_000
"""Random ids that the server skips between two forks. They inherit the state of Ray's generator, and workers that draw
the same ids at the same time crash."""
_RAY_MODULES = ("ray", "ray._private.node", "ray._private.async_compat", "ray._private.runtime_env.setup_hook")


def command() -> list[str]:
    """The `ray` command that starts a node whose workers are forks; it needs `MODULES` in its environment."""
    script = f"ray_constants.SETUP_WORKER_FILENAME = {str(Path(__file__).resolve())!r}"
    return [sys.executable, "-c", f"from ray._private import ray_constants; {script}; "
            "from ray.scripts.scripts import main; main()"]  # fmt: skip


def ask(modules: str, arguments: list[str]) -> None:
    """Ask this node's server for a worker, and start the server if there is none."""
    place = next(one for one in arguments if one.startswith("--raylet-name=")).partition("=")[2] + ".fork"
    wish = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with socket.socket(socket.AF_UNIX, _KIND) as server:
            try:
                server.connect(place)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
                _start(place, modules)
                time.sleep(0.1)
                continue
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
            streams = array.array("i", [1, 2])
            server.sendmsg([json.dumps(wish).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
            server.recv(1)  # it has them
            return


def _start(place: str, modules: str) -> None:
    """Start the server, if nobody else has."""
    try:
        os.close(os.open(f"{place}.begun", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if os.fork() == 0:
        _serve(place, modules)


def _serve(place: str, modules: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a plain checkout will do
    for name in (*_RAY_MODULES, *modules.split(",")):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the first collection of each worker would copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers that end
    listening = socket.socket(socket.AF_UNIX, _KIND)
    listening.bind(f"{place}.new")
    listening.listen(512)
    Path(f"{place}.new").rename(place)  # it is there when it listens
    from ray._raylet import ObjectRef

    while True:
        asking, _ = listening.accept()
        for _ in range(_DRAWS):
            ObjectRef.from_random()
        data, ancillary, _, _ = asking.recvmsg(_LARGEST, socket.CMSG_SPACE(8))
        streams = array.array("i")
        streams.frombytes(ancillary[0][2])
        if os.fork() == 0:
            listening.close()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            asking.send(b"1")
            asking.close()
            _work(**json.loads(data))
        for stream in streams:
            os.close(stream)
        asking.close()


def _work(arguments: list[str], environment: dict[str, str], folder: str) -> Any:
    """Become the worker."""
    os.setpgid(0, 0)  # Ray ends a worker's group with it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = arguments
    random.seed()
    runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    for_setup = ("--serialized-runtime-env-context", "--language")  # the worker does not know them
    given = [one for one in sys.argv[1:] if not one.startswith(for_setup)]
    if not any(one.startswith("--raylet-name=") for one in given):  # a server of Ray's own
        os.execv(sys.executable, [sys.executable, *given])
    with contextlib.suppress(KeyboardInterrupt):
        ask(os.environ[MODULES], given)
