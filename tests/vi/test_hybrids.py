"""The six hybrids: their losses against closed forms and Pyro's ELBOs, and combinations without meaning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, cast

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_gan.objectives import MMD, Brier, GaussianKernel, Hinge
from pyro_gan.vi import (
    HYBRIDS,
    AggregatedRatio,
    ConditionalRatio,
    ExplicitLikelihood,
    GaussianGuide,
    Hybrid,
    HybridLoss,
    ImplicitGuide,
    Joined,
    RatioELBO,
    moment_divergence,
)
from tests.vi import toy


class Exact(nn.Module):
    """A formula as a network."""

    def __init__(self, formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.formula(*inputs)


def laplace() -> ExplicitLikelihood:
    return ExplicitLikelihood("laplace", toy.WEIGHT, reduction="sum")


def normal() -> ExplicitLikelihood:
    return ExplicitLikelihood("normal", 1 / toy.DECODER_SD**2, reduction="sum")


def loss_of(name: str | Hybrid, **networks: Any) -> HybridLoss:
    """A hybrid of the toy's Gaussians, with the networks that it needs."""
    hybrid = HYBRIDS[name] if isinstance(name, str) else name
    needed: dict[str, Any] = {"generator": toy.Linear(toy.W, toy.C), "prior": toy.prior()}
    if hybrid.latent is not None:
        needed["encoder"] = GaussianGuide(toy.Gaussian(), dim=1)
    if hybrid.likelihood != "synthetic":
        needed["explicit_likelihood"] = normal() if hybrid.likelihood == "explicit" else laplace()
    if hybrid.likelihood != "explicit":
        needed["discriminator"] = Exact(toy.f_discriminator)
    if hybrid.space == "features":
        features = nn.Linear(1, 3).double()
        needed["explicit_likelihood"] = ExplicitLikelihood("normal", 1.0, reduction="sum", features=features)
    if hybrid.latent == "ratio(z)":
        needed["latent_ratio"] = AggregatedRatio(Exact(lambda z: -toy.f_latent(z)))
    if hybrid.latent == "ratio(x, z)":
        needed["latent_ratio"] = ConditionalRatio(Exact(toy.exact_t))
    if hybrid.latent == "mmd":
        needed["mmd"] = MMD(GaussianKernel([1.0]))
    return HybridLoss(hybrid, **(needed | networks))


def mean_distance() -> float:
    """E |x - G(z_q)|, a folded normal's mean."""
    slope = 1 - toy.W * toy.A
    mean = slope * toy.DATA_MEAN - toy.W * toy.B - toy.C
    sd = math.hypot(slope * toy.DATA_SD, toy.W * toy.S)
    return sd * math.sqrt(2 / math.pi) * math.exp(-0.5 * (mean / sd) ** 2) + mean * math.erf(mean / sd / math.sqrt(2))


def expected(formula: Callable[[Tensor], Tensor], mean: float, sd: float) -> float:
    """A normal expectation by the trapezoidal rule, which is exact for functions that decay on both sides."""
    x = torch.linspace(mean - 12 * sd, mean + 12 * sd, 20_001, dtype=torch.float64)[:, None]
    density = toy.log_normal(x, mean, sd).exp().squeeze(-1)
    return float((density * formula(x)).sum() * (x[1, 0] - x[0, 0]))


def test_closed_forms_at_the_optimal_discriminators() -> None:
    """E|x - G(z_q)|, E f and E T in closed form or by quadrature, and what the players of alpha-GAN minimise."""
    assert mean_distance() == pytest.approx(0.78578703, abs=1e-7)
    rec = expected(toy.f_discriminator, toy.REC_MEAN, toy.REC_SD)
    gen = expected(toy.f_discriminator, toy.GEN_MEAN, toy.GEN_SD)
    assert (-rec, -gen) == pytest.approx((0.07826055, 0.06274830), abs=1e-7)
    assert toy.WEIGHT * mean_distance() - rec - gen == pytest.approx(2.49836995, abs=1e-6)
    aggregate = -expected(toy.f_latent, toy.Q_MEAN, toy.Q_SD)
    assert toy.WEIGHT * mean_distance() + aggregate == pytest.approx(2.35894505, abs=1e-6)
    assert toy.WEIGHT * mean_distance() + 0.47207562 == pytest.approx(2.82943674, abs=1e-6)
    at = torch.tensor([[0.0], [1.0], [-2.0]], dtype=torch.float64)
    assert toy.f_discriminator(at).tolist() == pytest.approx([-0.275448, -0.030281, 0.071286], abs=1e-6)


