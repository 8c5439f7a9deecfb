"""Hausa spelling: any transcript in, letters of one fixed alphabet out; and the letters' label ids.

Models are trained on and scored against the strict spelling, `normalise`. `fold` also forgives missing hooks. Called by
`prepare` (references) and `evaluate` (scores), so a word is spelled the same way wherever it is compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from hausa_asr.numbers import LARGEST, spell

PAD, UNK, WORD = "<pad>", "<unk>", "|"
LETTERS = "abcdefghijklmnopqrstuvwxyzɓɗƙ'"
"""The alphabet, in label order. ƴ is written 'y; sh, ts, ky and the like are two letters, as in running text."""
VOCAB: dict[str, int] = {symbol: label for label, symbol in enumerate((PAD, UNK, WORD, *LETTERS))}
"""Label ids. `<pad>` is the CTC blank and `|` the space between words."""

# Grave, acute and the spacing modifiers replace the apostrophe on keyboards that lack it.
_APOSTROPHES = "`´ʹʻʼʽʾʿˈʹ՚׳‘’‛′‵ꞌ＇"
# К is typed by hand for ƙ where a font lacks it, so the Cyrillic letter is the hooked one and not a plain k.
_LOOK_ALIKES = str.maketrans(
    {
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys("КкҚқҜҝҞҟҠҡӃӄꝀꝁⱩⱪĸ", "ƙ"),
        **dict.fromkeys("ĐđƉɖ", "ɗ"),
        **dict.fromkeys("ƂƃɃƀ", "ɓ"),
        **dict(zip("АаВЕеМНһОоРрСсТУуХхІіЈјЅѕԁԛԝ", "aabeemhhooppcctyyxxiijjssdqw", strict=True)),
        **dict.fromkeys("ːˑˉˊˋˆˇ˥˦˧˨˩꞉", ""),  # length and tone written as letters of their own
    }
)
# Tone is never written on b, d or k: a dot, acute, cedilla or stroke there is a font's makeshift hook.
_HOOK_MARKS = "\u0301\u0307\u0309\u031b\u0321\u0322\u0323\u0327\u0328\u0331\u0335\u0336"
_MADE_UP_HOOK = re.compile(rf"([bdkBDK])[\u0300-\u036f]*[{_HOOK_MARKS}][\u0300-\u036f]*")
_HOOKED = str.maketrans("bdkBDK", "ɓɗƙɓɗƙ")
_FOLDED = str.maketrans({"ɓ": "b", "ɗ": "d", "ƙ": "k", "'": None})

_QUOTE_END = re.compile(r"'(?![^\W\d_])")  # no Hausa word ends in an apostrophe, so this one closes a quotation
_QUOTE_START = re.compile(r"(?<![^\W_])'(?!y)")
# Digits with all that belongs to them: letters (4g), joiners (3.5, 10:30, 1/2) and currency signs.
_CURRENCY = "$¢£¤¥֏৳฿₠-⃀"
_NUMBER = re.compile(rf"[^\W_{_CURRENCY}]*[{_CURRENCY}]*[0-9](?:[^\W_]|[{_CURRENCY}]|['.,:/⁄](?=[^\W_]))*")
_WHOLE = re.compile(r"0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:,[0-9]{3})+")


def normalise(text: str) -> str:
    """Spell a transcript strictly: lower case, hooked letters kept, everything that is not spoken removed.

    Look-alikes and makeshift hooks (Cyrillic К, ḳ, ḍ) become the letters they stand for, marks of tone and length are
    dropped, apostrophes of all kinds become ', ƴ becomes 'y, other punctuation becomes a space, and whole numbers up
    to 999,999 become words. What can't be read with certainty (3.5, 10:30, ₦500, 4g, 0803, letters of other scripts)
    stays as it is: `unknown_characters` then reports it, and no wrong transcript is trained on.

    Idempotent: normalise(normalise(x)) == normalise(x).

    Example:
        >>> normalise("Ina da 3, ‘ƴan uwa!")
        "ina da uku 'yan uwa"
    """
    if not text.isascii():
        text = unicodedata.normalize("NFD", text).translate(_LOOK_ALIKES)
        text = _MADE_UP_HOOK.sub(lambda match: match[1].translate(_HOOKED), text)
        text = unicodedata.normalize("NFKD", text)
    # Compatibility forms (full width, ligatures) show their true letters only now, hence the second translation.
    text = text.translate(_DROPPED).lower().translate(_LOOK_ALIKES)
    text = unicodedata.normalize("NFC", text.translate(_DROPPED))

    text = re.sub("''+", " ", text)  # a double quotation mark, typed as two single ones
    text = re.sub("'?ƴ", "'y", text)
    quoted = _QUOTE_END.search(text)
    if quoted:
        text = _QUOTE_START.sub(" ", text[: quoted.start()]) + text[quoted.start() :]
        text = _QUOTE_END.sub(" ", text)

    pieces, end = [], 0
    for match in _NUMBER.finditer(text):
        pieces += [text[end : match.start()].translate(_SPACED), _spelled(match[0])]
        end = match.end()
    pieces.append(text[end:].translate(_SPACED))
    return " ".join("".join(pieces).split())


def fold(text: str) -> str:
    """Spell a transcript forgivingly: `normalise`, then drop hooks (ɓ ɗ ƙ) and apostrophes.

    Careless Hausa text leaves both out, so a score on folded text is about sounds and not about spelling.
    """
    return normalise(text).translate(_FOLDED)


def unknown_characters(text: str) -> dict[str, int]:
    """Count the characters of a normalised text that are not in the alphabet, digits included."""
    return dict(Counter(letter for letter in text if letter != " " and letter not in LETTERS))


def encode(text: str) -> list[int]:
    """The label ids of a normalised text, (L,); a space becomes `|`.

    Raises:
        ValueError: the text has a character outside the alphabet.
    """
    try:
        return [_LABELS[letter] for letter in text]
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} of {text!r} is not in the alphabet {LETTERS}") from None


_LABELS = {letter: VOCAB[letter] for letter in LETTERS} | {" ": VOCAB[WORD]}


class _ByCategory(dict[int, str]):
    """A table for `str.translate`, filled in by Unicode category when a character first occurs."""

    def __init__(self, replacement: str, categories: tuple[str, ...], keep: str = "") -> None:
        super().__init__()
        self.replacement, self.categories, self.keep = replacement, categories, keep

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        matches = unicodedata.category(letter).startswith(self.categories) and letter not in self.keep
        self[code] = self.replacement if matches else letter
        return self[code]


_DROPPED = _ByCategory("", ("Mn", "Me", "Cf"))  # marks and zero-width characters
_SPACED = _ByCategory(" ", ("P", "S", "Z", "Cc"), keep="'")


def _spelled(number: str) -> str:
    """Spell digits, with what touches them, as words if they are a whole number; else leave them unchanged."""
    if _WHOLE.fullmatch(number) and (n := int(number.replace(",", ""))) <= LARGEST:
        return spell(n)
    return number
