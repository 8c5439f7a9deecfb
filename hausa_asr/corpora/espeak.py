"""Speak Hausa text with espeak-ng, as samples or as a corpus in a cache.

In: normalised text. Out: samples, or utterances whose files are written once. espeak-ng has no Hausa voice. Its Oromo
voice, given phoneme mnemonics instead of letters, makes every contrast of Hausa spelling; tone, vowel length and the
second r are not modelled. The library comes with the optional package `espeakng-loader` and is called in this process.
Called by `corpora.demo` and `corpora.pseudo`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import re
import tempfile
import threading
import wave
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hausa_asr.errors import UserError
from hausa_asr.files import folder_written_whole
from hausa_asr.utterance import Utterance

SAMPLE_RATE = 22_050
"""What espeak-ng speaks at, in Hz; `prepare` resamples."""

_MNEMONICS = {
    **{letter: letter for letter in "abdefghiklmnorstuwz"},
    **{"ɓ": "?b", "ɗ": "?d", "ƙ": "k`", "'": "?", "'y": "?j", "ƴ": "?j", "c": "tS", "j": "dZ", "y": "j"},
    **{"ts": "ts?", "sh": "S", "kw": "kw", "ky": "kj", "gw": "gw", "gy": "gj", "ƙw": "k`w", "ƙy": "k`j"},
    **{"ai": "aj", "au": "aw"},
    **{"p": "f", "v": "b", "q": "k", "x": "ks"},  # loans: Hausa has no such sounds
}
_UNITS = re.compile("|".join(sorted(map(re.escape, _MNEMONICS), key=len, reverse=True)))
_NUCLEI = frozenset({"a", "e", "i", "o", "u", "ai", "au"})

_UNREPEATABLE = frozenset({"Reed", "caleb"})  # their breath is noise from the C library's generator

# Stands for everything that shapes the sound and is not in a Line: a change here must not find an old cache.
_CACHE_VERSION = 1
_PADDING_S = 0.1  # espeak begins and ends within some 10 ms; recordings of people don't

# speak_lib.h
_OUTPUT_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_CHARS_UTF8, _PHONEMES = 0x1, 0x100
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_LONGEST_DATA_PATH = 100  # the library cuts paths off at 160 bytes, file names within the data included

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Line:
    """One utterance to be spoken, in a split of its corpus.

    Attributes:
        pitch: 0 to 99; 50 is the voice's own.
        rate: words a minute.
    """

    id: str
    text: str
    split: str
    voice: str
    pitch: int
    rate: int


def phonemes(text: str) -> str:
    """Spell normalised Hausa text in espeak-ng mnemonics, words apart by a space.

    The stress mark `'` stands before the penultimate vowel of each word that has two; one-syllable words are mostly
    unstressed particles.

    Raises:
        ValueError: a character is not a letter of the Hausa alphabet (digits, capitals and punctuation are not).
    """
    return " ".join(map(_word_phonemes, text.split()))


def _word_phonemes(word: str) -> str:
    units = _UNITS.findall(word)
    if "".join(units) != word:
        raise ValueError(f"{word!r} has characters that are no Hausa letters: normalise the text first")
    sounds = [_MNEMONICS[unit] for unit in units]
    nuclei = [position for position, unit in enumerate(units) if unit in _NUCLEI]
    if len(nuclei) > 1:
        sounds.insert(nuclei[-2], "'")
    return "".join(sounds)


def speak(text: str, voice: str, pitch: int = 50, rate: int = 130) -> np.ndarray:
    """Speak normalised Hausa text.

    The same arguments give the same samples whatever was spoken before: the library keeps the phase of its pitch
    flutter, its echo and its noise from one utterance to the next with no call to reset them, so it is loaded afresh
    for each (0.3 ms). Should another package of this process hold the same library open, that does not help.

    Args:
        text: normalised text.
        voice: a variant of espeak-ng: f1 to f5, m1 to m8, or one with a name (`voices`).
        pitch: 0 to 99; 50 is the variant's own.
        rate: words a minute, 80 to 450.

    Returns:
        (S,) int16 mono at 22,050 Hz.

    Raises:
        UserError: espeakng-loader is not installed or its library can't be used.
        ValueError: no such voice, or text that is not normalised.
    """
    if voice not in voices():
        raise ValueError(f"espeak-ng has no voice variant {voice!r}")
    mnemonics = phonemes(text)
    spoken = f"[[{mnemonics}]]".encode()
    chunks: list[bytes] = []

    @_CALLBACK
    def keep(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    with _one_at_a_time, _fresh_library() as espeak:
        espeak.espeak_SetSynthCallback(keep)
        # By file, since finding plain "om" reads the headers of all voices: 4 ms, half of the time of an utterance.
        failed = espeak.espeak_SetVoiceByName(f"cus/om+{voice}".encode())
        for parameter, value in ((_RATE, rate), (_VOLUME, 100), (_PITCH, pitch), (_RANGE, 50), (_WORD_GAP, 0)):
            failed |= espeak.espeak_SetParameter(parameter, value, 0)
        espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))  # otherwise the noise of breathy voices is seeded by the clock
        failed |= espeak.espeak_Synth(spoken, len(spoken) + 1, 0, 0, 0, _CHARS_UTF8 | _PHONEMES, None, None)
    if failed or not chunks:
        raise RuntimeError(f"espeak-ng did not speak {mnemonics!r} with voice {voice!r} (status {failed})")
    return np.frombuffer(b"".join(chunks), dtype=np.int16)


@functools.cache
def voices() -> frozenset[str]:
    """List the voice variants that the installed espeak-ng has and speaks the same way each time."""
    return frozenset(os.listdir(Path(_data_path(), "voices", "!v"))) - _UNREPEATABLE


@functools.cache
def _paths() -> tuple[str, str]:
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "The demo corpus is spoken by espeak-ng, and the package espeakng-loader is not installed.",
            fix="Run `pip install 'hausa-asr-sweeps[demo]'`.",
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@functools.cache
def _short_link() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="espeak-")
    os.symlink(_paths()[1], Path(folder.name, "data"))
    return folder


def _data_path() -> str:
    data = _paths()[1]
    if len(os.fsencode(data)) <= _LONGEST_DATA_PATH:
        return data
    return str(Path(_short_link().name, "data"))  # the environments that Ray makes for a job lie this deep


@contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    import _ctypes  # here, since only POSIX has dlclose

    library_path, data_path = _paths()[0], _data_path()
    try:
        espeak = ctypes.CDLL(library_path)
    except OSError as error:
        raise UserError(
            f"The espeak-ng library can't be loaded: {error}.",
            where=library_path,
            fix="Install the demo parts again: `pip install --force-reinstall 'hausa-asr-sweeps[demo]'`.",
        ) from error
    try:
        rate = espeak.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data_path), _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise UserError(
                f"The espeak-ng library can't read its data (status {rate}).",
                where=data_path,
                fix="Install the demo parts again: `pip install --force-reinstall 'hausa-asr-sweeps[demo]'`.",
            )
        yield espeak
        espeak.espeak_Terminate()
    finally:
        _ctypes.dlclose(espeak._handle)


def recorded(cache: Path, corpus: str, lines: Sequence[Line]) -> Iterator[Utterance]:
    """Speak a corpus into a folder of its own under `cache`, unless that has been done before.

    The folder is named by a fingerprint of the lines, so another seed or an edited grammar gets another folder. It is
    written aside and renamed: it is complete or absent, also when two processes make it at once.

    Returns:
        The utterances in the order of `lines`; 16-bit wav at 22,050 Hz, the speaker is the voice.

    Raises:
        UserError: espeakng-loader is missing, or the folder can't be written.
    """
    said = [(line.id, line.split, line.voice, line.pitch, line.rate, phonemes(line.text)) for line in lines]
    identity = json.dumps([_CACHE_VERSION, _PADDING_S, corpus, [line.text for line in lines], said])
    folder = cache.absolute() / f"{corpus}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    try:
        if not folder.is_dir():
            _record(folder, corpus, lines)
        manifest = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"The {corpus} corpus can't be written or read: {error}.",
            where=folder,
            fix="Give a cache folder that you can write to, with 300 MB free.",
        ) from error
    utterances = (Utterance(**json.loads(row)) for row in manifest)
    return (replace(utterance, audio=str(folder / utterance.audio)) for utterance in utterances)


def _record(folder: Path, corpus: str, lines: Iterable[Line]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        folder_written_whole(folder) as partial,
        open(partial / "manifest.jsonl", "w", encoding="utf-8") as manifest,
    ):
        for line in lines:
            utterance = _record_line(partial, corpus, line)
            manifest.write(json.dumps(asdict(utterance), ensure_ascii=False) + "\n")


def _record_line(folder: Path, corpus: str, line: Line) -> Utterance:
    samples = np.pad(speak(line.text, line.voice, line.pitch, line.rate), round(_PADDING_S * SAMPLE_RATE))
    audio = f"{line.split}/{line.id}.wav"
    (folder / line.split).mkdir(exist_ok=True)
    with wave.open(str(folder / audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    duration_s = round(len(samples) / SAMPLE_RATE, 3)
    return Utterance(line.id, audio, line.text, line.split, line.voice, duration_s, corpus)
