"""A page that shows how good a road map is: scores, curves and pictures, in one file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby

import numpy as np

from ..files import write_text
from ..metrics.centrelines import connectivity
from ..metrics.pixels import ProbabilityCounts, entropy
from ..report.pictures import HATCH_CSS, fitted, picture_url
from ..roads import graph_lines
from .image_scores import ImageScores, RoadMasks, ScoringSettings, graphs_of
from .measures import BY_KEY, RoadMeasure
from .report_charts import (
    ERROR_COLOURS,
    FALSE,
    GAP_COLOUR,
    HIT,
    MISSED,
    NEAR,
    PREDICTED_COLOUR,
    TRUTH_COLOUR,
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
from .results import Total, image_values, probabilities_of, remarks, shown_value, summarise

REPORT_FILE = "report.html"
_LONGEST_PX = 512
_WORST = 3
_NOTHING = "undefined: nothing to score"
_PLAIN_GREY = 90
Values = Mapping[str, float]

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


def write_report(
    folder: str,
    title: str,
    images: Sequence[ImageScores],
    settings: ScoringSettings,
    show: Callable[[int], RoadMasks] | None = None,
    subtitle: Sequence[str] = (),
) -> None:
    """Write `REPORT_FILE` into a folder, one HTML page that needs no other file and no network.

    ``title``, names and the ``subtitle``, lines below the heading, are plain text. ``show`` returns the masks and the
    picture of the image of an index; None where there are only lines.

    Raises:
        ConfigError: it cannot be written.
        MissingExtraError: there is a chart to draw and matplotlib is not installed.
    """
    totals, values = summarise(images), [image_values(image) for image in images]
    shown = {} if show is None else _chosen(values)
    links = {index: f"example-{number}" for number, index in enumerate(shown)}
    parts = [
        _header(title, subtitle, _notes(settings, images)),
        _summary(totals, len(images)),
        _curves(probabilities_of(images)),
        _images([total.measure for total in totals], images, values, links),
    ]
    if show is not None and shown:
        masks = {index: show(index) for index in shown}
        articles = []
        for index, why in shown.items():
            measures = [BY_KEY[key] for key in ("IoU", "relaxed_F1", "APLS_spacenet")]
            said = ", ".join(f"{one.name} {shown_value(values[index][one.key], one)}" for one in measures)
            articles.append(_example(links[index], f"{why} ({said})", images[index].name, masks[index], settings))
        parts.append(f"<section><h2>Examples</h2>{_legend(list(masks.values()))}{''.join(articles)}</section>")
    body = "\n".join(part for part in parts if part)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
{body}
<script>{_SCRIPT}</script></body></html>
"""
    valid_text = page.encode("utf-8", "replace").decode()  # file names need not be
    write_text(os.path.join(folder, REPORT_FILE), valid_text)


