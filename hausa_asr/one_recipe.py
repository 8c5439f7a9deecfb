"""One fine-tune by hand: settings in, a trial's folder with its exported model out. Called by `hausa-asr finetune`.

The folder holds what a sweep's trial holds (`trial.json`, `step-000120/`) and at the end `model/`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from hausa_asr.errors import UserError
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.files import write_whole
from hausa_asr.recipe import CACHE, FEATURES, Answer, FinetuneConfig, Progress, without_base
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import here

if TYPE_CHECKING:
    from hausa_asr.dataset.prepare import Prepared

ABOUT, MODEL = "trial.json", "model"


def run_trial(settings: SweepConfig, out: Path, console: Console, prepared: Callable[[], Prepared]) -> dict[str, Any]:
    """Fine-tune one recipe, score the best checkpoint on dev and test, and export it.

    A trial that was stopped resumes from its last checkpoint.

    Args:
        settings: only their data, model and finetune are used.
        out: the trial's folder.
        console: shows progress; it should take no markup, since paths may have brackets.
        prepared: opens the data; called once everything else has been checked.

    Returns:
        The results, as `--json` prints them: `out`, `model`, `trial`, `base`, `prepared`, `fingerprint`, `settings`,
        `steps`, `seen_s`, `best_step`, `resumed_from`, `wall_s`, and the `dev` and `test` rates (None without a test
        split).

    Raises:
        UserError: `out` holds something else, its disk is too small, the base checkpoint can't be used, or the trial
            diverged.
    """
    started = time.monotonic()
    out = out.absolute()
    _check_folder(out)
    console.print("loading")
    from hausa_asr.model.base_check import check_base
    from hausa_asr.training import checkpoint

    check_base(settings.recipe().base)
    data = prepared()
    settings = settings.with_length(data.seconds["train"])
    about: dict[str, Any] = {
        "trial": out.name,
        "base": settings.recipe().base,
        "prepared": str(data.path),
        "fingerprint": data.fingerprint,
        "settings": without_base(settings.recipe()),
    }
    _check_disk(settings.recipe(), out)
    _open_folder(out, about)
    saved = checkpoint.latest(out)
    resumed_from = saved.step if saved else None
    progress = _train(settings, data, out, console, resumed_from)
    best_step = int(progress.best["step"])
    console.print(f"scoring the best checkpoint, step {best_step}")
    scores = {split: _score(Path(progress.best_checkpoint), data, split) for split in ("dev", "test")}
    model = _export(settings, about, data, progress, scores, out)
    return {
        "out": str(out),
        "model": str(model),
        **about,
        "steps": progress.step,
        "seen_s": progress.seen_s,
        "best_step": best_step,
        "resumed_from": resumed_from,
        "wall_s": round(time.monotonic() - started, 1),
        **{split: asdict(rates) if rates else None for split, rates in scores.items()},
    }


def _train(settings: SweepConfig, data: Prepared, out: Path, console: Console, resumed_from: int | None) -> Progress:
    """Fine-tune to the trial's end, and show each evaluation. Returns the last report.

    Raises:
        UserError: it diverged, or the base checkpoint can't be used.
    """
    from hausa_asr.training.finetune import Data, finetune
    from hausa_asr.training.updates import UpdatePlan

    recipe = settings.recipe()
    base = recipe.base
    train, dev = data.splits["train"], data.splits["dev"]
    updates = UpdatePlan(train.n_samples, recipe.batch_s, recipe.length_s, recipe.seed).updates
    if resumed_from is not None:
        console.print(f"going on from step {resumed_from} of {updates}, as {out} has checkpoints")
    else:
        every = min(recipe.eval_every_steps, updates)
        console.print(f"{updates} steps of about {recipe.batch_s:g} s of audio, evaluated every {every}; base {base}")
    cache = here(settings.storage) / CACHE / FEATURES
    try:
        with _logged_to(console), _ProgressDisplay(console, updates, resumed_from or 0) as display:
            result = finetune(
                recipe, Data(train, dev, data.fingerprint), display.report, base=base, folder=out, cache=cache
            )
    except KeyboardInterrupt:
        console.print("\nStopped. The same command goes on from the last checkpoint.")
        raise
    if result.end == "diverged":
        raise UserError(
            f"The trial diverged: at step {result.progress.step} its loss or gradients were no longer finite.",
            where=out,
            fix="Use a lower finetune.lr_peak or a longer finetune.warmup_fraction, and a new folder.",
        )
    return result.progress


@contextmanager
def _logged_to(console: Console) -> Iterator[None]:
    """Show what the fine-tune logs: that it computes features for the cache, that memory was short."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(record.getMessage())

    log, handler = logging.getLogger("hausa_asr.trial"), Shown()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _export(
    settings: SweepConfig,
    about: dict[str, Any],
    data: Prepared,
    progress: Progress,
    scores: dict[str, ErrorRates | None],
    out: Path,
) -> Path:
    """Write the best checkpoint's model, with its card, to `out/model`."""
    from hausa_asr.export.write import export_checkpoint

    assert scores["dev"] is not None
    card = Card(
        sweep="",
        trial=about["trial"],
        base=about["base"],
        recipe=about["settings"],
        data=data.report,
        dev=scores["dev"],
        test=scores["test"],
        base_license=settings.model.license if about["base"] == settings.model.base else "",
        data_license=settings.data.license,
    )
    return export_checkpoint(Path(progress.best_checkpoint), out / MODEL, card, overwrite=True)


