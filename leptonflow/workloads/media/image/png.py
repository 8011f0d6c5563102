"""Encoded pixels as a file again, which is examined as the same example."""

from __future__ import annotations

import io


def file(encoded: bytes, shape: tuple[int, int, int]) -> tuple[str, bytes]:
    """uint8 of height x width x channels -> (the suffix, the bytes of a PNG)."""
    import numpy as np
    from PIL import Image

    pixels = np.frombuffer(encoded, np.uint8).reshape(shape)
    sink = io.BytesIO()
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(sink, "PNG")
    return ".png", sink.getvalue()
