"""Choose which utterances are in the dataset, and in which split: by their transcripts first, then by their clips.

Called by `prepare`. Cheap, so it is done anew whenever a setting, a transcript or a clip changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from hausa_asr import text
from hausa_asr.audio.container_faults import Fault
from hausa_asr.ctc import frames, frames_needed
from hausa_asr.dataset import overlap, refusals, report, splits
from hausa_asr.dataset.clip_store import Clips
from hausa_asr.dataset.overlap import Item, Overlap
from hausa_asr.dataset.refusals import Refused
from hausa_asr.dataset.report import Kept
from hausa_asr.errors import UserError
from hausa_asr.utterance import SAMPLE_RATE, SPLITS, Utterance

T = TypeVar("T")


@dataclass(frozen=True)
class PrepareSettings:
    """What is kept, and how a corpus without splits is cut.

    Attributes:
        min_s: shorter clips are refused, in seconds; the encoder and its masks need 0.2.
        max_s: longer clips are refused: one of them would set the memory of a whole batch.
        seed: of the cut into splits.
        overlap: what happens to utterances of train that test has too: "refuse" the corpus, or "drop" them from train.
        allow_overlap: the kinds of overlap (clip, sentence, speaker, audio) that are meant.
    """

    min_s: float = 0.3
    max_s: float = 30.0
    seed: int = 0
    overlap: str = "refuse"
    allow_overlap: tuple[str, ...] = ()


def check(settings: PrepareSettings) -> None:
    """Refuse settings that mean nothing.

    Raises:
        UserError: an overlap of an unknown kind, or an unknown way to handle it.
    """
    unknown = set(settings.allow_overlap) - set(overlap.KINDS)
    if unknown:
        what = f"There is no overlap of the kind {', '.join(sorted(unknown))}."
        raise UserError(what, where="data.allow_overlap", fix=f"Choose among {', '.join(overlap.KINDS)}.")
    if settings.overlap not in ("refuse", "drop"):
        raise UserError(f"Overlap can't be {settings.overlap!r}.", where="data.overlap", fix="Choose refuse or drop.")


@dataclass(frozen=True)
class Choice:
    """What is in the dataset.

    Attributes:
        kept: by their number in the corpus.
        refused: all others.
        report: the content of `report.json`.
    """

    kept: dict[int, Kept]
    refused: list[Refused]
    report: dict[str, Any]


class Screened(NamedTuple):
    """The spelled transcripts by number, and the utterances that were refused for theirs."""

    chosen: dict[int, str]
    refused: list[Refused]


def screen(listed: Sequence[Utterance]) -> Screened:
    """Spell and check the transcripts, and refuse those that can't be used. No audio is opened."""
    chosen: dict[int, str] = {}
    refused: list[Refused] = []
    seen: set[tuple[str, str, str | None]] = set()
    for number, utterance in enumerate(listed):
        spelled = _guarded(_screened, utterance, seen)
        if isinstance(spelled, Refused):
            refused.append(spelled)
        else:
            chosen[number] = spelled
    return Screened(chosen, refused)


def _screened(utterance: Utterance, seen: set[tuple[str, str, str | None]]) -> str | Refused:
    name = (utterance.corpus, utterance.id, utterance.split)  # a clip of two splits is no duplicate but a leak
    if name in seen:
        return Refused(utterance, "duplicate id")
    seen.add(name)
    if utterance.split is not None and utterance.split not in SPLITS:
        return Refused(utterance, "unknown split", f"{utterance.split!r} is none of {', '.join(SPLITS)}")
    spelled = text.normalise(utterance.text or "")
    if not spelled:
        return Refused(utterance, "no transcript", repr(utterance.text))
    if unknown := text.unknown_characters(spelled):
        return Refused(utterance, "unknown characters", f"{' '.join(unknown)} in {spelled!r}", unknown=unknown)
    if not utterance.audio:
        return Refused(utterance, "missing", "the corpus names no audio file")
    return spelled


def _guarded(step: Callable[..., T], utterance: Utterance, *rest: object) -> T | Refused:
    """Take a step for one utterance; any error refuses this utterance alone."""
    try:
        return step(utterance, *rest)
    except Exception as error:
        return Refused(utterance, "failed", f"{type(error).__name__}: {error}")


