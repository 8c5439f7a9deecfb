"""The settings of the data: which corpus or corpora, which of their columns and splits, and what `prepare` keeps.

Part of `sweep`; `dataset/from_settings` acts on them.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hausa_asr.storage.address import is_url

CorpusKind = Literal["demo", "folder", "common_voice", "fleurs", "hub"]
SplitName = Literal["train", "dev", "test"]

COLUMNS = ("audio_column", "text_column", "split_column", "speaker_column", "duration_column")
HEEDED: dict[str, tuple[str, ...]] = {
    "demo": (),
    "folder": ("path", "manifest", *COLUMNS),
    "common_voice": ("path", "locale", "extra"),
    "fleurs": ("path", "locale"),
    "hub": ("path", "subset", "revision", "splits", "audio_column", "text_column", "speaker_column", "duration_column"),
}
"""The settings that each corpus heeds, and which so say where its speech comes from."""
_OF_SOME = ("locale", "extra", "subset", "revision", "splits")
_PATH = {
    "folder": "the folder with the audio files",
    "common_voice": "the .tar.gz as downloaded, or its unpacked folder",
    "fleurs": "a folder with data/ha_ng in it, or hf://datasets/google/fleurs",
    "hub": "a dataset's id on the Hugging Face hub, or the folder of one",
}


class Strict(BaseModel):
    """Settings that refuse a name they don't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class CorpusSettings(Strict):
    """One corpus and how to read it."""

    corpus: CorpusKind = Field("demo", description="The kind of corpus; `demo` is synthetic speech, made on first use.")
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="The name in reports; by default its kind."
    )
    path: str | None = Field(
        None, description=f"Where it is. {'; '.join(f'{kind}: {what}' for kind, what in _PATH.items())}."
    )
    manifest: str | None = Field(None, description="Only folder: which CSV, TSV or JSONL to read, if it holds several.")
    audio_column: str | None = Field(
        None, description="The column with the audio; by default path (folder) or audio (hub)."
    )
    text_column: str | None = Field(None, description="The column with the transcripts; by default text.")
    split_column: str | None = Field(None, description="The column with the split; by default split.")
    speaker_column: str | None = Field(
        None, description="The column with the speaker; by default speaker, if it exists."
    )
    duration_column: str | None = Field(
        None, description="The column with the length in seconds; by default duration_s, if it exists."
    )
    locale: str | None = Field(None, description="The language; by default ha (common_voice) or ha_ng (fleurs).")
    extra: list[Literal["other", "validated"]] = Field(
        [], description="Only common_voice: add these clips to train, except those that overlap with dev or test."
    )
    subset: str | None = Field(None, description="Only hub: the configuration, for a dataset that has several.")
    revision: str | None = Field(None, description="Only hub: a branch, tag or commit.")
    splits: dict[SplitName, str | list[str]] | None = Field(
        None, description="Only hub: its names for train, dev and test, such as {dev: validation}."
    )

    @property
    def called(self) -> str:
        """The corpus's name in reports."""
        return self.name or self.corpus

    @model_validator(mode="after")
    def _complete(self) -> CorpusSettings:
        if self.corpus in _PATH and not self.path and not getattr(self, "prepared", None):
            raise ValueError(f"the corpus '{self.corpus}' needs path: {_PATH[self.corpus]}")
        for setting in _OF_SOME:
            if getattr(self, setting) and setting not in HEEDED[self.corpus]:
                heeding = ", ".join(kind for kind, settings in HEEDED.items() if setting in settings)
                raise ValueError(f"{setting} is a setting of {heeding}, and not of the corpus '{self.corpus}'")
        return self


class JoinedCorpus(CorpusSettings):
    """One of several corpora that are prepared as one dataset."""

    share: float = Field(1.0, gt=0, le=1, description="The share of its train utterances to use, chosen by their ids.")
    use: list[SplitName] = Field(
        ["train", "dev", "test"], min_length=1, description="Which of its splits to use; by default all."
    )


