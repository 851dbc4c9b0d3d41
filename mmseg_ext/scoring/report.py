"""The frame of a road report's page: its style and its script."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np

from ..errors import ConfigError
from ..files import complete_file
from ..report.pictures import HATCH_CSS, fitted, picture_url
from .report_charts import (
    ERROR_COLOURS,
    FALSE,
    GAP_COLOUR,
    HIT,
    MISSED,
    NEAR,
    PREDICTED_COLOUR,
    TRUTH_COLOUR,
    Calibration,
    PrecisionRecall,
    calibration_chart,
    distribution_chart,
    entropy_colours,
    entropy_picture,
    error_classes,
    error_picture,
    graph_picture,
    precision_recall_chart,
    truth_picture,
)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5em auto; max-width: 1240px; padding: 0 16px; color: #1c1c1c;
  background: #fff; }
h1 { font-size: 1.6em; margin: 0 0 .2em; } h2 { font-size: 1.25em; margin: 2em 0 .5em; }
h2 + p, header p, .notes { margin: .2em 0; color: #555; }
.notes { border-left: 3px solid #c8c8c8; padding-left: 1.6em; margin-top: .8em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
thead th { border-bottom: 2px solid #8a8a8a; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: normal; }
.group { font-weight: 600; background: #f1f3f5; }
[title] { cursor: help; } .none { color: #767676; } .better { color: #555; }
.summary { width: 100%; max-width: 800px; } .summary td { white-space: nowrap; }
details small { display: block; max-width: 46em; color: #444; }
summary { list-style: none; cursor: help; } summary::-webkit-details-marker { display: none; }
summary::after { content: "?"; display: inline-block; width: 1.25em; line-height: 1.25em; margin-left: .5em;
  border-radius: 50%; background: #e4e7ea; color: #333; font-size: .75em; text-align: center; }
.scroll { overflow: auto; max-height: 75vh; }
.sortable { font-size: .87em; min-width: 100%; }
.sortable thead { position: sticky; top: 0; z-index: 1; background: #fff; }
.sortable th, .sortable td { padding: 3px 7px; } .sortable tbody th { white-space: nowrap; position: sticky; left: 0;
  background: #fff; }
.sortable thead th[colspan] { text-align: center; border-bottom: 1px solid #c8c8c8; border-left: 8px solid #fff; }
button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; text-align: inherit;
  cursor: pointer; } button:hover { text-decoration: underline; }
[aria-sort=ascending] button::after { content: " \\25b2"; } [aria-sort=descending] button::after { content: " \\25bc"; }
.share { background: linear-gradient(to right, #d3e5f2 calc(var(--share) * 100%), transparent 0) no-repeat 0 50% /
  100% 78%; }
.charts { display: flex; flex-wrap: wrap; gap: 20px; } .charts img { max-width: 100%; height: auto; }
.legend span { display: inline-block; margin: 0 1.4em .2em 0; }
.legend i { display: inline-block; width: 1em; height: 1em; margin-right: .4em; vertical-align: -.12em; }
.legend .line { height: 4px; width: 1.8em; vertical-align: .25em; }
.legend .ring { border: 2px solid; border-radius: 50%; box-sizing: border-box; } .legend .ramp { width: 6em; }
article { break-inside: avoid; margin: 1.4em 0; } h3 { font-size: 1.05em; margin: 0 0 .3em; overflow-wrap: anywhere; }
h3 small { font-weight: normal; color: #555; margin-left: .6em; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 8px; }
figure { margin: 0; max-width: 512px; } .pictures img { width: 100%; height: auto; display: block; }
figcaption { font-size: .87em; color: #444; }
@media print { body { margin: 0; font-size: 11px; } .charts figure { max-width: 47%; }
  .scroll { overflow: visible; max-height: none; }
  .sortable thead, .sortable tbody th { position: static; }
  .pictures { grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows].at(-1).cells;
  const key = (row, column) => {
    const cell = row.cells[column];
    return column ? parseFloat(cell.dataset.value) : cell.textContent;
  };
  const compare = (x, y) => typeof x === "string" ? x.localeCompare(y, "en", {numeric: true}) : x - y;
  [...heads].forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map(row => [key(row, column), row]);
    rows.sort(([x], [y]) => Number.isNaN(x) - Number.isNaN(y) || sign * compare(x, y) || 0);
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
"""

