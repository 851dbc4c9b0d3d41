"""The frame of a road report's page: its style and its script."""

from __future__ import annotations

import html

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
