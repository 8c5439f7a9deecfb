"""Find the best model that MLflow knows, and export it.

In: a tracking URI, an experiment, perhaps a sweep. Out: a model folder that is complete or absent, and what is in it.
Called by `hausa-asr best-model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hausa_asr.errors import UserError, first_line
from hausa_asr.export.check import Checked, check_export
from hausa_asr.export.choice import Choice, choose
from hausa_asr.export.confidence import add_calibrations
from hausa_asr.export.fetch import fetch, verdict_of
from hausa_asr.export.folder import check_out, written_aside
from hausa_asr.export.language_model import add_language_model, check_language_model
from hausa_asr.export.learning import add_learning
from hausa_asr.export.onnx import OnnxExport, add_onnx, check_onnx
from hausa_asr.export.speed import real_time_factor

if TYPE_CHECKING:
    from hausa_asr.decoding.confidence import Calibration
    from hausa_asr.tracking.tracker import SweepRun, TrialRun


@dataclass(frozen=True)
class Exported:
    """The model that `best_model` exported, and how good it is.

    Attributes:
        out: the folder that was written.
        sweep, trial, run_id: the trial and its run in MLflow.
        wer, cer: on dev; `cer` is None where it was not recorded. Of a winner of finalists the means over its seeds.
        test_wer, test_cer: on test; None where the winner was not scored on it.
        source: whether it came from the sweep's artifact or from the trial's checkpoint.
        chosen: why this one: `finalists`, or `lowest dev WER` where no finalists ran or none is fast enough.
        seeds: on how many fresh seeds the winner of finalists was trained; 0 without finalists.
        soup: the trials whose weights the model is the mean of, if it is such an average; its error rates are its own.
        scored_again: the WER on dev of the folder as it was written; None where that was not asked, or can't be.
        calibrations: how sure the model may be of a word, by how it decodes; {} where it was not checked.
        onnx: how ONNX did beside PyTorch; None where it was not written.
        rtf: seconds for a second of audio on this machine; None where it was not asked for.
        version: of the registered model; None where it was not registered.
        verdict: how the winner did against the baseline, in a sentence; "" for a model that is no sweep's winner.
    """

    out: Path
    sweep: str
    trial: str
    wer: float
    cer: float | None
    test_wer: float | None
    test_cer: float | None
    source: Literal["artifact", "checkpoint"]
    run_id: str
    chosen: Literal["finalists", "lowest dev WER"] = "lowest dev WER"
    seeds: int = 0
    soup: tuple[str, ...] = ()
    verdict: str = ""
    scored_again: float | None = None
    version: str | None = None
    rtf: float | None = None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    onnx: OnnxExport | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        onnx = self.onnx and {**self.onnx._asdict(), "forms": [form._asdict() for form in self.onnx.forms]}
        calibrations = {name: one._asdict() for name, one in self.calibrations.items()}
        return {**self.__dict__, "out": str(self.out), "onnx": onnx, "calibrations": calibrations}


def best_model(
    uri: str,
    experiment: str,
    *,
    sweep: str | None,
    out: Path,
    overwrite: bool = False,
    with_lm: Path | None = None,
    dataset: str | None = None,
    rank: int = 1,
    max_rtf: float | None = None,
    check: bool = False,
    register: str | None = None,
    alias: str | None = None,
    onnx: bool = False,
    int8: bool = False,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Exported:
    """Export the best model of a sweep, or of a whole experiment, as MLflow has it; `choose` says which that is.

    The winner of a finished sweep is an artifact of the sweep's run, so the tracking server is enough. Any other trial
    is exported from its checkpoint in the sweep's storage.

    Args:
        uri: MLflow's tracking URI.
        experiment: the experiment's name.
        sweep: a sweep's name or run id; None for all sweeps of the experiment.
        out: the folder to write.
        overwrite: replace `out` if it is an export.
        with_lm: a language model to put into the folder.
        dataset: without `sweep`, the prepared dataset whose sweeps are compared, by its folder's name or the beginning
            of its fingerprint; None where all have the same.
        rank: 1 for the best, 2 for the second; only of one sweep.
        max_rtf: the best model that takes no more seconds than this for a second of audio, on this machine.
        check: score it on dev again, from disk in a process of its own, if the prepared dataset is on this machine.
        register: register the model in MLflow under this name too.
        alias: that is to point at the new version.
        onnx, int8: write it as ONNX too, and as ONNX with weights of 8 bits.
        watch: called as the check goes on, with how many utterances are done, and of how many.

    Raises:
        UserError: MLflow can't be read, no trial has a WER, sweeps can't be compared, `out` is taken, or the model was
            not found or has another WER.
    """
    check_out(out, overwrite)
    check_language_model(with_lm, out)
    if dataset is not None and sweep is not None:
        raise UserError(
            "A sweep has one dataset: --dataset is for choosing among sweeps.", fix="Leave out one of them."
        )
    if onnx or int8:
        check_onnx()
    from hausa_asr.dataset.prepared import prepared_if_same
    from hausa_asr.tracking import registry
    from hausa_asr.tracking import tracker as tracking

    if register is not None:
        registry.check_names(register, alias)
    elif alias is not None:
        raise UserError("An alias points at a registered model.", fix="Add --register NAME.")
    try:
        tracker = tracking.Tracker.open(uri, experiment)
        trials = tracker.trials(sweep)
        parents = {run.run_id: run for run in tracker.sweeps()}
        where = f"{tracker.shown_uri}, experiment {experiment}" + (f", sweep {sweep}" if sweep else "")
        of_one = {"one_sweep": sweep is not None, "dataset": dataset, "rank": rank}
        with written_aside(out, overwrite) as partial:
            rtf: float | None = None
            slow: dict[str, float] = {}  # base checkpoints, each with how slow it is
            while True:
                chosen = _choose_fast(trials, parents, where, of_one, slow, max_rtf)
                best = chosen.run
                parent = parents.get(best.parent)
                source, saved_wer = fetch(tracker, best, parent, trials, partial)
                members, own = _soup(parent, source)
                here = None
                if check or onnx or int8 or max_rtf is not None:
                    here = prepared_if_same(best.tags.get("prepared") or "nowhere", best.tags.get("fingerprint"))
                if max_rtf is None:
                    break
                rtf = real_time_factor(partial, here.splits["dev"] if here is not None else None)
                if rtf <= max_rtf:
                    break
                slow[best.tags.get("base", "")] = rtf
                for file in partial.iterdir():
                    file.unlink()
            if with_lm is not None:
                add_language_model(with_lm, partial)
            checked: Checked | None = None
            if check and here is not None:
                wer = own.get("wer") if members else saved_wer if saved_wer is not None else best.wer
                part_s = 0.0 if members else float(best.params.get("dev_part_s", 0.0))
                checked = check_export(partial, here.path, part_s, wer, watch) if wer is not None else None
            if checked is not None and checked.calibrations:
                add_calibrations(partial, checked.calibrations)
            add_learning(tracker, best, parent, trials, partial)
            dev = here.splits["dev"] if here is not None else None
            made = add_onnx(partial, int8, dev) if onnx or int8 else None
        version = None
        if register is not None:
            tags = {"sweep": best.sweep, "trial": best.trial, "dev_wer": f"{own.get('wer', chosen.wer):.4f}"}
            if members:
                tags["soup"] = ", ".join(members)
            version = registry.register(tracker, best.run_id, out, register, alias, tags, verdict_of(best, parent))
    except tracking.MlflowException as fault:
        raise UserError(
            f"MLflow stopped answering: {first_line(fault)}.", where=uri, fix="Check the server, then try again."
        ) from fault
    except OSError as fault:
        raise UserError(
            f"The model can't be exported: {first_line(fault)}.",
            where=out,
            fix="See whether MLflow's server answers and the disks have room, then try again.",
        ) from fault
    return Exported(
        out=out.resolve(),
        sweep=best.sweep,
        trial=best.trial,
        wer=own.get("wer", chosen.wer),
        cer=own.get("cer", chosen.cer),
        test_wer=own.get("test_wer") if members else chosen.test_wer,
        test_cer=own.get("test_cer") if members else chosen.test_cer,
        source=source,
        run_id=best.run_id,
        chosen="finalists" if chosen.seeds else "lowest dev WER",
        seeds=chosen.seeds,
        soup=members,
        verdict=verdict_of(best, parent),
        scored_again=checked.wer if checked is not None else None,
        calibrations=checked.calibrations if checked is not None else {},
        version=version,
        onnx=made,
        rtf=rtf,
    )


def _choose_fast(
    trials: list[TrialRun],
    parents: Mapping[str, SweepRun],
    where: str,
    of_one: dict[str, Any],
    slow: Mapping[str, float],
    max_rtf: float | None,
) -> Choice:
    """Choose the best trial of the base checkpoints that are not too slow.

    Raises:
        UserError: all are.
    """
    try:
        return choose(trials, parents, where, **of_one, without=slow.keys())
    except UserError as error:
        if any(one.wer is not None and one.tags.get("base", "") not in slow for one in trials) or not slow:
            raise
        measured = ", ".join(f"{base} takes {rtf:.3g}" for base, rtf in slow.items())
        raise UserError(
            f"No model is as fast as {max_rtf:g} s for a second of audio on this machine: {measured}.",
            where=where,
            fix="Give a higher --max-rtf, or search among smaller checkpoints (space.base).",
        ) from error


def _soup(parent: SweepRun | None, source: str) -> tuple[tuple[str, ...], dict[str, float]]:
    """The members and the error rates of an average that a sweep exported; () and {} for a model of one trial."""
    if parent is None or source != "artifact" or not parent.tags.get("soup"):
        return (), {}
    own = {name.removeprefix("soup_"): value for name, value in parent.metrics.items() if name.startswith("soup_")}
    return tuple(parent.tags["soup"].split(", ")), own
