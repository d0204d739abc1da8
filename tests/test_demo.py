"""The demo, small: every stage runs, every file is whole, and bad input is told so."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_gan import demo
from pyro_gan.__main__ import main
from pyro_gan.demo.files import write
from pyro_gan.demo.gan import split_digits
from pyro_gan.demo.samplers import SAMPLERS
from pyro_gan.demo.table import COLUMNS

FILES = {
    "table.txt",
    "results.json",
    "samples.png",
    "reliability.png",
    "frontier.png",
    "scores.png",
    "idata.nc",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One small run by the command line, its folder and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    printed = io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # Whatever the package warns of belongs in the table.
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")
        main(["demo", "--quick", "--seed", "3", "--out", str(out)])
    torch.set_num_threads(threads)
    return {"out": out, "printed": printed.getvalue()}


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
    table = (quick["out"] / "table.txt").read_text()
    assert table in quick["printed"]
    head = next(line for line in table.splitlines() if "residual AUC" in line)
    assert [name for name in COLUMNS if name not in head] == []
    for name in ("real digits", "G alone", *SAMPLERS):
        assert name in table
    assert "QUICK" in table


def test_figures_are_all_there(quick: dict[str, Any]) -> None:
    found = json.loads((quick["out"] / "results.json").read_text())
    assert found["settings"]["seed"] == 3 and found["settings"]["quick"]
    assert found["versions"]["torch"] == torch.__version__
    assert sum(found["splits"].values()) == 1797
    rows = {(row["ratio"], row["sampler"]): row for row in found["rows"]}
    refused = {(row["ratio"], row["sampler"]) for row in found["refused"]}
    for ratio in found["ratios"]:
        for sampler in SAMPLERS:
            assert ((ratio, sampler) in rows) != ((ratio, sampler) in refused)
    for row in found["rows"]:
        assert 1 <= row["score"] <= 10 and row["score_se"] > 0
        assert 0 <= row["residual_auc"] <= 1 and 0 <= row["class_tv"] <= 1 and row["frechet"] > 0
        if row["sampler"] in SAMPLERS:
            assert row["seconds"] > 0 and row["ess"] > 0
            is_chain = "Importance" not in row["sampler"]
            # What a resampler does not have is null, not a number that looks like one.
            assert all((row[name] is not None) == is_chain for name in ("rhat", "acceptance", "never_moved"))
    reals, alone = rows["", "real digits"], rows["", "G alone"]
    assert reals["score"] > alone["score"] and reals["frechet"] < alone["frechet"], (
        "the judge sees what is obvious"
    )


def test_container_opens_in_arviz_and_is_the_best_run(quick: dict[str, Any]) -> None:
    import arviz

    idata = arviz.from_netcdf(quick["out"] / "idata.nc")
    settings = demo.settings(quick=True)
    z = idata.posterior["z"]
    assert z.shape[0] == settings.num_chains and z.shape[2] == settings.latent_dim
    assert idata.posterior_predictive["x"].shape[2:] == (1, 8, 8)
    assert {"log_ratio", "acceptance_rate", "moved", "energy"} <= set(idata.sample_stats)
    rows = json.loads((quick["out"] / "results.json").read_text())["rows"]
    best = min((row for row in rows if row.get("rhat") is not None), key=lambda row: row["rhat"])
    assert (idata.attrs["sampler"], idata.attrs["ratio"]) == (best["sampler"], best["ratio"])
    worst = max(float(arviz.rhat(z.values[:, :, index])) for index in range(settings.latent_dim))
    assert worst <= best["rhat"] + 1e-6


def test_splits_share_no_digit() -> None:
    splits = split_digits(demo.settings(seed=5))
    images = torch.cat([splits.gan, splits.ratio, splits.judge])
    assert len(images) == 1797
    assert len(images.flatten(1).unique(dim=0)) == 1797, "two digits of the set would be equal"
    other = split_digits(demo.settings(seed=6))
    assert not torch.equal(splits.judge, other.judge)


def test_files_of_an_earlier_run_survive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.txt").write_text("old")

    def fail(results: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("pyro_gan.demo.files.table", lambda results: "new")
    monkeypatch.setattr("pyro_gan.demo.files.figures", fail)
    with pytest.raises(OSError, match="disk full"):
        write(None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.txt"]
    assert (tmp_path / "table.txt").read_text() == "old"


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:77"])
def test_bad_device_is_told(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--device", device, "--out", str(tmp_path)])
    told = capsys.readouterr().err
    assert "--device" in told and device in told


def test_out_that_is_a_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    for out in (path, path / "below"):
        with pytest.raises(SystemExit, match="2"):
            main(["demo", "--out", str(out)])
        told = capsys.readouterr().err
        assert "--out" in told and "expected a folder" in told
    assert path.read_text() == "mine"


def test_no_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
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
