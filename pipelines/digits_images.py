"""The images that pipelines/digits.yaml is about: scikit-learn's handwritten digits as PNG files, a folder per class.

`python pipelines/digits_images.py FOLDER` writes them; landing them does not belong here.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SIZE = 28  # pixels a side, as the pipeline `digits` takes them


def write_digits(folder: Path, limit: int | None = None) -> int:
    """Write the 1,797 digits as `0/digit-0001.png` and so on, the same bytes each time. Returns how many.

    The 8 x 8 scans with values 0..16 become 28 x 28 grey images with values 0..255. `limit` takes the
    first so many, which hold the ten classes about evenly. A folder that exists is left as it is; one
    that is being written has another name until it is whole.
    """
    if folder.exists():
        return sum(1 for _ in folder.glob("*/*.png"))
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in data.target_names:
        (partial / str(name)).mkdir(parents=True)
    pairs = list(zip(data.images, data.target, strict=True))[:limit]
    for number, (scan, label) in enumerate(pairs, start=1):
        grey = np.rint(scan * (255 / 16)).astype(np.uint8)  # (8, 8), 0..255
        picture = Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        picture.save(partial / str(label) / f"digit-{number:04d}.png")
    partial.rename(folder)
    return len(pairs)


if __name__ == "__main__":
    write_digits(Path(sys.argv[1]))
