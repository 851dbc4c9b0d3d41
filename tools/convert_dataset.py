#!/usr/bin/env python
"""Turn raw data into a data set that trains: DEST in the VOC layout, complete or not there at all.

After an interruption, re-run the command to resume; when all is done, it does nothing.

Example: python tools/convert_dataset.py pair raw data/MyMine --val 0.2 --test 0.1
"""

import argparse
import sys
from typing import Any

from mmseg_ext.errors import run_tool
from mmseg_ext.options import add_numbers
from mmseg_ext.report.tables import update_blocks

KINDS = "pair, opm, deepglobe, massachusetts, chn6_cug, spacenet3, dubai or epfl"


class _List(argparse.Action):
    """Prints what every data set is, or writes it into the generated block of a Markdown file."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        from mmseg_ext.converters import describe

        path = args[1]
        if path is None:
            sys.stdout.write(f"{describe()}\n")
        else:
            update_blocks(str(path), {"data sets": describe()})
        parser.exit()


def parse_args() -> argparse.Namespace:
    """Return the command line; settings that are not given are None."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nNAME is one of {KINDS}.\n--list and docs/datasets.md describe each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="kind of raw data")
    add("source", metavar="SOURCE", help="its folder; not changed")
    add("dest", metavar="DEST", help="folder to create")
    add("--list", nargs="?", action=_List, metavar="FILE", help="describe every kind of raw data")
    add("--val", type=float, help="share (below 1) or number for validation (default: 0.2)")
    add("--test", type=float, help="share or number for test (default: 0, test is val)")
    add("--seed", type=int, help="seed of the random split (default: 0)")
    add("--by-name", action="store_true", default=None, help="the last names validate and test")
    add("--by-area", action="store_true", default=None, help="the last part of every image validates and tests")
    add("--val-list", help="file with the names of the validation images, one per line")
    add("--test-list", help="file with the names of the test images")
    add("--scene", help="regular expression; its group names the scene, which stays in one split")
    add("--images", help="pair, epfl: folder of the images in SOURCE, where its name is unusual")
    add("--masks", help="pair, epfl: folder of the masks in SOURCE")
    add("--pairs", metavar="LIST", help="pair: file with an image, its mask and perhaps its split on each line")
    text = "pair: classes of colour masks, NAME=RED,GREEN,BLUE each, or one .json or .csv file with them"
    add("--colours", nargs="+", metavar="CLASS", help=text)
    add("--annotations", metavar="PATH", help="pair: folder of LabelMe files, or a COCO file, instead of masks")
    add("--classes", nargs="+", help="names of the drawn classes, from label 1 (default: in the alphabet's order)")
    add("--line-width", type=float, metavar="PX", help="full width of drawn lines in pixels")
    add("--num-classes", type=int, help="above 2: the masks hold class indices")
    add_numbers(parser, "--bands", "3,2,1", "bands to read, numbered from 1, red first")
    text = "of the training pixels, to scale more than 8 bits (default: 2 98)"
    add("--percentiles", type=float, nargs=2, help=text)
    add("--gsd", type=float, help="metres per pixel (default: as published or georeferenced)")
    add("--road-width", type=float, help="spacenet3: metres (default: 4)")
    add("--areas", nargs="+", help="spacenet3: parts of names, as Vegas Paris")
    add("--tile", type=int, help="tile size in pixels for larger images (default: 2048)")
    add("--overlap", type=int, help="overlap of training tiles in pixels (default: 128)")
    add("--workers", type=int, help="images at a time (default: the processor's cores, up to 8)")
    add("--overwrite", action="store_true", default=None, help="replace an existing DEST")
    return parser.parse_args()


def main() -> None:
    """Convert as the command line says."""
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(parse_args()).items()}

    from mmseg_ext.converters import convert

    name, source, dest = (settings.pop(key) for key in ("name", "source", "dest"))
    made = convert(name, source, dest, **settings)
    several = settings["colours"] or len(settings["classes"] or ()) > 1 or (settings["num_classes"] or 2) > 2
    what = "not background" if several else "road"
    sys.stdout.write(f"{dest}: {made.text(what)}\n")


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command to resume")
