# SPDX-License-Identifier: Apache-2.0
"""Whether a run says that a prior is no better than interpolation, and only then."""

from __future__ import annotations

import json
import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from sample_volumes import tissue
from scripts.diffusion import prior_check
from scripts.diffusion.prior_check import (
    Comparison,
    InterpolationScores,
    PriorCheck,
    compare_with_interpolation,
    repeat_warning,
)
from scripts.diffusion.pseudo_volume import PseudoVolumeInferer
from scripts.diffusion.restoration import RestorationInferer
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.diffusion.strips import PatchReader
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.transforms.rand_slice_patches import RandSlicePatches

NO_NETWORK: Any = None  # the restoration of these tests asks none
SAYS = "the prior restores this volume's XY slices no better than"


class Patches(RandSlicePatches):
    """Remembers what was drawn."""

    drawn: list[dict[str, torch.Tensor]] = []

    def __call__(self, volume):
        Patches.drawn = super().__call__(volume)
        return Patches.drawn


@pytest.fixture
def oracle(monkeypatch):
    """In place of a restoration by the prior: the truth, give or take 0.2 by turns."""
    monkeypatch.setattr(prior_check, "RandSlicePatches", Patches)

    def restore(mu, network, draw):
        places = [next(i for i, item in enumerate(Patches.drawn) if torch.equal(item["mu"], one)) for one in mu]
        return torch.stack([Patches.drawn[i]["image"] for i in places]) + 0.2 * (-1) ** draw

    return restore


def untrained() -> ConditionalNAFNet:
    torch.manual_seed(0)
    return ConditionalNAFNet(8, (1,), 1, (1,), pixel_unshuffle=2).eval()


def check(tmp_path, restore, network=None, volume=None, factor=4.0, prior_factor=None) -> PriorCheck:
    """What the evaluator of stage II does with a check before it restores."""
    prior_factor = factor if prior_factor is None else prior_factor
    inferer = PseudoVolumeInferer(restore, prior_factor, 2, tmp_path / "progress")
    voxels = (tissue(48, 40, 6) if volume is None else volume)[0, 0]
    dataset: Any = SimpleNamespace(shape=tuple(voxels.shape), read=lambda x, y, z: voxels[x, y, z])
    result = PriorCheck(tmp_path / "prior_check.json", dataset, inferer, factor)
    result(SimpleNamespace(state=SimpleNamespace(device="cpu"), network=network))
    return result