def _chosen(values: Sequence[Values]) -> dict[int, str]:
    """Return the index of each image to show and why: lowest IoU, lowest APLS, and the median of both."""
    chosen: dict[int, str] = {}
    for key in ("IoU", "APLS_spacenet"):
        scored = [i for i, value in enumerate(values) if not math.isnan(value[key])]
        order = sorted(scored, key=lambda i: values[i][key])
        name = BY_KEY[key].name
        places = [(i, f"worst {name}") for i in order[:_WORST]]
        if len(order) > _WORST:
            places.append((order[len(order) // 2], f"median {name}"))
        for i, why in places:
            chosen[i] = f"{chosen[i]}, {why}" if i in chosen else why
    return chosen


def _notes(settings: ScoringSettings, images: Sequence[ImageScores]) -> list[str]:
    """Return what a reader must know to judge the numbers."""
    unit = f"{settings.tolerance_px:g} px" if settings.tolerance_m is None else f"{settings.tolerance_m:g} m"
    buffer = (
        "half the median width of an image's true roads, at least the tolerance (lines: the tolerance)"
        if settings.buffer_px is None
        else f"{settings.buffer_px:g} px"
    )
    return [
        f"The tolerance is {unit}; the buffer of centrelines is {buffer}.",
        "Pooled: all images counted as one. Mean: of the images in which the score is defined.",
        *remarks(images),
    ]


def _header(title: str, subtitle: Sequence[str], notes: Sequence[str]) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in subtitle)
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<header><h1>{escape(title)}</h1>{lines}<ul class="notes">{items}</ul></header>'


def _summary(totals: Sequence[Total], images: int) -> str:
    """Return the table of all measures, group by group."""
    rows = []
    for group, members in groupby(totals, lambda total: total.measure.group):
        rows.append(f'<tr><th class="group" colspan="4" scope="rowgroup">{escape(group)}</th></tr>')
        for total in members:
            measure, about = total.measure, escape(total.measure.explanation)
            arrow = {True: "↑", False: "↓", None: ""}[measure.higher_is_better]
            name = f'{escape(measure.name)} <span class="better">{arrow}</span>'
            head = f'<details><summary title="{about}">{name}</summary><small>{about}</small></details>'
            cells = "".join(_summary_cell(value, measure) for value in (total.pooled, total.mean))
            without = f"{escape(measure.name)}: nothing to score in {total.undefined} of {images} images"
            cells += f'<td title="{without}">{total.undefined}</td>'
            rows.append(f'<tr><th scope="row">{head}</th>{cells}</tr>')
    heads = (
        ("Measure", "what is scored"),
        ("All pooled", "all images scored together, as if they were one"),
        ("Mean", "mean over the images in which the score is defined"),
        ("Undefined", "images in which there is nothing to score"),
    )
    titles = "".join(f'<th scope="col" title="{about}">{name}</th>' for name, about in heads)
    return (
        "<section><h2>Summary</h2><p>Hover over a number for its definition, or tap a name.</p>"
        f'<table class="summary"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _summary_cell(value: float | None, measure: RoadMeasure) -> str:
    about = escape(measure.explanation)
    if value is None:
        return f'<td class="none" title="does not add up over images: {about}">&ndash;</td>'
    if not math.isfinite(value):
        return f'<td class="none" title="{_NOTHING}. {about}">n/a</td>'
    unit = f" {measure.unit}" if measure.unit else ""
    return f'<td title="{about}">{shown_value(value, measure)}{unit}</td>'


def _curves(probability: ProbabilityCounts | None) -> str:
    if probability is None:
        return ""
    charts = {
        "Precision and recall over the threshold": precision_recall_chart(probability),
        "Calibration": calibration_chart(probability),
    }
    figures = "".join(
        f"<figure>{_chart(chart)}<figcaption>{name}</figcaption></figure>" for name, chart in charts.items()
    )
    return f'<section><h2>Curves</h2><div class="charts">{figures}</div></section>'


def _chart(chart: tuple[str, str]) -> str:
    address, words = chart
    return f'<img alt="{escape(words)}" src="{address}">'


def _images(
    measures: Sequence[RoadMeasure], images: Sequence[ImageScores], values: Sequence[Values], links: Mapping[int, str]
) -> str:
    """Return the distributions over the images and the table of them; ``links`` lead from indices to examples."""
    ratios = {
        f"{one.group}: {one.name}": np.array([value[one.key] for value in values])
        for one in measures
        if one.unit == "%" and one.higher_is_better
    }
    chart = f'<div class="charts">{_chart(distribution_chart(ratios))}</div>' if ratios else ""
    groups = "".join(
        f'<th colspan="{len(list(members))}" scope="colgroup">{escape(group)}</th>'
        for group, members in groupby(measures, lambda measure: measure.group)
    )
    heads = "".join(_sortable_head(measure) for measure in measures)
    rows = []
    for index, (image, value) in enumerate(zip(images, values, strict=True)):
        name = escape(image.name)
        if index in links:
            name = f'<a href="#{links[index]}">{name}</a>'
        cells = "".join(_score_cell(value[measure.key], measure) for measure in measures)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        f"<section><h2>Images</h2>{chart}<p>Click a column heading to sort; click again to reverse the order.</p>"
        f'<div class="scroll"><table class="sortable"><thead><tr><td></td>{groups}</tr>'
        f'<tr><th scope="col" aria-sort="none"><button type="button">Image</button></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _sortable_head(measure: RoadMeasure) -> str:
    unit = f", {escape(measure.unit)}" if measure.unit else ""
    button = f'<button type="button">{escape(measure.name)}{unit}</button>'
    return f'<th scope="col" aria-sort="none" title="{escape(measure.explanation)}">{button}</th>'


def _score_cell(value: float, measure: RoadMeasure) -> str:
    if not math.isfinite(value):
        return f'<td class="none" data-value="" title="{_NOTHING} in this image">n/a</td>'
    bar = f' class="share" style="--share: {value:.3f}"' if measure.unit == "%" else ""
    return f'<td data-value="{float(value)!r}"{bar}>{shown_value(value, measure)}</td>'


def _legend(examples: Sequence[RoadMasks]) -> str:
    colours = {
        HIT: "hit: road in truth and prediction",
        MISSED: "missed: only in the truth",
        FALSE: "false: only in the prediction",
        NEAR: "near: only in one, within the tolerance of the other",
    }
    entries = [("", f"background: {_css(ERROR_COLOURS[kind])}", words) for kind, words in colours.items()]
    if any(example.valid is not None for example in examples):
        entries.append(("", f"background: {HATCH_CSS}", "ignored"))
    entries.append(("line", f"background: {_css(TRUTH_COLOUR)}", "line of the truth"))
    entries.append(("line", f"background: {_css(PREDICTED_COLOUR)}; height: 2px", "line of the prediction"))
    entries.append(("ring", f"border-color: {_css(GAP_COLOUR)}", "gap in the predicted network"))
    if any(example.probability is not None for example in examples):
        ramp = ", ".join(map(_css, entropy_colours(np.linspace(0, 1, 7, dtype=np.float32)[None])[0]))
        entries.append(("ramp", f"background: linear-gradient(to right, {ramp})", "entropy 0 (certain) to 1"))
    spans = "".join(f'<span><i class="{kind}" style="{css}"></i>{words}</span>' for kind, css, words in entries)
    return f'<p class="legend">{spans}</p>'


def _css(colour: Sequence[int] | np.ndarray) -> str:
    return f"rgb({', '.join(str(int(channel)) for channel in colour)})"


def _example(anchor: str, title: str, name: str, masks: RoadMasks, settings: ScoringSettings) -> str:
    """Return one row of pictures."""
    valid, settings = masks.valid, settings.at(masks.gsd_m)
    image = np.full((*masks.truth.shape, 3), _PLAIN_GREY, np.uint8) if masks.image is None else masks.image
    classes = error_classes(masks.truth, masks.prediction, settings.tolerance, valid)
    predicted, true, buffer = graphs_of(masks.prediction, masks.truth, settings, valid)
    gaps = connectivity(predicted, true, buffer).gap_points
    pictures = {
        "Image": fitted(image, _LONGEST_PX),
        "Truth": truth_picture(image, masks.truth, valid, _LONGEST_PX),
        f"Errors, tolerance {settings.tolerance:.3g} px": error_picture(image, classes, _LONGEST_PX),
        f"Road graph, gaps: {len(gaps)}": graph_picture(
            image, graph_lines(true), graph_lines(predicted), gaps, _LONGEST_PX
        ),
    }
    if masks.probability is not None:
        pictures["Entropy"] = entropy_picture(entropy(masks.probability), valid, _LONGEST_PX)
    figures = "".join(
        f'<figure><img alt="{words} of {escape(name)}" src="{picture_url(picture)}">'
        f"<figcaption>{words}</figcaption></figure>"
        for words, picture in pictures.items()
    )
    heading = f"<h3>{escape(title)}<small>{escape(name)}</small></h3>"
    return f'<article id="{anchor}">{heading}<div class="pictures">{figures}</div></article>'
