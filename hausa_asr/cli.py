"""The command line: `hausa-asr prepare | finetune | best-model | diagnose | suspects | lm | ...`.

Results go to stdout, everything else (progress, remarks, errors) to stderr. A `UserError` is printed and ends with
exit code 2. What takes long to import is imported by the command that needs it, so that help is there at once. Long,
since most of it is options and help; the work is in the rooms.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hausa_asr import __version__, doctor_command, export_command, lm_commands, serve_command, transcribe_command
from hausa_asr.command_options import Config, Json, Set, print_json, rates, settings_of
from hausa_asr.errors import EXIT_USER_ERROR, UserError, of_the_disk
from hausa_asr.further_commands import Commands
from hausa_asr.storage.address import here

if TYPE_CHECKING:
    from hausa_asr.dataset.prepare import Prepared
    from hausa_asr.settings.sweep import SweepConfig

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # which would keep the line breaks of these docstrings
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hausa speech recognition with wav2vec 2.0: prepare speech, fine-tune, export the best model, transcribe.",
    epilog="A sweep, which looks for the best recipe, is started by: python sweeps/run.py --config FILE, or on a Ray "
    "cluster by: hausa-asr submit --config FILE",
)
app.add_typer(lm_commands.app, name="lm")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point; ends the process with its exit code."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="hausa-asr")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except OSError as fault:
        if (worded := of_the_disk(fault)) is None:
            raise
        print(worded, file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hausa-asr {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def prepare(
    config: Config = None,
    set_: Set = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="The kind of corpus: demo, folder, common_voice, fleurs or hub (sets data.corpus)."
        ),
    ] = None,
    path: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Its folder, archive, URL or id on the hub (sets data.path).")
    ] = None,
    locale: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its language (common_voice: ha, fleurs: ha_ng).")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The configuration of a dataset that has several (hub).")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column with the transcripts (folder, hub).")
    ] = None,
    speaker_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column with the speakers (folder, hub).")
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="If train overlaps with dev or test: refuse (an error) or drop (left out of train)."
        ),
    ] = None,
    allow_overlap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KINDS", help="What they may share: clip, sentence, speaker, audio. Repeat it, or use commas."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write; by default in the storage, where sweeps find it."),
    ] = None,
    show: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Also print N transcripts: as they were, normalised, and with hooks folded."
        ),
    ] = 0,
    json_: Json = False,
) -> None:
    """Turn a corpus into a prepared dataset.

    Decodes every clip to 16 kHz, normalises its transcript, and checks both. Clips that a model can't learn from are
    refused, each with its reason. The same input is not prepared twice. docs/my_corpus.md is a walk-through.

    A folder of audio files of any format with one CSV, TSV or JSONL. Columns: path and text, and if you have them
    split, speaker and duration_s. It may be in an object store:

    \b
    hausa-asr prepare --path my_speech --out my_speech_prepared
    hausa-asr prepare --path my_speech --text-column sentence --set data.manifest=lists/train.tsv
    hausa-asr prepare --path s3://bucket/my_speech

    Common Voice, as downloaded or unpacked, with its own splits:

    \b
    hausa-asr prepare --corpus common_voice --path cv-corpus-17.0-2024-03-15-ha.tar.gz

    FLEURS, from the hub or a copy of it:

    \b
    hausa-asr prepare --corpus fleurs --path hf://datasets/google/fleurs

    Any dataset of the Hugging Face hub, or a folder with parquet files or one from save_to_disk:

    \b
    hausa-asr prepare --corpus hub --path ORGANISATION/NAME --text-column sentence --speaker-column speaker_id

    Several corpora as one, from a settings file with data.join, such as
    data: {join: [{corpus: common_voice, path: cv.tar.gz}, {corpus: hub, path: ORGANISATION/NAME, use: [train]}]}

    \b
    hausa-asr prepare --config my_sweep.yaml

    Synthetic speech, made on the spot, to try things:

    \b
    hausa-asr prepare --corpus demo
    """
    overrides = list(set_ or [])
    given = {
        "corpus": corpus or ("folder" if path else None),
        "path": path,
        "locale": locale,
        "subset": subset,
        "text_column": text_column,
        "speaker_column": speaker_column,
        "overlap": overlap,
        "allow_overlap": [kind.strip() for one in allow_overlap for kind in one.split(",")] if allow_overlap else None,
    }
    overrides += [f"data.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]
    settings = settings_of(config, overrides)
    if out and settings.data.prepared:
        raise UserError(
            "data.prepared names a dataset that is prepared already.", fix="Leave out --out, or that setting."
        )
    prepared = _prepared(settings, out)
    if json_:
        print_json(
            {
                "out": str(prepared.path),
                "reused": prepared.reused,
                "fingerprint": prepared.fingerprint,
                "report": prepared.report,
            }
        )
    else:
        from hausa_asr.dataset.in_words import spelling, summary

        print(summary(prepared))
        if show:
            print(spelling(prepared, show))


@app.command()
def finetune(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The trial's folder; if it has checkpoints, the trial resumes.")
    ],
    config: Config = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Fine-tune one model by one recipe, without a sweep.

    Scores the best checkpoint on dev and test, and exports it to DIR/model. Of the settings it uses data, model and
    finetune. You can stop it at any time: the same command resumes from the last checkpoint. On a CPU the result is
    exactly that without the stop; on a GPU the last bits differ. docs/settings.md lists every setting.

    \b
    hausa-asr finetune --config sweeps/configs/demo.yaml --out my_trial
    hausa-asr finetune --out ha300m --set model.base=facebook/wav2vec2-xls-r-300m --set data.prepared=my_speech_prepared
    """
    if config is None and not set_:
        raise UserError("No settings were given.", fix="Add --config sweeps/configs/demo.yaml, or --set NAME=VALUE.")
    settings = settings_of(config, set_ or [])
    from hausa_asr.one_recipe import run_trial

    trained = run_trial(settings, out, _stderr(), lambda: _prepared(settings))
    if json_:
        print_json(trained)
        return
    for split in ("dev", "test"):
        if scores := trained[split]:
            print(f"{split:<6} {rates(scores['wer'], scores['cer'])}, hooks folded WER {scores['wer_folded']:.4f}")
    print(f"model  {trained['model']}")
    print(f"try    hausa-asr transcribe --model {trained['model']} FILE")


