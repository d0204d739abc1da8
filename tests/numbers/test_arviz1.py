"""A file saved here opens in ArviZ 1.x. That needs a newer Python, so it is installed into its own environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import torch

from pyro_gan import LatentPosterior, VectorizedMCMC, to_arviz
from pyro_gan.mcmc import MALA
from tests.exact_targets import affine_toy
from tests.test_export import groups

pytestmark = pytest.mark.numbers
# The columns that both versions define in the same way. Their tail quantiles and intervals differ.
COLUMNS = ["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "r_hat"]
# The script that runs there, without torch, Pyro and pyro_gan.
READER = """
import json, sys
from importlib.util import find_spec
import arviz as az, numpy as np
assert find_spec("torch") is None
tree = az.from_netcdf(sys.argv[1])
numbers = az.summary(tree, round_to="none")
stats = tree["sample_stats"]
print(json.dumps({
    "arviz": az.__version__,
    "type": type(tree).__name__,
    "groups": sorted(tree.children),
    "summary": {name: np.asarray(numbers[name], float).tolist() for name in sys.argv[2].split(",")},
    "split r_hat": az.rhat(tree, method="split")["z"].values.tolist(),
    "stats": {name: [str(values.dtype), values.dims, values.values.tolist()] for name, values in stats.items()},
    "shapes": {name: list(tree[name].shape) for name in ("prior/z", "posterior_predictive/x", "observed_data/y")},
}))
"""


def python_3_12() -> Path:
    """Return an interpreter of Python 3.12 that runs, or skip."""
    candidates = sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python"), reverse=True)
    on_path = shutil.which("python3.12")
    for candidate in [*candidates, *([Path(on_path)] if on_path else [])]:
        # A pyenv shim exists even for versions that are not switched on.
        asked = subprocess.run([candidate, "--version"], capture_output=True, text=True)
        if asked.returncode == 0 and asked.stdout.startswith("Python 3.12"):
            return candidate
    pytest.skip("ArviZ 1.x needs Python 3.12: none in ~/.pyenv/versions, no python3.12 on the PATH")


def call(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_a_file_saved_here_opens_in_arviz_1(tmp_path: Path, figure) -> None:
    start = time.perf_counter()
    python = python_3_12()
    toy = affine_toy(3)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(MALA(gan), 200, 50, num_chains=12, disable_progbar=True)
    mcmc.run()
    idata = to_arviz(
        mcmc, prior={"z": toy.prior.sample((30,))}, decode=gan.decode, observed_data={"y": torch.arange(5)}
    )
    path = tmp_path / "idata.nc"
    idata.to_netcdf(str(path))

    call(python, "-m", "venv", tmp_path / "venv")
    there = tmp_path / "venv" / "bin" / "python"
    call(there, "-I", "-m", "pip", "install", "--quiet", "arviz[h5netcdf]>=1,<2")
    read = json.loads(call(there, "-I", "-c", READER, path, ",".join(COLUMNS)))

    assert read["arviz"].startswith("1.") and read["type"] == "DataTree"
    assert read["groups"] == sorted(groups(idata))
    expected = az.summary(idata, round_to="none")
    for name in COLUMNS:
        np.testing.assert_allclose(read["summary"][name], expected[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(read["split r_hat"], az.rhat(idata, method="split")["z"], rtol=1e-9)
    assert set(read["stats"]) == set(idata.sample_stats.data_vars)
    for name, (dtype, dims, values) in read["stats"].items():
        ours = idata.sample_stats[name]
        assert (dtype, tuple(dims)) == (str(ours.dtype), ours.dims), name
        np.testing.assert_array_equal(values, ours.values, err_msg=name)
    assert read["shapes"] == {"prior/z": [1, 30, 3], "posterior_predictive/x": [12, 200, 3], "observed_data/y": [5]}
    gap = max(float(np.max(np.abs(np.divide(read["summary"][name], expected[name]) - 1))) for name in COLUMNS)
    seconds = round(time.perf_counter() - start, 1)
    figure("ArviZ 1.x", here=az.__version__, there=read["arviz"], largest_relative_gap=gap, seconds=seconds)
