"""How values are written for people: numbers, intervals, times, names from outside.

In the report and in the artifacts of the Prefect UI. What does not belong here: which values a report has
(html_report), how a plot looks (plots).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.records import FitCost
from schemas.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST_LABEL = 16  # characters


def number(value: float | None, digits: int = 4) -> str:
    """0.9612, −0.0404, 1,797, or a dash for what there is none of."""
    if value is None:
        return "–"
    return (f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}").replace("-", "−")


def bound(value: float | None) -> str:
    """Like `number`, but 1 for 1.0 and 1e-05 for what four digits would call nothing, and −0.01 for -0.01."""
    if value is None or not (float(value).is_integer() or abs(value) < 1e-3):
        return number(value)
    text = f"{value:g}"
    return f"−{text[1:]}" if text.startswith("-") else text


def interval(low: float | None, high: float | None) -> str:
    """0.9423 to 0.9741, or nothing where there is none."""
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}".replace("-", "−")


def signed(value: float | None) -> str:
    """+0.0041 or −0.0013."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def chance(p_value: float) -> str:
    """A p-value: 0.032, or below 0.001."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def duration(value: float) -> str:
    """0.4 s, 75 s, 12 min 5 s."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else f"{value // 60:.0f} min {value % 60:.0f} s"


def cost(fits: FitCost) -> str:
    """What the fits of a run took, in one line."""
    parts = [
        f"{duration(fits.device_seconds)} on {fits.device}",
        f"{fits.examples_per_second:,.0f} examples/s, {fits.waiting:.0%} of the time without a batch",
        f"{fits.peak_memory / 2**30:.1f} GiB of memory",
    ]
    device = fits.peak_device_memory
    return ", ".join(parts if device is None else [*parts, f"{device / 2**30:.1f} GiB of the device's"])


def when(text: str) -> str:
    """2026-11-24T15:20:01.123Z as 2026-11-24 15:20:01 UTC."""
    return f"{text[:10]} {text[11:19]} UTC"


def label(text: str) -> str:
    """A class name for the edge of a matrix: of a long one the beginning and the end, where such names differ."""
    shown = printable(text)
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[:6]}…{shown[7 - LONGEST_LABEL :]}"


def file_name(text: str) -> Markup:
    """A file's name in a narrow caption, with its folder: it breaks after that, and a long one keeps its end."""
    from markupsafe import Markup

    *above, name = text.split("/")
    folder = f"{'…/' if len(above) > 1 else ''}{label(above[-1])}/" if above else ""
    return Markup("{}<wbr>{}").format(folder, label(name))