def test_a_bad_prior_is_said_to_be_bad(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    check(tmp_path, RestorationInferer(MeanRevertingSDE(), num_steps=2), untrained())
    found = json.loads((tmp_path / "prior_check.json").read_text())
    assert found["psnr"]["prior"] < min(found["psnr"]["linear"], found["psnr"]["cubic"])
    assert found["better_than_interpolation"] is False
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage() == found["warning"]
    assert SAYS in found["warning"] and "\n" not in found["warning"]
    assert f"({found['psnr']['prior']:.2f} dB against" in found["warning"]
    assert "--max_epochs" in found["warning"] and "--prior_factor 1" in found["warning"]

    caplog.clear()
    repeat_warning(tmp_path / "prior_check.json")
    assert [record.getMessage() for record in caplog.records] == [found["warning"]]


def test_a_good_prior_is_not(tmp_path, caplog, oracle):
    """Two draws that err in opposite ways are perfect together, as in stage II's mean."""
    caplog.set_level(logging.INFO)
    check(tmp_path, oracle)
    found = json.loads((tmp_path / "prior_check.json").read_text())
    assert found["psnr"]["prior"] > 100
    assert found["better_than_interpolation"] is True and found["warning"] is None
    assert all(record.levelno == logging.INFO for record in caplog.records)
    caplog.clear()
    repeat_warning(tmp_path / "prior_check.json")
    assert not caplog.records


@pytest.mark.parametrize("factor, prior_factor", [(4, 4), (2.5, None), (8, 2), (6.25, 6.25)])
@pytest.mark.parametrize("degradation", ["sampling", "average", "gaussian"])
def test_every_factor_and_degradation(oracle, factor, prior_factor, degradation):
    volume = tissue(64, 64, 5)[0]
    found = compare_with_interpolation(volume, NO_NETWORK, oracle, factor, prior_factor, degradation, batch_size=2)
    assert found.prior > 100 > max(found.linear, found.cubic) > min(found.linear, found.cubic) > 5
    assert found.linear != found.cubic and found.warning() is None


@pytest.mark.parametrize("degradation", ["sampling", "average"])
def test_patches_that_are_read_are_those_of_the_volume(degradation):
    """A prior that needs the very noise of each image would tell any difference."""
    volume = tissue(140, 150, 21)[0]
    restore = RestorationInferer(MeanRevertingSDE(), num_steps=2)
    reader = PatchReader(lambda x, y, z: volume[0, x, y, z], volume.shape[1:], torch.device("cpu"))
    found, expected = (
        compare_with_interpolation(each, untrained(), restore, 4, 2, degradation) for each in (reader, volume)
    )
    assert found == expected


def test_held_out_slices_are_compared(oracle):
    """The last tenth of the slices, from which stage I does not learn."""
    volume = torch.zeros(1, 32, 32, 20)
    volume[..., 18:] = tissue(32, 32, 2)[0]
    found = compare_with_interpolation(volume, NO_NETWORK, oracle, 4)
    assert found.cubic < 60
    volume[..., 18:] = 0
    assert compare_with_interpolation(volume, NO_NETWORK, oracle, 4).cubic == math.inf


@pytest.mark.parametrize(
    "prior, linear, cubic, says",
    [
        (20.1, 20.4, 20.3, "no better than linear interpolation (20.10 dB against 20.40 dB)"),
        (20.3, 20.2, 20.3, "no better than cubic interpolation (20.30 dB against 20.30 dB)"),
        (math.nan, 20.2, 20.3, "no better than cubic interpolation (nan dB against 20.30 dB)"),
        (20.5, 20.4, 20.3, None),
        (math.inf, math.inf, math.inf, None),  # a background that everything restores
    ],
)
def test_the_better_interpolation_counts(prior, linear, cubic, says):
    warning = Comparison(prior, linear, cubic).warning()
    if says is None:
        assert warning is None
    else:
        assert warning is not None and says in warning


def test_nothing_to_compare(tmp_path, caplog):
    """Without diffusion there is no prior; a strip has no room for two slices. What a run before has said is gone."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "prior_check.json"
    file.write_text('{"warning": "of a run before"}')
    check(tmp_path, None, prior_factor=1.0)
    assert not file.exists() and not caplog.records
    file.write_text('{"warning": "of a run before"}')
    check(tmp_path, None, volume=tissue(40, 4, 6), factor=8.0)
    assert not file.exists()
    assert "not compared with interpolation: XY is only 4 voxels across" in caplog.text
    repeat_warning(file)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_damaged_file(tmp_path, caplog, text):
    (tmp_path / "prior_check.json").write_text(text)
    repeat_warning(tmp_path / "prior_check.json")
    (record,) = caplog.records
    assert "prior_check.json: damaged" in record.getMessage()


def test_validation_has_the_interpolations_beside_the_prior():
    items = RandSlicePatches((32, 32), 4, num_samples=3, with_linear=True).set_random_state(0)(tissue(40, 40, 3)[0])
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    engine = Engine(lambda engine, batch: None)
    InterpolationScores().attach(engine)
    for _ in range(2):  # each validation begins anew
        engine.run([batch, batch])
        for name, key in (("psnr_linear", "linear"), ("psnr_cubic", "mu")):
            error = (batch[key] - batch["image"]).square().mean((1, 2, 3))
            assert engine.state.metrics[name] == pytest.approx(float((-10 * error.log10()).mean()), abs=1e-3)
