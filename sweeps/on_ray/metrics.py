"""The sweep's figures for Prometheus, through Ray: each node of a cluster exports what its processes have recorded.

In: a sweep and its MLflow mirror. Out: gauges, written anew every few seconds by a thread of its own, so that nothing
of it slows or ends a sweep. A local Ray has no port to look at, so nothing is recorded there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.util.metrics import Gauge

from sweeps.driver.gauges import METRICS, Metric, values
from sweeps.driver.sweep import Sweep
from sweeps.on_ray.cluster import address_of

log = logging.getLogger("sweeps")

_EVERY_S = 5.0
"""Ray collects from its processes every ten seconds."""


@contextmanager
def exported(sweep: Sweep, backlog: Callable[[], int]) -> Iterator[None]:
    """Keep the sweep's gauges up to date for the length of the block, if it runs on a cluster.

    Args:
        sweep: the sweep.
        backlog: counts the writes that wait for MLflow.
    """
    if address_of(sweep.config.cluster) is None:
        yield
        return
    over = threading.Event()

    def work() -> None:
        gauges: dict[Metric, Gauge] = {}
        well = True
        while True:
            try:
                if not gauges:
                    gauges = {metric: _gauge(metric, sweep.name) for metric in METRICS}
                _write(gauges, sweep, backlog())
            except Exception as error:  # of a monitor, which must not cost a sweep anything
                if well:
                    log.warning("The sweep's metrics could not be written: %r", error)
                well = False
            if over.wait(_EVERY_S):
                return

    threading.Thread(target=work, name="metrics", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _gauge(metric: Metric, sweep: str) -> Gauge:
    labels = ("sweep", *filter(None, [metric.label]))
    return Gauge(metric.name, metric.meaning, tag_keys=labels).set_default_tags({"sweep": sweep})


def _write(gauges: dict[Metric, Gauge], sweep: Sweep, backlog: int) -> None:
    with sweep.ledger.lock:
        found = list(values(sweep.ledger.state, sweep.config, backlog, time.time()))
    for one in found:
        gauges[one.metric].set(one.figure, tags={one.metric.label: one.of} if one.metric.label else {})
