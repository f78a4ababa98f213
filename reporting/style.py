"""How pictures look: sizes, colours of both themes, and from a drawing to SVG and PNG.

Matplotlib, an extra, is imported in here only, and only once something is drawn. A picture is drawn
in the light theme's colours; as an SVG they are exchanged for another theme's, or for the variables
of a page (page.py), so that the page's theme is the picture's.
"""

import contextlib
import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from errors import UserError

# What a theme's colours are for: text and axes, less important text, grids and borders, the ground.
THEMES = {
    "light": {"ink": "#24292f", "quiet": "#57606a", "line": "#d0d7de", "paper": "#ffffff"},
    "dark": {"ink": "#e6edf3", "quiet": "#9198a1", "line": "#3d444d", "paper": "#0d1117"},
}
DRAWN_IN = THEMES["light"]

# Colours of what is drawn, which stand out from the ground of either theme.
COLOURS = ("#3a86c8", "#d9702a", "#2f9e6e", "#a964c0", "#ad8617", "#d4504f", "#3f9ba3", "#848a92")
FIRST, SECOND = COLOURS[:2]

# Inches, 72 units of an SVG each: the width of a phone, where text has its own size then.
WIDTH, HEIGHT = 5.0, 3.3
DOTS_AN_INCH = 160  # of a PNG

Axes = Any  # matplotlib's

# What differs from its defaults in all that is drawn, also by benchmarks/figure.py.
SHARED: dict[Any, Any] = {
    "svg.hashsalt": "minbert",  # the same file every time
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}

# And in the pictures of pages.
LOOKS: dict[Any, Any] = {
    **SHARED,
    # Text stays text in an SVG, and a dollar sign in a run's name is no formula.
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": DRAWN_IN["ink"],
    "axes.labelcolor": DRAWN_IN["quiet"],
    "axes.edgecolor": DRAWN_IN["line"],
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "xtick.color": DRAWN_IN["line"],
    "ytick.color": DRAWN_IN["line"],
    "xtick.labelcolor": DRAWN_IN["quiet"],
    "ytick.labelcolor": DRAWN_IN["quiet"],
    "grid.color": DRAWN_IN["line"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Picture:
    """A drawing, once as text of a page and once as a file."""

    name: str  # of the file, without its ending
    title: str
    caption: str  # below it on a page: what its marks are
    svg: str  # as matplotlib wrote it, in DRAWN_IN's colours
    png: bytes


def need_matplotlib(what: str) -> None:
    """UserError, which names the command that installs it, where matplotlib is not there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{what} needs a package: pip install matplotlib")


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Inside, what matplotlib draws has this house's looks."""
    import matplotlib

    with matplotlib.rc_context(LOOKS), warnings.catch_warnings():
        # Its own font lacks some scripts; the page's has them.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def draw(
    name: str,
    title: str,
    paint: Callable[[Axes], None],
    height: float = HEIGHT,
    caption: str = "",
) -> Picture:
    """The picture that `paint` makes in a figure's only axes; sizes in inches."""
    need_matplotlib("a picture")
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        paint(axes)

        # Everything finds its place once, for both files.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        text, image = io.StringIO(), io.BytesIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
        ground = DRAWN_IN["paper"]
        figure.savefig(
            image, format="png", dpi=DOTS_AN_INCH, facecolor=ground, metadata={"Software": None}
        )
    return Picture(name, title, caption, text.getvalue(), image.getvalue())


# ---- SVG


def with_colours(svg: str, colours: Mapping[str, str]) -> str:
    """A picture's SVG with other colours in the place of DRAWN_IN's."""
    for name, colour in DRAWN_IN.items():
        svg = svg.replace(colour, colours[name])
    return svg


def svg_file(picture: Picture, theme: str) -> str:
    """A picture as an SVG file of its own, for pages that can't hand their colours down."""
    return with_colours(picture.svg, THEMES[theme])


def svg_inline(picture: Picture) -> str:
    """A picture as an element of a page of page.py, in that page's colours."""
    svg = with_colours(picture.svg, {name: f"var(--{name})" for name in DRAWN_IN})
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    begin, end = svg.index(">", box.start()) + 1, svg.rindex("</svg>")
    inside = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[begin:end], flags=re.DOTALL)

    # Several pictures of a page would share ids.
    inside = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", inside)
    label = escape(picture.title)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">{inside}</svg>'
