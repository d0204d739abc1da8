"""Conversion to ArviZ: rows, names, shapes, R-hat by hand, both runners, both versions of ArviZ, files."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz as az
import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc import RandomWalkKernel
from pyro.infer.mcmc.api import StreamingMCMC
from scipy import stats
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, to_arviz, toys
from pyro_gan.mcmc import MALA, IndependenceMH

NUM_CHAINS, NUM_DRAWS = 12, 50
# The tests hold for either ArviZ, whichever is installed.
ARVIZ_1 = int(az.__version__.split(".")[0]) > 0
STATS = {"lp", "energy", "acceptance_rate", "diverging", "moved", "log_ratio"}
# The order of the twelve chains if ArviZ 0.x sorted their names as text.
AS_TEXT = sorted(range(NUM_CHAINS), key=str)
# ArviZ 0.23 raises this warning with matplotlib 3.11.
ignore_arviz_itself = pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")


class Holes(torch.nn.Module):
    """A ratio that is NaN for three prior draws in ten, so that chains diverge at times of their own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0.5, torch.nan, -x.square().sum(-1))


class Wide(torch.nn.Module):
    """A generator of 3 x 4 images from two latents."""

    def forward(self, z: Tensor) -> Tensor:
        return z.repeat(1, 6).reshape(-1, 3, 4) + torch.arange(4)


def holes() -> LatentPosterior:
    return LatentPosterior(torch.nn.Identity(), Holes(), dist.Normal(torch.zeros(2), 1.0).to_event(1))


def smooth(dtype: torch.dtype = torch.float32) -> LatentPosterior:
    toy = toys.affine_gaussian(1.5 * torch.eye(2, dtype=dtype), torch.ones(2, dtype=dtype))
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior)


def images() -> LatentPosterior:
    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    return LatentPosterior(Wide(), lambda x: -x.square().mean((-1, -2)), prior)


def runner(kernel: Any, num_samples: int = NUM_DRAWS, num_chains: int = NUM_CHAINS, **kwargs) -> VectorizedMCMC:
    return VectorizedMCMC(kernel, num_samples, num_chains=num_chains, disable_progbar=True, **kwargs)


def run(kernel: Any, num_samples: int = NUM_DRAWS, num_chains: int = NUM_CHAINS, **kwargs) -> VectorizedMCMC:
    mcmc = runner(kernel, num_samples, num_chains, **kwargs)
    mcmc.run()
    return mcmc


def run_pyro(kernel: Any, num_samples: int = NUM_DRAWS, num_chains: int = NUM_CHAINS, **kwargs) -> MCMC:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="num_chains=")
        mcmc = MCMC(kernel, num_samples, 5, num_chains=num_chains, disable_progbar=True, **kwargs)
    mcmc.run()
    return mcmc


def use_arviz_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use ArviZ 1.x, or where 0.x is installed arviz-base, a part of 1.x that installs beside 0.x."""
    if ARVIZ_1:
        return
    import arviz_base

    stand_in = types.SimpleNamespace(__version__="1.0.0", from_dict=arviz_base.from_dict)
    monkeypatch.setitem(sys.modules, "arviz", stand_in)


@pytest.fixture(params=["1.x"] if ARVIZ_1 else ["0.x", "1.x"])
def either_arviz(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "1.x":
        use_arviz_1(monkeypatch)
    return request.param


def containers(mcmc: VectorizedMCMC) -> list[Any]:
    """Return our container of a run, and ArviZ's own where it still converts Pyro's runs."""
    return [to_arviz(mcmc), *([] if ARVIZ_1 else [az.from_pyro(mcmc)])]


def groups(container: Any) -> set[str]:
    return set(container.groups() if type(container).__name__ == "InferenceData" else container.children)


def assert_same_container(a: Any, b: Any) -> None:
    assert groups(a) == groups(b)
    for group in groups(a):
        assert set(a[group].data_vars) == set(b[group].data_vars)
        for name, ours in a[group].data_vars.items():
            theirs = b[group][name]
            assert ours.dims == theirs.dims and ours.dtype == theirs.dtype, (group, name)
            np.testing.assert_array_equal(ours.values, theirs.values)
            assert set(ours.coords) == set(theirs.coords), (group, name)
            for dim in ours.coords:
                np.testing.assert_array_equal(ours.coords[dim].values, theirs.coords[dim].values)


def by_hand(chains: np.ndarray) -> float:
    """Split R-hat of `(chain, draw)`."""
    return r_hat(halves(chains))


def rank_by_hand(chains: np.ndarray) -> float:
    """The larger of the R-hats of the halves' normal scores, and of those of their distances to the median."""

    def scores(x: np.ndarray) -> np.ndarray:
        return stats.norm.ppf((stats.rankdata(x).reshape(x.shape) - 3 / 8) / (x.size + 1 / 4))

    x = halves(chains)
    return max(r_hat(scores(x)), r_hat(scores(np.abs(x - np.median(x)))))


