"""The host memory that a plan names: what was measured at full size, and when it is too little."""

from __future__ import annotations

from pathlib import Path

import pytest

from hausa_asr.settings.sweep import SweepConfig
from helpers.plans import HOURS_500, planned
from sweeps.planning.memory import host_memory, in_float32, in_words, too_little
from sweeps.planning.slots import HEAD

XLSR, MMS = "facebook/wav2vec2-xls-r-300m", "facebook/mms-1b-all"


def config(base: str, **resources: float) -> SweepConfig:
    return SweepConfig.model_validate({"model": {"base": base}, "resources": resources})


def test_on_a_cpu_it_is_what_a_trial_of_xlsr_was_seen_to_take_and_the_copy_that_is_written() -> None:
    # benchmarks/full_size.py: 11.9 GiB of all processes at the peak, of which some 3 are programs and activations, when
    # states were written from the model itself. Now a copy waits for the disk, 16 bytes for each weight that learns.
    taken = host_memory(config(XLSR))
    assert taken is not None and 6.5e9 < taken - 311e6 * 16 < 10e9


def test_on_a_gpu_it_is_the_copies_and_the_base_and_grows_with_it() -> None:
    small, large = host_memory(config(XLSR, gpus_per_worker=1)), host_memory(config(MMS, gpus_per_worker=1))
    assert small is not None and large is not None
    assert small == pytest.approx(315e6 * 24, rel=0.05)
    assert large > 2.5 * small


def test_of_several_bases_the_largest_counts_and_the_others_only_stay_where_there_is_room() -> None:
    def taken(*bases: str) -> float:
        space = {"base": {"choices": list(bases)}}
        found = host_memory(SweepConfig.model_validate({"model": {"base": XLSR}, "space": space}))
        assert found is not None
        return found

    assert taken(XLSR) == taken(XLSR, "demo", "facebook/wav2vec2-base")


def test_trials_that_do_not_fit_on_a_node_together_are_warned_of() -> None:
    settings = config(XLSR, gpus_per_worker=1)
    node = {"CPU": 32.0, "GPU": 8.0, "memory": 32e9}
    (warning,) = too_little(settings, 8, [node])
    assert "8 trials on a node" in warning
    assert not too_little(settings, 8, [node] * 4)
    assert not too_little(settings, 8, [{"CPU": 32.0, "GPU": 8.0}])


def test_a_head_that_is_too_small_for_its_slots_is_warned_of() -> None:
    settings = config("demo", gpus_per_worker=1)
    head, node = {HEAD: 1.0, "CPU": 0.0, "memory": 16e9}, {"CPU": 32.0, "GPU": 8.0, "memory": 512e9}
    assert not too_little(settings, 32, [head, *[node] * 4])
    (warning,) = too_little(settings, 128, [head, *[node] * 16])
    assert "on the head node" in warning and "16.0 GB" in warning


def test_features_that_a_node_cannot_keep_in_memory_are_warned_of(tmp_path: Path) -> None:
    settings, node = config(XLSR, gpus_per_worker=1), {"CPU": 32.0, "GPU": 8.0, "memory": 128e9}
    (warning,) = too_little(settings, 8, [node], features=83.1e9)  # beside eight trials of 6.6 GB
    assert "83.1 GB of cached features" in warning and "feature_cache=off" in warning
    assert not too_little(settings, 8, [node], features=60e9)
    assert not too_little(settings, 8, [{**node, "memory": 256e9}], features=83.1e9)
    assert not too_little(settings, 8, [{"CPU": 32.0, "GPU": 8.0}], features=83.1e9)
    node_128 = "cluster.nodes=[{CPU: 32, GPU: 8, memory: 128e9}]"
    assert "of cached features are more" in planned("xlsr_300m", tmp_path, node_128, seconds=HOURS_500)[2]


def test_gpus_without_bfloat16_are_warned_of_with_what_they_must_hold() -> None:
    large = "facebook/wav2vec2-xls-r-1b"
    (warning,) = in_float32(config(large, gpus_per_worker=1), ["NVIDIA A100", "Tesla T4"])
    assert warning.startswith("T4 GPUs have no bfloat16") and "15.3 GB" in warning
    (warning,) = in_float32(config(XLSR, gpus_per_worker=1), ["T4"])
    assert "5.0 GB" in warning
    assert not in_float32(config(large, gpus_per_worker=1), ["H100", "L40S"])
    assert not in_float32(config(large), ["T4"])
    assert not in_float32(config("somebody/else", gpus_per_worker=1), ["T4"])


def test_of_a_base_that_is_not_known_nothing_is_said() -> None:
    settings = config("somebody/else")
    assert in_words(settings) == "not known" and not too_little(settings, 99, [{"memory": 1.0}])
