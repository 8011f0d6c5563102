"""The report's plots as files that stand alone, for an <img> of any page.

Such a file has no page to take its colours from, so it brings a ground and the report's colours.
What does not belong here: what the plots show (plots).
"""

from __future__ import annotations

import base64
import re

SCALE = 2  # the plots are drawn for a phone's width

_COLOURS = {  # light, dark
    "muted": ("#5c6878", "#9aa7b8"), "line": ("#dfe4ea", "#303947"), "ground": ("#ffffff", "#1a2028"),
    "series-1": ("#2563eb", "#78a9ff"), "series-2": ("#c2570c", "#f0a35e"), "series-3": ("#0f8a6a", "#4fd1ae"),
}  # fmt: skip
_PAD = 12
_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def standalone(*plots: str) -> str:
    """Some of the plots, which take their colours from a page, as one SVG file, each below the last.

    It brings the page's colours, those for light and those for dark.
    """
    parts, width, height = [], 0.0, 0.0
    for svg in plots:
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
        if box is None:
            raise ValueError("not one of our plots: it has no viewBox")
        own = [float(number) for number in box.groups()]
        place = f'<svg y="{height:g}" width="{own[0]:g}" height="{own[1]:g}"'
        parts.append(svg.replace("<svg", place, 1))
        width, height = max(width, own[0]), height + own[1] + _PAD
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width * SCALE:g}" height="{height * SCALE:g}"'
    light, dark = ("".join(f"--{name}: {pair[at]}; " for name, pair in _COLOURS.items()) for at in (0, 1))
    style = f"svg {{ {light}font-family: sans-serif; }} @media (prefers-color-scheme: dark) {{ svg {{ {dark}}} }}"
    ground = '<rect width="100%" height="100%" fill="var(--ground)"/>'
    return f"<svg {_SPACES} {size}><style>{style}</style>{ground}{''.join(parts)}</svg>"


def data_uri(svg: str) -> str:
    """The SVG file as the address of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