def halves(chains: np.ndarray) -> np.ndarray:
    """Two chains of each, without the draw in the middle of an odd number."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def r_hat(chains: np.ndarray) -> float:
    """The root of the pooled variance over the mean of those within."""
    draws = chains.shape[1]
    within = chains.var(1, ddof=1).mean()
    between = chains.mean(1).var(ddof=1)
    return float(np.sqrt(((draws - 1) / draws * within + between) / within))


# ArviZ on our runs


@pytest.mark.skipif(ARVIZ_1, reason="ArviZ 1.x has no from_pyro")
# It tries a prior draw, which may be a hole.
@pytest.mark.filterwarnings("ignore:Could not get vectorized trace")
def test_from_pyro_keeps_every_chain_in_its_own_row() -> None:
    mcmc = run(IndependenceMH(holes()))
    # It runs the model once to find what is observed. That draw may fall into a hole, for which Pyro raises an error.
    with pyro.validation_enabled(False):
        idata = az.from_pyro(mcmc)
    z, diverging = mcmc.get_samples(group_by_chain=True)["z"], mcmc.sample_stats["diverging"]
    assert idata.posterior.z.shape == (NUM_CHAINS, NUM_DRAWS, 2)
    for chain in range(NUM_CHAINS):
        np.testing.assert_array_equal(idata.posterior.z.sel(chain=chain).values, z[chain].numpy())
        np.testing.assert_array_equal(idata.sample_stats.diverging.sel(chain=chain).values, diverging[chain].numpy())
    # The test would detect chains that are sorted as text.
    assert diverging[10:].any(1).all() and not torch.equal(diverging, diverging[AS_TEXT])


@ignore_arviz_itself
def test_summary_and_trace_plot_show_all_chains() -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    mcmc = run(MALA(smooth(torch.float64)))
    z = mcmc.get_samples(group_by_chain=True)["z"]
    for idata in containers(mcmc):
        table = az.summary(idata, round_to="none")
        assert list(table.index) == ["z[0]", "z[1]"]
        np.testing.assert_allclose(table["mean"], z.mean((0, 1)), 1e-6, 1e-9)
        np.testing.assert_allclose(table["r_hat"], [rank_by_hand(z[..., i].numpy()) for i in range(2)], 1e-6)
        if ARVIZ_1:
            panels = az.plot_trace(idata).viz["plot"]["z"].values
        else:
            panels = az.plot_trace(idata, compact=False)[:, 1]
        for i in range(2):
            lines = [line.get_ydata() for line in panels[i].lines]
            assert len(lines) == NUM_CHAINS
            for chain, line in enumerate(lines):
                np.testing.assert_allclose(line, z[chain, :, i])
        plt.close("all")


@pytest.mark.parametrize("num_draws", [50, 51])
def test_r_hat_is_the_one_computed_by_hand(num_draws: int) -> None:
    # The run is too short to converge, because an R-hat near 1 would hide a wrong formula.
    start = {"z": 3 * torch.randn(NUM_CHAINS, 2, dtype=torch.float64)}
    mcmc = run(
        MALA(smooth(torch.float64), step_size=0.05, adapt_step_size=False),
        num_draws,
        warmup_steps=0,
        initial_params=start,
    )
    chains = mcmc.get_samples(group_by_chain=True)["z"].numpy()
    for idata in containers(mcmc):
        for method, formula in {"split": by_hand, "rank": rank_by_hand}.items():
            ours = az.rhat(idata, method=method)["z"].values
            expected = [formula(chains[..., i]) for i in range(2)]
            assert max(expected) > 1.1
            np.testing.assert_allclose(ours, expected, rtol=1e-9)
    np.testing.assert_allclose(mcmc.diagnostics()["z"]["r_hat"], [by_hand(chains[..., i]) for i in range(2)], 1e-9)


# to_arviz on our runner


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel_class", [MALA, IndependenceMH])
def test_groups_names_shapes_and_dtypes(either_arviz: str, kernel_class: Callable, dtype: torch.dtype) -> None:
    mcmc = run(kernel_class(smooth(dtype)))
    container = to_arviz(mcmc)
    assert type(container).__name__ == {"0.x": "InferenceData", "1.x": "DataTree"}[either_arviz]
    assert groups(container) == {"posterior", "sample_stats"}
    assert set(container["posterior"].data_vars) == {"z"}
    z = container["posterior"]["z"]
    assert z.dims == ("chain", "draw", "z_dim_0") and z.shape == (NUM_CHAINS, NUM_DRAWS, 2)
    np.testing.assert_array_equal(z.values, mcmc.get_samples(group_by_chain=True)["z"].numpy())
    names = STATS | ({"step_size"} if kernel_class is MALA else set())
    assert set(container["sample_stats"].data_vars) == names
    for name in names:
        values = container["sample_stats"][name]
        assert values.dims == ("chain", "draw") and values.shape == (NUM_CHAINS, NUM_DRAWS)
        ours = mcmc.sample_stats["accept_prob" if name == "acceptance_rate" else name]
        np.testing.assert_array_equal(values.values, ours.numpy())
        assert values.dtype == (bool if name in {"diverging", "moved"} else z.dtype)
    assert str(z.dtype) == str(dtype).removeprefix("torch.")


def test_every_chain_in_its_own_row(either_arviz: str) -> None:
    mcmc = run(IndependenceMH(holes()))
    container = to_arviz(mcmc)
    diverging = mcmc.sample_stats["diverging"]
    assert diverging[10:].any(1).all() and not torch.equal(diverging, diverging[AS_TEXT])
    for chain in range(NUM_CHAINS):
        row = container["sample_stats"]["diverging"].sel(chain=chain)
        np.testing.assert_array_equal(row.values, diverging[chain].numpy())


def test_prior_decoded_and_observed_data_with_coordinates(either_arviz: str) -> None:
    gan = images()
    mcmc = run(MALA(gan))
    prior, observed = gan.prior.sample((30,)), torch.randn(7, 3, requires_grad=True)
    container = to_arviz(
        mcmc,
        prior={"z": prior},
        decode=gan.decode,
        observed_data={"y": observed, "weight": np.ones(7)},
        coords={"latent": ["a", "b"], "row": [0, 1, 2], "column": list("wxyz"), "time": np.arange(7) / 10},
        dims={"z": ["latent"], "x": ["row", "column"], "y": ["time", None], "weight": ["time"]},
    )
    assert groups(container) == {"posterior", "sample_stats", "prior", "posterior_predictive", "observed_data"}
    z, x = container["posterior"]["z"], container["posterior_predictive"]["x"]
    assert z.dims == ("chain", "draw", "latent") and list(z["latent"].values) == ["a", "b"]
    assert x.dims == ("chain", "draw", "row", "column") and x.shape == (NUM_CHAINS, NUM_DRAWS, 3, 4)
    np.testing.assert_array_equal(x.values, gan.decode(mcmc.get_samples(group_by_chain=True)["z"]).numpy())
    assert list(x.sel(column="y").sizes) == ["chain", "draw", "row"]
    prior_z = container["prior"]["z"]
    assert prior_z.dims == ("chain", "draw", "latent") and prior_z.shape == (1, 30, 2)
    np.testing.assert_array_equal(prior_z.values[0], prior.numpy())
    y = container["observed_data"]["y"]
    assert y.dims[0] == "time" and y.shape == (7, 3)
    np.testing.assert_array_equal(y.values, observed.detach().numpy())


def test_both_arviz_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    gan = images()
    mcmc = run(MALA(gan))
    given: dict[str, Any] = {
        "prior": {"z": gan.prior.sample((30,))},
        "decode": gan.decode,
        "observed_data": {"y": torch.randn(7)},
        "coords": {"latent": ["a", "b"]},
        "dims": {"z": ["latent"]},
    }
    old = to_arviz(mcmc, **given)
    use_arviz_1(monkeypatch)
    new = to_arviz(mcmc, **given)
    assert type(new).__name__ == "DataTree"
    assert_same_container(old, new)


def test_many_short_chains_raise_no_warning(either_arviz: str) -> None:
    gan = images()
    mcmc = run(MALA(gan), 2, num_chains=300, warmup_steps=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        container = to_arviz(mcmc, decode=gan.decode)
    assert container["posterior_predictive"]["x"].shape == (300, 2, 3, 4)


def test_one_site_of_several_is_decoded_by_name() -> None:
    mcmc = run(
        MALA(potential_fn=lambda p: p["a"].square().sum(-1) + p["b"].square()),
        initial_params={"a": torch.zeros(NUM_CHAINS, 2), "b": torch.zeros(NUM_CHAINS)},
    )
    assert {"log_ratio"} == STATS - set(to_arviz(mcmc).sample_stats.data_vars)
    for site in (None, "c"):
        with pytest.raises(ValueError, match=r"one of \['a', 'b'\]; got"):
            to_arviz(mcmc, decode=torch.exp, site=site)
    x = to_arviz(mcmc, decode=torch.exp, site="b").posterior_predictive.x
    np.testing.assert_array_equal(x, mcmc.get_samples(group_by_chain=True)["b"].exp())


def test_an_interrupted_run_is_converted() -> None:
    def interrupt(kernel, params, stage, i) -> None:
        if stage == "Sample" and i == 17:
            raise KeyboardInterrupt

    mcmc = runner(MALA(smooth()), hook_fn=interrupt)
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    for idata in containers(mcmc):
        assert idata.posterior.z.shape == (NUM_CHAINS, 18, 2)
        assert idata.sample_stats.diverging.shape == (NUM_CHAINS, 18)


# to_arviz on Pyro's runner


@pytest.fixture(scope="module", params=[IndependenceMH, NUTS])
def with_holes(request: pytest.FixtureRequest) -> MCMC:
    """Run Pyro's runner once for both versions of ArviZ."""
    kwargs = {"step_size": 0.5, "max_tree_depth": 3} if request.param is NUTS else {}
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        # Pyro draws chains one after another if there are more of them than cores.
        patch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 2)
        return run_pyro(request.param(holes(), **kwargs))


