"""Time for an effective draw, compared with the same chains on the same networks in BlackJAX (pip install blackjax)."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import MALA, ChEES
from tests.benchmarks.conftest import Figure
from tests.benchmarks.paired import Ratio, paired, ratio_of, timed
from tests.benchmarks.pairs import bare_gradient, mlp_pair, tiny_pair

# One thread, as torch has. JAX reads this variable once, when it is imported.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
blackjax = pytest.importorskip("blackjax", reason="the benchmarks compare with it where it is installed")
jax = pytest.importorskip("jax", reason="BlackJAX needs it")
jnp = pytest.importorskip("jax.numpy", reason="BlackJAX needs it")
optax = pytest.importorskip("optax", reason="BlackJAX needs it")

NUM_CHAINS = 1000
STEPS = {"tiny": 300, "MLP": 50}
DRAWS, WARMUP = {"tiny": 100, "MLP": 20}, {"tiny": 100, "MLP": 50}
ROUNDS = 3
PAIRS: dict[str, Callable[[], LatentPosterior]] = {"tiny": lambda: tiny_pair(8), "MLP": mlp_pair}

pytestmark = pytest.mark.parametrize("name", PAIRS)


def log_density(gan: LatentPosterior) -> Callable[[Any], Any]:
    """Return the log density of one latent in JAX, up to a constant, with copied weights."""
    layers = [
        [(array(layer.weight.T), array(layer.bias)) for layer in network.modules() if isinstance(layer, nn.Linear)]
        for network in (gan.generator, gan.log_ratio)
    ]

    def mlp(weights: list[Any], x: Any) -> Any:
        for weight, bias in weights[:-1]:
            x = jax.nn.silu(x @ weight + bias)
        return x @ weights[-1][0] + weights[-1][1]

    def log_prob(z: Any) -> Any:
        return -0.5 * (z**2).sum() + mlp(layers[1], mlp(layers[0], z))[0]

    return log_prob


def array(values: Tensor) -> Any:
    return jnp.asarray(values.detach().numpy())


def effective(gan: LatentPosterior, draws: Tensor) -> float:
    """Return the effective draws, the least over the latents and the log ratio, from `(chain, draw, dim)`."""
    with torch.no_grad():
        log_ratio = gan.log_weight({"z": draws})
    return min(float(effective_sample_size(x.double()).min()) for x in (draws, log_ratio))


def test_gradient(figure: Figure, name: str) -> None:
    """Without a sampler: value and gradient of the potential, torch over JAX."""
    gan = PAIRS[name]()
    gradient = jax.jit(jax.vmap(jax.value_and_grad(log_density(gan))))
    z = jnp.asarray(torch.randn(NUM_CHAINS, *gan.prior.event_shape).numpy())
    figure(lambda: paired(bare_gradient(gan, NUM_CHAINS), lambda: jax.block_until_ready(gradient(z))))


def test_mala(figure: Figure, name: str) -> None:
    """All draws are kept; both have the same starting points and step size."""
    gan, num_steps = PAIRS[name](), STEPS[name]
    tuned = VectorizedMCMC(MALA(gan), 1, 150, num_chains=100, keep="last", disable_progbar=True)
    tuned.run()
    step_size = float(tuned.kernel.step_size)
    start = tuned.get_samples()["z"].repeat(NUM_CHAINS // 100, 1)
    # The step size of BlackJAX multiplies the gradient; it is half of ours.
    kernel = blackjax.mala(log_density(gan), 0.5 * step_size)

    @jax.jit
    def chains(key: Any, z: Any) -> Any:
        def step(states: Any, key: Any) -> tuple[Any, Any]:
            states, _ = jax.vmap(kernel.step)(jax.random.split(key, NUM_CHAINS), states)
            return states, states.position

        return jax.lax.scan(step, jax.vmap(kernel.init)(z), jax.random.split(key, num_steps))[1]

    def ours() -> tuple[float, Tensor]:
        mcmc = VectorizedMCMC(
            MALA(gan, step_size=step_size),
            num_steps,
            0,
            initial_params={"z": start},
            num_chains=NUM_CHAINS,
            disable_progbar=True,
        )
        return timed(mcmc.run), mcmc.get_samples(group_by_chain=True)["z"]

    figure(lambda: race(gan, ours, partial(theirs, chains, array(start))), target="<= 0.6")


def test_chees(figure: Figure, name: str) -> None:
    """With warmup on both sides, from prior draws, each with its default settings."""
    gan = PAIRS[name]()
    log_prob = log_density(gan)
    warmup = blackjax.chees_adaptation(
        log_prob, NUM_CHAINS, adaptation_info_fn=blackjax.adaptation.base.get_filter_adapt_info_fn()
    )

    @jax.jit
    def chains(key: Any, z: Any) -> Any:
        first, second = jax.random.split(key)
        (states, settings), _ = warmup.run(
            first, z, 0.1, optax.adam(0.02), WARMUP[name], max_sampling_steps=DRAWS[name]
        )
        kernel = blackjax.dynamic_hmc(log_prob, **settings)

        def step(states: Any, key: Any) -> tuple[Any, Any]:
            states, _ = jax.vmap(kernel.step)(jax.random.split(key, NUM_CHAINS), states)
            return states, states.position

        return jax.lax.scan(step, states, jax.random.split(second, DRAWS[name]))[1]

    def ours() -> tuple[float, Tensor]:
        mcmc = VectorizedMCMC(ChEES(gan), DRAWS[name], WARMUP[name], num_chains=NUM_CHAINS, disable_progbar=True)
        return timed(mcmc.run), mcmc.get_samples(group_by_chain=True)["z"]

    start = array(gan.sample_prior(NUM_CHAINS)["z"])
    figure(lambda: race(gan, ours, partial(theirs, chains, start)), target="<= 0.6")


def theirs(chains: Callable[[Any, Any], Any], start: Any) -> tuple[float, Tensor]:
    key = jax.random.key(int(torch.randint(2**31, ())))
    drawn: list[Any] = []
    seconds = timed(lambda: drawn.append(jax.block_until_ready(chains(key, start))))
    return seconds, torch.from_numpy(np.asarray(drawn[0]).copy()).transpose(0, 1)


def race(
    gan: LatentPosterior, ours: Callable[[], tuple[float, Tensor]], theirs: Callable[[], tuple[float, Tensor]]
) -> Ratio:
    """Measure the time for an effective draw, in turns, without the first run, which compiles."""
    theirs()

    def cost(run: Callable[[], tuple[float, Tensor]]) -> float:
        seconds, draws = run()
        return seconds / effective(gan, draws)

    pairs = [(cost(ours), cost(theirs)) for _ in range(ROUNDS)]
    return ratio_of([a for a, _ in pairs], [b for _, b in pairs])
