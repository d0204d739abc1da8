"""The demo, small: every stage runs, every file is complete, and bad input gives an error."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from pyro_gan import LatentPosterior, demo, evaluate, improve, toys
from pyro_gan.__main__ import main
from pyro_gan.demo import job
from pyro_gan.demo.job import best_run, write
from pyro_gan.demo.judge import Judge
from pyro_gan.demo.networks import LATENT_DIM, Ratio, Splits
from pyro_gan.demo.pictures import PICTURES
from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import LEAPFROG_STEPS, MIN_OUTPUTS, SAMPLERS, metered, sample
from pyro_gan.demo.table import COLUMNS, table
from pyro_gan.targets.gradient import NUM_TRIED, WAYS

FILES = {"table.txt", "results.json", "samples.png", "reliability.png", "frontier.png", "scores.png", "idata.nc"}
WITHOUT_CHAIN = {name for name in SAMPLERS if "ImportanceResampler" in name or "RejectionSampler" in name}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the demo small, by the command line; return its folder, what it printed and what it found."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    printed = io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found, run = [], demo.run
    # The table shows the package's warnings; none gets past it.
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        # Two defaults take most of the time, and other tests run them: improve's features, and the critic that the
        # judge fits for each of twenty rows.
        patch.setattr(job, "improve", functools.partial(improve, features=lambda x: x.flatten(1)[:, ::8]))
        quick_critic = functools.partial(evaluate.residual_auc, classifier=GaussianNB())
        patch.setattr(evaluate, "residual_auc", quick_critic)
        patch.setattr(demo, "run", lambda *given: found.append(run(*given)))
        main(["demo", "--quick", "--seed", "3", "--out", str(out)])
    torch.set_num_threads(threads)
    return {"out": out, "printed": printed.getvalue(), "results": found[0]}


def test_writes_every_file_and_says_where(quick: dict[str, Any]) -> None:
    assert {path.name for path in quick["out"].iterdir()} == FILES, "no file missing, none left half-written"
    for name in FILES:
        assert str(quick["out"] / name) in quick["printed"]
        assert (quick["out"] / name).stat().st_size > 500


def test_says_what_it_does_and_how_long_it_took(quick: dict[str, Any]) -> None:
    for stage in ("training the GAN", "calibrating its own critic", "fitting a fresh critic", *SAMPLERS):
        line = next(line for line in quick["printed"].splitlines() if line.startswith(stage))
        assert line.endswith(" s")


def test_table_is_printed_and_has_its_columns(quick: dict[str, Any]) -> None:
    text = (quick["out"] / "table.txt").read_text()
    assert text in quick["printed"]
    lines = text.splitlines()
    last = next(i for i, line in enumerate(lines) if line.startswith("---")) - 1
    assert max(map(len, lines[last - 1 : last + 2])) <= 160, "a terminal's width"
    for name in COLUMNS:
        first, _, second = name.rpartition("\n")
        assert first in lines[last - 1] and second in lines[last]
    for name in ("real digits", "G alone", *SAMPLERS):
        # A cell that runs into the next would hide both.
        width = sum(int(width[1:]) for width, _ in COLUMNS.values())
        assert all(len(line) <= width for line in lines if line.strip().startswith(name))
        assert any(line.strip().startswith(name) for line in lines)
    assert "QUICK" in text


def test_figures_are_all_there(quick: dict[str, Any]) -> None:
    found = json.loads((quick["out"] / "results.json").read_text())
    assert found["settings"]["seed"] == 3 and found["settings"]["quick"]
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert sum(found["splits"].values()) == 1797
    rows = {(row["ratio"], row["sampler"]): row for row in found["rows"]}
    refused = {(row["ratio"], row["sampler"]) for row in found["refused"]}
    for ratio in found["ratios"]:
        for sampler in SAMPLERS:
            assert ((ratio, sampler) in rows) != ((ratio, sampler) in refused)
    for row in found["rows"]:
        assert (row["ratio"] == "") == ("log_ratio" not in row)
        if row["ratio"] and row["sampler"] not in SAMPLERS:
            continue
        assert 1 <= row["score"] <= 10 and row["score_se"] > 0
        assert 0 <= row["residual_auc"] <= 1 and 0 <= row["class_tv"] <= 1 and row["frechet"] > 0
        if row["sampler"] not in SAMPLERS:
            continue
        assert row["seconds"] > 0 and row["ess"] > 0 and row["cost"] > 0
        assert 0 < row["distinct"] <= row["outputs"] <= found["settings"]["num_chains"]
        # A sampler without chains has null where a chain has a figure.
        is_chain = row["sampler"] not in WITHOUT_CHAIN
        assert all((row[name] is not None) == is_chain for name in ("rhat", "never_moved"))
        assert (row["acceptance"] is not None) == (row["sampler"] != "ImportanceResampler")
        if is_chain:
            assert row["exact"] == ("no" if row["sampler"].startswith("DDLS") else "limit")
    reals, alone = rows["", "real digits"], rows["", "G alone"]
    assert reals["score"] > alone["score"] and reals["frechet"] < alone["frechet"], "the judge sees what is obvious"


def test_container_opens_in_arviz_and_is_the_best_run(quick: dict[str, Any]) -> None:
    import arviz

    idata = arviz.from_netcdf(quick["out"] / "idata.nc")
    settings = demo.settings(quick=True)
    z = idata.posterior["z"]
    assert z.shape[0] == settings.num_chains and z.shape[2] == LATENT_DIM
    assert idata.posterior_predictive["x"].shape[2:] == (1, 8, 8)
    assert {"log_ratio", "acceptance_rate", "moved", "energy"} <= set(idata.sample_stats)
    rows = json.loads((quick["out"] / "results.json").read_text())["rows"]
    best = min((row for row in rows if row.get("exact") == "limit" and row["rhat"]), key=lambda row: row["rhat"])
    assert (idata.attrs["sampler"], idata.attrs["ratio"]) == (best["sampler"], best["ratio"])
    worst = max(float(arviz.rhat(z.values[:, :, index])) for index in range(LATENT_DIM))
    assert worst <= best["rhat"] + 1e-6


def test_chains_cost_the_same(quick: dict[str, Any]) -> None:
    settings = quick["results"].record["settings"]
    chain_cost = settings["chain_cost"]
    # At setup a gradient is tried at some rows and once for each way from them; value and gradient cost 3.
    trial = 3 * (1 + len(WAYS)) * NUM_TRIED / settings["num_chains"]
    for row in quick["results"].rows:
        # The start costs a value, with a gradient where the kernel needs one. A restart takes steps of its own.
        if row.mcmc is not None and "data" not in row.sampler:
            most = chain_cost + 5 + (trial if row.mcmc.kernel.uses_gradient else 0)
            assert chain_cost <= row.figures["cost"] <= most, row.sampler


@pytest.mark.parametrize("is_quick", [False, True])
def test_steps_spend_the_whole_cost(is_quick: bool) -> None:
    settings = demo.settings(quick=is_quick)
    for cost_of_a_step in (1, 3, 3 * LEAPFROG_STEPS):
        schedule = settings.steps(cost_of_a_step)
        steps = schedule["warmup_steps"] + schedule["num_samples"] * schedule["thin"]
        assert steps * cost_of_a_step == settings.chain_cost
        assert schedule["warmup_steps"] > 0


def test_counts_values_and_gradients() -> None:
    network = torch.nn.Linear(2, 1)
    with metered(network) as costs:
        network(torch.zeros(5, 2))
        network(torch.zeros(4, 2, requires_grad=True))
    network(torch.zeros(7, 2))
    assert costs == [5, 3 * 4]


def test_data_that_chains_start_from_did_not_train_the_critic(quick: dict[str, Any]) -> None:
    own, fresh = quick["results"].ratios.values()
    splits = Splits.draw(demo.settings(seed=3))
    # The GAN trained on the first part, the fresh critic on the second.
    assert torch.equal(own.unseen, splits.ratio.images) and torch.equal(fresh.unseen, splits.gan.images)


def test_container_is_of_no_biased_run(quick: dict[str, Any]) -> None:
    results: Results = quick["results"]
    biased = next(row for row in results.rows if row.mcmc is not None and row.figures["exact"] == "no")
    agreeing = biased._replace(figures=biased.figures | {"rhat": 1.0})
    assert best_run(results._replace(rows=[agreeing, *results.rows])) is best_run(results)


class Capped(torch.nn.Module):
    """A log ratio that knows a bound on itself, which lets one draw in e^6.5 = 665 pass."""

    upper_bound = 6.5

    def __init__(self, log_ratio: torch.nn.Module) -> None:
        super().__init__()
        self.log_ratio = log_ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.log_ratio(x)


@pytest.fixture
def steep() -> Ratio:
    toy = toys.affine_gaussian(1.5 * torch.eye(8), torch.ones(8))
    posterior = LatentPosterior(toy.generator, Capped(toy.log_ratio), toy.prior)
    return Ratio("steep", posterior, torch.zeros(1, 8), {})


@pytest.mark.filterwarnings("ignore:Only", "ignore:The log ratio has a heavy tail")
def test_outputs_that_were_not_found_are_not_made_up(steep: Ratio) -> None:
    settings = demo.settings(quick=True)._replace(num_chains=200, chain_cost=420)
    row = sample("RejectionSampler", steep, settings, progress=False)
    # 84 000 draws at one in 665: 126 outputs, give or take 11.
    count = len(row.images)
    assert 77 < count < 176
    assert row.figures["distinct"] == count == row.figures["ess"] and row.figures["exact"] == "yes"
    # A few more rows are spent on trying the networks.
    assert row.figures["cost"] * count == pytest.approx(200 * 420, abs=100)
    with pytest.raises(ValueError, match=f"of 200 outputs .* at least {MIN_OUTPUTS} are needed"):
        # 6 outputs, give or take 2.
        sample("RejectionSampler", steep, settings._replace(chain_cost=20), progress=False)


def shown(results: Results, rows: list[Row], **changed: Any) -> Results:
    """Return results with other rows, in the record too."""
    record = results.record | changed
    record["rows"] = [{"ratio": row.ratio, "sampler": row.sampler} | row.figures for row in rows]
    return results._replace(rows=rows, record=record)


def test_fewer_outputs_are_judged_and_shown_as_such(quick: dict[str, Any]) -> None:
    results: Results = quick["results"]
    row = next(row for row in results.rows if row.sampler == "RejectionSampler")
    images = row.images[:MIN_OUTPUTS]
    verdict = Judge(Splits.draw(demo.settings(seed=3)), 3)(images)
    counts = {"outputs": MIN_OUTPUTS, "distinct": MIN_OUTPUTS}
    few = row._replace(images=images, figures=row.figures | verdict | counts)
    rows = [few if other is row else other for other in results.rows]
    text = table(shown(results, rows).record)
    line = next(line for line in text.splitlines() if line.startswith("  RejectionSampler") and "refused" not in line)
    assert f" {MIN_OUTPUTS}/{MIN_OUTPUTS} " in line and "nan" not in line
    assert f"FEWER OUTPUTS: RejectionSampler ({row.ratio}) {MIN_OUTPUTS}." in text
    assert "FEWER" not in table(results.record)


def test_refusal_is_shown_everywhere(quick: dict[str, Any]) -> None:
    results: Results = quick["results"]
    ratio, sampler = list(results.ratios)[1], "PCN"
    rows = [row for row in results.rows if (row.ratio, row.sampler) != (ratio, sampler)]
    refused = [{"ratio": ratio, "sampler": sampler, "reason": "no such prior"}]
    without = shown(results, rows, refused=refused)
    lines = table(without.record).splitlines()
    assert any("PCN" in line and "refused: no such prior" in line for line in lines)
    for name in ("samples.png", "scores.png"):
        titles = [[ax.get_title() for ax in part.axes] for part in PICTURES[name](without).subfigs]
        assert "PCN" in titles[0] and "PCN\nrefused" in titles[1]
        for panels in titles:
            names = {title.replace("\n(", " (").removesuffix("\nrefused") for title in panels}
            assert set(SAMPLERS) <= names


def test_what_is_not_finite_is_null_in_the_file(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_gan.demo.job.PICTURES", {})
    results: Results = quick["results"]
    record = results.record | {"classifier_accuracy": float("nan"), "threads": float("-inf")}
    write(results._replace(record=record), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["classifier_accuracy"] is None and found["threads"] is None


def test_splits_share_no_digit() -> None:
    splits = Splits.draw(demo.settings(seed=5))
    images = torch.cat([part.images for part in splits])
    assert len(images) == 1797
    assert len(images.flatten(1).unique(dim=0)) == 1797, "two digits of the set would be equal"
    other = Splits.draw(demo.settings(seed=6))
    assert not torch.equal(splits.judge.images, other.judge.images)


def test_files_of_an_earlier_run_survive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.txt").write_text("old")

    def fail(results: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pyro_gan.demo.job.PICTURES", {"samples.png": fail})
    monkeypatch.setattr("pyro_gan.demo.job.table", lambda record: "new")
    with pytest.raises(OSError, match="disk full"):
        write(Results({}, [], {}, {}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.txt"]
    assert (tmp_path / "table.txt").read_text() == "old"


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:77"])
def test_bad_device_is_an_error(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--device", device, "--out", str(tmp_path)])
    told = capsys.readouterr().err
    assert "--device" in told and device in told


def test_out_that_is_a_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    for out in (path, path / "below"):
        with pytest.raises(SystemExit, match="2"):
            main(["demo", "--out", str(out)])
        told = capsys.readouterr().err
        assert "--out" in told and "expected a folder" in told
    assert path.read_text() == "mine"


@pytest.mark.parametrize("seed", ["-1", "x", "1.5"])
def test_bad_seed_is_an_error(seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demo", f"--seed={seed}", "--out", str(tmp_path)])
    assert "--seed" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [None, "x", float("nan"), -1, 1.5])
def test_settings_and_run_check_their_arguments(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed"):
        demo.settings(seed=seed)
    for settings, out in ((seed, tmp_path), (demo.settings(quick=True), seed)):
        with pytest.raises(ValueError, match=r"Expected demo.settings\(...\) and a Path"):
            demo.run(settings, out)


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "{demo}" in capsys.readouterr().err


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, *rest: Any) -> Any:
        if name == "h5netcdf":
            raise ImportError("No module named 'h5netcdf'")
        return real(name, *rest)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ImportError) as caught:
        demo.run(demo.settings(quick=True), tmp_path)
    assert "pip install pyro-gan[demo]" in caught.value.__notes__