def _check_folder(out: Path) -> None:
    """Refuse a folder that is neither new nor a trial's."""
    if out.is_dir() and ((out / ABOUT).is_file() or not any(out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UserError("The folder holds something else than a trial.", where=out, fix="Give a new folder with --out.")


def _check_disk(recipe: FinetuneConfig, out: Path) -> None:
    """Refuse a disk that is too small for the trial's checkpoints, or for the last ones and the exported model.

    Raises:
        UserError: it is, or the base checkpoint can't be used.
    """
    from hausa_asr.model.feature_files import free_at
    from hausa_asr.model.wav2vec2 import new_model
    from hausa_asr.training.run import bytes_at_most

    model, _ = new_model(recipe.base, recipe)  # the fine-tune need not read it again
    checkpoints, whole = bytes_at_most(model, recipe), sum(one.nbytes for one in model.parameters())
    needed = max(checkpoints, checkpoints // 2 + whole)
    free = free_at(out) + sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if needed > free:
        raise UserError(
            f"The trial's checkpoints and its model take up to {needed / 1e9:,.1f} GB, but the disk has room for "
            f"{free / 1e9:,.1f} GB.",
            where=out,
            fix="Give a folder on another disk with --out, or make room.",
        )


def _open_folder(out: Path, about: dict[str, Any]) -> None:
    """Make the trial's folder, or check that the trial in it has the same settings."""
    file = out / ABOUT
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        old, new = {**_defaults(), **_flat(before)}, _flat(about)
        names = sorted({*old, *new} - {"trial", "prepared"})  # folders may be moved; the fingerprint decides
        changed = [
            f"{name}: {old.get(name)} then, {new.get(name)} now" for name in names if old.get(name) != new.get(name)
        ]
        if changed:
            raise UserError(
                "The folder holds a trial with other settings:\n" + "\n".join(f"  - {one}" for one in changed),
                where=out,
                fix="Give a new folder with --out, or the settings of then.",
            )
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(about, ensure_ascii=False, indent=1))
    except OSError as error:
        raise UserError(
            f"The folder can't be written: {error.strerror}.", where=out, fix="Give another folder with --out."
        ) from error


def _defaults() -> dict[str, Any]:
    """What a setting is that the version which began the trial did not have."""
    return {f"finetune.{name}": value for name, value in without_base(FinetuneConfig()).items()}


def _flat(about: dict[str, Any]) -> dict[str, Any]:
    settings = {f"finetune.{name}": value for name, value in about.get("settings", {}).items()}
    return {**{name: value for name, value in about.items() if name != "settings"}, **settings}


def _score(folder: Path, data: Prepared, split: str) -> ErrorRates | None:
    """The error rates of a checkpoint on a split; None if the dataset has no such split."""
    from hausa_asr.model.device import ready_device
    from hausa_asr.model.evaluate import evaluate
    from hausa_asr.training import checkpoint

    if split not in data.splits:
        return None
    model, processor = checkpoint.load(folder)
    model.to(ready_device())  # type: ignore[arg-type]
    report = evaluate(model, processor, data.splits[split])
    return ErrorRates(report.wer, report.cer, report.wer_folded, report.cer_folded)


class _ProgressDisplay:
    """Shows a line for each evaluation, and on a terminal a progress bar below them."""

    def __init__(self, console: Console, updates: int, step: int) -> None:
        self._console, self._updates, self._first = console, updates, step
        self._began_s: float | None = None
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("until the first evaluation", total=updates, completed=step)

    def __enter__(self) -> _ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def report(self, progress: Progress) -> Answer:
        """Show one evaluation and the time left, and let the trial continue."""
        metrics, done, now = progress.metrics, progress.step - self._first, time.monotonic()
        if self._began_s is None:  # without set-up, which may have made the feature cache
            took_s = progress.seen_s / metrics["audio_s_per_s"] + metrics["eval_runtime_s"] if done > 0 else 0.0
            self._began_s = now - took_s
        left = "–"
        if done > 0:
            left_s = (now - self._began_s) / done * (self._updates - progress.step)
            left = f"{int(left_s // 60)}:{int(left_s % 60):02d} left"
        mark = " *" if progress.step == progress.best["step"] else ""
        speed = f"{metrics['audio_s_per_s']:.{0 if metrics['audio_s_per_s'] >= 10 else 1}f}"
        line = f"step {progress.step:>6}  train loss {metrics['train_loss']:7.4f}  dev loss {metrics['loss']:7.4f}"
        line += f"  WER {metrics['wer']:.4f}  CER {metrics['cer']:.4f}  {speed} audio-s/s  {left}"
        self._console.print(line + mark)
        self._bar.update(self._task, completed=progress.step, description=left)
        return Answer.CONTINUE