def test_pyros_runner_keeps_every_chain_in_its_own_row(either_arviz: str, with_holes: MCMC) -> None:
    mcmc = with_holes
    container = to_arviz(mcmc)
    assert groups(container) == {"posterior", "sample_stats"}
    z = mcmc.get_samples(group_by_chain=True)["z"]
    np.testing.assert_array_equal(container["posterior"]["z"].values, z.numpy())
    diverging = container["sample_stats"]["diverging"].values
    assert diverging.shape == (NUM_CHAINS, NUM_DRAWS) and diverging.dtype == bool
    for chain in range(NUM_CHAINS):
        expected = set(mcmc.diagnostics()["divergences"][f"chain {chain}"])
        assert set(np.flatnonzero(diverging[chain])) == expected
    assert diverging.any()
    if isinstance(mcmc.kernel, IndependenceMH):
        assert diverging[10:].any(1).all() and not np.array_equal(diverging, diverging[AS_TEXT])


def test_pyros_nuts_on_a_gan_is_decoded() -> None:
    gan = smooth()
    mcmc = run_pyro(NUTS(gan), num_chains=1)
    idata = to_arviz(mcmc, decode=gan.decode)
    assert idata.posterior_predictive.x.shape == (1, NUM_DRAWS, 2)
    np.testing.assert_array_equal(idata.posterior_predictive.x[0], gan.decode(mcmc.get_samples()["z"]))


