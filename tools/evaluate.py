#!/usr/bin/env python
"""Score predicted roads against the truth, no network involved.

Example: python tools/evaluate.py predictions/ data/MyMine/SegmentationClass/ --out scores/
PRED and TRUTH are two folders or two files: masks (png, jpg, tif), probabilities (float tif, or --probability), or
lines (geojson, gpkg, shp; FILE:LAYER for a layer of a file).
"""

import argparse
import sys

from mmseg_ext.errors import ConfigError, run_tool


def main() -> None:
    """Score as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prediction", metavar="PRED", help="folder or file of predicted roads")
    parser.add_argument("truth", metavar="TRUTH", help="folder or file of true roads, of the same names")
    parser.add_argument("--out", metavar="DIR", help="write scores.json, images.csv, scores.md and report.html there")
    parser.add_argument("--images", metavar="DIR", help="images of the same names, for the report's pictures")
    parser.add_argument("--split", metavar="FILE", help="names in TRUTH to score, one a line (default: all)")
    parser.add_argument("--probability", action="store_true", help="integer rasters in PRED are probabilities")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability from which it is road (default: 0.5)")
    parser.add_argument("--tolerance", type=float, metavar="PX", help="in pixels (default: 3); lines: metres")
    text = "of centrelines and connectivity (default: half the width of each image's true roads)"
    parser.add_argument("--buffer", type=float, metavar="PX", help=text)
    parser.add_argument("--tolerance-m", type=float, metavar="M", help="in metres instead; needs metres per pixel")
    parser.add_argument("--gsd", type=float, metavar="M", help="metres per pixel (default: the files' georeference)")
    args = parser.parse_args()

    from mmseg_ext import scoring
    from mmseg_ext.geo import public_name
    from mmseg_ext.imagery.voc import read_names

    if args.images and not args.out:
        raise ConfigError("--images is for the report; give --out DIR")
    if args.tolerance is not None and args.tolerance_m is not None:
        raise ConfigError("--tolerance and --tolerance-m are the same in two units; give one of them")
    args.prediction, args.truth = public_name(args.prediction), public_name(args.truth)
    settings = scoring.ScoringSettings(args.tolerance or 3.0, args.tolerance_m, args.buffer, args.gsd, args.threshold)
    pairs = scoring.pair_predictions(args.prediction, args.truth, read_names(args.split) if args.split else None)
    evaluation = scoring.FolderEvaluation(pairs, settings, args.probability, args.images)
    images = evaluation.score()
    sys.stdout.write(f"{len(images)} image(s): {args.prediction} against {args.truth}\n\n")
    sys.stdout.write(scoring.totals_table(scoring.summarise(images)) + "\n")
    sys.stdout.writelines(f"{remark}\n" for remark in scoring.remarks(images))
    if args.out:
        scoring.write_scores(args.out, images, settings, prediction=args.prediction, truth=args.truth)
        show = evaluation.show if evaluation.has_pixels else None
        subtitle = [f"{len(images)} image(s): {args.prediction} against {args.truth}"]
        scoring.write_report(args.out, "Road evaluation", images, settings, show, subtitle)


if __name__ == "__main__":
    run_tool(main)
