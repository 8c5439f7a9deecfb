"""One fine-tune by hand: settings in, a trial's folder with its exported model out. Called by `hausa-asr finetune`.

The folder holds what a sweep's trial holds (`trial.json`, `step-000120/`) and at the end `model/`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from hausa_asr.errors import UserError
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.recipe import Answer, FinetuneResult, Progress
from hausa_asr.settings.sweep import SweepConfig

if TYPE_CHECKING:
    from hausa_asr.dataset.prepare import Prepared

ABOUT, MODEL = "trial.json", "model"


def run_trial(settings: SweepConfig, out: Path, console: Console, prepared: Callable[[], Prepared]) -> dict[str, Any]:
    """Fine-tune, or go on with it; then score the best checkpoint on dev and test, and export it.

    Args:
        settings: of these data, model and finetune count.
        out: the trial's folder.
        console: shows progress; it should take no markup, since paths may have brackets.
        prepared: opens the data, once all else is known to be in order.

    Returns:
        What a script would read: `out`, `model`, `trial`, `base`, `prepared`, `settings`, `steps`, `seen_s`,
        `resumed_from`, `wall_s`, and `dev` and `test` scores (None if there is no test split).

    Raises:
        UserError: `out` is something else, or another trial's; the base checkpoint can't be used; or it diverged.
    """
    started = time.monotonic()
    out = out.absolute()
    _check_folder(out)
    console.print("loading")
    from hausa_asr.dataset.from_settings import CACHE, FEATURES
    from hausa_asr.export.write import export_checkpoint
    from hausa_asr.model.base_check import check_base
    from hausa_asr.training import checkpoint
    from hausa_asr.training.finetune import Data, finetune
    from hausa_asr.training.updates import UpdatePlan

    check_base(settings.model.base)
    recipe = settings.recipe()
    data = prepared()
    about: dict[str, Any] = {
        "trial": out.name,
        "base": settings.model.base,
        "prepared": str(data.path),
        "fingerprint": data.fingerprint,
        "settings": asdict(recipe),
    }
    _open_folder(out, about)
    train, dev = data.splits["train"], data.splits["dev"]
    updates = UpdatePlan(train.n_samples, recipe.batch_s, recipe.length_s, recipe.seed).updates
    saved = checkpoint.latest(out)
    if saved:
        console.print(f"going on from step {saved.step} of {updates}, as {out} has checkpoints")
    else:
        every = min(recipe.eval_every_steps, updates)
        console.print(
            f"{updates} steps of about {recipe.batch_s:g} s of audio, evaluated every {every}; base {about['base']}"
        )
    try:
        with _Follow(console, updates, saved.step if saved else 0) as follow:
            result = finetune(
                recipe,
                Data(train, dev, data.fingerprint),
                follow.report,
                base=settings.model.base,
                folder=out,
                cache=Path(settings.storage) / CACHE / FEATURES,
            )
    except KeyboardInterrupt:
        console.print("\nStopped. The same command goes on from the last checkpoint.")
        raise
    _check_end(result, out)
    best = Path(result.progress.best_checkpoint)
    console.print(f"scoring the best checkpoint, step {int(result.progress.best['step'])}")
    scores = {split: _score(best, data, split) for split in ("dev", "test")}
    assert scores["dev"] is not None
    card = Card(
        sweep="",
        trial=out.name,
        base=settings.model.base,
        recipe=about["settings"],
        data=data.report,
        dev=scores["dev"],
        test=scores["test"],
    )
    model = export_checkpoint(best, out / MODEL, card, overwrite=True)
    return {
        "out": str(out),
        "model": str(model),
        **about,
        "steps": result.progress.step,
        "seen_s": result.progress.seen_s,
        "best_step": int(result.progress.best["step"]),
        "resumed_from": saved.step if saved else None,
        "wall_s": round(time.monotonic() - started, 1),
        **{split: asdict(found) if found else None for split, found in scores.items()},
    }


def _check_folder(out: Path) -> None:
    """Only a new folder or a trial's is written to."""
    if out.is_dir() and ((out / ABOUT).is_file() or not any(out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UserError("There is something else than a trial.", where=out, fix="Give a new folder with --out.")


def _open_folder(out: Path, about: dict[str, Any]) -> None:
    """Make the trial's folder, or see that the trial that is there is this one."""
    file = out / ABOUT
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        old, new = _flat(before), _flat(about)
        names = sorted({*old, *new} - {"trial", "prepared"})  # folders may be moved; the fingerprint decides
        changed = [
            f"{name}: {old.get(name)} then, {new.get(name)} now" for name in names if old.get(name) != new.get(name)
        ]
        if changed:
            raise UserError(
                "The folder has a trial with other settings:\n" + "\n".join(f"  - {one}" for one in changed),
                where=out,
                fix="Give a new folder with --out, or the settings of then.",
            )
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        aside = out / f"{ABOUT}.partial"
        aside.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
        aside.rename(file)
    except OSError as error:
        raise UserError(
            f"The folder can't be written: {error.strerror}.", where=out, fix="Give another folder with --out."
        ) from error


def _flat(about: dict[str, Any]) -> dict[str, Any]:
    settings = {f"finetune.{name}": value for name, value in about.get("settings", {}).items()}
    return {**{name: value for name, value in about.items() if name != "settings"}, **settings}


def _check_end(result: FinetuneResult, out: Path) -> None:
    if result.end == "diverged":
        raise UserError(
            f"The trial diverged: at step {result.progress.step} its loss or gradients were no longer finite.",
            where=out,
            fix="Use a lower finetune.lr_peak or a longer finetune.warmup_fraction, and a new folder.",
        )


def _score(folder: Path, data: Prepared, split: str) -> ErrorRates | None:
    import torch

    from hausa_asr.model.evaluate import evaluate
    from hausa_asr.training import checkpoint

    if split not in data.splits:
        return None
    model, processor = checkpoint.load(folder)
    if torch.cuda.is_available():
        model.to(torch.device("cuda"))  # type: ignore[arg-type]
    report = evaluate(model, processor, data.splits[split])
    return ErrorRates(report.wer, report.cer, report.wer_folded, report.cer_folded)


class _Follow:
    """Shows a fine-tune's reports: a line each, and on a terminal a bar below them."""

    def __init__(self, console: Console, updates: int, step: int) -> None:
        self._console, self._updates, self._first = console, updates, step
        self._started = time.monotonic()
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("until the first evaluation", total=updates, completed=step)

    def __enter__(self) -> _Follow:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def report(self, progress: Progress) -> Answer:
        """Show where the trial stands, and let it go on."""
        metrics, done = progress.metrics, progress.step - self._first
        left = "–"
        if done > 0:
            left_s = (time.monotonic() - self._started) / done * (self._updates - progress.step)
            left = f"{int(left_s // 60)}:{int(left_s % 60):02d} left"
        mark = " *" if progress.step == progress.best["step"] else ""
        line = f"step {progress.step:>6}  train loss {metrics['train_loss']:7.4f}  dev loss {metrics['loss']:7.4f}"
        line += (
            f"  WER {metrics['wer']:.4f}  CER {metrics['cer']:.4f}  {metrics['audio_s_per_s']:.0f} audio-s/s  {left}"
        )
        self._console.print(line + mark)
        self._bar.update(self._task, completed=progress.step, description=left)
        return Answer.CONTINUE
