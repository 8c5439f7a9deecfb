"""Describe a prepared dataset in words: what was kept and refused, and how transcripts are spelled.

In: a `Prepared`. Out: text for a terminal. Called by `hausa-asr prepare`.
"""

from __future__ import annotations

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.text import fold


def _length(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def summary(prepared: Prepared) -> str:
    """Write what a preparation kept and what it refused, for a terminal."""
    report = prepared.report
    counts, hours = report["utterances"], report["hours"]
    lines = [
        f"{counts['kept']:,} of {counts['in']:,} utterances kept, {_length(hours['kept'])} of {_length(hours['in'])}"
        + (" (prepared before, nothing was redone)" if prepared.reused else "")
    ]
    for split, about in report["splits"].items():
        speakers = f", {about['speakers']} speakers" if about["speakers"] else ""
        lines.append(f"  {split:<6} {about['utterances']:>8,} utterances  {_length(about['hours']):>10}{speakers}")
    corpora = report.get("corpora", {})
    if len(corpora) > 1:
        lines += [
            f"  {name:<14} {_length(about['hours']):>10}, {about['share']:.0%} of all"
            for name, about in corpora.items()
        ]
    if report["refused"]:
        lines.append(f"{counts['refused']:,} refused:")
        lines += [
            f"  {about['utterances']:>6,}  {reason}  (such as {about['example']['id']}: {about['example']['detail']})"
            for reason, about in report["refused"].items()
        ]
        lines.append(f"  each with its reason in {prepared.path / 'refused.jsonl'}")
    if report["characters_refused"]:
        characters = " ".join(f"{char} ({about['count']})" for char, about in report["characters_refused"].items())
        lines.append(f"characters outside the alphabet: {characters}")
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    lines.append(f"dataset {prepared.path}")
    lines.append(f"use it  --set data.prepared={prepared.path}")
    return "\n".join(lines)


def spelling(prepared: Prepared, count: int) -> str:
    """Write the first transcripts as the corpus has them, as trained on (strict), and without hooks (folded)."""
    rows = prepared.splits["train"].transcripts(count)
    return "\n".join(f"\nas found  {raw}\nstrict    {strict}\nfolded    {fold(strict)}" for raw, strict in rows)
