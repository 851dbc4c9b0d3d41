"""Contact sheets: many labelled images on one page that people look through."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import ConfigError
from ..files import complete_file, write_text
from .pictures import HATCH_CSS, fitted, paint_labels, picture_url

_COLUMNS = 2
_PICTURE_PX = 320  # longest side of a picture
_LINE_PX = 20
_GAP_PX = 10
_MAX_SIDE_PX = 65_500  # of a JPEG file
_Pictures = Callable[["SheetCell"], list[np.ndarray]]
_Legend = Sequence[tuple[str, Sequence[int]]]
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_HTML_SUFFIXES, _PICTURE_SUFFIXES = (".html", ".htm"), (".png", ".jpg", ".jpeg")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px system-ui, sans-serif; margin: 1.5em auto; max-width: {width}px; color: #222; background: #fafafa; }}
h1 {{ font-size: 1.4em; }} h2 {{ font-size: 1.15em; margin: 1.6em 0 .4em; }} p {{ margin: .3em 0 .8em; }}
.legend span {{ margin-right: 1.2em; }}
.legend i {{ display: inline-block; width: .9em; height: .9em; margin-right: .4em; }}
.cells {{ display: grid; grid-template-columns: repeat({columns}, 1fr); gap: 14px; }}
@media (max-width: 800px) {{ .cells {{ grid-template-columns: 1fr; }} }}
figure {{ margin: 0; padding: 6px; background: #fff; border: 1px solid #ddd; border-radius: 4px; }}
.pictures {{ display: flex; gap: 4px; }} img {{ flex: 1 1 0; min-width: 0; max-width: {cell}px; }}
figcaption {{ margin-top: 4px; overflow-wrap: anywhere; }} figcaption small {{ display: block; color: #666; }}
</style></head><body>
<h1>{title}</h1>
{summary}
{legend}
{sections}
</body></html>
"""


@dataclass(frozen=True)
class SheetCell:
    """One image of a contact sheet; with labels it is shown plain and, beside that, tinted.

    Attributes:
        image: RGB uint8 (H, W, 3).
        labels: class indices and the ignore label (H, W), or None.
        caption: first line below the image.
        note: further words in smaller letters.
    """

    image: np.ndarray
    labels: np.ndarray | None
    caption: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Cells that belong together, in reading order, below a heading and perhaps a paragraph."""

    title: str
    cells: Sequence[SheetCell]
    text: str = ""


def write_contact_sheet(
    path: str,
    title: str,
    sections: Sequence[Section],
    palette: Sequence[Sequence[int]],
    summary_html: str = "",
    *,
    classes: Sequence[str] = (),
    ignore_index: int = 255,
) -> None:
    """Write ``sections`` as one HTML page without further files, or as one picture; complete or not at all.

    Args:
        path: file to write: .html, or .png, .jpg.
        title: heading of the page.
        sections: what it shows; titles, texts and captions are plain text.
        palette: RGB colour (0-255) of each class.
        summary_html: HTML that stands below the heading, not escaped; a picture leaves it out.
        classes: class names for the legend; none without.
        ignore_index: label that is hatched.

    Raises:
        ConfigError: ``path`` has another suffix or cannot be written, or the picture would be too large for a file.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (*_HTML_SUFFIXES, *_PICTURE_SUFFIXES):
        raise ConfigError(f"{path}: a contact sheet is .html, .png or .jpg; give one of these suffixes")

    def pictures(cell: SheetCell) -> list[np.ndarray]:
        shown = [fitted(cell.image, _PICTURE_PX)]
        if cell.labels is not None:
            shown.append(paint_labels(cell.image, cell.labels, palette, ignore_index, _PICTURE_PX))
        return shown

    legend = list(zip(classes, palette, strict=True))[1:] if classes else []
    if suffix in _HTML_SUFFIXES:
        write_text(path, _page(title, sections, pictures, legend, summary_html))
        return
    sheet = _sheet(title, sections, pictures, legend)
    if max(sheet.size) > _MAX_SIDE_PX:
        raise ConfigError(f"{path}: {sheet.height} rows are too many for a picture; write .html, or fewer images")
    with complete_file(path) as partial:
        sheet.save(partial, "PNG" if suffix == ".png" else "JPEG", quality=88)


