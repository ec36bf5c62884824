"""HTML from Python: elements, tables, and a whole document.

Text is escaped wherever it comes from, because `tag` escapes all that is not
`Html`; so nothing in a log can become markup. Read next: `page.py`.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")
VOID = ("meta",)  # elements without content
# A page loads nothing and runs nothing, whatever it was made from.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; media-src data:;"
    " base-uri 'none'; form-action 'none'"
)


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; children that are no `Html` are escaped.

    Args:
      name: Name of the element, as in `<name>`.
      children: Texts and elements; None is left out.
      attributes: Values by name; `aria_label` is aria-label, `class_` class;
        True gives one without a value, None and False none at all.
    """
    opening = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        opening += " " + key.rstrip("_").replace("_", "-")
        if value is not True:
            opening += f'="{html.escape(str(value))}"'
    if name in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """Texts and elements one after the other."""
    return Html(
        "".join(
            x if isinstance(x, Html) else html.escape(str(x))
            for x in children
            if x is not None
        )
    )


def document(title: str, *body: object) -> str:
    """A page that needs no other file."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag(
            "meta",
            name="viewport",
            content="width=device-width, initial-scale=1",
        ),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE.read_text("utf-8"))),
    )
    page = tag("html", head, tag("body", tag("main", *body)), lang="en")
    return f"<!doctype html>\n{page}\n"


def section(title: str, *children: object) -> Html:
    """A part of a page with its heading."""
    return tag("section", tag("h2", title), "\n", *children)


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    numbers: bool = True,
) -> Html:
    """A table that scrolls by itself where it is too wide.

    Args:
      caption: Text above the table.
      heads: Heads of the columns.
      rows: Cells of each row; the first one is the head of its row.
      numbers: True if all columns but the first hold numbers.
    """
    head = tag("tr", *(tag("th", x, scope="col") for x in heads))
    body = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            *(tag("td", x) for x in rest),
        )
        for first, *rest in rows
    ]
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", head),
        tag("tbody", *body),
        class_="numbers" if numbers else None,
    )
    # Whoever has no pointer scrolls with the keys, so it takes the focus.
    return tag(
        "div",
        whole,
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def facts(pairs: Iterable[tuple[str, object]], class_: str = "") -> Html:
    """Names and what they are."""
    return tag(
        "dl",
        *(tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs),
        class_=class_ or None,
    )


def command(text: str) -> Html:
    """What a person can type."""
    return tag("code", text, class_="command")
