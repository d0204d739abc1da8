"""Telescoping: its bridges and its sum against formulas, who wins and what that says, and how a run resumes."""

import math
import warnings
from functools import partial

import pytest
import torch
from pyro.distributions import Normal
from torch import nn
from torch.optim import Adam

from pyro_gan.objectives import R1, Bernoulli
from pyro_gan.ratio import LogRatio, MeanLogRatio, SumLogRatio, Telescoping, fit_log_ratio
from pyro_gan.ratio._contest import winner
from pyro_gan.ratio._course import Course
from pyro_gan.ratio._judge import Judge
from pyro_gan.ratio._links import Links
from pyro_gan.ratio.diagnostics import FrontierPoint
from tests.statistics import NUM_SE, assert_close_in_se

SHIFT = 2.0


def line(weight=0.0, bias=0.0):
    made = nn.Linear(1, 1)
    nn.init.constant_(made.weight, weight)
    nn.init.constant_(made.bias, bias)
    return made


def chain(*lines):
    return Links([LogRatio(line(*each), Bernoulli()) for each in lines])


def fit(network=line, num_rows=4000, **options):
    small = dict(num_steps=200, batch_size=256, num_validation_draws=1000, progress=False, min_ess_fraction=0.0)
    prior = Normal(0.0, 1.0).expand([1])
    adam = partial(Adam, lr=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = SHIFT + torch.randn(num_rows, 1)
        return fit_log_ratio(nn.Identity(), prior, data, network, optimizer=adam, **small | options)


def test_bridges_are_as_wide_as_the_ends_and_between_their_means():
    number, centre = 20_000, torch.full((2,), 5.0)
    generated, real = torch.randn(number, 2) + 4, torch.randn(number, 2) + 6
    points = Links([LogRatio(nn.Linear(2, 1), Bernoulli()) for _ in range(4)]).waypoints(real, generated, centre)
    assert len(points) == 5 and points[0] is generated and points[-1] is real
    for place, point in enumerate(points):
        angle = math.pi / 2 * place / 4
        mean = 5 + math.sin(angle) - math.cos(angle)
        assert_close_in_se(point.mean(), mean, 1 / math.sqrt(2 * number), "mean")
        # The variance of a sample variance is 2 / n.
        assert_close_in_se(point.var(0).mean(), 1.0, 1 / math.sqrt(number), "variance")
    (only,) = [Links([LogRatio(nn.Linear(2, 1), Bernoulli())]).waypoints(real, generated, centre)]
    assert only[0] is generated and only[1] is real


def test_the_loss_of_a_chain_is_the_mean_over_its_links():
    """Of N(2, 1) and N(0, 1) the middle bridge is N(sqrt 2, 1) about the centre 0; each link has its own line."""
    links = chain((0.7, 0.1), (0.4, -0.2))
    real, generated, centre = torch.randn(100, 1) + SHIFT, torch.randn(100, 1), torch.zeros(1)
    middle = (real + generated) / math.sqrt(2)
    by_hand = [
        Bernoulli().critic_loss(log_ratio(far), log_ratio(near))
        for log_ratio, far, near in zip(links.log_ratios, (middle, real), (generated, middle), strict=True)
    ]
    assert torch.allclose(links.loss(real, generated, centre), torch.stack(by_hand).mean())
    assert links.held_out_loss(real, generated, centre) == pytest.approx(float(sum(by_hand).detach()) / 2, rel=1e-5)
    steep = links.loss(real, generated, centre, penalty=R1(2.0)) - links.loss(real, generated, centre)
    assert steep.item() == pytest.approx((0.7**2 + 0.4**2) / 2, rel=1e-4)  # R1(2) adds the mean squared slope


def test_a_telescoped_ratio_is_that_of_the_ends():
    """Lines can represent every link of two shifted Gaussians, so both contestants can be exact."""
    ratio = fit(num_bridges=2, num_rows=8000, num_steps=150)
    x = torch.linspace(-1, 3, 41)[:, None]
    exact = SHIFT * x[:, 0] - SHIFT**2 / 2
    record = ratio.telescoping
    assert isinstance(ratio.critic, SumLogRatio) == record.won and record.num_bridges == 2
    assert abs(record.advantage) < NUM_SE * record.advantage_se  # neither can be better
    # Over 20 seeds the root mean square error was .06 on average, whichever won.
    assert float((ratio(x) - exact).square().mean().sqrt()) < 0.4
    assert not ratio.critic.training and ratio.report.n_real == 800


def judged(links, is_found=True):
    """Return the judge of a chain that is not trained."""
    course = Course(Adam(links.network.parameters()), True, 10, 10.0, 5, 0.3)
    settings = {"num_validation_draws": 2000, "eval_every": 5}
    data = torch.randn(20_000, 1) + SHIFT
    judge = Judge(links, data, lambda num: torch.randn(num, 1), 2000, course, settings)
    judge.best = {"weight": 1} if is_found else {}
    judge.frontier = [FrontierPoint(5, 0.6, 0.7, 0.2)]
    return judge


def test_the_lower_loss_wins_and_the_record_says_so():
    exact, poor = [(1.0, -1.0), (1.0, -1.0)], [(0.1, 0.0), (0.1, 0.0)]
    pyro_state = torch.get_rng_state()
    for terms, single, wins in ((exact, (0.3, 0.0), True), (poor, (SHIFT, -2.0), False)):
        torch.set_rng_state(pyro_state)
        plain = judged(chain(single))
        telescoped = judged(chain(*terms))
        best = winner([plain, telescoped])
        record = best.links.log_ratio.telescoping
        assert best is (telescoped if wins else plain) and record.won == wins
        assert abs(record.advantage) > 3 * record.advantage_se > 0
        assert str(record).startswith("telescoped ratio, 1 bridges" if wins else "single network")
        if wins:
            # The exact log loss of N(2, 1) against N(0, 1), by quadrature.
            x = torch.linspace(-12, 14, 20_001, dtype=torch.float64)
            density = Normal(0.0, 1.0).log_prob(x).exp()
            expected = torch.trapezoid(density * nn.functional.softplus(SHIFT * x - 2), x)
            assert record.log_loss == pytest.approx(float(expected), abs=0.03)


@pytest.mark.parametrize("single, telescoped", [(True, False), (False, True), (False, False)])
def test_one_without_overlap_loses(single, telescoped):
    judges = [judged(chain((0.3, 0.0)), single), judged(chain((0.3, 0.0), (0.3, 0.0)), telescoped)]
    if not (single or telescoped):
        with pytest.raises(RuntimeError, match="No evaluation found the wanted overlap"):
            winner(judges)
        return
    record = winner(judges).links.log_ratio.telescoping
    assert record.won == telescoped and math.isnan(record.advantage_se)
    assert math.isinf(record.log_loss) != telescoped


def test_a_plain_fit_has_no_record():
    network = line()
    ratio = fit(network, num_steps=20)
    assert ratio.telescoping is None and ratio.critic is network


def test_every_fold_chooses_for_itself_and_resumes(tmp_path):
    path = tmp_path / "fit.pt"
    options = dict(num_bridges=1, num_networks=2, num_steps=40, checkpoint=path)
    torch.manual_seed(0)
    whole = fit(**options)
    assert isinstance(whole.critic, MeanLogRatio)
    assert all(isinstance(member.telescoping, Telescoping) for member in whole.critic.members)
    assert whole.telescoping is None
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"fit.pt.0", "fit.pt.0.bridges", "fit.pt.1", "fit.pt.1.bridges"}
    torch.manual_seed(0)
    again = fit(**options)
    x = torch.linspace(-1, 3, 9)[:, None]
    assert torch.equal(whole(x), again(x)) and whole.report.auc == again.report.auc


def test_half_of_the_time_is_for_each():
    ratio = fit(num_bridges=1, num_steps=10**6, patience=10**6, max_seconds=0.6)
    assert ratio.ended.startswith("max_seconds: 0.") and ratio.telescoping is not None


def test_what_does_not_fit_raises():
    with pytest.raises(ValueError, match=r"num_bridges of at least 0; got -1.*0 fits one network"):
        fit(num_bridges=-1)
    with pytest.raises(ValueError, match="function that makes one, for 4 networks"):
        fit(line(), num_bridges=2)
    with pytest.raises(ValueError, match="A single log ratio is no sum"):
        SumLogRatio([nn.Linear(1, 1)])
    with pytest.raises(ValueError, match="each of members of type Module"):
        SumLogRatio([nn.Linear(1, 1), lambda x: x])
