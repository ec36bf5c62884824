"""Videos inside a page.

A page carries its films, so that it can be sent as one file; those that would
make it too large stay where they are, and are linked. Read next: `page.py`.
"""

import base64
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from dreamer.pages.elements import Html, join, tag

MOST_BYTES = 16_000_000  # of the films of a part of the page


def films(shown: Iterable[tuple[Path, str]]) -> Html:
    """Figures, the first ones playable, as far as they fit.

    Args:
      shown: Files in `videos/` of a logdir, and what is seen in each.
    """
    figures: list[Html] = []
    room = MOST_BYTES
    for path, caption in shown:
        size = path.stat().st_size
        fits = size <= room
        if fits:
            room -= size
        player = _player(path, caption) if fits else _link(path, size)
        figures.append(tag("figure", player, tag("figcaption", caption)))
    return join(figures)


def _player(path: Path, caption: str) -> Html:
    data = base64.b64encode(path.read_bytes()).decode()
    return tag(
        "video",
        caption,  # for a browser that plays none
        controls=True,
        muted=True,
        loop=True,
        playsinline=True,
        aria_label=caption,
        src=f"data:video/mp4;base64,{data}",
    )


def _link(path: Path, size: int) -> Html:
    name = f"{path.parent.name}/{path.name}"
    return tag(
        "p",
        tag("a", name, href=quote(os.fsencode(name))),
        f", {size / 1e6:,.0f} MB, is not part of this page.",
    )
