"""What a model card says of the data: the report of a prepared dataset in, Markdown out. Called by `model_card`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

DEMO_WARNING = (
    "> **This model has heard no human being.** It was trained and scored on the demo corpus, which is synthetic\n"
    "> speech from one engine (espeak-ng) and a small grammar. Its WER says nothing about people."
)


def is_demo(data: Mapping[str, Any]) -> bool:
    """Whether a prepared dataset's report is of the demo corpus, and of no other."""
    return all(part.get("corpus") == "demo" for part in _parts(data))


def _parts(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where each of the corpora comes from: one, unless several were joined."""
    origin = data.get("origin")
    origin = origin if isinstance(origin, Mapping) else {}
    return list(origin.get("join") or [origin])


def corpus_of(data: Mapping[str, Any]) -> str:
    """The name of the corpus, or of all that were joined."""
    return " + ".join(_name(part) for part in _parts(data))


def _name(part: Mapping[str, Any]) -> str:
    path = str(part.get("path") or "")
    if part.get("name") or not path:
        return str(part.get("name") or part.get("corpus", "unknown"))
    if part.get("corpus") == "hub" and not PurePath(path).is_absolute():
        return path
    return PurePath(path).name  # paths of the user's machine stay private


def _joined(parts: list[Mapping[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [
        (_name(part), str(part.get("corpus")), f"{part.get('share', 1.0):.0%}", ", ".join(part.get("use", ())))
        for part in parts
    ]
    return table(("corpus", "kind", "share of its train", "splits used"), rows)


def of_data(data: Mapping[str, Any]) -> str:
    """The section on the data: corpora, splits, what was refused."""
    if not data:
        return "The report of the prepared dataset was not found when this card was written."
    text = f"Corpus: `{corpus_of(data)}`."
    if is_demo(data):
        text += " It is synthetic: a small grammar spoken by espeak-ng."
    if len(parts := _parts(data)) > 1:
        text += "\n\n" + _joined(parts)
        if any(part.get("corpus") == "demo" for part in parts):
            text += "\n\nThe corpus `demo` is synthetic speech from one engine."
    splits = data.get("splits", {})
    columns = {"hours": ".2f", "utterances": ",", "words": ",", "speakers": ","}
    rows = [
        (split, *(format(about[name], form) if name in about else "–" for name, form in columns.items()))
        for split, about in splits.items()
    ]
    text += "\n\n" + table(("split", *columns), rows)
    if any(about.get("speakers") == 0 for about in splits.values()):
        text += "\n\nWhere speakers are 0 the corpus does not name them."
    refused = data.get("refused", {})
    if refused:
        reasons = ", ".join(f"{reason} ({about['utterances']})" for reason, about in refused.items())
        text += (
            f"\n\nOf {data['utterances']['in']:,} utterances {data['utterances']['refused']:,} were refused: {reasons}."
        )
    warnings = data.get("warnings", [])
    if warnings:
        text += "\n\nTo be known about it:\n\n" + "\n".join(f"- {warning}" for warning in warnings)
    return text


def table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
