"""Make up corpora in the true layout of each kind, spoken by espeak-ng, with planted leaks and bad clips.

Long, since all kinds are made of the same clips. For the tests, and to try the commands by hand:

    python -m tests.helpers.made_up common_voice cv-corpus-17.0-2024-03-15-ha.tar.gz
    python -m tests.helpers.made_up fleurs fleurs
    python -m tests.helpers.made_up hub some_dataset
    python -m tests.helpers.made_up folder my_speech
    python -m tests.helpers.made_up spoken my_sentences --sentences sentences.txt
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from hausa_asr.corpora import demo, espeak
from hausa_asr.text import normalise, unknown_characters

RATE = espeak.SAMPLE_RATE
CV_COLUMNS = (
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender"),
    *("accents", "variant", "locale", "segment"),
)
"""As of version 17; `sentence_id` and `sentence_domain` are missing before."""


@dataclass
class Planted:
    """What was planted in a corpus.

    Attributes:
        path: the corpus.
        leaks: by kind (clip, sentence, speaker, audio) the clips of train that test shares.
        bad: the clip that is refused, by reason.
    """

    path: Path
    leaks: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """A clip that is spoken: by whom, and what."""

    name: str
    text: str
    voice: str
    split: str


@functools.cache
def clips(train: int = 24, dev: int = 6, test: int = 6) -> tuple[Clip, ...]:
    """List the first sentences of each split of the demo corpus; no speaker and no sentence is in two of them."""
    left = {"train": train, "dev": dev, "test": test}
    chosen = []
    said: set[str] = set()
    for line in demo.lines():
        if left[line.split] and line.text not in said:
            left[line.split] -= 1
            said.add(line.text)
            chosen.append(Clip(line.id, line.text, line.voice, line.split))
    return tuple(chosen)


@functools.cache
def speech(text: str, voice: str) -> np.ndarray:
    """Speak a text: (S,) float32 at `RATE`."""
    return np.pad(espeak.speak(text, voice), 2205).astype(np.float32) / 32_768


def encoded(samples: np.ndarray, form: str = "MP3", quality: float = 0.5) -> bytes:
    """Encode samples as the bytes of an audio file."""
    buffer = io.BytesIO()
    options = {"compression_level": quality} if form == "MP3" else {}
    soundfile.write(buffer, samples, RATE, format=form, **options)
    return buffer.getvalue()


def person(voice: str) -> str:
    """Make the `client_id` of a voice."""
    return hashlib.sha512(voice.encode()).hexdigest()


class _CommonVoice:
    """The tables and clips of a Common Voice in the making."""

    def __init__(self) -> None:
        names = ("train", "dev", "test", "other", "invalidated")
        self.tables: dict[str, list[dict[str, str]]] = {name: [] for name in names}
        self.files: dict[str, bytes] = {}
        self.durations = ["clip\tduration[ms]"]

    def add(self, table: str, number: str, text: str, voice: str, content: bytes | None, seconds: float = 0.0) -> str:
        """Add a row and, unless it is None, the content of its clip; gives the clip's name."""
        name = f"common_voice_ha_{number}.mp3"
        row = {"client_id": person(voice), "path": name, "sentence": text, "up_votes": "2", "down_votes": "0"}
        row |= {"sentence_id": hashlib.sha256(text.encode()).hexdigest(), "gender": "male_masculine"}
        self.tables[table].append(row)
        if content is not None:
            self.files[name] = content
            self.durations.append(f"{name}\t{round(seconds * 1000)}")
        return name

    def say(self, table: str, number: str, spelled: str, voice: str, text: str | None = None) -> str:
        """Speak a sentence and add it, with `text` in the table if that differs; gives the clip's name."""
        samples = speech(spelled, voice)
        return self.add(table, number, text or spelled, voice, encoded(samples), len(samples) / RATE)

    def row(self, table: str, name: str) -> dict[str, str]:
        """Look up the row of a clip."""
        return next(row for row in self.tables[table] if row["path"] == name)

    def write(self, out: Path, version: str, locales: tuple[str, ...]) -> None:
        """Write the archive."""
        columns = CV_COLUMNS
        if int(version.split(".")[0]) < 17:
            columns = tuple(column for column in CV_COLUMNS if "sentence_" not in column)
        tables = {**self.tables, "validated": self.tables["train"] + self.tables["dev"] + self.tables["test"]}
        with tarfile.open(out, "w:gz", compresslevel=1) as tar:
            for locale in locales:
                folder = f"cv-corpus-{version}/{locale}"
                for table, rows in tables.items():
                    rows = [{**row, "locale": locale} for row in rows]
                    lines = ["\t".join(columns), *("\t".join(row.get(name, "") for name in columns) for row in rows)]
                    _store(tar, f"{folder}/{table}.tsv", "\n".join(lines).encode() + b"\n")
                _store(tar, f"{folder}/clip_durations.tsv", "\n".join(self.durations).encode() + b"\n")
                _store(tar, f"{folder}/times.txt", b"")
                for name, content in self.files.items():
                    _store(tar, f"{folder}/clips/{name}", content)