def _page(title: str, sections: Sequence[Section], pictures: _Pictures, legend: _Legend, summary_html: str) -> str:
    parts = []
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        parts.append('<div class="cells">')
        for cell in section.cells:
            images = "".join(f'<img alt="" src="{picture_url(picture)}">' for picture in pictures(cell))
            note = f"<small>{html.escape(cell.note)}</small>" if cell.note else ""
            caption = f"<figcaption>{html.escape(cell.caption)}{note}</figcaption>"
            parts.append(f'<figure><div class="pictures">{images}</div>{caption}</figure>')
        parts.append("</div>")
    swatches = [(name, f"rgb{tuple(map(int, colour))}") for name, colour in legend]
    if legend:
        swatches.append(("ignored", HATCH_CSS))
    spans = "".join(f'<span><i style="background: {css}"></i>{html.escape(name)}</span>' for name, css in swatches)
    return _PAGE.format(
        title=html.escape(title),
        summary=summary_html,
        legend=f'<p class="legend">{spans}</p>' if spans else "",
        sections="\n".join(parts),
        columns=_COLUMNS,
        cell=_PICTURE_PX,
        width=_COLUMNS * (2 * _PICTURE_PX + 40),
    )


def _sheet(title: str, sections: Sequence[Section], pictures: _Pictures, legend: _Legend) -> Image.Image:
    """Return the picture: every section's heading above rows of `_COLUMNS` cells."""
    heading, text, small = (ImageFont.load_default(size) for size in (19, 14, 12))
    has_labels = any(cell.labels is not None for section in sections for cell in section.cells)
    cell_width = _PICTURE_PX if not has_labels else 2 * _PICTURE_PX + _GAP_PX // 2
    width = _COLUMNS * (cell_width + _GAP_PX) - _GAP_PX
    images: list[tuple[int, int, np.ndarray]] = []
    lines: list[tuple[int, int, str, _Font]] = [(0, 0, title, heading)]
    left, top = 0, 2 * _LINE_PX
    for name, colour in legend:
        images.append((left, top, np.full((12, 12, 3), colour, np.uint8)))
        lines.append((left + 18, top - 2, name, small))
        left += 40 + round(small.getlength(name))
    top += bool(legend) * 2 * _LINE_PX
    for section in sections:
        lines.append((0, top, section.title, heading))
        lines.append((0, top + _LINE_PX + 6, section.text, text))
        top += (2 if section.text else 1) * _LINE_PX + 10
        for start in range(0, len(section.cells), _COLUMNS):
            row = [(cell, pictures(cell)) for cell in section.cells[start : start + _COLUMNS]]
            below = top + max(shown[0].shape[0] for _, shown in row)
            for column, (cell, shown) in enumerate(row):
                left = column * (cell_width + _GAP_PX)
                images += [(left + i * (_PICTURE_PX + _GAP_PX // 2), top, picture) for i, picture in enumerate(shown)]
                lines.append((left, below + 2, _shortened(cell.caption, cell_width, text), text))
                lines.append((left, below + 2 + _LINE_PX, _shortened(cell.note, cell_width, small), small))
            top = below + (2 if any(cell.note for cell, _ in row) else 1) * _LINE_PX + _GAP_PX
    sheet = Image.new("RGB", (width + 2 * _GAP_PX, top + _GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for left, at, picture in images:
        sheet.paste(Image.fromarray(picture), (_GAP_PX + left, _GAP_PX + at))
    for left, at, words, font in lines:
        draw.text((_GAP_PX + left, _GAP_PX + at), _shortened(words, width - left, font), fill="black", font=font)
    return sheet


def _shortened(words: str, room_px: int, font: _Font) -> str:
    """Return ``words`` on one line, cut with an ellipsis where they need more than ``room_px``."""
    words = " ".join(words.split())
    if font.getlength(words) <= room_px:
        return words
    while words and font.getlength(f"{words}...") > room_px:
        words = words[:-1]
    return f"{words}..."
