"""The demo from the digits to the files: what happens, in order, and how long it took."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pyro_gan import LogRatio, improve, to_arviz
from pyro_gan.checks import extra
from pyro_gan.demo import networks
from pyro_gan.demo.judge import Judge
from pyro_gan.demo.pictures import PICTURES
from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import SAMPLERS, sample
from pyro_gan.demo.settings import Settings
from pyro_gan.demo.table import table
from pyro_gan.objectives import Bernoulli
from pyro_gan.ratio.diagnostics import diagnose

__all__ = ["best_run", "run", "write"]

#: Chains whose draws are decoded into the container. All of them would fill the disk.
NUM_DECODED = 20

_PACKAGES = ("pyro-gan", "torch", "pyro-ppl", "arviz", "numpy", "scikit-learn", "scipy", "matplotlib")


def run(settings: Settings, out: Path) -> Results:
    """Train, calibrate, fit, sample, judge, and write everything to a folder.

    Randomness comes from torch's generator, which the caller seeds.

    Args:
        settings: The size of the run.
        out: An existing folder.

    Returns:
        What was found. The folder holds table, figures, pictures and the ArviZ container.

    Raises:
        ValueError: if the arguments are no settings and path.
        ImportError: if a package is missing; a note names the extra that brings it.
    """
    if not isinstance(settings, Settings) or not isinstance(out, Path):
        raise ValueError(f"Expected demo.settings(...) and a Path; got {settings!r} and {out!r}.")
    with extra("demo"):
        for name in ("sklearn", "scipy", "matplotlib", "h5netcdf"):
            importlib.import_module(name)
    seconds: dict[str, float] = {}
    with warnings.catch_warnings(record=True) as caught, ExitStack() as after:
        warnings.simplefilter("always", UserWarning)
        # Such small networks run no faster on two cores, and much slower if the second core is busy.
        after.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        results = _find(settings, seconds, sys.stderr.isatty())
    texts = list(dict.fromkeys(str(warning.message) for warning in caught))
    results.record.update(seconds=seconds, warnings=texts)
    with _stage("writing", seconds):
        paths = write(results, out)
    sys.stdout.write("\n" + paths[0].read_text(encoding="utf-8") + "\nwritten:\n")
    sys.stdout.write("".join(f"  {path}\n" for path in paths))
    return results


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a stage, and note how long it takes."""
    sys.stdout.write(f"{name} ... ")
    sys.stdout.flush()
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
    sys.stdout.write(f"{seconds[name]:.1f} s\n")


def _find(settings: Settings, seconds: dict[str, float], progress: bool) -> Results:
    splits = networks.Splits.draw(settings)
    with _stage("training the GAN", seconds):
        gan = networks.train_gan(splits, settings, progress=progress)
    with _stage("improving the generator", seconds):
        better = improve(gan.generator, splits.ratio.images, prior=gan.prior, critic=gan.critic, seed=settings.seed)
    with _stage("calibrating its own critic", seconds):
        own = networks.make_own(gan, splits, settings)
    with _stage("fitting a fresh critic", seconds):
        fresh = networks.fit_fresh(gan, splits, settings, progress=progress)
    with _stage("training the judge's classifier", seconds):
        judge = Judge(splits, settings.seed)
    real, ratios = splits.judge.images, {ratio.name: ratio for ratio in (own, fresh)}
    with _stage("judging G alone", seconds):
        # The same draws judge G alone and the critics.
        images = gan.generator(gan.prior.sample((settings.num_chains,)))
        # The classifier has trained on the other real digits, so their score would be too high.
        others = judge(splits.ratio.images) | judge.score(real)
        improved = better(settings.num_chains)
        rows = [
            Row("", "real digits", real, others),
            Row("", "G alone", images, judge(images)),
            Row("", "improve", improved, judge(improved)),
        ]
    raw, draws = LogRatio(gan.critic, Bernoulli()).eval(), images[: len(real)]
    reports = {"own critic, raw": diagnose(raw(real), raw(draws))}
    reports |= {name: diagnose(ratio(real), ratio(draws)) for name, ratio in ratios.items()}
    refused = []
    for ratio in ratios.values():
        rows += [Row(ratio.name, row.sampler, row.images, ratio.mean(row.images)) for row in rows[:3]]
        for name in SAMPLERS:
            with _stage(f"{name}, {ratio.name}", seconds):
                try:
                    row = sample(name, ratio, settings, progress=progress)
                except ValueError as error:
                    refused.append({"ratio": ratio.name, "sampler": name, "reason": str(error)})
                    continue
                rows.append(row._replace(figures=row.figures | judge(row.images)))
    record = {
        "settings": settings._asdict(),
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "splits": {name: len(part.labels) for name, part in splits._asdict().items()},
        "classifier_accuracy": judge.accuracy,
        "gan": gan.figures,
        "improve": str(better.report),
        "critics_on_judge": {
            name: {key: value for key, value in vars(report).items() if isinstance(value, int | float)}
            for name, report in reports.items()
        },
        "ratios": {name: ratio.figures for name, ratio in ratios.items()},
        "frontier": [point._asdict() for point in fresh.frontier],
        "rows": [{"ratio": row.ratio, "sampler": row.sampler} | row.figures for row in rows],
        "refused": refused,
    }
    return Results(record, rows, ratios, reports)


def write(results: Results, out: Path) -> list[Path]:
    """Write everything. If a file fails, the old files stay.

    Args:
        results: What a run found.
        out: An existing folder.

    Returns:
        The paths of the files, the table's first.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as name:
        beside = Path(name)
        (beside / "table.txt").write_text(table(results.record), encoding="utf-8")
        # JSON knows no NaN and no infinity: they become null.
        record = json.loads(json.dumps(results.record), parse_constant=lambda constant: None)
        (beside / "results.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        for file, draw in PICTURES.items():
            draw(results).savefig(beside / file, dpi=110)
        _container(results).to_netcdf(str(beside / "idata.nc"), engine="h5netcdf")
        paths = [out / file for file in ("table.txt", "results.json", *PICTURES, "idata.nc")]
        for path in paths:
            os.replace(beside / path.name, path)
    return paths


def best_run(results: Results) -> Row:
    """Return the run whose chains agree best. Choosing by the judge's figures would flatter the run."""
    # Chains of a biased sampler may agree on a distribution that is not the target's.
    chains = [row for row in results.rows if row.mcmc is not None and row.figures["exact"] != "no"]
    return min(chains, key=lambda row: (math.isnan(row.figures["rhat"]), row.figures["rhat"]))


def _container(results: Results) -> Any:
    row, settings = best_run(results), results.record["settings"]
    posterior = results.ratios[row.ratio].posterior
    assert row.mcmc is not None
    prior = {"z": posterior.prior.sample((settings["num_chains"],))}
    container = to_arviz(row.mcmc, prior=prior, decode=lambda z: posterior.decode(z[:NUM_DECODED]))
    container.attrs.update({"sampler": row.sampler, "ratio": row.ratio, "seed": settings["seed"]})
    return container
