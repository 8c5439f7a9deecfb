"""Score checkpoints on the cluster, as many at a time as there are slots.

In: checkpoints and splits of a prepared dataset. Out: word errors by utterance, error rates, and what was heard of dev.
`run` hands the scorer to the sweep's end, which knows nothing of Ray.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hausa_asr.metrics import counts_by_utterance
from hausa_asr.storage.address import portable
from sweeps.on_ray.tasks import as_done
from sweeps.planning.slots import SlotPlan
from sweeps.verdict.result import RATES, Scorer

if TYPE_CHECKING:
    from hausa_asr.model.evaluate import EvalReport


def scorer(prepared_path: Path, plan: SlotPlan, dev_part_s: float) -> Scorer:
    """A function that scores checkpoints on splits, spread over the slots' workers.

    Args:
        prepared_path: the prepared dataset.
        plan: what a worker takes, and how many slots there are.
        dev_part_s: how much of dev trials are scored on, in seconds of audio; what was heard of that part is kept.
    """
    gpu = bool(plan.worker_resources.get("GPU"))

    def score(checkpoints: list[Path], splits: list[str]) -> list[dict[str, Any]]:
        numbers = range(len(checkpoints))
        parts = [part for part in (numbers[n :: plan.slots] for n in range(plan.slots)) if part]
        calls = [
            (portable(prepared_path), [portable(checkpoints[n]) for n in part], splits, plan.threads, gpu, dev_part_s)
            for part in parts
        ]
        done = as_done(_score_models, calls, plan)
        # The export that follows needs torch in this process too, which takes seconds: now, while others work. Not in a
        # thread: two that import transformers at once can find its modules half made.
        import_module("hausa_asr.training.checkpoint")
        scores: dict[int, dict[str, Any]] = {}
        for number, found in done:
            scores |= zip(parts[number], found, strict=True)
        return [scores[n] for n in numbers]

    return score


def _score_models(
    prepared_path: str, checkpoints: list[str], splits: list[str], threads: int, gpu: bool, dev_part_s: float
) -> list[dict[str, Any]]:
    """Score some checkpoints one after another, in one process."""
    import torch

    from hausa_asr.dataset.parts import dev_part, ids_of
    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.model.device import ready_device
    from hausa_asr.model.evaluate import evaluate
    from hausa_asr.storage.fetched import at_hand
    from hausa_asr.training import checkpoint

    torch.set_num_threads(threads)
    device = ready_device("cuda" if gpu else "cpu")
    prepared = load_prepared(at_hand(prepared_path))
    scores = []
    for folder in checkpoints:
        model, processor = checkpoint.load(at_hand(folder))
        model.to(device)  # type: ignore[arg-type]
        by_split: dict[str, Any] = {}
        for split in splits:
            report = evaluate(model, processor, prepared.splits[split])
            by_split[split] = scored(report)
            if split == "dev":
                by_id = dict(zip(report.ids, report.hypotheses, strict=True))
                by_split[split]["heard"] = [
                    by_id[name] for name in ids_of(dev_part(prepared.splits[split], dev_part_s))
                ]
        scores.append(by_split)
    return scores


def scored(report: EvalReport) -> dict[str, Any]:
    """The scores of a model on a split as plain values: `errors`, `words`, `speakers` by utterance, and the `rates`."""
    errors, words = counts_by_utterance(report.references, report.hypotheses)
    return {
        "errors": errors.tolist(),
        "words": words.tolist(),
        "speakers": report.speakers,
        "rates": {name: getattr(report, name) for name in RATES},
    }
