"""The command line: `python -m pyro_gan demo`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyro
import torch

from pyro_gan import __version__, demo


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run the command.

    Args:
        argv: The arguments; if None, those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m pyro_gan", description="Trained GANs as Pyro models.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser(
        "demo",
        help="train a small GAN on real handwritten digits, and resample it",
        description="Train a GAN on scikit-learn's digits, make two log ratios, sample with every sampler, judge.",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of split, training and chains (default: 0)")
    command.add_argument(
        "--out", type=_folder, default="demo-output", help="folder for the files (default: demo-output)"
    )
    command.add_argument("--device", type=_device, default="cpu", help="torch device (default: cpu)")
    command.add_argument("--quick", action="store_true", help="run every stage in seconds; the figures mean nothing")
    given = parser.parse_args(argv)
    try:
        settings = demo.settings(seed=given.seed, device=given.device, quick=given.quick)
    except ValueError as error:
        command.error(f"argument --seed: {error}")
    pyro.set_rng_seed(given.seed)
    demo.run(settings, given.out)


def _folder(name: str) -> Path:
    """Return a folder that can be written to. It is made if it does not exist."""
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"expected a folder that exists or can be made, and can be written to; {name!r}: {error.strerror}"
        ) from error
    return path


def _device(name: str) -> str:
    """Return the name of a device that torch can use."""
    try:
        torch.ones((), device=name).item()
    # A missing backend is an AssertionError in some builds of torch and a NotImplementedError in others.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"torch cannot use {name!r} here: {reason}") from error
    return name


if __name__ == "__main__":
    main()
