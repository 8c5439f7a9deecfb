"""Slots go without two of Ray Train's helpers, and the driver does what one of them did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers.whole_sweeps import ROOT

_SCRIPT = """
import json, sys, time
from pathlib import Path
from hausa_asr.settings.sweep import ClusterSettings
from sweeps.on_ray.cluster import connected, prepare_environment

settings, storage = ClusterSettings(local_cpus=2), sys.argv[1]
prepare_environment(settings)
with connected(settings, Path("/nowhere/logs")):
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.util.placement_group import placement_group
    from sweeps.on_ray.capacity import own_groups
    from sweeps.on_ray.guard import free_orphans
    from sweeps.on_ray.trainer import environment_of, trainer_of

    def take(cpus):
        group = placement_group([{"CPU": cpus}])
        ray.get(group.ready())

    @ray.remote(num_cpus=0)
    class Maker:
        def take(self, cpus):
            take(cpus)

    def states():
        return sorted(group.state for group in own_groups())

    take(0.5)
    living, dead = Maker.remote(), Maker.remote()
    ray.get([living.take.remote(0.25), dead.take.remote(1)])
    ray.kill(dead)
    deadline = time.monotonic() + 30
    while not any(group.creator_actor_dead and group.creator_actor_id.strip(b"\\xff") for group in own_groups()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = states()
    free_orphans()
    while ray.available_resources().get("CPU") != 1.25 and time.monotonic() < deadline:
        time.sleep(0.1)
    trainer = trainer_of(1)(lambda: None, scaling_config=ScalingConfig(num_workers=1), run_config=RunConfig(name="x"))
    callbacks = [type(one).__name__ for one in trainer._create_default_callbacks()]
    print(json.dumps([before, states(), ray.available_resources().get("CPU"), callbacks]))

    def look():
        import os, sys
        return "torch" in sys.modules, os.environ.get("PYTORCH_CUDA_ALLOC_CONF")

    @ray.remote(num_cpus=0)
    class Slot:
        def fit(self, gpus):
            config = RunConfig(name=f"y{gpus}", storage_path=storage, worker_runtime_env=environment_of(gpus))
            scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.5})
            return trainer_of(1)(look, scaling_config=scaling, run_config=config).fit().return_value

    print(json.dumps(ray.get([Slot.remote().fit.remote(1), Slot.remote().fit.remote(0)])))
"""
_CREATED, _REMOVED = 2, 3


def test_a_dead_slots_place_is_free_for_others_and_nobody_elses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert asked.returncode == 0, asked.stderr
    before, after, free_cpus, callbacks = json.loads(asked.stdout.splitlines()[-2])
    assert before == [_CREATED] * 3
    assert after == [_CREATED, _CREATED, _REMOVED] and free_cpus == 1.25
    assert "BackendSetupCallback" in callbacks  # what a slot needs of Ray Train is there
    assert not {"DatasetsCallback", "PlacementGroupCleanerCallback"} & {*callbacks}
    with_gpu, without = json.loads(asked.stdout.splitlines()[-1])
    assert with_gpu == [False, "expandable_segments:True"], "torch finds it there, whoever imports it"
    assert without == [False, None]
