"""Text from outside, in the one form in which it is compared and recorded."""

from __future__ import annotations

import unicodedata


def nfc(text: str) -> str:
    """The text in Unicode's composed form (NFC): macOS writes an accent apart from its letter, others as one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
