"""What a finished fit says: why it ended, by rows that chose nothing, and what is wrong with it."""

import warnings

import pytest
import torch
from pyro.distributions import Normal
from torch import nn
from torch.optim import Adam

from pyro_gan.objectives import R1, Bernoulli
from pyro_gan.ratio import LogRatio, MeanLogRatio, fit_log_ratio
from pyro_gan.ratio._course import Course
from pyro_gan.ratio._fit_checks import range_complaint
from pyro_gan.ratio._judge import Judge, set_training
from pyro_gan.ratio._links import Links
from pyro_gan.ratio._scores import Scores
from pyro_gan.ratio._verdict import complaints
from pyro_gan.ratio.diagnostics import FrontierPoint, diagnose
from tests.statistics import NUM_SE

PRIOR = Normal(0.0, 1.0).expand([1]).to_event(1)
NOTHING, SEPARATES, UNITS = "nothing to gain: sample G", "do not overlap", "seem to be in different units"


def fit(data, network, prior=PRIOR, **options):
    small = dict(num_steps=100, num_validation_draws=1000, progress=False, optimizer=lambda p: Adam(p, lr=0.03))
    return fit_log_ratio(nn.Identity(), prior, data, network, **small | options)


def normal(num, mean, sd=1.0, dim=1):
    return mean + sd * torch.randn(num, dim)