def common_voice(
    out: Path,
    *,
    version: str = "17.0-2024-03-15",
    locales: tuple[str, ...] = ("ha",),
    dev: bool = True,
    leaks: bool = False,
    bad: bool = False,
) -> Planted:
    """Make Common Voice as it is downloaded: with other.tsv of six clips, half of them known to dev or test.

    Args:
        out: the .tar.gz to write.
        version: before 17 the tables have 11 columns.
        locales: the languages; each has the same clips.
        dev: versions 7 and 8 have a dev.tsv without a row.
        leaks: plant in train a clip, a speaker, a sentence and a re-encoded recording of test.
        bad: plant in train one clip of every kind that is refused.
    """
    planted = Planted(out)
    made = _CommonVoice()
    names = {}
    for index, clip in enumerate(clips()):
        if clip.split != "dev" or dev:
            text = f'"{clip.text.capitalize()}' if index % 7 == 0 else f"{clip.text.capitalize()}."
            names[clip] = made.say(clip.split, str(26_000_000 + index), clip.text, clip.voice, text)
    heard, known = [clip for clip in clips() if clip.split == "test"][:2]
    others = [clip.text for clip in clips(40) if clip.split == "train"][24:]
    for index in range(3):
        made.say("other", f"3000000{index}", others[index], "m8")
    made.say("other", "30000003", others[3], heard.voice)
    made.say("other", "30000004", heard.text, "m8")
    made.tables["other"].append(made.row("test", names[known]))
    made.say("invalidated", "30000009", others[4], "m8")
    if leaks:
        made.tables["train"].append(made.row("test", names[heard]))
        planted.leaks["clip"] = names[heard]
        planted.leaks["speaker"] = made.say("train", "27000000", others[5], heard.voice)
        planted.leaks["sentence"] = made.say("train", "27000001", known.text, "m8")
        again = encoded(0.7 * speech(known.text, known.voice), quality=0.9)
        planted.leaks["audio"] = made.add("train", "27000002", others[6], "m8", again)
    if bad:
        for number, (reason, text, content) in enumerate(_bad_clips(others)):
            planted.bad[reason] = made.add("train", str(28_000_000 + number), text, "m8", content)
    made.write(out, version, locales)
    return planted


def _bad_clips(texts: list[str]) -> list[tuple[str, str, bytes | None]]:
    """Make one clip of every kind that is refused: the reason, the transcript, the file or None if it is missing."""
    sound = speech(texts[7], "m8")
    return [
        ("missing", texts[7], None),
        ("empty", texts[8], b""),
        ("unreadable", texts[9], b"<html>not found</html>" * 50),
        ("silent", texts[10], encoded(np.zeros(2 * RATE, np.float32))),
        ("too short", "a", encoded(sound[2205:5000])),
        ("too long", texts[11], encoded(np.tile(sound, 40)[: 31 * RATE])),
        ("transcript too long for its audio", " ".join(texts) * 2, encoded(sound)),
        ("no transcript", "", encoded(sound)),
        ("unknown characters", "ina kwana السلام", encoded(sound)),
    ]


