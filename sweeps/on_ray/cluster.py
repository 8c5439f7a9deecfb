"""The Ray that a sweep runs on: the cluster that is given, else a local one that ends with the sweep.

In: the cluster's settings. Out: a connection for the length of a block, and what the nodes have. Called by `run`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError, first_line
from hausa_asr.settings.load import in_ray_job
from hausa_asr.settings.sweep import ClusterSettings
from hausa_asr.tracking.store import environment_lock
from sweeps.on_ray.local_ray import keep_logs, temp_folder, warden_of
from sweeps.planning.slots import HEAD, has_labels, usable_cpus

log = logging.getLogger("sweeps")

_OBJECT_STORE_BYTES = 200 * 1024**2
"""Only small messages go through Ray; the data is memory-mapped from the sweep's storage."""
_STARTING_AT_ONCE = 16
_KNOCK_S = 10.0


def address_of(settings: ClusterSettings) -> str | None:
    """The cluster that is given: by setting, by RAY_ADDRESS, or by running as a Ray job; None for a local Ray."""
    return settings.address or os.environ.get("RAY_ADDRESS") or ("auto" if in_ray_job() else None)


_FOR_CLUSTERS_ONLY = ("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "RAY_TRAIN_METRICS_ENABLED")
"""What Ray Train does for nodes that may vanish and for dashboards; a local Ray has neither, and starts sooner."""


def prepare_environment(settings: ClusterSettings) -> None:
    """Set what Ray reads from the environment. Must be called before anything imports `ray`, which reads it once.

    A local Ray gets a token, so that other users of the machine cannot run code through its ports.
    """
    if address_of(settings) is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Ray takes 127.0.0.1 for a mistake and listens on all of the machine's addresses, unless clusters are off.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        for name in _FOR_CLUSTERS_ONLY:
            os.environ.setdefault(name, "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class Connection:
    """A connection to Ray that is made in a thread of its own, while the driver does other things.

    The thread lives as long as Ray does: the kernel ends Ray's servers with the thread that started them.

    Args:
        settings: the address, if any.
        logs: where a local Ray's own logs are kept.
    """

    def __init__(self, settings: ClusterSettings, logs: Path) -> None:
        self._settings, self._logs, self._address = settings, logs, address_of(settings)
        self._temp = None if self._address else temp_folder()
        self._warden: subprocess.Popen[bytes] | None = None
        self._fault: BaseException | None = None
        self._tried, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray-connection", daemon=True)
        self._thread.start()

    def nodes(self, labels: Mapping[str, str]) -> list[dict[str, float]]:
        """Wait for Ray, and give the resources that the living nodes have for workers, see `resources_for_workers`.

        Raises:
            UserError: the cluster does not answer.
        """
        import ray

        self._tried.wait()
        if self._fault is not None:
            raise self._fault
        return resources_for_workers(ray.nodes(), labels)

    def close(self) -> None:
        """Leave the cluster, or end the local Ray and keep its logs."""
        import ray

        self._tried.wait()
        ray.shutdown()
        self._over.set()
        if self._temp is not None:
            keep_logs(self._temp, self._logs)
            shutil.rmtree(self._temp, ignore_errors=True)
        if self._warden is not None:
            self._warden.communicate()

    def _run(self) -> None:
        try:
            with environment_lock:  # Ray copies the environment, which MLflow's calls change for a moment
                self._connect()
        except BaseException as fault:  # raised where the nodes are asked for
            self._fault = fault
        self._tried.set()
        self._over.wait()

    def _connect(self) -> None:
        import ray

        _send_errors_to_the_log()
        if self._temp is None:
            _join(str(self._address))
            return
        try:
            ray.init(
                address="local",
                num_cpus=self._settings.local_cpus or usable_cpus(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                # A slot has six processes, most of which only wait; by default Ray warns of them on few CPUs.
                _system_config={"worker_maximum_startup_concurrency": _STARTING_AT_ONCE},
                _temp_dir=str(self._temp),
                _node_ip_address="127.0.0.1",
            )
        except Exception as error:  # whatever its servers have ended by
            raise UserError(
                f"Ray does not start on this machine: {first_line(error)}",
                where=self._temp,
                fix="Look for room in /tmp and /dev/shm, memory and processes (`df -h`, `free`, `ulimit -u`).",
            ) from error
        self._warden = warden_of(self._temp)


def resources_for_workers(nodes: Iterable[Mapping[str, Any]], labels: Mapping[str, str]) -> list[dict[str, float]]:
    """The resources of each living node that has these labels, and of a head without them its memory alone.

    Slots' own processes are on the head wherever the workers are, so the plan has to know its memory.

    Args:
        nodes: as `ray.nodes()` lists them.
        labels: those that workers want.
    """
    found = []
    for node in nodes:
        resources = node["Resources"]
        if node["Alive"] and has_labels(node.get("Labels", {}), labels):
            found.append(resources)
        elif node["Alive"] and HEAD in resources:
            found.append({HEAD: resources[HEAD], "CPU": 0.0, "memory": resources.get("memory", 0.0)})
    return found


def versions_of(address: str) -> tuple[str, str]:
    """The versions of Ray and of Python that a cluster runs; asks the head, and starts or joins nothing."""
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    about = get_cluster_metadata(GcsClient(address=address))
    return about["ray_version"], about["python_version"]


@contextmanager
def connecting(settings: ClusterSettings, logs: Path) -> Iterator[Connection]:
    """Begin to connect to Ray, for the length of the block; arguments as in `Connection`."""
    connection = Connection(settings, logs)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def connected(
    settings: ClusterSettings, logs: Path, labels: Mapping[str, str] | None = None
) -> Iterator[list[dict[str, float]]]:
    """Connect to Ray for the length of the block; gives what `Connection.nodes` does.

    Raises:
        UserError: the cluster does not answer.
    """
    with connecting(settings, logs) as connection:
        yield connection.nodes(labels or {})


def _knock(address: str) -> None:
    """Ask whether anything listens there: Ray itself would try for minutes. Raises `OSError` if nothing does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _send_errors_to_the_log() -> None:
    """Let Ray log what its servers report, such as a node's death, page-long: it would run across the table of trials.

    Ray prints that from a thread, whatever `log_to_driver` says, by a function of its own module.
    """
    from ray._private import worker

    def to_log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        logging.getLogger("ray").warning("%s", "\n".join(map(str, data["lines"])))

    worker.print_to_stdstream = to_log


def _join(address: str) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise UserError(
            f"The Ray cluster does not answer: {first_line(error)}.",
            where=f"address {address}",
            fix="Start it (`ray start --head`), or leave cluster.address and RAY_ADDRESS unset for a local Ray.",
        ) from error