def said(call):
    """Return the result, and the warnings as one text."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    return result, " ".join(str(warning.message) for warning in found)


@pytest.mark.parametrize("fold", [(0, 1), (0, 3), (2, 3)])
def test_the_rows_that_judge_neither_train_nor_choose(fold):
    """tests/numbers/test_fresh_ratio.py shows the bias that this removes."""
    network = nn.Linear(1, 1)
    course = Course(Adam(network.parameters()), True, 10, 10.0, 5, 0.0)
    log_ratio, data = LogRatio(network, Bernoulli()), normal(1000, 0.0)
    settings = {"num_validation_draws": 200, "eval_every": 5}

    def judge(fold, **start):
        return Judge(Links([log_ratio]), data, lambda n: torch.randn(n, 1), 100, course, settings, fold, **start)

    one = judge(fold)
    parts = one.judging_rows.tolist(), one.choosing_rows.tolist(), one.training_rows.tolist()
    assert sorted(sum(parts, [])) == list(range(1000)) and len(parts[0]) == 100
    assert len(parts[1]) == (100 if fold[1] == 1 else 300)
    real, generated = one.judging_sets
    assert torch.equal(real, data[parts[0]]) and torch.equal(generated, one.generated[200:])
    # Another fold from the same start has the same judges and other choosers, and moves no generator.
    state = torch.get_rng_state()
    other = judge((1, 3), start=one.start)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(other.judging_rows, one.judging_rows) and torch.equal(other.generated, one.generated)
    if fold[1] == 3:
        assert not set(parts[1]) & set(other.choosing_rows.tolist())


@pytest.mark.parametrize(
    "shift, scale, words",
    [(1.0, 1.0, []), (60.0, 1.0, [SEPARATES]), (128.0, 70.0, [UNITS])],
    ids=["shifted", "apart", "units"],
)
def test_what_is_said(shift, scale, words):
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    data = normal(3000, shift, scale)
    _, text = said(lambda: fit(data, network, min_ess_fraction=0.0, optimizer=lambda p: Adam(p, lr=0.1)))
    for word in (NOTHING, SEPARATES, UNITS):
        assert (word in text) == (word in words), text


def test_a_ratio_no_better_than_a_constant():
    """A ratio of pure noise loses about eight standard errors against a constant; a constant gains nothing."""
    noise, useful = [Scores(shift + 0.5 * torch.randn(2000), 0.5 * torch.randn(2000) - shift) for shift in (0, 0.5)]
    for scores in (noise, Scores(torch.zeros(50), torch.zeros(50))):
        (text,) = complaints(diagnose(*scores), scores)
        assert NOTHING in text
    assert not list(complaints(diagnose(*useful), useful))
    apart = Scores(useful.real + 20, useful.generated)
    (text,) = complaints(diagnose(*apart), apart)
    assert SEPARATES in text


@pytest.mark.parametrize("share, is_wrong", [(0.25, True), (1.0, False)])
def test_a_ratio_that_has_not_learnt_by_how_much(share, is_wrong):
    """Of N(3, 1) against N(0, 1), a quarter of the exact log ratio has the mean exp(9/32 - 9/8) = .43 over N(0, 1)."""
    real, generated = (share * (3 * x - 4.5) for x in (3 + torch.randn(20_000), torch.randn(20_000)))
    found = list(complaints(diagnose(real, generated), Scores(real.double(), generated.double())))
    assert len(found) == is_wrong and all("The fresh ratio is wrong" in text for text in found)


def test_ranges_of_pixels_in_other_units():
    tanh, sigmoid = torch.rand(50, 28, 28) * 2 - 1, torch.rand(50, 28, 28)
    assert range_complaint(255 * sigmoid, tanh)
    assert range_complaint(sigmoid, tanh) and range_complaint(tanh, sigmoid)
    assert not range_complaint(tanh, 0.9 * tanh)
    sparse = torch.zeros(50, 28, 28)
    sparse[:, 3, 3] = torch.rand(50)
    heavy = torch.randn(100_000, 1) ** 5
    assert not range_complaint(sparse, sigmoid)
    assert not range_complaint(heavy, torch.randn(100_000, 1).pow(5))


def test_it_trains_to_the_plateau_and_lowers_the_rate():
    rates = []
    log_ratio = fit(
        normal(4000, 1.0),
        nn.Linear(1, 1),
        num_steps=100_000,
        eval_every=5,
        patience=4,
        optimizer=lambda p: Spy(p, rates),
    )
    assert log_ratio.ended == "plateau: the held-out loss did not fall in 4 evaluations"
    assert sorted({round(rate / 0.05, 6) for rate in rates}) == [1 / 16, 1 / 4, 1.0]
    assert rates == sorted(rates, reverse=True)


class Spy(Adam):
    """Notes the learning rate of each step."""

    def __init__(self, parameters, rates):
        super().__init__(parameters, lr=0.05)
        self.rates = rates

    def step(self, closure=None):
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def test_the_rate_comes_down_before_steps_or_time_are_used_up():
    rates = []
    ratio = fit(normal(2000, 1.0), nn.Linear(1, 1), num_steps=50, optimizer=lambda p: Spy(p, rates))
    assert ratio.ended.startswith("num_steps") and rates[:41] == pytest.approx([0.05] * 41)
    assert rates[-1] == pytest.approx(0.05 / 10) and rates[45] == pytest.approx(0.05 / 2)
    course = Course(Adam(nn.Linear(1, 1).parameters(), lr=1.0), True, 10**9, 100.0, 5, 0.0)
    course.began -= 90
    course.set_rate(1)
    assert course.optimizer.param_groups[0]["lr"] == pytest.approx(0.5, rel=1e-3)
    assert not course.is_last(7)
    course.began -= 10
    assert course.is_last(7) and course.ended == "max_seconds: 100 seconds were used up after 7 steps"


def test_time_ends_a_run():
    ratio = fit(normal(2000, 1.0), nn.Linear(1, 1), num_steps=10**6, patience=10**6, max_seconds=0.5)
    assert ratio.ended.startswith("max_seconds: 0.5 seconds") and ratio.report.auc > 0.6


def test_a_stage_begins_from_the_best_state_and_a_scheduler_has_none():
    points = [FrontierPoint(1, 0.5, 0.7, 0.5), FrontierPoint(2, 0.6, 0.7, 0.5)]
    for own, stage in ((True, 1), (False, 0)):
        course = Course(Adam(nn.Linear(1, 1).parameters(), lr=1.0), own, 100, 100.0, 1, 0.0)
        assert course.next_stage(points) == own and course.stage == stage
        assert bool(course.ended) != own


def test_a_resumed_course_goes_on_at_its_rate():
    def course():
        return Course(Adam(nn.Linear(1, 1).parameters(), lr=1.0), True, 100, 50.0, 1, 0.0)

    old, new = course(), course()
    old.next_stage([FrontierPoint(1, 0.5, 0.7, 0.5), FrontierPoint(2, 0.6, 0.7, 0.5)])
    old.began -= 30
    new.load_state_dict(old.state_dict())
    new.set_rate(10)
    assert new.optimizer.param_groups[0]["lr"] == 0.25 and new.first == 2
    assert new.seconds == pytest.approx(30, abs=1)


def test_boosted_trees_notice_what_a_small_network_misses():
    """Data on a circle of the generator's mean and variance: a line finds nothing."""
    angle = 6.283 * torch.rand(4000)
    data = 1.4 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(4000, 2)
    prior = Normal(0.0, 1.0).expand([2]).to_event(1)
    ratio, text = said(lambda: fit(data, nn.Linear(2, 1), prior, reference=True))
    assert ratio.reference.advantage > 0.2 and "Boosted trees on the same rows know more" in text
    data = normal(4000, 1.0)
    ratio, text = said(lambda: fit(data, nn.Linear(1, 1), reference=True))
    assert ratio.reference.advantage < NUM_SE * ratio.reference.advantage_se and not text


