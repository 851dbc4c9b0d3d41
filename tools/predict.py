#!/usr/bin/env python
"""Map the roads of orthomosaics: ``python tools/predict.py [CHECKPOINT] INPUT... --out DIR``."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mmseg_ext.cli import log_to_stderr
from mmseg_ext.deploy.options import add_backend_options, backend_settings
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options, add_numbers
from mmseg_ext.weights import DEFAULT_WEIGHTS, is_checkpoint, is_onnx, shipped_file, shipped_names

if TYPE_CHECKING:
    from mmseg_ext.mapping import Group, MapFiles, MapSettings
    from mmseg_ext.runtime.facts import MapModel, NetworkFacts


def main() -> None:
    """Map as the command line says."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [CHECKPOINT] INPUT [INPUT ...] --out DIR [options]", description=__doc__
    )
    text = "GeoTIFF, COG, VRT, image, folder, pattern, address; before them weights: .pth, .safetensors, .onnx"
    text += f" ({DEFAULT_WEIGHTS})"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=text)
    text = "STAC item, collection or feature collection, a path or an address, that lists rasters to map"
    parser.add_argument("--collection", metavar="FILE", help=text)
    parser.add_argument(
        "--asset", metavar="NAME", help="which asset of its items is the raster (default: the only one)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the maps")
    parser.add_argument("--config", help="config of the weights (default: the one inside the checkpoint)")
    text = "polygons; only the ground inside is read and mapped"
    parser.add_argument("--area", metavar="FILE[:LAYER]", help=text)
    parser.add_argument("--tile", type=int, default=1024, metavar="PX", help="tile size in pixels (default: 1024)")
    parser.add_argument("--overlap", type=int, default=256, metavar="PX", help="of neighbouring tiles (default: 256)")
    parser.add_argument("--batch", type=int, default=2, help="tiles at a time (default: 2)")
    text = "resize the raster for the network by this factor (default: from metres per pixel, where both are known)"
    parser.add_argument("--scale", type=float, help=text)
    text = "look at each tile in these sizes and average (default: the checkpoint's, else 1)"
    add_numbers(parser, "--scales", "0.5,0.75,1", text, kind=float)
    parser.add_argument(
        "--threshold",
        type=float,
        help="probability from which a pixel is road (default: the checkpoint's, else argmax)",
    )
    square_metres = partial(parser.add_argument, type=float, default=0.0, metavar="M2")
    square_metres("--min-area", help="drop pieces of road that are smaller than this many square metres (default: 0)")
    square_metres("--fill-holes", help="fill holes in roads that are smaller than this, before that (default: 0)")
    parser.add_argument("--uncertainty", action="store_true", help="write the entropy of the probability too")
    text = "write centrelines, nodes and surfaces too, as NAME_network.gpkg (more settings: tools/extract_network.py)"
    parser.add_argument("--network", action="store_true", help=text)
    add_numbers(parser, "--bands", "1,2,3", "bands to read, numbered from 1, red first (default: as in training)")
    text = "names of the classes of an ONNX file that does not say them, with commas: background,road"
    parser.add_argument("--classes", metavar="NAMES", help=text)
    add_backend_options(parser, "auto")
    text = "map the strips of one share of the work; auto: the one of this job in an array (docs/scale.md)"
    parser.add_argument("--shard", metavar="I/N", help=text)
    parser.add_argument("--finish", action="store_true", help="write the maps whose strips --shard has mapped")
    text = "say what the rasters are and what their maps will need; write nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    parser.add_argument("--gpu-id", type=int, default=0, help="GPU of a single process (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing maps")
    add_config_options(parser)
    args = parser.parse_args()
    if not (args.inputs or args.collection):
        parser.error("give the rasters to map: INPUT, or --collection")

    from mmseg_ext.geo import is_remote, public_name, read_areas, stac_rasters
    from mmseg_ext.mapping import (
        MapFiles,
        MapSettings,
        check_rasters,
        find_rasters,
        finish_raster,
        inventory,
        map_each,
        map_raster,
        map_share,
        shard_of,
    )

    log_to_stderr(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    check_options(args)
    settings = MapSettings(
        args.tile, args.overlap, args.batch, args.scale, args.threshold, args.uncertainty, args.bands,
        args.min_area, args.fill_holes, args.scales,
    )  # fmt: skip
    if is_remote(args.out):
        raise ConfigError(f"--out {public_name(args.out)}: results go to a folder of this machine; give one")
    named = any(is_checkpoint(name) or is_onnx(name) for name in args.inputs[:1])
    checkpoint, *inputs = args.inputs if named else (DEFAULT_WEIGHTS, *args.inputs)
    if args.collection is not None:
        inputs += stac_rasters(args.collection, args.asset)
    if not inputs:
        raise ConfigError(f"{checkpoint}: means a checkpoint; give the rasters to map after it")
    first = inputs[0]
    if checkpoint not in args.inputs and first in {name.partition(".")[0] for name in shipped_names()}:
        raise ConfigError(f"{first}: no such file; the weights are called {DEFAULT_WEIGHTS}")
    rasters = find_rasters(inputs)
    area = None if args.area is None else read_areas(args.area)
    if checkpoint not in args.inputs:
        logging.info("no checkpoint is given: mapping with %s, the default (docs/weights.md)", checkpoint)
    network, group = load_network(checkpoint, args)
    outcomes = check_rasters(rasters, network, settings, area)
    if args.dry_run:
        sys.stdout.write(inventory(outcomes, network, args.out, settings, args.overwrite, area) + "\n")
        return outcomes.refuse_failures()
    if args.shard:
        map_share(outcomes, network, args.out, settings, shard_of(args.shard, os.environ), area)
        return outcomes.refuse_failures()

    def work(raster: str) -> dict:
        if args.finish:
            record = finish_raster(raster, network, args.out, settings, area)
        else:
            record = map_raster(raster, network, args.out, settings, args.overwrite, group, area)
        files = MapFiles.of(raster, args.out)
        if args.network and group.rank == 0 and (args.overwrite or not os.path.exists(files.path("_network.gpkg"))):
            write_network(files, settings, network.facts)
        group.wait()  # no process leaves while another needs the groups that all are in
        return record

    map_each(outcomes, work, together=group.world_size > 1)
    if len(outcomes.of) > 1 and group.rank == 0:
        outcomes.log_table(network.facts.road_labels)
    outcomes.refuse_failures()


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that exclude one another."""
    if args.shard and (args.network or args.finish or args.overwrite):
        raise ConfigError("--shard: maps strips only; leave --network and --overwrite out, and run --finish after it")
    if args.finish and args.overwrite:
        raise ConfigError("--finish: puts together what shards have mapped; leave --overwrite out")
    if args.dry_run and (args.shard or args.finish):
        raise ConfigError("--dry-run: is about all rasters; leave --shard and --finish out")
    if (args.shard or args.finish or args.dry_run) and shares_work():
        raise ConfigError("--shard, --finish, --dry-run: are for single processes; leave the launcher out")


def load_network(checkpoint: str, args: argparse.Namespace) -> tuple[MapModel, Group]:
    """Return what maps, and the processes that share the work; for an ONNX file without PyTorch.

    Weights of this package run as their ONNX file, unless an option asks for more, or there is a GPU for PyTorch.
    """
    from mmseg_ext.mapping import Group

    if not (wants_pytorch(args) or shares_work() or has_gpu()):
        checkpoint = shipped_file(checkpoint, ".onnx")
    if is_onnx(checkpoint):
        from mmseg_ext.runtime.onnx import OnnxNetwork

        if refused := wants_pytorch(args):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
            raise ConfigError(f"{checkpoint}: an ONNX file runs as it is; leave {options} out, or give the checkpoint")
        if shares_work():
            raise ConfigError(f"{checkpoint}: one process runs an ONNX file; give the checkpoint to share the work")
        return OnnxNetwork.load(checkpoint, args.bands, args.classes and args.classes.split(",")), Group()
    if args.classes is not None:
        raise ConfigError(f"--classes {args.classes}: is for an ONNX file that does not say them; leave it out")

    from mmseg_ext.deploy.trained import TrainedNetwork
    from mmseg_ext.engine.distributed import start_process

    process = start_process(args.gpu_id)
    network = TrainedNetwork.load(
        checkpoint, args.config, args.cfg_options, backend_settings(args), process.device, args.tile, args.batch
    )
    return network, Group(process.rank, process.world_size, process.wait)


def wants_pytorch(args: argparse.Namespace) -> list[str]:
    """Return the options that were given and that an ONNX file does not have."""
    given = {**vars(args), "backend": args.backend if args.backend != "auto" else None}
    return [name for name in ("backend", "precision", "exported", "config", "cfg_options") if given[name]]


def shares_work() -> bool:
    """Return whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def has_gpu() -> bool:
    """Return whether PyTorch is here and an NVIDIA GPU for it, without asking PyTorch, which takes seconds."""
    return find_spec("torch") is not None and shutil.which("nvidia-smi") is not None


def write_network(files: MapFiles, settings: MapSettings, facts: NetworkFacts) -> None:
    """Write the road network of a map of probabilities; of its mask where that was cleaned."""
    from mmseg_ext.networks import NetworkSettings, extract_network, write_layers

    limits = NetworkSettings(settings.threshold_for(facts) or 0.5, facts.road_labels)
    mask = files.path("_roads.tif") if settings.cleans else None
    layers = extract_network(files.path("_probability.tif"), limits, mask=mask)
    write_layers(files.path("_network.gpkg"), layers.named())
    logging.info("%s: %d edges", files.path("_network.gpkg"), len(layers.edges))


if __name__ == "__main__":
    run_tool(main, "stopped; re-run the command to resume")
