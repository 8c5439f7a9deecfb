"""The command `hausa-asr best-model`: options in, the folder of the best model out. Called by `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hausa_asr.command_options import Config, Json, print_json, rates, settings_of
from hausa_asr.userinfo import keep_for_mlflow

if TYPE_CHECKING:
    from hausa_asr.export.best_model import Exported


def best_model(
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A sweep's name or run id; by default that of --config, else all of the experiment."
        ),
    ] = None,
    uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's tracking URI, in place of mlflow.uri.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="MLflow's experiment, in place of mlflow.experiment.")
    ] = None,
    config: Config = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")] = Path("best-model"),
    with_lm: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A language model of `hausa-asr lm`, which `transcribe` then uses."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Without --sweep: compare sweeps on this dataset, a folder or fingerprint."),
    ] = None,
    rank: Annotated[
        int, typer.Option(min=1, metavar="K", help="The K-th best of the sweep, in place of the best.")
    ] = 1,
    max_rtf: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="The best that takes at most X s for a second of audio, measured here."),
    ] = None,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register it in MLflow's model registry under this name.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --register: let this alias, such as champion, point at it.")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Push the folder to the Hugging Face hub, private if new.")
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a folder too that is a page to try it, as a hub Space."),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write it as ONNX too, measured beside PyTorch.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also as ONNX with weights of 8 bits.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Score the folder on dev again, if the dataset is here.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the folder if it is an exported model.")
    ] = False,
    json_: Json = False,
) -> None:
    """Export the best model that MLflow knows.

    Takes the winner of a sweep's finalists, or the lowest dev WER if no finalists ran, and prints which of the two it
    was. Writes a folder with weights, processor and a model card. Reads sqlite:///mlflow.db unless --uri, the settings
    or MLFLOW_TRACKING_URI name another place. The winner of a finished sweep is downloaded from MLflow; any other trial
    is read from its checkpoint in the sweep's storage. Where the prepared dataset is on this machine, the folder is
    scored on dev again, and not kept if its WER is not that of the trial.

    WERs on different datasets say nothing about each other: without --sweep, --dataset names one if there are several.

    \b
    hausa-asr best-model
    hausa-asr best-model --config my_sweep.yaml --out ha-best
    hausa-asr best-model --sweep demo-20260101-120000 --uri http://127.0.0.1:5000 --out ha-best
    hausa-asr best-model --sweep demo-20260101-120000 --register hausa --alias champion
    """
    from hausa_asr.export.best_model import best_model as export_best
    from hausa_asr.export.hub import check_repo, push
    from hausa_asr.export.space import check_space, write_space

    if push_to_hub is not None:
        check_repo(push_to_hub)
    if space is not None:
        check_space(space, out, overwrite)

    settings = settings_of(config, [])
    mlflow = settings.mlflow
    uri = keep_for_mlflow(uri) if uri else None
    if dataset is None:
        sweep = sweep or settings.name
    with Console(stderr=True).status("exporting") as status:
        exported = export_best(
            uri or mlflow.uri, experiment or mlflow.experiment, sweep=sweep, out=out, overwrite=overwrite,
            with_lm=with_lm, dataset=dataset, rank=rank, max_rtf=max_rtf, check=check, register=register, alias=alias,
            onnx=onnx, int8=int8,
            watch=lambda done, of: status.update(f"scoring the folder on dev again: {done:,} of {of:,}"),
        )  # fmt: skip
    if not json_:
        _show(exported, out, uri or mlflow.uri, register, alias)
        if check and exported.scored_again is None:
            print("check  not done: the prepared dataset is not on this machine, or has changed")
    if space is not None:
        write_space(exported.out, space)
        if not json_:
            print(f"space  {space.resolve()}; try it with `python {space / 'app.py'}`, push it with\n"
                  f"       hf upload --repo-type space OWNER/NAME {space}")  # fmt: skip
    pushed = push(exported.out, push_to_hub) if push_to_hub is not None else None  # last: all else is there by now
    if json_:
        more = {"hub": pushed} if pushed else {}
        print_json({**exported.to_json(), **({"space": str(space.resolve())} if space else {}), **more})
    elif pushed:
        print(f"hub    {pushed}")


def _show(exported: Exported, out: Path, uri: str, register: str | None, alias: str | None) -> None:
    """Print what was exported."""
    from hausa_asr.decoding.confidence import WITH_LM

    place = "the sweep's artifact in MLflow" if exported.source == "artifact" else "its checkpoint in the storage"
    print(f"trial  {exported.trial} of sweep {exported.sweep}, from {place}")
    if exported.soup:
        print(f"model is the average of {', '.join(exported.soup)}; WER and CER are its own")
    elif exported.seeds:
        seeds = "1 fresh seed" if exported.seeds == 1 else f"{exported.seeds} fresh seeds"
        print(f"chosen by its finalists; WER and CER are means over {seeds}")
    else:
        print("chosen by the lowest dev WER; no finalists ran" + (", or none is fast enough" if exported.rtf else ""))
    print(f"dev    {rates(exported.wer, exported.cer)}")
    scored = exported.test_wer is not None
    print(f"test   {rates(exported.test_wer, exported.test_cer) if scored else 'not scored'}")
    if exported.scored_again is not None:
        print(f"check  dev WER {exported.scored_again:.4f} of this very model, scored again from disk")
    if exported.rtf is not None:
        print(f"speed  {exported.rtf:.4f} s for a second of audio on this machine")
    for name, one in exported.calibrations.items():
        how = " with the language model" if name == WITH_LM else ""
        print(f"words  their confidence{how} is off by {one.error:.3f} in the mean; before {one.raw_error:.3f}")
    if exported.onnx is not None:
        for form in exported.onnx.forms:
            wer = "" if form.wer is None else f"WER {form.wer:.4f} on {exported.onnx.clips} utterances of dev, "
            print(f"speed  {form.name:<12} {wer}{form.rtf:.4f} s for a second of audio, {form.mb:,.1f} MB")
    if exported.version is not None:
        at = f"models:/{register}@{alias}" if alias else f"models:/{register}/{exported.version}"
        print(f"known  as version {exported.version} of {register}, in Python:")
        print(f"       mlflow.set_tracking_uri({uri!r}); mlflow.transformers.load_model({at!r})")
    print(f"model  {exported.out}")
    print(f"try    hausa-asr transcribe --model {out} FILE")
    if exported.verdict:
        print(exported.verdict)
