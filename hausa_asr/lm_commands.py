"""The commands `hausa-asr lm train | tune | test`: options in, a language model and its scores out. Called by `cli`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from hausa_asr.command_options import Json, print_json

if TYPE_CHECKING:
    from hausa_asr.language_model.tune import Rate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train a language model on text, tune how it is heard on dev, and test it beside greedy decoding.",
)

_Lm = Annotated[Path, typer.Argument(metavar="LM", help="A language model: an ARPA file.")]
_Model = Annotated[str, typer.Argument(metavar="MODEL", help="An exported model, or its id on the hub.")]
_Prepared = Annotated[Path, typer.Argument(metavar="PREPARED", help="The folder of a prepared dataset.")]


@app.command()
def train(
    texts: Annotated[
        list[Path] | None, typer.Argument(metavar="TEXT...", help="Text files in UTF-8, one sentence a line or more.")
    ] = None,
    prepared: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A prepared dataset: its train is learnt from too; its dev and test are kept out."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The ARPA file to write.")] = Path("lm.arpa"),
    order: Annotated[
        int | None, typer.Option(metavar="N", min=2, max=6, help="The longest n-grams: 4 words, or 6 letters.")
    ] = None,
    letters: Annotated[
        bool, typer.Option("--letters", help="Learn letters and not words, so that words it never read can be heard.")
    ] = False,
    min_count: Annotated[
        int, typer.Option(metavar="N", min=1, help="Leave out words that are rarer, such as misspelled ones.")
    ] = 1,
    json_: Json = False,
) -> None:
    """Train an n-gram language model, and write it as an ARPA file.

    Text is spelled as transcripts are: lower case, hooks kept, numbers as words. Sentences with characters outside the
    alphabet are left out; so are all that dev or test have, since a model that has read them spoils their scores.
    With a model of words only its own words can be recognised: give it much text. KenLM and other tools read the file,
    and a file of theirs can take its place; above some ten million words train with KenLM's lmplz.

    \b
    hausa-asr lm train --prepared my_speech_prepared
    hausa-asr lm train news.txt books/*.txt --prepared my_speech_prepared --out ha.arpa
    """
    from hausa_asr.dataset.prepared import load_prepared
    from hausa_asr.errors import UserError
    from hausa_asr.language_model.train import train as train_on

    if not texts and prepared is None:
        raise UserError("There is no text to learn from.", fix="Give text files, or a dataset with --prepared.")
    n = order or (6 if letters else 4)
    data = None if prepared is None else load_prepared(prepared)
    made = train_on(texts or [], out, data, n=n, of_letters=letters, min_count=min_count)
    if json_:
        print_json({**asdict(made), "file": str(made.file), "dev": made.dev._asdict() if made.dev else None})
        return
    unit = "letters" if letters else "words"
    print(f"text   {made.sentences:,} sentences, {made.words:,} words")
    if made.unspelled:
        print(f"       left out: {made.unspelled:,} sentences with characters outside the alphabet")
    if made.held_out:
        print(f"       left out: {made.held_out:,} sentences that dev or test have")
    if data is None:
        print("       no dataset was given, so what of it dev or test have is not known: --prepared DIR leaves it out")
    print(f"model  {made.vocabulary:,} {unit}; n-grams by length: {', '.join(f'{size:,}' for size in made.sizes)}")
    if made.dev:
        unknown = f"; it does not know {made.dev.unknown:,} {unit} of dev" if made.dev.unknown else ""
        print(f"dev    perplexity {made.dev.value:.1f} for each of {made.dev.words:,} {unit} and ends{unknown}")
    print(f"file   {made.file}")
    print(f"tune   hausa-asr lm tune {made.file} MODEL {prepared or 'PREPARED'}")


@app.command()
def tune(
    lm: _Lm,
    model: _Model,
    prepared: _Prepared,
    beam: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="How many beginnings of a text are kept.")
    ] = 50,
    json_: Json = False,
) -> None:
    """Find how much the language model counts, by WER on dev, and write that beside it.

    Tries some forty pairs of a weight and a score for each word on about 20 minutes of dev. `lm test` and `transcribe`
    use what it found. Tune again for another acoustic model. What the dev WER says is flattered by the tuning.

    \b
    hausa-asr lm tune lm.arpa best-model my_speech_prepared
    """
    from hausa_asr.language_model.tune import tune as tune_on

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("listening", total=None)

        def watch(done: int, of: int) -> None:
            progress.update(task, description="decoding dev", completed=done, total=of)

        found = tune_on(lm, model, prepared, beam=beam, watch=watch)
    if json_:
        print_json({**asdict(found), "file": str(found.file)})
        return
    weights = found.weights
    print(f"dev    WER {found.wer:.4f} with it, {found.greedy_wer:.4f} without, on {found.utterances} utterances")
    print(f"weight {weights.lm:g}, score for each word {weights.word:+g}, beam {weights.beam}; of {found.tried} tried")
    print(f"file   {found.file}")
    print(f"test   hausa-asr lm test {lm} {model} {prepared}")


@app.command()
def test(
    lm: _Lm,
    model: _Model,
    prepared: _Prepared,
    split: Annotated[str, typer.Option(metavar="NAME", help="The split to score: train, dev or test.")] = "test",
    json_: Json = False,
) -> None:
    """Score a split with and without the language model, with 95 % intervals.

    \b
    hausa-asr lm test lm.arpa best-model my_speech_prepared
    """
    from hausa_asr.language_model.tune import test as test_on

    found = test_on(lm, model, prepared, split)
    if json_:
        print_json({**asdict(found), "greedy": found.greedy._asdict(), "beam": found.beam._asdict()})
        return
    print(f"greedy {_rate(found.greedy)}")
    print(f"LM     {_rate(found.beam)}; weight {found.weights.lm:g}, word {found.weights.word:+g}")
    gain, what = found.gain, "clear" if found.gain.is_clear or found.gain.low > 0 else "not clear"
    word = "lower" if gain.wer <= 0 else "higher"
    ends = sorted((-gain.low, -gain.high)) if gain.wer <= 0 else [gain.low, gain.high]
    print(f"{split:<6} WER {abs(gain.wer):.4f} {word} with it [{ends[0]:.4f}, {ends[1]:.4f}], which is {what}, "
          f"on {found.utterances} utterances")  # fmt: skip


def _rate(rate: Rate) -> str:
    return f"WER {rate.wer:.4f} [{rate.low:.4f}, {rate.high:.4f}], decoded in {rate.rtf:.4f} of the speech's time"