def test_a_run_too_short_for_r_hat_is_converted() -> None:
    mcmc = run_pyro(NUTS(smooth()), 2, num_chains=1)
    # Pyro's R-hat needs four draws, and Pyro shows divergences only beside it.
    with pytest.raises(AssertionError):
        mcmc.diagnostics()
    assert groups(to_arviz(mcmc)) == {"posterior"}


def test_a_kernel_that_looks_for_no_divergences_has_none_in_the_container(either_arviz: str) -> None:
    mcmc = run_pyro(RandomWalkKernel(smooth()), num_chains=1)
    assert groups(to_arviz(mcmc)) == {"posterior"}


# Errors


def test_a_run_not_made_yet_raises() -> None:
    for mcmc in (VectorizedMCMC(MALA(smooth()), 5, num_chains=3), MCMC(NUTS(smooth()), 5), MCMC(MALA(smooth()), 5)):
        with pytest.raises(ValueError, match=r"no draws yet: call run\(\) first"):
            to_arviz(mcmc)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "NoneType"),
        ({"z": torch.zeros(4, 5, 2)}, "dict"),
        (MALA(lambda: None), "MALA"),
        (StreamingMCMC(NUTS(lambda: None), 5), "StreamingMCMC"),
    ],
)
def test_what_is_no_run_raises(value: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"VectorizedMCMC or a pyro.infer.MCMC; got {name}"):
        to_arviz(value)


