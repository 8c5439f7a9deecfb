"""The command `hausa-asr serve`: options in, a page in the browser. Called by `cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hausa_asr.errors import UserError


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An exported model, or its id on the hub.")],
    lm: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A language model of `hausa-asr lm`; by default the one in the model's folder, if any."
        ),
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Use no language model.")] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535)] = 7860,
    max_minutes: Annotated[
        float, typer.Option(metavar="N", min=0.1, max=120, help="Longer recordings are refused.")
    ] = 10.0,
    max_mb: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Larger files are refused.")] = 100,
    title: Annotated[str, typer.Option(metavar="TEXT", help="The page's title.")] = "Hausa speech to text",
) -> None:
    """Open a page that transcribes: upload a recording or speak, and read the text.

    Shows the text, and each word with its times and how sure the model is. One recording is transcribed at a time. Only
    this machine can open the page, unless --host lets others in: there is no login, so put a server that has one in
    front. Browsers give the microphone to pages of this machine, and to others over https only.

    \b
    hausa-asr serve best-model
    """
    if greedy and lm is not None:
        raise UserError("--greedy uses no language model, and --lm gives one.", fix="Leave out one of them.")
    from hausa_asr.serving.page import LOOPBACK, Limits, check_gradio
    from hausa_asr.serving.page import serve as serve_page

    check_gradio()
    from hausa_asr.model.recognizer import Recognizer

    recognizer = Recognizer(model, lm=False if greedy else lm)
    if host not in LOOPBACK:
        print(f"Anybody who reaches {host} can use this page: there is no login.", file=sys.stderr)
    serve_page(
        recognizer, title, host, port, Limits(60 * max_minutes, max_mb),
        lambda address: print(f"page   {address}\nCtrl-C ends it.", flush=True),
    )  # fmt: skip
