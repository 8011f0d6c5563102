"""Numbers of images as the model takes them, by which drift is seen that the model hardly reacts to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOOKED_AT = 64  # pixels of each side, in the middle: what an image costs is bounded
NORMAL = 0.6745  # the median of a standard normal number's size


def of(pixels: NDArray[np.uint8], shape: tuple[int, int, int]) -> dict[str, NDArray[np.float64]]:
    """`noise` of N x H x W x C images, (N,), in levels of 0..255; nothing where a side has fewer than 3 pixels.

    It is the standard deviation of Gaussian noise on an even area, from the median of what the mask [1 -2 1] in both
    directions leaves of the channels' mean. Compression, blur, sharpening and resizing change it too.

    Source: the mask is that of Immerkaer (1996), Computer Vision and Image Understanding 64:300-302; the median in
    place of the mean, which edges do not move, Donoho and Johnstone (1994), Biometrika 81:425-455.
    """
    import numpy as np

    height, width, channels = shape
    if min(height, width) < 3:
        return {}
    top, left = (max(0, side - LOOKED_AT) // 2 for side in (height, width))
    middle = pixels[:, top : top + LOOKED_AT, left : left + LOOKED_AT]
    grey = middle[..., 0].astype(np.int16)  # (N, h, w); a sum over the last axis takes several times as long
    for channel in range(1, channels):
        grey += middle[..., channel]
    down = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    left_over = np.abs(down[:, :, :-2] - 2 * down[:, :, 1:-1] + down[:, :, 2:]).reshape(len(pixels), -1)
    deviation = 6 * NORMAL * channels  # of the mask's coefficients, whose squares sum to 36
    return {"noise": np.round(np.median(left_over, axis=1) / deviation, 3)}