def balanced_discriminator_loss(logit: Callable[[Tensor], Tensor], weight: float) -> float:
    softplus = nn.functional.softplus
    real = expected(lambda x: softplus(-logit(x)), toy.DATA_MEAN, toy.DATA_SD)
    fakes = [(toy.REC_MEAN, toy.REC_SD), (toy.GEN_MEAN, toy.GEN_SD)]
    return real + weight * sum(expected(lambda x: softplus(logit(x)), *fake) for fake in fakes)


def test_weights_of_the_two_kinds_of_fakes() -> None:
    """With weight 1/2 each, f = log p_data - log((p_rec + p_gen) / 2); with weight 1 each, f is smaller by log 2."""
    assert balanced_discriminator_loss(toy.f_discriminator, 0.5) == pytest.approx(1.34669465, abs=1e-6)

    def unbalanced(x: Tensor) -> Tensor:
        return toy.f_discriminator(x, balanced=False)

    assert balanced_discriminator_loss(unbalanced, 1.0) == pytest.approx(1.85370088, abs=1e-6)
    at = torch.zeros(1, 1).double()
    assert (toy.f_discriminator(at) - unbalanced(at)).item() == pytest.approx(math.log(2))


def test_alpha_gan_by_monte_carlo() -> None:
    """The players minimise 3 E|x - G(z_q)| + E T, 3 E|x - G(z_q)| - E f - E f, and two cross-entropies.

    The likelihood has the constant log(3 / 2), and each cross-entropy is a mean over two classes. With 1e6 rows the
    limit of .02 is more than eight standard errors of each.
    """
    loss, x = loss_of("alpha-GAN"), toy.data(1_000_000)
    constant = math.log(toy.WEIGHT / 2)
    with torch.no_grad():
        found = {name: player_loss(x).item() for name, player_loss in loss.losses().items()}
    assert found["encoder"] + constant == pytest.approx(2.35894505, abs=0.02)
    assert found["generator"] + constant == pytest.approx(2.49836995, abs=0.02)
    assert 2 * found["discriminator"] == pytest.approx(1.34669465, abs=0.005)
    assert 2 * found["latent_ratio"] == pytest.approx(1.38548215, abs=0.005)


def test_the_discriminator_sees_two_kinds_of_fakes_in_equal_parts() -> None:
    loss, x = loss_of("alpha-GAN"), toy.data(50)
    pyro.set_rng_seed(1)
    found = loss.discriminator_loss(x)
    pyro.set_rng_seed(1)
    fakes = [loss.generator(loss.prior.sample((50,))), loss.generator(loss._encoded(x))]
    softplus = nn.functional.softplus
    parts = [softplus(toy.f_discriminator(fake)).mean() for fake in fakes]
    expected = 0.5 * softplus(-toy.f_discriminator(x)).mean() + 0.25 * (parts[0] + parts[1])
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("name", ["VAE", "Adversarial-VB"])
def test_mean_elbo(name: str) -> None:
    """E[log p(x|z_q)] - E KL(q(z|x) || p(z)), which both reach, is below the mean log likelihood."""
    loss, x = loss_of(name), toy.data(1_000_000)
    with torch.no_grad():
        elbo = -loss.encoder_loss(x).item()
    sd = math.hypot(toy.W, toy.DECODER_SD)
    exact = expected(lambda x: toy.log_normal(x, toy.C, sd).squeeze(-1), toy.DATA_MEAN, toy.DATA_SD)
    assert exact == pytest.approx(-1.84762248, abs=1e-7)
    assert elbo == pytest.approx(-1.92443311, abs=0.01)
    assert loss.is_bound is (name == "VAE")