def _store(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def fleurs(out: Path, locale: str = "ha_ng", unpacked: bool = False) -> Planted:
    """Make FLEURS as its repository has it, in the folder `out`; the first sentences of train are read twice."""
    folder = out / "data" / locale
    for split in ("train", "dev", "test"):
        (folder / "audio" / (split if unpacked else "")).mkdir(parents=True, exist_ok=True)
        lines = []
        sounds = {}
        for number, clip in enumerate(clip for clip in clips() if clip.split == split):
            for voice in (clip.voice, "m8") if split == "train" and number < 3 else (clip.voice,):
                name = f"{int(hashlib.sha256((clip.name + voice).encode()).hexdigest()[:15], 16)}.wav"
                samples = speech(clip.text, voice)
                sounds[name] = encoded(samples, "WAV")
                cells = (str(number), name, f'"{clip.text.capitalize()}."', clip.text, " ".join(clip.text))
                lines.append("\t".join((*cells, str(round(len(samples) / RATE * 16_000)), "MALE")))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if unpacked:
            for name, content in sounds.items():
                (folder / "audio" / split / name).write_bytes(content)
        else:
            with tarfile.open(folder / "audio" / f"{split}.tar.gz", "w:gz", compresslevel=1) as tar:
                for name, content in sounds.items():
                    _store(tar, f"{split}/{name}", content)
    return Planted(out)


def hub(
    out: Path, form: str = "parquet", text: str = "text", speaker: str = "speaker", splits: tuple[str, ...] = ()
) -> Planted:
    """Make a Hugging Face dataset in the folder `out`.

    Args:
        form: `parquet` files, `saved` by save_to_disk, or an `audiofolder`.
        text, speaker: the columns.
        splits: what it calls train, dev and test.
    """
    import datasets

    splits = splits or ("train", "validation", "test")
    ours = dict(zip(("train", "dev", "test"), splits, strict=False))
    rows = {
        which: [
            {
                "audio": {"bytes": encoded(speech(clip.text, clip.voice), "FLAC"), "path": f"{clip.name}.flac"},
                text: clip.text,
                speaker: clip.voice,
            }
            for clip in clips()
            if clip.split == split
        ]
        for split, which in ours.items()
    }
    if form == "audiofolder":
        for which, of_split in rows.items():
            (out / which).mkdir(parents=True)
            lines = [f"file_name,{text},{speaker}"]
            for row in of_split:
                (out / which / row["audio"]["path"]).write_bytes(row["audio"]["bytes"])
                lines.append(f"{row['audio']['path']},{row[text]},{row[speaker]}")
            (out / which / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Planted(out)
    made = datasets.DatasetDict(
        {
            which: datasets.Dataset.from_list(of_split).cast_column("audio", datasets.Audio(decode=False))
            for which, of_split in rows.items()
        }
    )
    if form == "saved":
        made.save_to_disk(str(out))
        return Planted(out)
    (out / "data").mkdir(parents=True)
    for which, dataset in made.items():
        dataset.to_parquet(str(out / "data" / f"{which}-00000-of-00001.parquet"))
    return Planted(out)


def folder(out: Path) -> Planted:
    """Make a folder of wav files with a table."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["path,text,split,speaker"]
    for clip in clips():
        (out / f"{clip.name}.wav").write_bytes(encoded(speech(clip.text, clip.voice), "WAV"))
        lines.append(f"{clip.name}.wav,{clip.text},{clip.split},{clip.voice}")
    (out / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Planted(out)


def spoken(out: Path, sentences: Path, count: int = 60) -> Planted:
    """Make a folder of sentences from a file, one a line, each read by one of the demo's voices; without splits."""
    out.mkdir(parents=True, exist_ok=True)
    voices = [voice for of_split in demo.VOICES.values() for voice in of_split]
    rows = []
    for text in sentences.read_text(encoding="utf-8").splitlines():
        said = normalise(text)
        if len(rows) == count:
            break
        if not said or unknown_characters(said):  # nobody could read it out
            rows.append({"path": "none.wav", "text": text, "speaker": ""})
            continue
        name, voice = f"{len(rows):04d}.wav", voices[len(rows) % len(voices)]
        (out / name).write_bytes(encoded(speech(said, voice), "WAV"))
        rows.append({"path": name, "text": text, "speaker": voice})
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (out / "table.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Planted(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("common_voice", "fleurs", "hub", "folder", "spoken"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--sentences", type=Path, help="spoken: a text file, one sentence a line")
    parser.add_argument("--count", type=int, default=60, help="spoken: how many of them")
    arguments = parser.parse_args()
    if arguments.kind == "spoken":
        if not arguments.sentences:
            parser.error("spoken needs --sentences FILE")
        planted = spoken(arguments.out, arguments.sentences, arguments.count)
    elif arguments.kind == "common_voice":
        planted = common_voice(arguments.out, leaks=True, bad=True)
    else:
        planted = {"fleurs": fleurs, "hub": hub, "folder": folder}[arguments.kind](arguments.out)  # type: ignore[operator]
    print(f"made {planted.path}")
    for what, planted_clips in (("leak", planted.leaks), ("bad clip", planted.bad)):
        for kind, clip in planted_clips.items():
            print(f"planted {what}, {kind}: {clip}")


if __name__ == "__main__":
    main()
