"""Where black and white lie: one scale for a whole source, which is a file or all rows of an array.

Declared depth decides for unsigned integers; for all others the range of the whole source does. A row that does not
fit its source's scale is refused with the range seen: nothing is cut off, and no row has a scale of its own.
What does not belong here: decoding, and what is done with the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.text import noun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE_BYTES = 16 << 20  # bytes of rows looked at together
_DARK = 16  # where the brightest value lies below this part of white, the depth that is declared is not the one used

RESCALE = "save it as 8 bits, or multiply its values"
UNFIT = "integers lie in 0..255"
UNFIT_FLOATS = "floats all lie in 0..1, or are whole numbers in 0..255"


class Scale(NamedTuple):
    """Values lie in 0..top.

    top     the value of white; None where no scale fits the source, and every row is refused
    meaning what values must be, as the reason of a row that is refused says it
    note    what the user should know although the source is accepted
    """

    top: int | None
    meaning: str
    note: str | None = None


BYTES = Scale(255, UNFIT)
SIXTEEN = Scale(65535, "16-bit values lie in 0..65535")


def of(values: NDArray[Any], bits: int | None = None) -> Scale:
    """The scale of a source of N rows, N x H x W [x C]. `bits`: the declared depth, where it is not the dtype's."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return Scale(1, "values are true or false")
    if kind == "u" and size == 1:
        return _noted(values, BYTES)
    if kind == "u" and size == 2:
        return _declared(values, bits or 16)
    return _floats(values) if kind == "f" else _noted(values, _integers(values))


def refusal(row: NDArray[Any], scale: Scale) -> tuple[str, str] | None:
    """(rule, reason) where a row does not fit: not-finite, out-of-range."""
    import numpy as np

    if row.size == 0 or row.dtype.kind == "b":
        return None
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        return "not-finite", "a pixel is NaN or infinite"
    if row.dtype == np.uint8 and scale.top == 255:
        return None
    low, high = row.min(), row.max()
    if scale.top is None or low < 0 or high > scale.top:
        return "out-of-range", f"pixels reach from {low:.7g} to {high:.7g}; {scale.meaning}"
    if scale.top == 255 and row.dtype.kind == "f" and not (row == np.rint(row)).all():
        return "out-of-range", f"pixels reach from {low:.7g} to {high:.7g} and are not whole numbers; {scale.meaning}"
    return None


def eight_bits(row: NDArray[Any], scale: Scale) -> NDArray[np.uint8]:
    """A row that fits its scale -> uint8 of the same shape, 0..top on 0..255, rounded."""
    import numpy as np

    top = scale.top or 255
    if row.dtype == np.uint8:
        return row
    pixels = np.empty(row.shape, np.uint8)
    step = max(1, PIECE_BYTES // (row[:1].nbytes or 1))
    for start in range(0, len(row), step):  # a large image is not held again as wider numbers
        piece = row[start : start + step]
        if row.dtype.kind == "f":
            pixels[start : start + step] = np.rint(piece.astype(np.float64) * (255.0 / top))
        elif top == 255:
            pixels[start : start + step] = piece
        else:
            pixels[start : start + step] = (piece.astype(np.uint32) * 255 + top // 2) // top
    return pixels


def _declared(values: NDArray[Any], bits: int) -> Scale:
    """Unsigned integers of more than 8 bits."""
    top = 2**bits - 1
    meaning = f"{bits}-bit values lie in 0..{top}"
    high = max((int(piece.max()) for piece in _pieces(values)), default=0)
    if 0 < high <= top // _DARK:
        return Scale(None, f"{meaning}, on which the source's brightest, {high}, is nearly black: {RESCALE}")
    return Scale(top, meaning)


def _integers(values: NDArray[Any]) -> Scale:
    """Integers whose type declares no range of pixels: 0..255 where most rows lie in it."""
    fit = count = 0
    for piece in _pieces(values):
        fit += int(((piece.min(axis=1) >= 0) & (piece.max(axis=1) <= 255)).sum())
        count += len(piece)
    if 2 * fit > count:
        return BYTES
    return Scale(None, UNFIT if fit == 0 else f"{UNFIT}, and only {fit} of {count} rows of the source do")


def _floats(values: NDArray[Any]) -> Scale:
    """0..1 or whole numbers in 0..255, whichever most rows show. Rows of 0 and 1 alone fit both and show neither."""
    import numpy as np

    unit = byte = either = neither = 0
    for piece in _pieces(values):
        piece = piece[np.isfinite(piece).all(axis=1)]
        if not len(piece):
            continue
        low, high = piece.min(axis=1), piece.max(axis=1)
        whole = (piece == np.rint(piece)).all(axis=1)
        inside = (low >= 0) & (high <= 1)
        unit += int((inside & ~whole).sum())
        either += int((inside & whole).sum())
        byte += int((whole & (low >= 0) & (high > 1) & (high <= 255)).sum())
        neither += int(((low < 0) | (high > 255) | (~whole & ~inside)).sum())
    shown = unit + byte + neither
    if 2 * unit > shown or not shown:
        return Scale(1, "the source's floats lie in 0..1")
    if 2 * byte > shown:
        return Scale(255, "the source's floats are whole numbers in 0..255")
    if unit and byte:
        rows = f"{unit} {noun(unit, 'row', 'rows')} of the source {noun(unit, 'lies', 'lie')}"
        return Scale(None, f"{rows} in 0..1 and {byte} in 0..255, so that no scale fits most")
    return Scale(None, UNFIT_FLOATS)


def _noted(values: NDArray[Any], scale: Scale) -> Scale:
    """Says so where an array holds 0 and 1 alone: many mean black and white, and 0..255 makes both black."""
    if len(values) < 2 or scale.top is None or any(piece.max() > 1 for piece in _pieces(values)):
        return scale
    if not any(piece.any() for piece in _pieces(values)):
        return scale
    return scale._replace(note="the array holds 0 and 1 alone, both black on 0..255; bool is black and white")


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some rows at a time as n x values of a row; none where rows are empty."""
    if not values.size:
        return
    rows = max(1, PIECE_BYTES // (values[0].nbytes or 1))
    for start in range(0, len(values), rows):
        piece = values[start : start + rows]
        yield piece.reshape(len(piece), -1)
