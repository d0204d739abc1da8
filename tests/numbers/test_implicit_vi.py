"""Adversarial variational Bayes on posteriors that no Gaussian fits: a classifier compares its draws with HMC draws.

Two latents with standard normal priors and one observation. Banana: 0 ~ N(z2 - z1^2 + 1, .4). Bimodal:
1.2 ~ N(|z1|, .4). The classifier is a perceptron with two layers of 32 on standardised draws, with early stopping; its
accuracy is that of five folds of 5 000 + 5 000 draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import BatchHMC
from pyro_gan.vi import AdaptiveContrast, AdversarialSVI, GaussianGuide, ImplicitGuide, RatioELBO
from tests.numbers.size import SEEDS

pytestmark = pytest.mark.numbers
NUM_DRAWS, NUM_STEPS, BATCH, SD = 5_000, 1_500, 256, 0.4
# While HMC finds its step size some trajectories go to infinity. HMC rejects them, if no distribution raises first.
PRIOR = dist.Normal(0.0, 1.0, validate_args=False).expand([2]).to_event(1)


def banana(z: Tensor) -> Tensor:
    return dist.Normal(0.0, SD, validate_args=False).log_prob(z[..., 1] - z[..., 0].square() + 1)


def bimodal(z: Tensor) -> Tensor:
    return dist.Normal(1.2, SD, validate_args=False).log_prob(z[..., 0].abs())


LIKELIHOODS: dict[str, Callable[[Tensor], Tensor]] = {"banana": banana, "bimodal": bimodal}


class NoiseNetwork(nn.Module):
    """A network that ignores the data, since there is one data point."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_inputs, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, num_outputs)
        )

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.layers(rows)


def c2st(a: Tensor, b: Tensor) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier((32, 32), max_iter=60, early_stopping=True, n_iter_no_change=8, random_state=0)
    rows, label = torch.cat([a, b]).numpy(), np.repeat([0, 1], [len(a), len(b)])
    order = np.random.default_rng(0).permutation(len(label))
    return float(cross_val_score(make_pipeline(StandardScaler(), network), rows[order], label[order], cv=5).mean())


def hmc_draws(log_likelihood: Callable[[Tensor], Tensor]) -> Tensor:
    posterior = LatentPosterior(nn.Identity(), log_likelihood, PRIOR)
    mcmc = VectorizedMCMC(BatchHMC(posterior, num_steps=15), 1, 300, num_chains=NUM_DRAWS, disable_progbar=True)
    mcmc.run()
    return mcmc.get_samples()["z"].reshape(NUM_DRAWS, 2)


def exact_draws(log_likelihood: Callable[[Tensor], Tensor]) -> Tensor:
    """Rejection sampling from the prior, bounded by the peak of the likelihood."""
    z = PRIOR.sample((400_000,))
    peak = -math.log(SD * math.sqrt(2 * math.pi))
    kept = z[torch.rand(len(z)).log() < log_likelihood(z) - peak]
    assert len(kept) >= NUM_DRAWS
    return kept[:NUM_DRAWS]


def program(log_likelihood: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.factor("likelihood", log_likelihood(pyro.sample("z", PRIOR)))

    return model


def implicit_draws(log_likelihood: Callable[[Tensor], Tensor]) -> Tensor:
    noise = dist.Normal(0.0, 1.0).expand([4]).to_event(1)
    guide = ImplicitGuide(NoiseNetwork(4, 2), noise, event_shape=(2,), num_moment_draws=500)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = guide.moments(x[:1])  # of the one data point
        return mean.expand(len(x), 2), variance.expand(len(x), 2)

    ratio = AdaptiveContrast(NoiseNetwork(2, 1), moments=moments, prior=PRIOR)
    rates = {"guide": (guide, 1e-3, 0.0), "z": (ratio, 2e-3, 2e-4)}
    optimizers = {
        name: torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.99)) for name, (net, lr, _) in rates.items()
    }
    schedulers = {
        name: torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[name], NUM_STEPS, eta_min=end)
        for name, (_, _, end) in rates.items()
    }
    svi = AdversarialSVI(
        RatioELBO({"z": ratio})(program(log_likelihood), guide), optimizers, steps={"z": 2}, schedulers=schedulers
    )
    x = torch.zeros(BATCH, 1)
    for _ in range(NUM_STEPS):
        svi.step(x)
    return guide.conditional(x[:1]).expand([NUM_DRAWS]).sample()


def gaussian_draws(log_likelihood: Callable[[Tensor], Tensor]) -> Tensor:
    guide = GaussianGuide(nn.Linear(1, 4), dim=2)
    elbo = pyro.infer.Trace_ELBO()
    svi = pyro.infer.SVI(program(log_likelihood), guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    for _ in range(NUM_STEPS):
        svi.step(torch.zeros(BATCH, 1))
    with torch.no_grad():
        return guide.conditional(torch.zeros(NUM_DRAWS, 1)).sample()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_an_implicit_guide_fits_what_a_gaussian_cannot(name: str, seed: int, figure) -> None:
    torch.set_num_threads(1)  # small networks
    pyro.set_rng_seed(seed)
    likelihood = LIKELIHOODS[name]
    truth = hmc_draws(likelihood)
    found = {
        "implicit": c2st(implicit_draws(likelihood), truth),
        "gaussian": c2st(gaussian_draws(likelihood), truth),
        "exact": c2st(exact_draws(likelihood), truth),
    }
    figure("implicit guide, C2ST", posterior=name, seed=seed, steps=NUM_STEPS, batch=BATCH, **found)
    assert found["implicit"] < 0.55
    assert found["gaussian"] > 0.65
    assert found["exact"] < 0.53