app.command("best-model")(export_command.best_model)


@app.command()
def diagnose(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An exported model, or its id on the hub.")],
    prepared: Annotated[Path, typer.Argument(metavar="PREPARED", help="The folder of a prepared dataset.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="The split to transcribe: train, dev or test.")] = "dev",
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another exported model, whose figures stand beside.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Also write a page, with examples to listen to.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show what a model gets wrong: dropped words, word boundaries, hooks, letters, kinds of clips.

    What stands out comes first, in sentences, if the whole 95 % interval is beyond the rule's threshold. Then all
    counts with their intervals. Which faults to mend is for you to choose; do so on dev, and look at test last.

    \b
    hausa-asr diagnose best-model my_speech_prepared
    hausa-asr diagnose best-model my_speech_prepared --baseline first-model --out diagnosis.html
    """
    from hausa_asr.diagnosis.run import diagnosed

    found = diagnosed(model, prepared, split, baseline)
    if json_:
        beside = found.baseline.to_json() if found.baseline else None
        print_json({"model": model, "split": split, **found.model.to_json(), "baseline": beside})
    else:
        print(found.text())
    if out:  # last: what took minutes is printed, whether or not the page can be written
        found.write(out, f"What {Path(model).name} gets wrong on {split}")
        if not json_:
            print(f"page  {out}")


@app.command()
def suspects(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An exported model, or its id on the hub.")],
    prepared: Annotated[Path, typer.Argument(metavar="PREPARED", help="The folder of a prepared dataset.")],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="The split to look through: train, dev or test.")
    ] = "train",
    out: Annotated[Path, typer.Option("--out", metavar="FILE.tsv", help="The table to write.")] = Path("suspects.tsv"),
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="Also write a page to listen to them.")
    ] = None,
    cross_fit: Annotated[
        int | None,
        typer.Option(min=2, max=20, metavar="K", help="Fine-tune K times without a K-th, which the model then judges."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="With --cross-fit: start from this, not MODEL's base."),
    ] = None,
) -> None:
    """List utterances whose transcript and sound disagree.

    Those of which the model is much surer of what it heard than of what is written: wrong transcripts, words that were
    left out or said twice, recordings cut off. Listen to them, and mend or drop them. A model believes transcripts that
    it has seen often: with --cross-fit no utterance is judged by one that has learnt it, which costs K fine-tunes by
    MODEL's recipe.

    \b
    hausa-asr suspects best-model my_speech_prepared --page suspects.html
    hausa-asr suspects best-model my_speech_prepared --cross-fit 2
    """
    from rich.progress import Progress

    from hausa_asr.diagnosis.run import refuse_unwritable, suspected
    from hausa_asr.diagnosis.suspects_page import as_lines

    if base is not None and cross_fit is None:
        raise UserError("--base is for --cross-fit.", fix="Add --cross-fit 2, or leave it out.")
    refuse_unwritable(out, page)
    console = _stderr()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("listening", total=None)
        found = suspected(
            model, prepared, split, lambda done, of: progress.update(task, completed=done, total=of),
            folds=cross_fit or 0, base=base,
            watch_fine_tunes=lambda fold, step, of: progress.update(
                task, completed=step, total=of, description=f"fine-tune {fold} of {cross_fit}"
            ),
        )  # fmt: skip
    print("\n".join(as_lines(found.found, len(found.split), found.limit)))
    found.write(out, page, f"Suspects in {split}")
    print(f"table  {out}")
    if page:
        print(f"page   {page}")


app.command("transcribe")(transcribe_command.transcribe)
app.command("serve")(serve_command.serve)
app.command("doctor")(doctor_command.doctor)


def _prepared(settings: SweepConfig, out: Path | None = None) -> Prepared:
    from hausa_asr.dataset.from_settings import prepared_dataset
    from hausa_asr.recipe import CACHE

    return prepared_dataset(settings.data, here(settings.storage) / CACHE, out=out, console=_stderr())


def _stderr() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
