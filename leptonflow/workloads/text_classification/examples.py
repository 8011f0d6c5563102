"""One text: from hostile bytes, or the cells of a table's row, to an id, metadata and the text that is trained on.

The canonical text, of which the id is the sha256:

- Unicode's composed form (NFC), without byte order marks, which nobody sees;
- \\r\\n and \\r are \\n; the columns of a table are joined by a blank line, empty cells left out;
- whitespace at the end of each line and around the whole text is dropped: editors add and remove it unseen.

Letter case, punctuation, spaces inside a line and markup stay: a model may learn from them. What does not belong
here: labels, files, tables, tokens.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from schemas.errors import LeptonflowError
from schemas.text import counted, nfc, noun

MOST_CHARACTERS = 100_000  # of a text that is kept: some fifty pages
REPEATED = 3  # times that one word or character, and nothing else, makes a text near-constant
SUFFIXES = (".txt",)

# An unclosed comment or script reaches to the end, as in a browser; so no text takes more than linear time.
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<!\[CDATA\[|\]\]>|<[/!?]?[a-z][^<>]*>"
    r"|&(?:[a-z][a-z0-9]*|#[0-9]+|#x[0-9a-f]+);",
    re.IGNORECASE | re.DOTALL,
)


class ExaminedText(NamedTuple):
    """One raw text after a look at it: a rule and reason where it is refused, else id, metadata and text.

    id        sha256 (hex) of the whole canonical text in UTF-8
    metadata  characters, words, letters, digits, upper_case, cut_characters (see `metadata`)
    text      the canonical text, its first MOST_CHARACTERS characters at most
    note      what a person should know of a text that is accepted: that it was cut
    """

    rule: str | None
    reason: str | None
    id: str | None = None
    metadata: dict[str, int | float] | None = None
    text: str | None = None
    note: str | None = None


def examine(data: bytes) -> ExaminedText:
    """The bytes of a .txt file -> ExaminedText. Refuses by empty-file, and by what `examine_cells` refuses.

    UTF-8, with or without a byte order mark; UTF-16 where such a mark says so, as Windows programs write it.
    """
    if not data:
        return ExaminedText("empty-file", "the file has no bytes")
    encoding = "utf-16" if _is_utf16(data) else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        return ExaminedText("not-utf8", _undecodable(error, data))
    return examine_cells([text])


def examine_cells(cells: Sequence[str | None]) -> ExaminedText:
    """The text columns of a row, in the order of the columns -> ExaminedText. None is an empty cell.

    Refuses by empty-text, nul-character, not-utf8 (a lone surrogate, which JSON can spell), near-constant, markup-only.
    """
    whole = canonical(cells)
    if not whole:
        return ExaminedText("empty-text", "nothing but whitespace" if any(cells) else "there is no text")
    if "\0" in whole:  # the tokenizer would leave it out, so that two examples would be one to the model
        told = f"character {whole.index(chr(0))} is a NUL, which no text has"
        return ExaminedText("nul-character", f"{told}: is it binary, or UTF-16 without a byte order mark?")
    try:
        identity = hashlib.sha256(whole.encode()).hexdigest()
    except UnicodeEncodeError as error:
        told = f"character {error.start} is U+{ord(whole[error.start]):04X}, half of a surrogate pair"
        return ExaminedText("not-utf8", told)
    text = whole[:MOST_CHARACTERS].rstrip()
    reason = _constant(text)
    if reason:
        return ExaminedText("near-constant", reason)
    if text[0] in "<&]" and not _MARKUP.sub("", text).strip():
        return ExaminedText("markup-only", "nothing but tags and entities")
    note = f"cut after {len(text):,} of {len(whole):,} characters" if len(text) < len(whole) else None
    facts = metadata(text) | {"cut_characters": len(whole) - len(text)}
    return ExaminedText(None, None, identity, facts, text, note)


def canonical(cells: Sequence[str | None]) -> str:
    """The canonical text of one or more cells; "" where they hold nothing but whitespace."""
    found = []
    for cell in cells:
        text = nfc((cell or "").replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n"))
        text = "\n".join(line.rstrip() for line in text.split("\n")).strip()
        if text:
            found.append(text)
    return "\n\n".join(found)


def metadata(text: str) -> dict[str, int | float]:
    """What is known of a text in any language.

    characters  code points
    words       runs between whitespace (so a language without spaces has few)
    letters     share of letters (Unicode category L) among all that is not whitespace, 0..1
    digits      share of decimal digits (Nd), likewise
    upper_case  share of upper and title case (Lu, Lt) among the letters, 0..1; 0 where there is no letter
    """
    kinds: Counter[str] = Counter()
    for character, count in Counter(text).items():
        kinds["space" if character.isspace() else unicodedata.category(character)] += count
    shown = max(1, len(text) - kinds["space"])
    letters = sum(count for kind, count in kinds.items() if kind[0] == "L")
    return {
        "characters": len(text),
        "words": len(text.split()),
        "letters": round(letters / shown, 4),
        "digits": round(kinds["Nd"] / shown, 4),
        "upper_case": round((kinds["Lu"] + kinds["Lt"]) / max(1, letters), 4),
    }


def remarks(metadata: Sequence[dict[str, int | float]], length: int) -> list[str]:
    """What a person should know before training on texts of this metadata: how many the model sees cut.

    length: the tokens that it sees of each; a text has at least as many as it has words.
    """
    long = sum(each["words"] > length for each in metadata)
    if not long:
        return []
    of = f"{long} of {counted(len(metadata), 'text')} {noun(long, 'has', 'have')}"
    return [
        f"{of} more than {length} words, and the model sees {noun(long, 'its', 'their')} beginning alone: "
        f"a greater `input.length` in the YAML shows it more and takes longer"
    ]


def request(data: bytes) -> str:
    """A served body, or a file -> the text that `examine` would train on. Raises LeptonflowError with the rule."""
    found = examine(data)
    if found.text is None:
        raise LeptonflowError(f"{found.rule}: {found.reason}", expected="a text in UTF-8", hint="Send another text")
    return found.text


def _is_utf16(data: bytes) -> bool:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return utf16 and not data.startswith(codecs.BOM_UTF32_LE)


def _undecodable(error: UnicodeDecodeError, data: bytes) -> str:
    at = min(error.start, len(data) - 1)
    kind = "UTF-16 (its byte order mark says so)" if error.encoding.startswith("utf-16") else "UTF-8"
    return f"byte {at} is 0x{data[at]:02x}, which is not valid {kind}: {error.reason}"


def _constant(text: str) -> str | None:
    """Why a text says nothing: one word repeated, or one character, whatever their case; None where it says more."""
    folded = text.casefold()
    characters = set(folded) - set(" \n\t")
    if len(characters) == 1 and len(folded) >= REPEATED:
        only = characters.pop()
        count = folded.count(only)
        return f"one character repeated {count} times: {only!r}" if count >= REPEATED else None
    words = [word for word in (_bare(each) for each in folded.split()) if word]
    if len(words) >= REPEATED and len(set(words)) == 1:
        return f"one word repeated {len(words)} times: {words[0][:40]!r}"
    return None


def _bare(word: str) -> str:
    """A word without the punctuation around it."""
    kept = [at for at, character in enumerate(word) if unicodedata.category(character)[0] != "P"]
    return word[kept[0] : kept[-1] + 1] if kept else ""