def choose(
    listed: Sequence[Utterance],
    chosen: Mapping[int, str],
    decoded: Clips,
    refused: Sequence[Refused],
    settings: PrepareSettings,
    where: object,
) -> Choice:
    """Choose among the decoded clips and put each into a split, with nothing of test in train.

    Args:
        listed: the corpus.
        chosen: normalised transcripts, by number, of the clips that were decoded.
        decoded: the clips.
        refused: the others.
        settings: what to keep.
        where: the folder of the dataset, for the error.

    Raises:
        UserError: a split is left empty, or train and test overlap.
    """
    usable, unfit = _sorted_out(listed, chosen, decoded, settings)
    refused = [*refused, *unfit]
    given = splits.named(listed)
    folded = [text.fold(chosen[number]) for number in usable]
    assigned = splits.assign([listed[number] for number in usable], folded, given=given, seed=settings.seed)
    places, cut, warnings = assigned.splits, assigned.cut, assigned.warnings
    if empty := still_empty(places, cut, given):
        raise refusals.nothing_left(empty, refused, listed)
    items = [
        Item(listed[number], place, sentence, int(decoded.n_samples[number]), number)
        for number, place, sentence in zip(usable, places, folded, strict=True)
    ]
    overlaps = overlap.find(items, decoded)
    dropped = _dropped(items, overlaps, cut, settings, where)
    for number, (reason, detail) in dropped.items():
        item = items[number]
        refused.append(Refused(item.utterance, reason, detail, item.n_samples / SAMPLE_RATE))
    left = [number for number in range(len(items)) if number not in dropped]
    if empty := still_empty([places[number] for number in left], cut, given):
        raise refusals.nothing_left(empty, refused, listed)
    if dropped:
        warnings.append(f"{len(dropped)} utterances were left out of train: dev or test has them, or their like, too")
    warnings += overlap.warnings([shared.without(dropped) for shared in overlaps])
    kept = {items[number].clip: _kept(items[number], chosen, decoded) for number in left}
    summary = report.summary(listed, list(kept.values()), refused, overlap.summary(items, overlaps, dropped), warnings)
    return Choice(kept, refused, summary)


class _Sorted(NamedTuple):
    """The numbers of the clips that can be used, and the refused utterances."""

    usable: list[int]
    refused: list[Refused]


def _sorted_out(
    listed: Sequence[Utterance], chosen: Mapping[int, str], decoded: Clips, settings: PrepareSettings
) -> _Sorted:
    """Sort the decoded clips by whether they can be used with their transcripts."""
    usable: list[int] = []
    refused: list[Refused] = []
    for number, spelled in chosen.items():
        if fault := decoded.refusal(number):
            refused.append(Refused(listed[number], *fault))
        elif unfit := _guarded(_unfit, listed[number], spelled, int(decoded.n_samples[number]), settings):
            refused.append(unfit)
        else:
            usable.append(number)
    return _Sorted(usable, refused)


def _kept(item: Item, chosen: Mapping[int, str], decoded: Clips) -> Kept:
    clip, rate = item.clip, int(decoded.source_rate[item.clip])
    return Kept(item.utterance, item.split, chosen[clip], item.n_samples, rate, decoded.warnings(clip))


def _dropped(
    items: Sequence[Item], overlaps: Sequence[Overlap], cut: Set[str], settings: PrepareSettings, where: object
) -> dict[int, Fault]:
    """Find the items to leave out of train, each with a reason; all splits that were cut here are mended so.

    Raises:
        UserError: train and test overlap as the corpus has them, and the settings say to refuse that.
    """
    serious = overlap.serious(items, overlaps, settings.allow_overlap)
    if serious and settings.overlap == "refuse" and "test" not in cut:
        raise overlap.refusal(items, serious, where)
    # A cut of ours may not flatter either: only speakers stay on both sides, where it was made by sentence.
    ours = [each for each in overlaps if each.pair[0] == "train" and each.pair[1] in cut and each.kind != "speaker"]
    ours = [each for each in ours if each.kind not in settings.allow_overlap]
    faults: dict[int, Fault] = {}
    for shared in (*(() if "test" in cut else serious), *ours):
        other = shared.pair[1]
        for number, meets in shared.met.items():
            detail = f"{shared.kind}: {items[meets].utterance.id} of {other}"
            faults.setdefault(number, Fault(f"in {other} too", detail))
    return faults


def still_empty(places: Sequence[str], cut: Set[str], given: Mapping[str, Set[str]]) -> list[str]:
    """List the splits that have to be there and are empty."""
    wanted = {"train", "dev"} | cut | set().union(*given.values())
    return sorted((wanted & set(SPLITS)) - set(places))


def _unfit(utterance: Utterance, spelled: str, n_samples: int, settings: PrepareSettings) -> Refused | None:
    """Refuse a decoded clip that can't be used with this transcript and these settings."""
    duration_s = n_samples / SAMPLE_RATE
    if duration_s < settings.min_s:
        return Refused(utterance, "too short", f"{duration_s:.2f} s", duration_s)
    if duration_s > settings.max_s:
        return Refused(utterance, "too long", f"{duration_s:.2f} s, more than {settings.max_s:g} s", duration_s)
    stated_s = utterance.duration_s
    if stated_s is not None and duration_s < 0.9 * stated_s - 0.1:
        detail = f"{duration_s:.2f} s of the {stated_s:.2f} s that the corpus states"
        return Refused(utterance, "shorter than stated", detail, duration_s)
    labels = text.encode(spelled)
    needed = frames_needed(labels)
    if frames(n_samples) < needed:
        detail = f"{len(labels)} letters need {needed} frames, {duration_s:.2f} s has {frames(n_samples)}"
        return Refused(utterance, "transcript too long for its audio", detail, duration_s)
    return None
