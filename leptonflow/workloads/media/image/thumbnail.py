"""A small image as an address that a page can show. Which examples are shown does not belong here."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 192


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """uint8 H x W x C (1 or 3 channels) as a PNG data URI.

    Every n-th pixel of a large image: a sheet of them must not make a file of many megabytes.
    """
    from PIL import Image

    step = -(-max(pixels.shape[:2]) // LARGEST)
    small = pixels[::step, ::step]
    sink = io.BytesIO()
    Image.fromarray(small[..., 0] if small.shape[2] == 1 else small).save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
