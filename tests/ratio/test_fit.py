"""fit_log_ratio: a known ratio is found, overlap is kept, and an interrupted run continues with the same bits."""

import math
from functools import partial

import pytest
import torch
from pyro.distributions import Normal
from torch import nn
from torch.optim import SGD, Adam, AdamW

from pyro_gan.objectives import Bernoulli, Wasserstein
from pyro_gan.ratio import fit_log_ratio
from pyro_gan.ratio._course import best_point, is_still
from pyro_gan.ratio.diagnostics import FrontierPoint
from pyro_gan.training import NonFiniteLoss

PRIOR = Normal(0.0, 1.0).expand([1]).to_event(1)


class Quadratic(nn.Module):
    """A critic that can represent the log ratio of two Gaussians, and nothing else."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.zeros_(self.linear.weight)  # a random curvature could leave no overlap to begin with

    def forward(self, x):
        return self.linear(torch.cat([x, x.square()], 1))


def normal(num, mean, sd):
    return mean + sd * torch.randn(num, 1)


def mlp():
    return nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 1))


def fit(data=None, network=None, generator=None, prior=PRIOR, **options):
    """Fit, with small settings by default."""
    data = normal(2000, 1.0, 1.0) if data is None else data
    network = Quadratic() if network is None else network
    generator = nn.Identity() if generator is None else generator
    small = dict(num_steps=60, num_validation_draws=1000, eval_every=20, progress=False)
    return fit_log_ratio(generator, prior, data, network, **small | options)


def noisy_simulator(z):
    """Return N(0, 1) if the parameter is N(0, 1)."""
    return 0.6 * z + 0.8 * torch.randn_like(z)


def _same(value):
    return value


class Crash(Exception):
    """Stands for a power failure."""


class Breaking(nn.Module):
    """A generator that fails at the given call."""

    def __init__(self, at=math.inf):
        super().__init__()
        self.calls, self.at = 0, at

    def forward(self, z):
        self.calls += 1
        if self.calls == self.at:
            raise Crash
        return z


@pytest.mark.parametrize("objective", [Bernoulli(), Bernoulli(class_prior=0.2)], ids=repr)
@pytest.mark.parametrize("generator", [nn.Identity(), noisy_simulator], ids=["module", "simulator"])
def test_recovers_a_ratio_in_closed_form(objective, generator):
    log_ratio = fit(
        normal(50_000, 0.7, 0.8),
        generator=generator,
        objective=objective,
        num_steps=400,
        batch_size=512,
        num_validation_draws=5000,
        eval_every=40,
        optimizer=partial(Adam, lr=0.05),
    )
    x = torch.linspace(-1.5, 2.5, 81)[:, None]
    exact = (Normal(0.7, 0.8).log_prob(x) - Normal(0.0, 1.0).log_prob(x)).squeeze(1)
    # Over 20 seeds of each objective this was .03 (root mean square), .084 at most.
    assert (log_ratio(x) - exact).square().mean().sqrt() < 0.15
    assert log_ratio.report.n_real == log_ratio.report.n_generated == 5000


def test_report_and_frontier_are_of_the_state_returned():
    network = mlp()
    log_ratio = fit(network=network, num_steps=90, optimizer=partial(Adam, lr=0.01))
    assert [point.step for point in log_ratio.frontier] == [20, 40, 60, 80, 90]
    report = log_ratio.report
    assert log_ratio.ended == "num_steps: all 90 steps were made"
    assert log_ratio.critic is network
    assert not any(module.training for module in log_ratio.modules())
    assert report.n_real == 200 and report.n_generated == 1000


def test_keeps_the_best_state_that_leaves_enough_overlap():
    data = normal(4000, 2.0, 1.0)  # the exact ratio leaves an ESS fraction of exp(-4) = .018
    options = dict(num_steps=400, eval_every=10, optimizer=partial(Adam, lr=0.03), patience=100)
    # A slope from zero: overlap begins at 1, and falls as the ratio is learnt.
    networks = [nn.Linear(1, 1), nn.Linear(1, 1)]
    for network in networks:
        nn.init.zeros_(network.weight)
    kept = fit(data, networks[0], min_ess_fraction=0.3, **options)
    points = kept.frontier
    best = best_point(points, 0.3)
    assert best.ess_fraction >= 0.3
    assert abs(kept.report.tail.ess_fraction - best.ess_fraction) < 0.1 and abs(kept.report.auc - best.auc) < 0.05
    assert all(point.ess_fraction < 0.3 for point in points[-3:]) and points[-1].step < 400
    assert kept.ended == "overlap: the ESS fraction stayed below 0.3"
    free = fit(data, networks[1], min_ess_fraction=0.0, **options)
    assert free.report.tail.ess_fraction < 0.15
    assert min(point.log_loss for point in free.frontier) < best_point(points, 0.3).log_loss


def test_when_it_ends():
    def frontier(*figures):
        return [FrontierPoint(index, loss, 0.7, ess) for index, (loss, ess) in enumerate(figures)]

    falling = [(0.6, 0.5), (0.5, 0.3), (0.4, 0.05), (0.3, 0.04)]
    assert not is_still(frontier(*falling), 0, 0.1, 9)
    assert is_still(frontier(*falling, (0.2, 0.03)), 0, 0.1, 9).startswith("overlap")
    assert not is_still(frontier(*falling, (0.2, 0.03)), 3, 0.1, 9)  # a stage counts its own evaluations
    assert not is_still(frontier(*falling, (0.2, 0.2)), 0, 0.1, 9)
    assert not is_still(frontier(*[(0.8, 0.01)] * 4), 0, 0.1, 9)  # it has learnt nothing yet
    flat = [(0.6, 0.5), (0.5, 0.5), (0.51, 0.5), (0.52, 0.5)]
    assert is_still(frontier(*flat), 0, 0.1, 2).startswith("plateau") and not is_still(frontier(*flat), 0, 0.1, 3)
    assert not is_still(frontier(*flat), 3, 0.1, 2)
    # A lower loss counts only with enough overlap.
    assert is_still(frontier(*flat, (0.4, 0.05)), 0, 0.1, 3).startswith("plateau")
    assert best_point(frontier(*falling), 0.1) == (1, 0.5, 0.7, 0.3)
    assert best_point(frontier(*falling), 0.6) is None


def test_no_overlap_raises_and_shows_the_frontier():
    with pytest.raises(RuntimeError, match=r"min_ess_fraction=0.9(.|\n)*20 +0\.\d+ (.|\n)*Lower min_ess_fraction"):
        fit(normal(2000, 4.0, 0.5), min_ess_fraction=0.9, optimizer=partial(Adam, lr=0.3))


def test_a_broken_run_goes_on_to_the_same_bits(tmp_path):
    path = tmp_path / "fit.pt"
    data = normal(2000, 1.0, 1.0)
    options = dict(num_steps=100, optimizer=partial(AdamW, lr=0.01))
    state = torch.get_rng_state()
    whole = fit(data, mlp(), Breaking(), **options)
    torch.set_rng_state(state)
    for at in (40, 75):  # the first calls are those of the checks and of the held-out set
        with pytest.raises(Crash):
            fit(data, mlp(), Breaking(at), checkpoint=path, **options)
    resumed = fit(data, mlp(), Breaking(), checkpoint=path, **options)
    assert resumed.frontier == whole.frontier
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    done = Breaking()
    # A finished run trains no more and gives the same answer.
    again = fit(data, mlp(), done, checkpoint=path, **options)
    assert done.calls < 20 and again.frontier == whole.frontier and again.report.auc == whole.report.auc


def test_a_checkpoint_of_another_run_raises(tmp_path):
    path = tmp_path / "fit.pt"
    data = normal(2000, 1.0, 1.0)
    fit(data, checkpoint=path)
    cases = {
        "num_steps as in the checkpoint, 60; got 80": dict(num_steps=80),
        "min_ess_fraction as in the checkpoint, 0.1; got 0.2": dict(min_ess_fraction=0.2),
        "objective as in the checkpoint, Bernoulli.*0.5.*; got": dict(objective=Bernoulli(0.4)),
        "data of shape as in the checkpoint": dict(data=data[:1999]),
        "Expected the data, generator and prior of the checkpoint": dict(data=data + 0.01),
        "data, generator and prior of the checkpoint; got others": dict(generator=lambda z: z + 0.01),
        "critic.module": dict(network=mlp()),
        "critic.optimizer": dict(optimizer=partial(SGD, lr=0.1)),
    }
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=message):
            fit(**dict(data=data, checkpoint=path) | changes)


def test_batch_norm_sees_both_classes_at_once():
    # If it saw the classes separately it would subtract their difference.
    network = nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Linear(1, 1))
    options = dict(num_steps=150, eval_every=150, min_ess_fraction=0.0, optimizer=partial(Adam, lr=0.1))
    log_ratio = fit(normal(4000, 2.0, 1.0), network, **options)
    assert log_ratio.frontier[-1].log_loss < 0.5  # .35 for the exact ratio, .69 for a constant


def test_rows_held_out_are_never_trained_on():
    # Data and draws differ by nothing that generalises, and a critic of this width memorises 100 rows.
    prior = Normal(0.0, 1.0).expand([20]).to_event(1)
    network = nn.Sequential(nn.Linear(20, 128), nn.SiLU(), nn.Linear(128, 1))
    options = dict(num_steps=150, validation_fraction=0.25, min_ess_fraction=0.0, optimizer=partial(Adam, lr=0.01))
    log_ratio = fit(torch.randn(200, 20), network, prior=prior, **options)
    assert log_ratio.frontier[-1].log_loss > math.log(2)


def test_the_generator_is_left_alone():
    generator = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).eval()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    modes = []
    generator.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    fit(generator=generator)
    assert modes and not any(modes)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in generator.parameters())


def test_follows_the_dtype():
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1)
    log_ratio = fit(normal(2000, 1.0, 1.0).double(), Quadratic().double(), prior=prior, min_ess_fraction=0.0)
    assert log_ratio(torch.zeros(2, 1, dtype=torch.float64)).dtype == torch.float64


def test_nothing_untrained_is_needed_of_the_default_settings():
    log_ratio = fit_log_ratio(
        nn.Identity(), PRIOR, normal(1000, 1.0, 1.0), nn.Linear(1, 1), num_steps=40, progress=False
    )
    assert [point.step for point in log_ratio.frontier] == [40]


def test_what_does_not_fit_raises():
    data = normal(2000, 1.0, 1.0)
    nan = data.clone()
    nan[3] = math.nan
    wide = Normal(0.0, 1.0).expand([3]).to_event(1)
    cases = {
        "not a log density ratio": dict(objective=Wasserstein()),
        r"min_ess_fraction in \[0, 1\); got 1": dict(min_ess_fraction=1.0),
        r"min_ess_fraction in \[0, 1\); got -0.1": dict(min_ess_fraction=-0.1),
        r"validation_fraction in \(0, 1\); got 0": dict(validation_fraction=0.0),
        "num_steps of at least 1": dict(num_steps=0),
        "batch_size of at least 1": dict(batch_size=0),
        "eval_every of at least 1": dict(eval_every=0),
        "patience of at least 1": dict(patience=0),
        "num_validation_draws of at least 50": dict(num_validation_draws=10),
        "num_steps to be a whole number .* got nan": dict(num_steps=math.nan),
        "generator to be a function": dict(generator="x"),
        "prior of type Distribution; got None": dict(prior=None),
        "a function without arguments that makes one; got": dict(network=lambda x: x),
        "each network of type Module; got": dict(network=lambda: 3),
        "Expected a network, or a function that makes one; got 'x'": dict(network="x"),
        "function that makes one, for 3 networks": dict(num_networks=3),
        "makes a new network at each call": dict(num_networks=3, network=partial(_same, Quadratic())),
        "num_networks of at least 1": dict(num_networks=0),
        "positive, finite max_seconds; got 0.0": dict(max_seconds=0.0),
        "penalty of type Penalty; got": dict(penalty=1.0),
        "at least 50 rows to choose .* give 10, 10 and 80": dict(data=data[:100]),
        "at least 50 rows .* give 980, 980 and 40": dict(validation_fraction=0.49),
        "finite real data": dict(data=nan),
        "real data as real numbers; got torch.uint8.*Scale images": dict(data=data.to(torch.uint8)),
        "real data to be a torch.Tensor; got .*ndarray": dict(data=data.numpy()),
        r"network that takes a batch of data, of shape \(2, 3\); got RuntimeError": dict(
            data=data.expand(-1, 3), prior=wide
        ),
        r"Expected a critic output of shape \(2,\)": dict(network=nn.Linear(1, 2)),
        "network and data of one dtype.*float32 on cpu and torch.float64": dict(data=data.double()),
        "no parameters|parameters that require": dict(network=nn.Identity()),
        "network and data of one dtype and device.*meta": dict(network=Quadratic().to("meta")),
        r"generated data of shape \(2, 1\).*\(2, 3\)": dict(prior=wide),
        r"generated data of shape \(2, 1\).*\(1,\)": dict(generator=lambda z: z.mean(0)),
        "generated data in one tensor; got .*tuple": dict(generator=lambda z: (z, z)),
        "generator's dtype and device, torch.float64": dict(generator=lambda z: z.double()),
        "generator's dtype and device.*meta": dict(generator=lambda z: z.to("meta")),
        r"draws of the prior, of shape \(8, 1\); got RuntimeError": dict(generator=nn.Linear(2, 1)),
        "generator in evaluation mode; got its BatchNorm1d": dict(generator=nn.BatchNorm1d(1)),
        "finite generated data": dict(generator=lambda z: z / 0.0),
        "there is no .*missing": dict(checkpoint="missing/fit.pt"),
        "drives another optimiser": dict(
            scheduler=lambda _: torch.optim.lr_scheduler.ConstantLR(SGD([torch.zeros(1)], lr=1.0))
        ),
    }
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=message):
            fit(**dict(data=data) | changes)


def test_a_generator_that_turns_nan_stops_the_run():
    calls = []

    def generator(z):
        calls.append(len(z))
        return z if len(calls) < 20 else z * math.nan

    with pytest.raises(NonFiniteLoss, match="'critic' has loss nan .* at step"):
        fit(generator=generator)