def pyro_pair(loss: HybridLoss) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    encoder, explicit = cast(GaussianGuide, loss.encoder), cast(ExplicitLikelihood, loss.explicit_likelihood)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", loss.prior)
            pyro.sample("x", explicit.distribution(loss.generator(z)), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", encoder.conditional(x), infer={"context": x})

    return model, guide


@pytest.mark.parametrize("name", ["VAE", "Adversarial-VB"])
def test_encoder_and_generator_minimise_pyros_elbo_of_a_data_point(name: str, seed: int) -> None:
    loss, x = loss_of(name), toy.data(50)
    elbo: Any = TraceMeanField_ELBO()
    if loss.latent_ratio is not None:
        elbo = RatioELBO({"z": loss.latent_ratio})
    pyro.set_rng_seed(seed)
    stock = elbo.loss(*pyro_pair(loss), x) / len(x)
    pyro.set_rng_seed(seed)
    assert loss.encoder_loss(x).item() == pytest.approx(stock, abs=1e-10)
    # The generator's loss is the same without the latent term, which does not depend on the generator.
    pyro.set_rng_seed(seed)
    generator = torch.autograd.grad(loss.generator_loss(x), loss.generator.parameters())
    pyro.set_rng_seed(seed)
    encoder = torch.autograd.grad(loss.encoder_loss(x), loss.generator.parameters())
    for mine, theirs in zip(generator, encoder, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


def test_dcgan_is_the_non_saturating_gan() -> None:
    loss, x = loss_of("DCGAN"), toy.data(100)
    assert list(loss.networks()) == ["generator", "discriminator"]
    pyro.set_rng_seed(1)
    found = loss.generator_loss(x)
    pyro.set_rng_seed(1)
    f = toy.f_discriminator(loss.generator(loss.prior.sample((100,))))
    torch.testing.assert_close(found, nn.functional.softplus(-f).mean())


def test_vae_gan_compares_features_and_weights_the_generators_reconstruction() -> None:
    loss, x = loss_of("VAE-GAN", reconstruction_weight=0.25), toy.data(50)
    with torch.no_grad():
        pyro.set_rng_seed(1)
        total = loss.generator_loss(x)
        pyro.set_rng_seed(1)
        z_q, z_p = loss._encoded(x), loss.prior.sample((50,))
    features = cast(Any, loss.explicit_likelihood).features
    distance = (features(loss.generator(z_q)) - features(x)).square().sum(-1)
    reconstruction = (0.5 * distance + 1.5 * math.log(2 * math.pi)).mean()
    judged = [nn.functional.softplus(toy.f_discriminator(loss.generator(z))).mean() for z in (z_q, z_p)]
    torch.testing.assert_close(total, (0.25 * reconstruction - sum(judged)).detach())
    gradients = torch.autograd.grad(loss.encoder_loss(x), [*features.parameters()], allow_unused=True)
    assert gradients == (None, None)


def test_age_has_encoder_against_generator() -> None:
    loss, x = loss_of("AGE", latent_weight=3.0), toy.data(500)
    assert list(loss.networks()) == ["encoder", "generator"]
    encoder = cast(GaussianGuide, loss.encoder)
    pyro.set_rng_seed(1)
    found = loss.encoder_loss(x), loss.generator_loss(x)
    pyro.set_rng_seed(1)
    z = encoder.conditional(x).rsample()
    back = encoder.conditional(loss.generator(loss.prior.sample((500,)))).rsample()
    reconstruction = -normal().log_prob(loss.generator(z), x).mean()
    torch.testing.assert_close(found[0], reconstruction + moment_divergence(z) - moment_divergence(back))
    drawn = loss.prior.sample((500,))
    back = encoder.conditional(loss.generator(drawn)).rsample()
    latent = (drawn - back).square().sum(-1).mean()
    torch.testing.assert_close(found[1], moment_divergence(back) + 3 * latent)


def test_moment_divergence() -> None:
    """The sum over j of (m_j^2 + v_j - log v_j - 1) / 2; the published code, with v_j^2, gives another number."""
    z = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert moment_divergence(z).item() == pytest.approx(0.79185463, abs=1e-8)
    each = [moment_divergence(z[:, [j]]).item() for j in (0, 1)]
    assert each == pytest.approx([0.13842823, 0.65342641], abs=1e-8)
    mean, variance = z.mean(0), z.var(0, unbiased=False)
    published = (0.5 * (mean**2 + variance**2) - variance.log() - 0.5).mean()
    assert published.item() == pytest.approx(0.74497963, abs=1e-8)


def test_mmd_ties_latents_to_the_prior() -> None:
    loss = loss_of(Hybrid("explicit", "data", "mmd"), mmd_weight=2.0)
    x = toy.data(200)
    pyro.set_rng_seed(1)
    found = loss.encoder_loss(x)
    pyro.set_rng_seed(1)
    z = cast(GaussianGuide, loss.encoder).conditional(x).rsample()
    mmd = MMD(GaussianKernel([1.0]))(loss.prior.sample((200,)), z)
    torch.testing.assert_close(found, -normal().log_prob(loss.generator(z), x).mean() + 2 * mmd)
    assert loss.is_bound is False


def test_the_discriminator_may_have_another_proper_objective() -> None:
    loss, x = loss_of("DCGAN", objective=Brier()), toy.data(10)
    pyro.set_rng_seed(1)
    found = loss.discriminator_loss(x)
    pyro.set_rng_seed(1)
    fake = toy.f_discriminator(loss.generator(loss.prior.sample((10,)))).detach()
    torch.testing.assert_close(found, Brier().critic_loss(toy.f_discriminator(x), fake).detach())


def test_only_the_vae_is_a_bound() -> None:
    assert [name for name, hybrid in HYBRIDS.items() if hybrid.is_bound] == ["VAE"]
    assert list(HYBRIDS) == ["VAE", "DCGAN", "VAE-GAN", "Adversarial-VB", "AGE", "alpha-GAN"]
    for hybrid in HYBRIDS.values():
        hybrid.check()
        assert loss_of(hybrid).is_bound is hybrid.is_bound


MEANINGFUL = {
    ("explicit", "data", "analytic"), ("explicit", "data", "moment"), ("explicit", "data", "ratio(z)"),
    ("explicit", "data", "ratio(x, z)"), ("explicit", "data", "mmd"), ("synthetic", None, None),
    ("both", "data", "analytic"), ("both", "data", "ratio(z)"), ("both", "data", "ratio(x, z)"),
    ("both", "data", "mmd"), ("both", "features", "analytic"), ("both", "features", "ratio(z)"),
    ("both", "features", "ratio(x, z)"), ("both", "features", "mmd"),
}  # fmt: skip


@pytest.mark.parametrize("likelihood", ["explicit", "synthetic", "both"])
def test_combinations(likelihood: Any) -> None:
    """Each combination has finite losses, or raises with the reason."""
    terms = [None, "analytic", "moment", "ratio(z)", "ratio(x, z)", "mmd"]
    for space, latent in itertools.product([None, "data", "features"], terms):
        hybrid = Hybrid(likelihood, cast(Any, space), cast(Any, latent))
        if (likelihood, space, latent) in MEANINGFUL:
            losses = [player_loss(toy.data(8)) for player_loss in loss_of(hybrid).losses().values()]
            assert all(torch.isfinite(loss) and loss.shape == () for loss in losses)
        else:
            with pytest.raises(ValueError, match=r"Expected .*; got .* Say "):
                hybrid.check()


def test_doors() -> None:
    implicit = ImplicitGuide(toy.Noisy(), toy.prior(), event_shape=(1,))
    with pytest.raises(ValueError, match="ratio\\(x, z\\)"):
        loss_of("VAE", encoder=implicit).encoder_loss(toy.data(5))
    with pytest.raises(ValueError, match="Expected a Module as discriminator with .*; got None"):
        loss_of("alpha-GAN", discriminator=None)
    with pytest.raises(ValueError, match="Expected no discriminator"):
        loss_of("VAE", discriminator=nn.Linear(1, 1))
    with pytest.raises(ValueError, match="Expected a ratio\\(z\\); got ConditionalRatio"):
        loss_of("alpha-GAN", latent_ratio=ConditionalRatio(Joined(nn.Linear(2, 1))))
    with pytest.raises(ValueError, match="with features in the space 'features'"):
        loss_of("VAE-GAN", explicit_likelihood=laplace())
    with pytest.raises(ValueError, match="mean 0 and variance 1"):
        loss_of("AGE", prior=dist.Normal(torch.zeros(1).double(), 2.0).to_event(1))
    with pytest.raises(ValueError, match="batch_shape"):
        loss_of("DCGAN", prior=dist.Normal(torch.zeros(1).double(), 2.0))
    with pytest.raises(ValueError, match="calibrate"):
        loss_of("DCGAN", objective=Hinge())
    with pytest.raises(ValueError, match=r"conditional\(x\)"):
        loss_of("VAE", encoder=nn.Linear(1, 1))
    with pytest.raises(ValueError, match="data's shape"):
        loss_of("VAE", generator=nn.Linear(1, 2).double()).encoder_loss(toy.data(5))
    with pytest.raises(ValueError, match="form"):
        HYBRIDS["alpha-GAN"]._replace(form=cast(Any, "minimax")).check()
    with pytest.raises(ValueError, match="likelihood to be one of"):
        Hybrid(cast(Any, "laplace"), "data", "analytic").check()


def test_latents_of_encoder_and_prior_do_not_broadcast() -> None:
    loss = HybridLoss(
        HYBRIDS["VAE"],
        generator=nn.Linear(2, 3),
        prior=dist.Normal(0.0, 1.0).expand([1]).to_event(1),
        encoder=GaussianGuide(nn.Linear(3, 4), dim=2),
        explicit_likelihood=ExplicitLikelihood("normal", 1.0, reduction="sum"),
    )
    with pytest.raises(ValueError, match="the prior's latents"):
        loss.encoder_loss(torch.zeros(5, 3))