def test_several_networks_are_fitted_without_a_fold_each():
    data = normal(3000, 1.0)
    ratio = fit(data, lambda: nn.Linear(1, 1), num_networks=3)
    mean = ratio.critic
    assert isinstance(mean, MeanLogRatio) and len(mean.members) == 3
    assert ratio.report.n_real == 300 and ratio.ended.count("num_steps") == 3
    x = torch.linspace(-1, 2, 7)[:, None]
    each = mean.each(x)
    assert torch.allclose(ratio(x), each.mean(0)) and not torch.equal(each[0], each[1])
    # The jackknife by its definition.
    assert torch.allclose(mean.standard_error(x) ** 2, 2 / 3 * (each - each.mean(0)).square().sum(0))
    assert all(len(member.frontier) == 2 for member in mean.members)


def test_several_networks_resume(tmp_path):
    data = normal(3000, 1.0)
    whole = fit(data, lambda: nn.Linear(1, 1), num_networks=2, checkpoint=tmp_path / "fit.pt")
    again = fit(data, lambda: nn.Linear(1, 1), num_networks=2, checkpoint=tmp_path / "fit.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.pt.0", "fit.pt.1"]
    x = torch.linspace(-1, 2, 7)[:, None]
    assert torch.equal(whole(x), again(x)) and whole.report.auc == again.report.auc


def test_a_ratio_of_features_is_exact_for_their_distribution():
    """The encoder keeps x0 + x1, whose ratio between N((1, 1), I) and N(0, I) is s - 1 in closed form.

    Of x2, by which every row is told apart, it sees nothing: the ratio of features leaves overlap, that of x does not.
    """
    encoder = nn.Sequential(nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    with torch.no_grad():
        encoder[0].weight.copy_(torch.tensor([[1.0, 1.0, 0.0]]))
    encoder.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    network = nn.Sequential(encoder, nn.Linear(1, 1))
    prior = Normal(0.0, 1.0).expand([3]).to_event(1)
    data = normal(20_000, torch.tensor([1.0, 1.0, 30.0]), dim=3)
    # Here the ranges differ because of x2, which is said.
    ratio, _ = said(lambda: fit(data, network, prior, num_steps=400, batch_size=512, num_validation_draws=4000))
    x = torch.randn(1000, 3)
    s = x[:, 0] + x[:, 1]
    # Over 20 seeds the root mean square error was .04, and .10 at most.
    assert (ratio(x) - (s - 1)).square().mean().sqrt() < 0.25
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder.training


def test_frozen_parts_stay_in_evaluation_mode():
    encoder = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Dropout()).requires_grad_(False)
    network = nn.Sequential(encoder, nn.Dropout(), nn.Linear(1, 1))
    set_training(network)
    assert not any(module.training for module in encoder.modules())
    assert network.training and network[1].training and network[2].training


def test_a_penalty_makes_the_ratio_flatter():
    data = normal(3000, 1.0)
    slopes = [float(fit(data, nn.Linear(1, 1), penalty=penalty).critic.weight.detach()) for penalty in (None, R1(1.0))]
    assert slopes[1] < slopes[0] - 0.2
