#!/usr/bin/env python
"""Examine a data set: ``python tools/check_dataset.py CONFIG-or-FOLDER``.

Exit code 0: nothing wrong was found; 1: warnings only; 2: errors, or the data set could not be examined at all.
Only the files that are asked for are written; --html shows suspicious and random tiles with their labels.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from mmseg_ext.errors import DataError, run_tool
from mmseg_ext.files import write_text
from mmseg_ext.options import add_config_options

if TYPE_CHECKING:
    from mmseg_ext.checks import Diagnosis


def diagnose(source: str, quick: bool = False, options: dict | None = None) -> Diagnosis:
    """Return what is wrong with the data set of a config or in a folder."""
    from mmseg_ext.checks import examine, splits_of_config, splits_of_folder
    from mmseg_ext.engine import load_config
    from mmseg_ext.engine.config import found_by_name

    if os.path.isdir(source):
        return examine(source, *splits_of_folder(source), quick=quick)
    if not (source.endswith(".py") or found_by_name(source)):
        raise DataError(f"{source}: no such folder; give a config, a data set, or a folder of raw images and masks")
    cfg = load_config(source, options)
    return examine(cfg.filename, *splits_of_config(cfg.data), quick=quick)


def repair(diagnosis: Diagnosis, dest: str) -> Diagnosis:
    """Write the repaired copy and return what is still wrong with it."""
    from mmseg_ext.converters import repair_dataset

    source = diagnosis.root
    if source is None:
        raise DataError(
            f"{diagnosis.source}: --fix takes a data set with splits in one folder; raw folders become one with: "
            "python tools/convert_dataset.py pair SOURCE DEST"
        )
    repair_dataset(source, dest, num_classes=len(diagnosis.examined[0][0].classes))
    return diagnose(dest)


def main() -> None:
    """Examine as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "a config, whose train, val and test are examined; a data set; or a folder of raw images and masks"
    parser.add_argument("source", help=text)
    parser.add_argument("--json", metavar="FILE", help="write findings, every file and all figures here")
    parser.add_argument("--html", metavar="FILE", help="write a contact sheet here (.html, or .png, .jpg)")
    parser.add_argument("--quick", action="store_true", help="read masks and headers only, as tools/train.py does")
    parser.add_argument("--samples", type=int, default=6, help="tiles of each finding and split (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random tiles (default: 0)")
    text = "write a copy of the data set, repaired wherever there is one safe answer"
    parser.add_argument("--fix", metavar="DEST", help=text)
    add_config_options(parser)
    args = parser.parse_args()

    from mmseg_ext.checks import write_doctor_sheet

    diagnosis = diagnose(args.source, args.quick, args.cfg_options)
    sys.stdout.write(diagnosis.text())
    if args.json:
        write_text(args.json, json.dumps(diagnosis.as_dict(), indent=1))
    if args.html:
        write_doctor_sheet(diagnosis, args.html, args.samples, args.seed)
    if args.fix:
        diagnosis = repair(diagnosis, args.fix)
        sys.stdout.write(f"\nafter the repair: {diagnosis.text()}")
    sys.stdout.flush()
    sys.exit(diagnosis.exit_code)


if __name__ == "__main__":
    run_tool(main)
