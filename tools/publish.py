#!/usr/bin/env python
"""Make a folder to upload: ``python tools/publish.py CHECKPOINT FOLDER --licence NAME``.

It has the weights, an ONNX file, the config, a model card and a STAC item.
"""

import argparse
import logging
import os
import sys
import tempfile

from publish_checkpoint import add_weights_options, read_metrics, write_weights

from mmseg_ext.cli import log_to_stderr
from mmseg_ext.errors import ConfigError, run_tool


def main() -> None:
    """Publish as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of a training, or published weights, which stay as they are")
    parser.add_argument("folder", help="the new folder")
    parser.add_argument("--name", help="of model and files (default: the folder's)")
    parser.add_argument("--title", help="of the model card")
    parser.add_argument("--url", help="where the folder will be, for the commands of the card")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that this command wrote")
    add_weights_options(parser, licence=False)
    args = parser.parse_args()

    from mmseg_ext.deploy.model_folder import publish_folder
    from mmseg_ext.engine.publishing import published_meta

    log_to_stderr(logging.WARNING)

    other = ("checkpoint", "folder", "name", "title", "url", "overwrite", "metrics")
    changes = [name for name, value in vars(args).items() if name not in other and value != parser.get_default(name)]
    rest = args.folder, args.name, args.title, args.url, args.overwrite
    if published_meta(args.checkpoint):
        if changes:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
            raise ConfigError(
                f"{args.checkpoint}: is published already and stays as it is; leave {options} out, or give the "
                "checkpoint of the training"
            )
        metrics = read_metrics(args.metrics, args.checkpoint) if args.metrics else None
        digest = publish_folder(args.checkpoint, *rest, metrics)
    elif args.licence is None:
        raise ConfigError("--licence is missing: say under which others may use the weights, such as CC-BY-4.0")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            weights = os.path.join(scratch, "weights.safetensors")
            write_weights(args, weights)
            digest = publish_folder(weights, *rest)
    sys.stdout.write(f"{args.folder}: ready to upload; weights #sha256={digest}\n")


if __name__ == "__main__":
    run_tool(main)
