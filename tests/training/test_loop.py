"""The training loop: bit-exact resume after any interruption, and no player is moved by another."""

import copy
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler

from pyro_gan import files
from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.training import NonFiniteLoss, Player, train
from pyro_gan.training.checkpoint import KIND
from tests.killed import die_at, run_killed

NUM_STEPS, EVERY = 60, 10


class Average:
    """The memory of a callback: an average of the generator's weights."""

    def __init__(self, network):
        self.network, self.network_average = network, copy.deepcopy(network.state_dict())

    def __call__(self, step, losses):
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.network_average[name].lerp_(value, 0.1)

    def state_dict(self):
        return self.network_average

    def load_state_dict(self, state):
        self.network_average = dict(state)


def make_gan(seed):
    """Return a small GAN in which every part has state: BatchNorm, Dropout, momenta, schedulers, two critic steps."""
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
    softplus = nn.functional.softplus

    def critic_loss(batch):
        real, z = batch
        return softplus(-critic(real)).mean() + softplus(critic(generator(z))).mean()

    def generator_loss(batch):
        return softplus(-critic(generator(batch[1]))).mean()

    critic_optimizer = Adam(critic.parameters(), lr=1e-2)
    generator_optimizer = SGD(generator.parameters(), lr=1e-2, momentum=0.9)
    return [
        Player("critic", critic, critic_optimizer, critic_loss, 2, lr_scheduler.LinearLR(critic_optimizer)),
        Player("generator", generator, generator_optimizer, generator_loss),
    ]


def next_batch():
    return torch.randn(16, 2) + 1.0, torch.randn(16, 2)


def run(seed, path=None, after=lambda step: None):
    """Train the GAN, and return everything that a run leaves behind; `after` may end the run in any way."""
    players = make_gan(seed)
    average = Average(players[1].module)

    def callback(step, losses):
        average(step, losses)
        return after(step)

    train(
        players,
        next_batch,
        num_steps=NUM_STEPS,
        callback=callback,
        state=average,
        checkpoint=path,
        checkpoint_every=EVERY,
        progress=False,
    )
    left = {f"average.{name}": value for name, value in average.network_average.items()}
    for player in players:
        left |= {f"{player.name}.{name}": value for name, value in player.module.state_dict().items()}
        for index, moments in player.optimizer.state_dict()["state"].items():
            left |= {f"{player.name}.{index}.{name}": value for name, value in moments.items()}
    left["rng"] = torch.get_rng_state()
    left["lr"] = torch.tensor([player.optimizer.param_groups[0]["lr"] for player in players])
    return left


