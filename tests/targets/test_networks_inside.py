"""A generator and a log ratio inside a user's model: any layer and any ratio runs for all chains at once."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import VectorizedMCMC
from pyro_gan.latent import LatentPrior
from pyro_gan.mcmc import MALA
from pyro_gan.objectives import KLIEP, Bernoulli, LeastSquares, Pearson
from pyro_gan.ratio import CalibratedLogRatio, Isotonic, LogRatio, MeanLogRatio, MonotoneSpline, Platt
from pyro_gan.targets import make_target

NUM_CHAINS, DIM = 5, 4
PRIOR = dist.Normal(0.0, 1.0).expand([DIM]).to_event(1)


class Recurrent(nn.Module):
    """The last state of a recurrent layer that reads the latent number by number."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z[..., None])[0][:, -1]


class Attention(nn.Module):
    """Attention among the numbers of the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True)
        self.embed = nn.Linear(1, 4)

    def forward(self, z: Tensor) -> Tensor:
        tokens = self.embed(z[..., None])
        return self.layer(tokens, tokens, tokens)[0].flatten(1)


class Branching(nn.Module):
    """A network that branches in Python on values and moves numbers out of torch."""

    def forward(self, z: Tensor) -> Tensor:
        shift = 1.0 if z.abs().max().item() > 1e6 else 0.0
        return torch.stack([row.tanh() if len(row) else row for row in z]) + shift


class Tokens(nn.Module):
    """A transformer's encoder over the numbers of the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.encoder(self.embed(z[..., None])).flatten(1)


