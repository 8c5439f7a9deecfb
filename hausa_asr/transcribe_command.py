"""The command `hausa-asr transcribe`: recordings in, text, tables, JSON or subtitles out. Called by `cli`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from hausa_asr.command_options import Json, print_json
from hausa_asr.errors import EXIT_USER_ERROR, UserError

if TYPE_CHECKING:
    from hausa_asr.model.recognizer import Lm, Recognizer, Transcript


_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif", ".amr", ".mp4",
          ".webm", ".3gp", ".mkv", ".mov")  # fmt: skip


_STDIN = Path("-")


class Format(StrEnum):
    """What is written of each recording."""

    text = "text"
    tsv = "tsv"
    jsonl = "jsonl"
    srt = "srt"
    vtt = "vtt"


def transcribe(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Recordings of up to a day each; of a folder all that are audio; - for standard input.",
        ),
    ],
    model: Annotated[
        str, typer.Option(metavar="DIR", help="An exported model, or its id on the Hugging Face hub.")
    ] = "best-model",
    lm: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A language model of `hausa-asr lm`; by default the model's own, if any."),
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Use no language model.")] = False,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="What to write; by default text, or with several files tsv: file, tab, text."),
    ] = None,
    words: Annotated[
        bool, typer.Option("--words", help="With JSON: each word too, with its times and the chance that it is right.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Files decoded ahead at a time, and processes that search with a language model. More pay on a GPU.",
        ),
    ] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write a file for each recording here, such as a.srt.")
    ] = None,
    json_: Json = False,
) -> None:
    """Print what is said in recordings.

    They may be wav, flac, mp3, ogg, opus, m4a, webm, ... at any sampling rate. For one file it prints the text; for
    several a line each, with the file, a tab and its text. If a file can't be read, it is named on stderr, the others
    are still transcribed, and the exit code is 2. Long recordings are cut at their pauses, and silence is skipped.

    \b
    hausa-asr transcribe clip.mp3
    hausa-asr transcribe --model ha-best recordings/*.wav > texts.tsv
    hausa-asr transcribe --lm ha.arpa --format srt --out subtitles interviews/
    hausa-asr transcribe --format jsonl --words clip.mp3
    ffmpeg -i film.mkv -f wav - | hausa-asr transcribe -
    """
    recordings = list(_recordings(files))
    chosen = format_ or (Format.text if len(recordings) == 1 or out else Format.tsv)
    timed = chosen in (Format.srt, Format.vtt)
    if words and not json_ and chosen is not Format.jsonl:
        raise UserError(f"{chosen.value} has no place for words with their times.", fix="Add --json or --format jsonl.")
    if greedy and lm is not None:
        raise UserError("--greedy uses no language model, and --lm gives one.", fix="Leave out one of them.")
    if timed and out is None and len(recordings) > 1:
        raise UserError(f"Each recording has {chosen.value} subtitles of its own.", fix="Give a folder with --out.")
    if out is not None:
        _check_names(recordings, out)

    rows, failed, written = [], False, 0
    heard = _heard(recordings, model, False if greedy else lm, words or timed, jobs)
    # Lines that appear on the terminal show how far it is.
    hidden = len(recordings) == 1 or (out is None and not json_ and sys.stdout.isatty())
    for transcript in _watched(heard, len(recordings), hidden):
        if json_:
            rows.append(_row(transcript))
        if transcript.error is not None:
            failed = True
            print(f"{transcript.file}: {transcript.error}", file=sys.stderr)
        elif out is not None:
            _write(transcript, chosen, out)
            written += 1
        elif not json_:
            print(_as_written(transcript, chosen), flush=True)
    if out is not None:
        print(f"{written} of {len(recordings)} transcripts written to {out}", file=sys.stderr)
    if json_:
        print_json({"model": model, "files": rows})
    if failed:
        raise typer.Exit(EXIT_USER_ERROR)


def _recordings(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, `-` among them, and in place of a folder all audio files in it and below."""
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in _AUDIO and os.path.isfile(file))
        if not inside:
            raise UserError(
                "There are no audio files in the folder.", where=path, fix=f"It takes {', '.join(_AUDIO)} from folders."
            )
        yield from inside


def _heard(recordings: Sequence[Path], model: str, lm: Lm, words: bool, jobs: int) -> Iterator[Transcript]:
    """Transcribe recordings; standard input goes through a file that is removed afterwards."""
    from hausa_asr.model.recognizer import Recognizer

    hear = Recognizer(model, lm=lm, jobs=jobs)  # at once: what is wrong with it is said before a bar is drawn
    heard = _with_stdin(recordings, hear, words) if _STDIN in recordings else hear.files(recordings, words=words)

    def to_the_end() -> Iterator[Transcript]:
        with hear:
            yield from heard

    return to_the_end()


def _with_stdin(recordings: Sequence[Path], hear: Recognizer, words: bool) -> Iterator[Transcript]:
    with tempfile.NamedTemporaryFile(prefix="hausa-asr-stdin-") as held:
        shutil.copyfileobj(sys.stdin.buffer, held)
        held.flush()
        if not held.tell():
            raise UserError("There is nothing on standard input.", fix="Pipe a recording into it, or name a file.")
        files = [Path(held.name) if one == _STDIN else one for one in recordings]
        for one, name in zip(hear.files(files, words=words), recordings, strict=True):
            yield replace(one, file=str(name))


def _check_names(recordings: Sequence[Path], out: Path) -> None:
    """Refuse two recordings whose transcripts would have one name."""
    seen: dict[str, Path] = {}
    for recording in recordings:
        if (other := seen.setdefault(recording.stem, recording)) != recording:
            raise UserError(
                f"{other} and {recording} would both be written to {recording.stem}.", where=out,
                fix="Transcribe them one after the other, into two folders.",
            )  # fmt: skip


def _watched(transcripts: Iterator[Transcript], count: int, hidden: bool) -> Iterator[Transcript]:
    """The transcripts, with a progress bar if stderr is a terminal, and at the end how fast that was."""
    console = Console(stderr=True)
    began, seconds = time.monotonic(), 0.0
    hidden = hidden or not console.is_terminal
    # What is printed goes to stdout, and not above the bar.
    with Progress(console=console, transient=True, disable=hidden, redirect_stdout=False) as progress:
        task = progress.add_task("transcribing", total=count)
        for transcript in transcripts:
            seconds += transcript.duration_s or 0.0
            yield transcript
            progress.advance(task)
    took_s = time.monotonic() - began
    if not hidden:
        console.print(f"{seconds:,.0f} s of audio in {took_s:,.0f} s, {seconds / max(took_s, 1e-9):,.1f} times as fast")


def _as_written(transcript: Transcript, format_: Format) -> str:
    if format_ is Format.text:
        return transcript.text or ""
    if format_ is Format.tsv:
        return f"{transcript.file}\t{transcript.text}"
    if format_ is Format.jsonl:
        return json.dumps(_row(transcript), ensure_ascii=False, allow_nan=False)
    from hausa_asr.decoding.subtitles import subtitles

    return subtitles(transcript.words or [], format_.value).rstrip("\n")


def _write(transcript: Transcript, format_: Format, out: Path) -> None:
    from hausa_asr.files import write_whole

    place = out / f"{Path(transcript.file).stem}.{'txt' if format_ is Format.text else format_.value}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(place, _as_written(transcript, format_) + "\n")
    except OSError as error:
        raise UserError(
            f"The transcript can't be written: {error.strerror}.", where=place, fix="Give another --out."
        ) from error


def _row(transcript: Transcript) -> dict[str, object]:
    row = asdict(transcript)
    row["file"] = os.fsencode(transcript.file).decode("utf-8", "replace")  # a name may be in another encoding
    if transcript.words is None:
        del row["words"]
    return row