def assert_equal_bits(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_interrupted_equals_uninterrupted(tmp_path, seed):
    class Crash(Exception):
        pass

    def crash(at, step):
        if step == at:
            raise Crash

    whole = run(seed)
    for at in (EVERY + 3, 3 * EVERY, 5 * EVERY + 1):
        with pytest.raises(Crash):
            run(seed, tmp_path / "run.pt", partial(crash, at))
    assert_equal_bits(run(seed + 1, tmp_path / "run.pt"), whole)  # the seed of a resumed run does not matter
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.pt"]


def test_a_killed_process_loses_only_the_steps_since_its_checkpoint(tmp_path, seed):
    path = tmp_path / "run.pt"
    run_killed(lambda: run(seed, path, die_at(3 * EVERY + 5)))
    assert files.load(path, kind=KIND)["progress"]["step"] == 3 * EVERY
    assert_equal_bits(run(seed, path), run(seed))


@pytest.fixture
def python_hears_ctrl_c():
    """Install Python's handler, which is missing where the signal is ignored, as in a shell's background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_hears_ctrl_c")
def test_ctrl_c_waits_for_the_step_and_leaves_a_checkpoint(tmp_path, seed):
    def interrupt(step):
        if step == 17:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(seed, tmp_path / "run.pt", interrupt)
    assert files.load(tmp_path / "run.pt", kind=KIND)["progress"]["step"] == 17
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_equal_bits(run(seed, tmp_path / "run.pt"), run(seed))

    def impatient(step):
        interrupt(17)
        interrupt(17)

    with pytest.raises(KeyboardInterrupt):
        run(seed, tmp_path / "none.pt", impatient)
    assert not (tmp_path / "none.pt").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_runs_outside_the_main_thread(tmp_path, seed):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(seed, tmp_path / "run.pt")))
    thread.start()
    thread.join()
    assert_equal_bits(found[0], run(seed))


def test_equals_a_plain_loop_and_leaves_no_gradient(seed):
    players = make_gan(seed)
    start = rng_state()
    train(players, next_batch, num_steps=5, progress=False)
    for player in players:
        assert all(p.grad is None for p in player.module.parameters())
    plain = make_gan(seed)
    set_rng_state(start)
    for _ in range(5):
        for player in plain:
            for _ in range(player.steps):
                for other in plain:
                    other.module.zero_grad()
                player.loss(next_batch()).backward()
                player.optimizer.step()
        plain[0].scheduler.step()
    for ours, theirs in zip(players, plain, strict=True):
        assert_equal_bits(dict(ours.module.state_dict()), dict(theirs.module.state_dict()))


def test_no_player_is_moved_by_another(seed):
    critic, generator = make_gan(seed)
    true_loss = critic.loss
    critic = critic._replace(loss=lambda batch: 0.0 * true_loss(batch))
    before = copy.deepcopy(critic.module.state_dict()), copy.deepcopy(generator.module.state_dict())
    for player in (critic, generator):  # stale gradients from before do not matter either
        for p in player.module.parameters():
            p.grad = torch.ones_like(p)
    train([generator, critic], next_batch, num_steps=5, progress=False)
    assert_equal_bits(dict(critic.module.state_dict()), dict(before[0]))
    assert not torch.equal(generator.module[3].weight, before[1]["3.weight"])


def test_a_true_callback_ends_the_run_for_good(tmp_path, seed):
    ended = run(seed, tmp_path / "run.pt", lambda step: step == 23)
    assert_equal_bits(run(seed, tmp_path / "run.pt"), ended)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_update(bad, seed):
    critic, generator = make_gan(seed)
    kept = []

    def turns_bad(batch):
        loss = generator.loss(batch)
        if len(steps) < 4:
            return loss
        kept.append(copy.deepcopy(generator.module[3].state_dict()))
        if bad == "gradient":  # a finite loss with gradient 0 / 0
            return loss + (0.0 * generator.module[3].weight).sum().abs().sqrt()
        return loss * bad

    steps = []
    with pytest.raises(NonFiniteLoss, match=r"'generator'.* at step 5"):
        train(
            [critic, generator._replace(loss=turns_bad)],
            next_batch,
            num_steps=10,
            callback=lambda step, losses: steps.append((step, sorted(losses))),
            progress=False,
        )
    assert steps == [(step, ["critic", "generator"]) for step in (1, 2, 3, 4)]
    assert_equal_bits(dict(generator.module[3].state_dict()), dict(kept[0]))


@pytest.mark.parametrize(
    "make",
    [
        partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
        partial(lr_scheduler.MultiStepLR, milestones=[3, 7]),
        partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=21),
        partial(lr_scheduler.CosineAnnealingLR, T_max=20),
    ],
)
def test_schedulers_of_torch_survive_a_resume(tmp_path, make):
    def rates(stop_at):
        model = nn.Linear(1, 1)
        optimizer = SGD(model.parameters(), lr=0.1)
        player = Player("line", model, optimizer, lambda x: model(x).square().mean(), 3, make(optimizer))
        seen = []

        def callback(step, losses):
            seen.append((step, optimizer.param_groups[0]["lr"]))
            if step == stop_at:
                raise InterruptedError

        options = dict(num_steps=20, checkpoint_every=4, progress=False, callback=callback)
        train([player], lambda: torch.randn(4, 1), checkpoint=tmp_path / "run.pt", **options)
        return seen

    whole = rates(None)
    (tmp_path / "run.pt").unlink()
    with pytest.raises(InterruptedError):
        rates(9)
    assert rates(None) == whole[8:]


def test_the_bar_shows_every_loss(seed, capsys):
    train(make_gan(seed), next_batch, num_steps=3)
    shown = capsys.readouterr().err
    assert "3/3" in shown and "critic=" in shown and "generator=" in shown


def options(**changes):
    return dict(num_steps=3, progress=False) | changes


def test_players_that_do_not_fit_raise(seed):
    critic, generator = make_gan(seed)
    both = SGD([*generator.module.parameters(), *critic.module.parameters()], lr=0.1)
    cases = {
        "different names": [critic, critic],
        "at least one player": [],
        "steps of player 'critic' of at least 1": [critic._replace(steps=0)],
        "belongs to players 'critic' and 'both'": [
            critic,
            Player("both", nn.ModuleList([generator.module, critic.module]), both, generator.loss),
        ],
        "its module does not hold": [generator._replace(optimizer=both)],
        "another optimiser": [generator._replace(scheduler=critic.scheduler)],
        "scalar loss .* of shape \\(\\); got \\(16, 1\\)": [
            generator._replace(loss=lambda b: generator.module(b[1])[:, :1])
        ],
        "does not depend on": [generator._replace(loss=lambda b: critic.loss(b) + torch.zeros(()))],
        "'critic' does not depend on": [critic._replace(loss=lambda b: critic.loss(b).detach())],
    }
    cases["does not depend on"][0] = generator._replace(loss=lambda b: critic.module(b[0]).mean())
    for message, players in cases.items():
        with pytest.raises(ValueError, match=message):
            train(players, next_batch, **options())
    for p in generator.module.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="'generator' has no parameter to train"):
        train([critic, generator], next_batch, **options())
    for wrong in (dict(num_steps=0), dict(checkpoint_every=0)):
        with pytest.raises(ValueError, match="at least 1"):
            train([critic], next_batch, **options(**wrong))


def test_a_checkpoint_that_does_not_fit_raises_and_touches_nothing(tmp_path, seed):
    path = tmp_path / "run.pt"
    critic, generator = make_gan(seed)
    train([critic, generator], next_batch, **options(checkpoint=path))
    wide = nn.Linear(2, 3)
    renamed = generator._replace(name="decoder")
    part = SGD(generator.module[0].parameters(), lr=0.1)
    cases = {
        "generator.module": [critic, generator._replace(module=wide, optimizer=SGD(wide.parameters(), lr=0.1))],
        "steps of player 'decoder' as in the checkpoint, absent; got 1": [critic, renamed],
        "steps of player 'generator' as in the checkpoint, 1; got absent": [critic],
        "generator.optimizer is SGD there and Adam": [
            critic,
            generator._replace(optimizer=Adam(generator.module.parameters())),
        ],
        "generator.optimizer.groups": [critic, generator._replace(optimizer=part)],
        "critic.scheduler": [critic._replace(scheduler=None), generator],
    }
    before = copy.deepcopy(critic.module.state_dict())
    with torch.no_grad():
        for p in critic.module.parameters():
            p.add_(1.0)
    for message, players in cases.items():
        with pytest.raises(ValueError, match=message):
            train(players, next_batch, **options(checkpoint=path))
    assert torch.equal(critic.module[0].weight, before["0.weight"] + 1.0)
    with pytest.raises(ValueError, match="state is absent there"):
        train([critic, generator], next_batch, **options(checkpoint=path, state=Average(critic.module)))

    with pytest.raises(ValueError, match="there is no .*missing"):
        train([critic], next_batch, **options(checkpoint=tmp_path / "missing" / "run.pt"))


def test_a_state_that_could_not_be_read_back_never_replaces_a_good_checkpoint(tmp_path, seed):
    class Memory(Average):
        def state_dict(self):
            return {"path": Path("x")} if getattr(self, "spoilt", False) else {}

    players = make_gan(seed)
    memory = Memory(players[0].module)

    def callback(step, losses):
        memory.spoilt = step == 2

    with pytest.raises(ValueError, match="tensors, numbers, strings"):
        train(
            players,
            next_batch,
            **options(checkpoint=tmp_path / "run.pt", checkpoint_every=1, callback=callback, state=memory),
        )
    assert files.load(tmp_path / "run.pt", kind=KIND)["progress"]["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