# the policy makes a browser refuse whatever does not lie in the page itself
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, body: str) -> str:
    """Return the HTML page.

    Args:
        title: plain text.
        body: HTML.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
{body}
<script>{_SCRIPT}</script></body></html>
"""


# -- report.road_report
# A page that shows how good a road map is: scores, curves and pictures, in one file.

_LONGEST_PX = 512
_NOTHING = "undefined: nothing to score"
_ARROWS = {True: ("↑", "Higher is better."), False: ("↓", "Lower is better."), None: ("", "")}


@dataclass(frozen=True)
class Measure:
    """What is measured, and its values over all images.

    Attributes:
        key: its key in `ImageScores.values`.
        name: short name.
        definition: a sentence, shown wherever a value or the name stands.
        unit: ``%`` (values are ratios 0 to 1, shown times 100), ``px``, ``m`` or empty.
        pooled: value over the pixels, or the graphs, of all images together; nan where there is nothing to score, None
            where the measure has no such value.
        mean: mean over the images in which it is defined; nan and None alike.
        undefined: images in which it is not defined.
        group: heading it stands under, such as Region, Tolerance, Topology.
        higher_is_better: None where neither end is better.
    """

    key: str
    name: str
    definition: str
    unit: str
    pooled: float | None
    mean: float | None
    undefined: int
    group: str
    higher_is_better: bool | None

    @property
    def explanation(self) -> str:
        """The definition, and which end is better."""
        return f"{self.definition} {_ARROWS[self.higher_is_better][1]}".strip()


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image.

    Attributes:
        name: of the image.
        values: by the measures' keys; nan, or no entry, where there is nothing to score.
    """

    name: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Example:
    """An image that is shown with its truth and prediction.

    Attributes:
        title: why it is shown, such as "the worst IoU".
        name: of the image; as in `ImageScores.name`, its row leads here.
        image: RGB uint8 (H, W, 3).
        truth: road, bool (H, W).
        prediction: road, bool (H, W).
        tolerance_px: distance up to which road off the other mask counts as near.
        valid: bool (H, W), false where pixels count nowhere; None: all count.
        truth_lines: lines (N, 2) of (x, y) in pixels, integers at pixel centres.
        predicted_lines: likewise.
        gaps: (x, y) where the predicted network is interrupted.
        entropy: of the road probability, 0 to 1 (H, W), or None.
    """

    title: str
    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    tolerance_px: float
    valid: np.ndarray | None = None
    truth_lines: Sequence[np.ndarray] = ()
    predicted_lines: Sequence[np.ndarray] = ()
    gaps: Sequence[tuple[float, float]] = ()
    entropy: np.ndarray | None = None

    def __post_init__(self) -> None:
        for array in (self.truth, self.prediction, self.valid, self.entropy):
            if array is not None and array.shape != self.image.shape[:2]:
                raise ValueError(f"{self.name}: an array {array.shape} does not fit the image {self.image.shape}")


@dataclass(frozen=True)
class Report:
    """What the page shows; every text is plain text.

    Attributes:
        title: heading.
        subtitle_lines: below it: network, data, settings.
        measures: rows of the summary; those of a group follow each other.
        images: rows of the table of images.
        examples: rows of pictures.
        precision_recall: curve over the threshold, or None.
        calibration: bins of road probability, or None.
        notes: what a reader must know to judge the numbers.
    """

    title: str
    subtitle_lines: Sequence[str] = ()
    measures: Sequence[Measure] = ()
    images: Sequence[ImageScores] = ()
    examples: Sequence[Example] = ()
    precision_recall: PrecisionRecall | None = None
    calibration: Calibration | None = None
    notes: Sequence[str] = ()


def write_road_report(path: str, report: Report) -> None:
    """Write ``report`` as one HTML page that needs no other file and no network.

    Args:
        path: file to write, .html; it appears complete or not at all.
        report: what it shows.

    Raises:
        ConfigError: ``path`` has another suffix or cannot be written.
        MissingExtraError: there is a chart to draw and matplotlib is not installed.
    """
    if not path.lower().endswith((".html", ".htm")):
        raise ConfigError(f"{path}: a road report is a page; give a name that ends in .html")
    parts = (_header(report), _summary(report), _curves(report), _images(report), _examples(report))
    text = page(report.title, "\n".join(part for part in parts if part))
    # file names may be no proper text
    with complete_file(path) as partial, open(partial, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)


def _header(report: Report) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in report.subtitle_lines)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    return f"<header><h1>{escape(report.title)}</h1>{lines}{notes}</header>"


def _summary(report: Report) -> str:
    """Return the table of all measures, group by group."""
    if not report.measures:
        return ""
    total = len(report.images)
    rows = []
    for group, measures in groupby(report.measures, lambda measure: measure.group):
        rows.append(f'<tr><th class="group" colspan="4" scope="rowgroup">{escape(group)}</th></tr>')
        for measure in measures:
            about = escape(measure.explanation)
            name = f"{escape(measure.name)} {_arrow(measure)}"
            head = f'<details><summary title="{about}">{name}</summary><small>{about}</small></details>'
            cells = "".join(_summary_cell(value, measure) for value in (measure.pooled, measure.mean))
            count = f"{measure.undefined} of {total} images" if total else f"{measure.undefined} images"
            cells += f'<td title="{escape(measure.name)}: nothing to score in {count}">{measure.undefined}</td>'
            rows.append(f'<tr><th scope="row">{head}</th>{cells}</tr>')
    heads = (
        ("Measure", ""),
        ("All pooled", "all images scored together, as if they were one"),
        ("Mean", "mean of the scores of the images in which it is defined"),
        ("Undefined", "images in which there is nothing to score"),
    )
    return (
        "<section><h2>Summary</h2><p>Every number tells its definition when the pointer rests on it; so does a tap on "
        f'a name.</p><table class="summary"><thead><tr>{_heads(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _heads(heads: Sequence[tuple[str, str]]) -> str:
    titles = [f' title="{about}"' if about else "" for _, about in heads]
    return "".join(f'<th scope="col"{title}>{name}</th>' for (name, _), title in zip(heads, titles, strict=True))


def _summary_cell(value: float | None, measure: Measure) -> str:
    about = escape(measure.explanation)
    if value is None:
        return f'<td class="none" title="not a number of this kind: {about}">&ndash;</td>'
    if not math.isfinite(value):
        return f'<td class="none" title="{_NOTHING}. {about}">n/a</td>'
    unit = f" {measure.unit}" if measure.unit else ""
    return f'<td title="{about}">{_number(value, measure.unit)}{unit}</td>'


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.2f}"
    if unit:
        return f"{value:.2f}"
    return f"{value:.0f}" if value == round(value) else f"{value:.3f}"


def _arrow(measure: Measure) -> str:
    arrow, words = _ARROWS[measure.higher_is_better]
    return f'<span class="better" title="{words}">{arrow}</span>' if arrow else ""


def _curves(report: Report) -> str:
    charts = []
    if report.precision_recall is not None:
        charts.append(("Precision and recall over the threshold", precision_recall_chart(report.precision_recall)))
    if report.calibration is not None:
        charts.append(("Calibration", calibration_chart(report.calibration)))
    if not charts:
        return ""
    figures = "".join(f"<figure>{_chart(chart)}<figcaption>{name}</figcaption></figure>" for name, chart in charts)
    return f'<section><h2>Curves</h2><div class="charts">{figures}</div></section>'


def _chart(chart: tuple[str, str]) -> str:
    address, words = chart
    return f'<img alt="{escape(words)}" src="{address}">'


def _images(report: Report) -> str:
    """Return the distributions over the images and the table of them."""
    keys = {key for scores in report.images for key in scores.values}
    measures = [measure for measure in report.measures if measure.key in keys]
    if not measures:
        return ""
    ratios = {
        f"{one.group}: {one.name}": np.array([scores.values.get(one.key, math.nan) for scores in report.images], float)
        for one in measures
        if one.unit == "%" and one.higher_is_better
    }
    chart = f'<div class="charts">{_chart(distribution_chart(ratios))}</div>' if ratios else ""
    groups = "".join(
        f'<th colspan="{len(list(members))}" scope="colgroup">{escape(group)}</th>'
        for group, members in groupby(measures, lambda measure: measure.group)
    )
    heads = "".join(_sortable_head(measure) for measure in measures)
    places = {example.name: number for number, example in enumerate(report.examples)}
    rows = []
    for scores in report.images:
        name = escape(scores.name)
        if scores.name in places:
            name = f'<a href="#example-{places[scores.name]}">{name}</a>'
        cells = "".join(_score_cell(scores.values.get(measure.key, math.nan), measure) for measure in measures)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        f"<section><h2>Images</h2>{chart}<p>A click on a column's head sorts; a second one turns the order round.</p>"
        f'<div class="scroll"><table class="sortable"><thead><tr><td></td>{groups}</tr>'
        f'<tr><th scope="col" aria-sort="none"><button type="button">Image</button></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _sortable_head(measure: Measure) -> str:
    unit = f", {escape(measure.unit)}" if measure.unit else ""
    button = f'<button type="button">{escape(measure.name)}{unit}</button>'
    return f'<th scope="col" aria-sort="none" title="{escape(measure.explanation)}">{button}</th>'


def _score_cell(value: float, measure: Measure) -> str:
    if not math.isfinite(value):
        return f'<td class="none" data-value="" title="{_NOTHING} in this image">n/a</td>'
    bar = f' class="share" style="--share: {value:.3f}"' if measure.unit == "%" else ""
    return f'<td data-value="{float(value)!r}"{bar}>{_number(value, measure.unit)}</td>'


def _examples(report: Report) -> str:
    if not report.examples:
        return ""
    articles = "".join(_example(number, example) for number, example in enumerate(report.examples))
    return f"<section><h2>Examples</h2>{_legend(report.examples)}{articles}</section>"


def _legend(examples: Sequence[Example]) -> str:
    colours = {
        HIT: "hit: road in truth and prediction",
        MISSED: "missed: only in the truth",
        FALSE: "false: only in the prediction",
        NEAR: "near: only in one, within the tolerance of the other",
    }
    entries = [("", f"background: {_css(ERROR_COLOURS[kind])}", words) for kind, words in colours.items()]
    if any(example.valid is not None for example in examples):
        entries.append(("", f"background: {HATCH_CSS}", "ignored"))
    if any(_has_graph(example) for example in examples):
        entries.append(("line", f"background: {_css(TRUTH_COLOUR)}", "line of the truth"))
        entries.append(("line", f"background: {_css(PREDICTED_COLOUR)}; height: 2px", "line of the prediction"))
        entries.append(("ring", f"border-color: {_css(GAP_COLOUR)}", "gap in the predicted network"))
    if any(example.entropy is not None for example in examples):
        ramp = ", ".join(map(_css, entropy_colours(np.linspace(0, 1, 7, dtype=np.float32)[None])[0]))
        entries.append(("ramp", f"background: linear-gradient(to right, {ramp})", "entropy 0 (certain) to 1"))
    spans = "".join(f'<span><i class="{kind}" style="{css}"></i>{words}</span>' for kind, css, words in entries)
    return f'<p class="legend">{spans}</p>'


def _css(colour: Sequence[int] | np.ndarray) -> str:
    return f"rgb({', '.join(str(int(channel)) for channel in colour)})"


def _has_graph(example: Example) -> bool:
    return any(map(len, (example.truth_lines, example.predicted_lines, example.gaps)))


def _example(number: int, example: Example) -> str:
    """Return one row of pictures."""
    image, valid = example.image, example.valid
    classes = error_classes(example.truth, example.prediction, example.tolerance_px, valid)
    pictures = [
        ("Image", fitted(image, _LONGEST_PX)),
        ("Truth", truth_picture(image, example.truth, valid, _LONGEST_PX)),
        (
            f"Errors, tolerance {example.tolerance_px:.3g} px",
            error_picture(image, classes, _LONGEST_PX),
        ),
    ]
    if _has_graph(example):
        lines = graph_picture(image, example.truth_lines, example.predicted_lines, example.gaps, _LONGEST_PX)
        pictures.append((f"Road graph, gaps: {len(example.gaps)}", lines))
    if example.entropy is not None:
        pictures.append(("Entropy", entropy_picture(example.entropy, valid, _LONGEST_PX)))
    figures = "".join(
        f'<figure><img alt="{words} of {escape(example.name)}" src="{picture_url(picture)}">'
        f"<figcaption>{words}</figcaption></figure>"
        for words, picture in pictures
    )
    heading = f"<h3>{escape(example.title)}<small>{escape(example.name)}</small></h3>"
    return f'<article id="example-{number}">{heading}<div class="pictures">{figures}</div></article>'
