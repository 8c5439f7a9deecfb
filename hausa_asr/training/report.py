"""What a fine-tune reports of an evaluation: its figures, and the report of a checkpoint when a trial resumes.

In: a run, its scores, or a checkpoint. Out: metrics by name, or a `Progress`. Called by `finetune` and `evaluation`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
import torch.distributed as dist

from hausa_asr.model.evaluate import EvalReport
from hausa_asr.recipe import GPU_ENERGY, Progress, step_folder
from hausa_asr.training.checkpoint import Checkpoint
from hausa_asr.training.run import Run


def trained(run: Run, window_s: float) -> dict[str, float]:
    """The figures of the updates since the last report, under their names in MLflow and `result.json`."""
    window = run.window
    good, losses, norms, skipped = window.sums.tolist()
    seconds = max(1e-9, window_s)
    return {
        "train_loss": losses / good if good else math.nan,
        "lr": run.optimizer.lr(run.step - 1),
        "grad_norm": norms / good if good else math.nan,
        "masked_fraction": _summed(run, window.masked) / window.updates,
        "nonfinite_steps": skipped,
        "samples_per_s": window.utterances / seconds,
        "audio_s_per_s": window.audio_s / seconds,
        "seen_s": float(run.plan.seen_s[run.step]),
        "epoch": float(run.plan.batch(run.step - 1)[0]),
    }


def scored(run: Run, scores: EvalReport) -> dict[str, float]:
    """The figures that are known once dev is scored, under their names in MLflow and `result.json`."""
    return {
        "wer": scores.wer,
        "cer": scores.cer,
        "wer_folded": scores.wer_folded,
        "cer_folded": scores.cer_folded,
        "loss": scores.loss,
        "eval_runtime_s": scores.runtime_s,
        "micro_batch_s": run.loader.micro_batch_s,
        **_memory_gb(run.device),
        **energy(run),
    }


def energy(run: Run) -> dict[str, float]:
    """The energy that all ranks' GPUs used since it was last asked for, as a metric; nothing where none says it."""
    used_kwh = run.energy.used_kwh()
    all_kwh = _summed(run, math.nan if used_kwh is None else used_kwh)
    return {} if math.isnan(all_kwh) else {GPU_ENERGY: all_kwh}


def _summed(run: Run, value: float) -> float:
    """The sum over all ranks."""
    summed = torch.tensor(value, dtype=torch.float64)
    if run.share.world > 1:
        summed = summed.to(run.device)
        dist.all_reduce(summed)
    return float(summed)


def _memory_gb(device: torch.device) -> dict[str, float]:
    """Memory of the first worker, as MLflow names it: its process's, and the GPU's highest since the last report.

    On systems without /proc the process's is left out.
    """
    found = {}
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text(encoding="ascii").split()[1])
        found["system/process_memory_gb"] = pages * os.sysconf("SC_PAGE_SIZE") / 1e9
    if device.type == "cuda":
        found["system/gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        torch.cuda.reset_peak_memory_stats(device)
    return found


def progress_at(saved: Checkpoint, folder: Path) -> Progress:
    """The report of a checkpoint, with paths to the trial's folder as it is now."""
    fields = dict(saved.progress)
    fields["samples"] = [tuple(sample) for sample in fields["samples"]]
    fields["checkpoint"] = str(saved.folder)
    fields["best_checkpoint"] = str(step_folder(folder, int(fields["best"]["step"])))
    return Progress(**fields)