class DataSettings(CorpusSettings):
    """Where the speech comes from: a corpus that is prepared on first use, several joined, or a `prepared` dataset."""

    join: list[JoinedCorpus] = Field(
        [], description="Several corpora as one dataset, in place of `corpus`; each entry has the settings above."
    )
    prepared: str | None = Field(
        None, description="The folder of a prepared dataset, from `hausa-asr prepare`: a path or an address."
    )
    license: str = Field(
        "", max_length=200, description="The data's licence, which the card of an exported model then names."
    )
    min_s: float = Field(0.3, gt=0, description="Shorter clips, in seconds, are refused.")
    max_s: float = Field(30.0, gt=0, description="Longer clips, in seconds, are refused.")
    seed: int = Field(0, ge=0, description="The random seed of the demo corpus, and of splits that have to be made.")
    overlap: Literal["refuse", "drop"] = Field(
        "refuse",
        description="If train overlaps with dev or test: `refuse` is an error, `drop` leaves the overlap out of train.",
    )
    allow_overlap: list[Literal["clip", "sentence", "speaker", "audio"]] = Field(
        [], description="What train may share with dev and test."
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataSettings:
        if self.min_s >= self.max_s:
            raise ValueError("min_s must be below max_s")
        if not self.join:
            return self
        given = [name for name in CorpusSettings.model_fields if getattr(self, name) != _DEFAULTS[name]]
        if given:
            raise ValueError(f"with join, give {' and '.join(given)} in its entries")
        names = [part.called for part in self.join]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two joined corpora are called {' and '.join(twice)}: give each a name of its own")
        used = {split for part in self.join for split in part.use}
        if "train" not in used:
            raise ValueError("no joined corpus is used for train")
        return self

    @property
    def corpora(self) -> list[JoinedCorpus]:
        """The joined corpora, or the one."""
        if self.join:
            return self.join
        return [JoinedCorpus(**{name: getattr(self, name) for name in CorpusSettings.model_fields})]

    def relative(self) -> list[str]:
        """List the local places that are not absolute, as `data.path: clips`."""
        places = []
        for where, part in self._parts():
            for name in ("path", "manifest", "prepared"):
                place = getattr(part, name, None)
                if place and _is_local(part, name) and not os.path.isabs(os.path.expanduser(place)):
                    places.append(f"{where}.{name}: {place} (give an absolute path, or a URL such as s3://...)")
        return places

    def absolute(self) -> DataSettings:
        """The same with every local place absolute; URLs and ids of the hub stay."""
        join = [part.model_copy(update=_absolute_places(part)) for part in self.join]
        return self.model_copy(update={**_absolute_places(self), "join": join})

    def _parts(self) -> list[tuple[str, CorpusSettings]]:
        return [("data", self), *((f"data.join.{index}", part) for index, part in enumerate(self.join))]


_DEFAULTS: dict[str, Any] = {name: field.default for name, field in CorpusSettings.model_fields.items()}


def _is_local(part: CorpusSettings, name: str) -> bool:
    """Whether the setting `name` is a path of this machine, which one can be relative to."""
    place = getattr(part, name)
    if is_url(place):
        return False
    if name == "path" and part.corpus == "hub":
        return os.path.exists(os.path.expanduser(place)) or place.startswith(("/", ".", "~"))
    if name == "manifest":  # else it is beside the audio, and found from there
        return not part.path or not (is_url(part.path) or os.path.exists(_beside(part.path, place)))
    return True


def _beside(path: str, manifest: str) -> str:
    return os.path.join(os.path.expanduser(path), os.path.expanduser(manifest))


def _absolute_places(part: CorpusSettings) -> dict[str, str]:
    return {
        name: os.path.abspath(os.path.expanduser(getattr(part, name)))
        for name in ("path", "manifest", "prepared")
        if getattr(part, name, None) and _is_local(part, name)
    }
