"""The demo from the digits to the files: what happens, in order, and how long it took."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pyro_gan.demo.files import write
from pyro_gan.demo.gan import split_digits, train_gan
from pyro_gan.demo.judge import Judge
from pyro_gan.demo.ratios import fit_fresh, make_own, verdict
from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import SAMPLERS, sample
from pyro_gan.demo.settings import Settings

__all__ = ["run"]

EXTRAS = ("sklearn", "scipy", "matplotlib", "h5netcdf")


@dataclass
class _Clock:
    """Announces stages and remembers how long they took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        sys.stdout.write(f"{name} ... ")
        sys.stdout.flush()
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        sys.stdout.write(f"{self.seconds[name]:.1f} s\n")


def run(settings: Settings, out: Path) -> Results:
    """Train, calibrate, fit, sample, judge, and write everything to a folder.

    Randomness comes from torch's generator, which the caller seeds.

    Args:
        settings: What to do.
        out: An existing folder.

    Returns:
        What was found; the folder holds table, figures, pictures and the ArviZ container.

    Raises:
        ImportError: if a package is missing, naming the extra that brings it.
    """
    _check_extras()
    progress = sys.stderr.isatty()
    clock = _Clock()
    with warnings.catch_warnings(record=True) as caught, _one_thread():
        warnings.simplefilter("always", UserWarning)
        results = _find(settings, clock, progress)
    results.warnings = list(dict.fromkeys(str(warning.message) for warning in caught))
    with clock.stage("writing"):
        paths = write(results, out)
    sys.stdout.write("\n" + paths["table.txt"].read_text() + "\nwritten:\n")
    sys.stdout.write("".join(f"  {path}\n" for path in paths.values()))
    return results


def _find(settings: Settings, clock: _Clock, progress: bool) -> Results:
    splits = split_digits(settings)
    with clock.stage("training the GAN"):
        gan = train_gan(splits, settings, progress=progress)
    with clock.stage("calibrating its own critic"):
        own = make_own(gan, splits, settings)
    with clock.stage("fitting a fresh critic"):
        fresh = fit_fresh(gan, splits, settings, progress=progress)
    with clock.stage("training the judge's classifier"):
        judge = Judge(splits, settings)
    with clock.stage("judging G alone"):
        # G alone and the critics are judged by the same draws.
        images = gan.generator(gan.prior.sample((settings.num_chains,)))
        alone = Row("", "G alone", images, judge(images))
        real = Row("", "real digits", splits.judge, judge.reference(splits.ratio))
    critics = {"own critic, raw": gan.critic, own.name: own.log_ratio, fresh.name: fresh.log_ratio}
    draws = images[: len(splits.judge)]
    reports = {name: verdict(critic, splits.judge, draws) for name, critic in critics.items()}
    rows, refused = [], {}
    for ratio in (own, fresh):
        for name in SAMPLERS:
            with clock.stage(f"{name}, {ratio.name}"):
                try:
                    outputs = sample(name, ratio, settings, progress=progress)
                except ValueError as error:
                    refused[ratio.name, name] = str(error)
                    continue
                decoded = ratio.posterior.decode(outputs.z)
                rows.append(Row(ratio.name, name, decoded, judge(decoded), outputs))
    return Results(
        settings, splits, gan, [own, fresh], judge, real, alone, rows, refused, reports, clock.seconds, []
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep to one core: networks as small as these run no faster on two, and much slower if others want the second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_extras() -> None:
    for name in EXTRAS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            error.add_note("pip install pyro-gan[demo]")
            raise