class Probability(nn.Module):
    """A discriminator whose last operation is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = critic()

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x).sigmoid()


class InPlace(nn.Module):
    """A network that writes into tensors of its own."""

    def forward(self, z: Tensor) -> Tensor:
        x = torch.zeros_like(z)
        x[:, 0] = z[:, 1]
        x[z > 0] += 1.0
        return x + z


def image(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Unflatten(1, (DIM, 1, 1)), *layers, nn.Flatten())


GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(DIM, 3),
    "ConvTranspose2d": lambda: image(nn.ConvTranspose2d(DIM, 2, 3)),
    "Conv2d": lambda: image(nn.Conv2d(DIM, 2, 3, padding=1)),
    "Conv1d": lambda: nn.Sequential(nn.Unflatten(1, (1, DIM)), nn.Conv1d(1, 2, 3), nn.Flatten()),
    "BatchNorm1d": lambda: nn.Sequential(nn.BatchNorm1d(DIM), nn.Linear(DIM, 3)),
    "BatchNorm2d": lambda: image(nn.BatchNorm2d(DIM)),
    "InstanceNorm1d": lambda: nn.Sequential(nn.Unflatten(1, (1, DIM)), nn.InstanceNorm1d(1), nn.Flatten()),
    "GroupNorm": lambda: image(nn.ConvTranspose2d(DIM, 4, 2), nn.GroupNorm(2, 4)),
    "LayerNorm": lambda: nn.LayerNorm(DIM),
    "PReLU": lambda: nn.Sequential(nn.Linear(DIM, 3), nn.PReLU(3)),
    "Upsample": lambda: image(nn.Upsample(scale_factor=2, mode="bilinear")),
    "PixelShuffle": lambda: image(nn.PixelShuffle(2)),
    "AdaptiveAvgPool2d": lambda: image(nn.ConvTranspose2d(DIM, 2, 3), nn.AdaptiveAvgPool2d(2)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(DIM, 3)),
    "Dropout": lambda: nn.Sequential(nn.Linear(DIM, 3), nn.Dropout()),
    "RNN": lambda: Recurrent(nn.RNN(1, 3, batch_first=True)),
    "LSTM": lambda: Recurrent(nn.LSTM(1, 3, batch_first=True)),
    "GRU": lambda: Recurrent(nn.GRU(1, 3, batch_first=True)),
    "MultiheadAttention": Attention,
    "TransformerEncoder": Tokens,
    "branches": Branching,
    "writes in place": InPlace,
}


def critic() -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, 8), nn.Tanh(), nn.Linear(8, 1)).double().eval()


RATIOS: dict[str, Callable[[], nn.Module]] = {
    "Bernoulli": lambda: LogRatio(critic(), Bernoulli()),
    "LeastSquares": lambda: LogRatio(nn.Sequential(critic(), nn.Sigmoid()), LeastSquares()),
    "Pearson": lambda: LogRatio(critic(), Pearson()),
    "KLIEP": lambda: LogRatio.normalised(critic(), KLIEP(), generated=torch.randn(100, DIM).double()),
    "from_probability": lambda: LogRatio.from_probability(Probability()),
    "mean of three": lambda: MeanLogRatio([critic() for _ in range(3)]),
    **{
        method.__name__: lambda method=method: CalibratedLogRatio(critic(), method=method()).double()
        for method in (Platt, MonotoneSpline, Isotonic)
    },
}


def potential_and_gradient(model: Callable[[], object], z: Tensor) -> tuple[Tensor, Tensor]:
    return make_target(model).potential_and_grad(z)


@pytest.mark.parametrize("name", GENERATORS)
def test_any_layer_inside_a_model(name: str) -> None:
    """Potential and gradient of all chains are those of the network outside, called once on all rows."""
    generator = GENERATORS[name]().double().eval()
    latents = LatentPrior(generator, dist.Normal(torch.zeros(DIM).double(), 1.0).to_event(1))

    def model() -> None:
        pyro.factor("seen", -latents().square().sum())

    z = torch.randn(NUM_CHAINS, DIM, dtype=torch.float64)
    rows = z.clone().requires_grad_()
    expected = -latents.prior.log_prob(rows) + latents.generator(rows).square().sum(1)
    (slope,) = torch.autograd.grad(expected.sum(), rows)
    potential, gradient = potential_and_gradient(model, z)
    torch.testing.assert_close(potential, expected.detach())
    torch.testing.assert_close(gradient, slope)


@pytest.mark.parametrize("name", RATIOS)
def test_any_ratio_inside_a_model(name: str) -> None:
    log_ratio = RATIOS[name]()

    def model() -> None:
        scale = pyro.sample("scale", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        z = pyro.sample("z", dist.Normal(torch.zeros(DIM).double(), 1.0).to_event(1))
        pyro.factor("seen", log_ratio((scale * z)[None])[0])

    target = make_target(model)
    rows = torch.randn(NUM_CHAINS, DIM + 1, dtype=torch.float64)
    values = {site: target.transforms[site].inv(value) for site, value in target.unpack(rows).items()}
    expected = log_ratio(values["scale"][:, None] * values["z"]).detach()
    torch.testing.assert_close(target.log_weight(rows), expected)
    _, gradient = target.potential_and_grad(rows)
    step = 1e-6
    for i in range(DIM + 1):
        shift = torch.zeros_like(rows)
        shift[:, i] = step
        numerical = (target.potential(rows + shift) - target.potential(rows - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, i], numerical, rtol=1e-4, atol=1e-6)


def test_a_kernel_moves_through_a_recurrent_generator_and_the_weights_take_no_gradient() -> None:
    generator = GENERATORS["LSTM"]().eval()
    latents = LatentPrior(generator, PRIOR)

    def model(y: Tensor) -> None:
        x = latents()
        pyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)

    mcmc = VectorizedMCMC(MALA(model), num_samples=5, warmup_steps=5, num_chains=NUM_CHAINS, disable_progbar=True)
    mcmc.run(torch.zeros(3))
    assert mcmc.get_samples()["z"].std() > 0
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_a_bare_layer_without_a_batching_rule_is_refused_with_the_cure() -> None:
    generator = GENERATORS["LSTM"]().eval()

    def model() -> None:
        z = pyro.sample("z", PRIOR)
        pyro.factor("seen", generator(z[None]).sum())

    with pytest.raises(ValueError, match="LatentPrior"):
        make_target(model)


def test_a_condition_may_differ_by_chain_or_be_one_for_all() -> None:
    def critic(x: Tensor, *, shift: Tensor) -> Tensor:
        return (x * shift.reshape(len(x), -1)).sum(1)

    log_ratio = LogRatio(critic, Bernoulli())

    def model(own: bool) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(DIM).double(), 1.0).to_event(1))
        pyro.factor("seen", log_ratio(z[None], shift=z[:1] if own else torch.tensor([3.0]).double())[0])

    rows = torch.randn(NUM_CHAINS, DIM, dtype=torch.float64)
    for own in (True, False):
        target = make_target(model, args=(own,))
        shift = rows[:, :1] if own else 3.0
        torch.testing.assert_close(target.log_weight(rows), (rows * shift).sum(1))
