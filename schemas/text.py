"""Text from outside: in the one form in which it is compared and recorded, and made safe to show."""

from __future__ import annotations

import re
import unicodedata


def nfc(text: str) -> str:
    """The text in Unicode's composed form (NFC): macOS writes an accent apart from its letter, others as one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def printable(text: str) -> str:
    """The text on one line, its control and direction characters made visible: it cannot move or reorder anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def noun(number: int, one: str, many: str = "") -> str:
    """The noun that goes with a number. many: of a noun that takes no plain `s`, such as batches."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """1 example, 2 examples, 0 examples."""
    return f"{number} {noun(number, one, many)}"


def shortened(text: str, most: int) -> str:
    """A text of more than `most` characters ends after a word, with an ellipsis."""
    return text if len(text) <= most else f"{text[:most].rpartition(' ')[0] or text[:most]} …"


def markdown(text: str) -> str:
    """The text as one line of Markdown that shows it and means nothing else: no markup, no HTML."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$])", r"\\\1", printable(text))
