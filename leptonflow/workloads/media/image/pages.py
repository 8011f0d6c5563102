"""Which page of a file with several is its image: the first, unless it is a thumbnail or a mask of another.

What does not belong here: decoding the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PAGES = 100  # looked at
THUMBNAIL = 4  # a first page with so many times fewer pixels than another is its thumbnail

_SUBFILE, _REDUCED, _MASK = 254, 1, 4  # TIFF's NewSubfileType and its bits


def choose(image: Image, kind: str) -> str | None:
    """Turn an opened file to its page -> what a person should know of it, None where there is but one."""
    if kind == "TIFF":
        return _tiff(image)
    # The further pictures of a JPEG are previews and depths that cameras add.
    if kind != "JPEG" and getattr(image, "is_animated", False):
        image.seek(0)
        return "the first frame of an animation is taken"
    return None


def _tiff(image: Any) -> str | None:
    if not image.is_animated:
        return None
    areas: dict[int, int] = {}  # of each page that may be the image
    number = 0
    while number < MOST_PAGES:
        try:
            image.seek(number)
            width, height = image.size
            if not image.tag_v2.get(_SUBFILE, 0) & (_REDUCED | _MASK):
                areas[number] = width * height
        except EOFError:
            break
        except Exception:  # noqa: BLE001 - a page of a kind that cannot be read may stand beside one that can
            if image.tell() < number:  # nor can those behind it be found
                break
        number += 1
    largest = max(areas, key=lambda page: (areas[page], -page), default=0)
    page = 0 if THUMBNAIL * areas.get(0, 0) > areas.get(largest, 0) else largest
    image.seek(page)
    pages = f"{MOST_PAGES} or more" if number == MOST_PAGES else str(number)
    return f"page {page + 1} of {pages} is taken{', for the first is a thumbnail' if page else ''}"
