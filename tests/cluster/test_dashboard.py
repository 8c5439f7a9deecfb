"""Grafana's dashboard on a real Prometheus beside a live sweep: each of its queries gives figures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from helpers.mlflow_server import free_port
from helpers.whole_sweeps import ROOT, RUN, SETTINGS, finish

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus"),
]
LIMITS = "budget={hours: 5, money: 9, price_per_hour: 2, wall_s: 9000}"
DASHBOARD = json.loads((ROOT / "cluster/grafana/sweep.json").read_text())


def asked(port: int, path: str, **query: str) -> Any:
    """What Prometheus answers; [] while it is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
            data = json.load(answer)["data"]
    except OSError:
        return []
    return data["result"] if isinstance(data, dict) else data


def test_each_query_of_the_dashboard_gives_figures(audio: Path, layer_norm_base: Path, tmp_path: Path) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    queries = {target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert len(queries) > 5
    port, found = free_port(), {}
    with ray_nodes.cluster() as nodes:
        nodes.add()
        target = f"{nodes.address.partition(':')[0]}:{nodes.head.metrics}"
        scraping = {"job_name": "ray", "static_configs": [{"targets": [target]}]}
        (tmp_path / "prometheus.yml").write_text(
            json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scraping]})
        )
        with (tmp_path / "prometheus.log").open("w") as log:
            prometheus = subprocess.Popen(
                ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/figures",
                 f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        process = subprocess.Popen(
            [*RUN, "--config", str(settings), "--set", "name=shown", "--set", LIMITS, "--set", "finetune.length_s=2400",
             "--set", f"cluster.address={nodes.address}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            while process.poll() is None and len(found) < len(queries):
                for query in queries:
                    if result := asked(port, "query", query=query.replace("$sweep", "shown")):
                        found[query] = result
                time.sleep(1)
            sweeps = asked(port, "label/sweep/values", **{"match[]": "ray_hausa_asr_sweep_trials"})
            finish(process)
        finally:
            if process.poll() is None:
                process.kill()
            os.killpg(prometheus.pid, signal.SIGTERM)
            prometheus.wait(20)
    assert not queries - {*found}, (tmp_path / "prometheus.log").read_text()[-2000:]
    assert sweeps == ["shown"], "what the dashboard lets choose from"