@pytest.mark.parametrize("name", ["prior", "observed_data", "coords", "dims"])
@pytest.mark.parametrize("value", ["x", 3, [1.0], torch.zeros(3)])
def test_what_is_no_dict_raises(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Expected {name} as a dict by name; got"):
        to_arviz(run(MALA(smooth()), 2, warmup_steps=2), **{name: value})


def test_what_cannot_be_decoded_raises() -> None:
    mcmc = run(MALA(smooth()), 2, warmup_steps=2)
    with pytest.raises(ValueError, match="Expected decode to be a function"):
        to_arviz(mcmc, decode=3)
    for result in (None, "x", {"x": 1}):
        with pytest.raises(ValueError, match="Expected decode to return data"):
            to_arviz(mcmc, decode=lambda z, result=result: result)
    with pytest.raises(ValueError, match="Expected tensors or arrays"):
        to_arviz(mcmc, prior={"z": "x"})


# Files


def test_files_come_back_and_either_arviz_opens_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import xarray

    gan = images()
    mcmc = run(IndependenceMH(gan))
    given: dict[str, Any] = {
        "prior": {"z": gan.prior.sample((30,))},
        "decode": gan.decode,
        "observed_data": {"y": torch.randn(7)},
    }
    old = to_arviz(mcmc, **given)
    with monkeypatch.context() as patch:
        use_arviz_1(patch)
        new = to_arviz(mcmc, **given)
    for name, container in {"old": old, "new": new}.items():
        path = tmp_path / f"{name}.nc"
        container.to_netcdf(str(path), engine="h5netcdf")
        assert_same_container(container, az.from_netcdf(str(path), engine="h5netcdf"))
        # ArviZ 1.x's from_netcdf calls this.
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            assert_same_container(container, tree)
