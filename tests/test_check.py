# SPDX-License-Identifier: Apache-2.0
"""``run check`` tells what a run would do, does none of it, and ends in the error of the run where that would fail."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
from bundle_run import AENET, AENET_TRAINING, BUNDLE, PRIOR_NETWORK, PRIOR_TRAINING, succeed
from monai.bundle import ConfigWorkflow
from scripts.cli import check as page_of_check
from scripts.cli import trial
from scripts.cli.failures import input_error
from scripts.cli.finished import Finished
from scripts.diffusion.pseudo_volume import PseudoVolumeInferer
from scripts.diffusion.restoration import RestorationInferer
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.srunet import SRUNet
from scripts.networks.weights import save_weights
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.volumes.reading import Header
from torch.utils.benchmark import Timer

SHAPE = (13, 40, 48)  # (z, y, x)
NUMBERS = {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan")
    voxels = np.random.default_rng(0).integers(20, 200, SHAPE).astype(np.uint16)
    tifffile.imwrite(
        path / "in.tif", voxels, imagej=True, resolution=(1, 1), metadata={"axes": "ZYX", "spacing": 2.5, "unit": "nm"}
    )
    tifffile.imwrite(path / "nan.tif", np.where(voxels == voxels[0, 0, 0], np.nan, voxels).astype(np.float32))
    save_weights(AENet(AENET["widths"], AENET["strides"], NUMBERS), path / "aenet.pt")
    save_weights(SRUNet(3, {"percentiles": [0.1, 99.9]}), path / "srunet.pt")
    numbers = {"delta": 50 / 255, "steps": 100, "percentiles": [0.1, 99.9], "prior_factor": 2.5}
    save_weights(ConditionalNAFNet(**PRIOR_NETWORK, settings=numbers), path / "prior.pt")
    return path


def check(config: str, options: dict[str, Any]) -> None:
    workflow = ConfigWorkflow(
        str(BUNDLE / "configs" / f"{config}.yaml"), workflow_type=None, logging_file=False, run_id="check", **options
    )
    workflow.initialize()
    workflow.run()


@pytest.fixture
def page(folder, monkeypatch, capsys):
    """Checks a config in the folder, whose files must stay as they are, and returns the page on one line."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(trial, "_ENOUGH_SECONDS", 0)

    def of(config: str, **options: Any) -> str:
        before = sorted(str(file) for file in folder.rglob("*"))
        check(config, {"volume": "in.tif", **options})
        assert sorted(str(file) for file in folder.rglob("*")) == before
        return " ".join(capsys.readouterr().out.split())

    return of


def refusal(config: str, **options: Any) -> str:
    with pytest.raises((InputError, RuntimeError)) as error:  # MONAI wraps what a section of a config raises
        check(config, {"volume": "in.tif", **options})
    return str(input_error(error.value))


def test_inference(page):
    told = page("inference", output="out.nii.gz", weights="aenet.pt", **AENET)
    for words in (
        "in.tif: 48 x 40 x 13 voxels (x, y, z), uint16, values from 20 to 199",
        "1 x 1 x 2.5 nanometer (x, y, z), from the file",
        "factor 2.5, from the voxel size",
        "out.nii.gz: 48 x 40 x 31 voxels of 1 x 1 x 1 nanometer, uint16",
        "13 become 31: 7 of the input (23%) and 24 new; 2 new in the first interval (slices 1 to 2), 2 in the last",
        "aenet.pt: fit the network, AENet; trained for factors 2 to 12",
        "24 new slices of 48 x 40",
        "memory about",
        "time about",
    ):
        assert words in told
    assert "warning" not in told


@pytest.mark.slow
def test_inference_by_srunet(page):
    told = page("inference", output="out.tif", weights="srunet.pt", architecture="srunet", factor=3)
    assert "srunet.pt: fit the network, SRUNet; trained for the factor 3 alone" in told
    told = page("inference", output="out.tif", weights="srunet.pt", architecture="srunet", spacing=[3, 1, 1])
    assert "factor 3, from the voxel size" in told and "warning" not in told
    words = "weights were trained with factor = 3.0, the configuration says 4.0"
    assert words in refusal("inference", output="out.tif", weights="srunet.pt", architecture="srunet", factor=4)
    options = {"output": "out.tif", "weights": "srunet.pt", "architecture": "srunet"}
    assert "SRUNet at factor 2.5" in refusal("inference", **options, factor=2.5)
    words = "they are of srunet, the configuration says aenet"
    assert words in refusal("inference", output="out.tif", weights="srunet.pt", architecture="aenet", factor=3)
    words = "--factor 2.5: the weights were trained for the factor 3 alone; give --factor 3"  # by the voxel size
    assert words in refusal("inference", output="out.tif", weights="srunet.pt")
    assert "trained for the factor 3 alone" in page("inference", output="out.tif", weights="srunet.pt", factor=3)


class Clock:
    """Stands still but for what a test has it go on by."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Time goes by in the networks alone: so long for a call, so long for each pixel."""
    clock = Clock()
    monkeypatch.setattr(trial, "Timer", partial(Timer, timer=clock.perf_counter))
    monkeypatch.setattr(page_of_check, "time", clock)
    monkeypatch.setattr(trial, "_ENOUGH_SECONDS", 0)

    def timed(function: Callable, pixels: Callable[[Any], int]) -> Callable:
        def work(self: Any, *values: Any) -> Any:
            result = function(self, *values)
            clock.now += 0.05 + 1e-6 * pixels(values[0] if function is encode else result)
            return result

        return work

    encode = AENet.encode
    monkeypatch.setattr(AENet, "encode", timed(encode, lambda window: window[..., 0].numel()))
    for network, method in ((AENet, "decode"), (ConditionalNAFNet, "forward")):
        monkeypatch.setattr(network, method, timed(getattr(network, method), torch.numel))
    return clock


def header_of(shape: tuple[int, int, int]) -> Header:
    return Header(shape, "uint8", np.eye(4), "pixel")


@pytest.mark.parametrize(
    "shape, options",
    [
        ((32, 48, 3), {"factor": 3}),
        ((32, 80, 3), {"factor": 2.5, "tile": 32, "halo": 0, "input_slices": "predict"}),
        ((32, 32, 2), {"factor": 2.5, "tta": True}),
    ],
    ids=["whole", "tiles", "tta"],
)
def test_time_of_a_reconstruction(clock, shape, options):
    inferer = AxialInferer(**options)
    network = AENet((2, 2, 2, 2), AENET["strides"])
    told = trial.ReconstructionTrial(network, inferer, torch.device("cpu")).measure(header_of(shape))
    clock.now = 0
    inferer(torch.rand(1, 1, *shape), network)
    assert told.seconds == pytest.approx(clock.now, rel=1e-3)
    assert ("16 times over" in told.work) == ("tta" in options) and ("tiles" in told.work) == ("tile" in options)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_time_of_a_restoration(clock, tmp_path, batch_size):
    network = ConditionalNAFNet(**PRIOR_NETWORK)
    restore = RestorationInferer(MeanRevertingSDE(50 / 255, 100), num_steps=3)
    inferer = PseudoVolumeInferer(restore, 4, batch_size, tmp_path)
    told = trial.RestorationTrial(network, inferer, torch.device("cpu")).measure(header_of((18, 9, 3)))
    clock.now = 0
    inferer(torch.rand(1, 1, 18, 9, 3), network)
    assert told.seconds == pytest.approx(clock.now, rel=1e-3)


def test_time_of_a_training(page, clock, monkeypatch):
    encode = AENet.encode

    def slow(self: AENet, window: torch.Tensor) -> Any:
        result = encode(self, window)
        clock.now = round(clock.now) + 1 + 2 * len(window)  # seconds for a step, and for each patch
        return result

    monkeypatch.setattr(AENet, "encode", slow)
    monkeypatch.setattr(AENet, "decode", _without_time(AENet.decode, clock))
    options = {**AENET, **AENET_TRAINING, "max_epochs": 5, "epoch_length": 3}
    told = page("train", output_dir="aenet", **options)
    assert "15 steps of 2 patches of" in told and ", 5 s a step, the voxels on the device (195.0 KiB)" in told
    assert "time about 1 minute and 15 seconds; by a few steps" in told


def _without_time(function: Callable, clock: Clock) -> Callable:
    def work(*values: Any) -> Any:
        now = clock.now
        result = function(*values)
        clock.now = now
        return result

    return work


@pytest.mark.slow
def test_time_of_all_stages_and_of_the_start(page, monkeypatch):
    for kind in (trial.TrainingTrial, trial.RestorationTrial, trial.ReconstructionTrial):
        monkeypatch.setattr(kind, "measure", lambda self, header: trial.Cost("so much", 100, 2**20, 0))
    told = page("d2r", output="out.tif", workdir="none", preset="quick", factor=2)
    assert told.count("so much; about 1 minute and 40 seconds") == 4
    assert "time about 6 minutes and 40 seconds; by a few steps" in told
    monkeypatch.setattr(page_of_check, "started_from_command_line", lambda: True)
    begun = psutil.Process().create_time()
    monkeypatch.setattr(page_of_check, "time", SimpleNamespace(time=lambda: begun + 30, perf_counter=lambda: 0.0))
    told = page("inference", output="out.tif", weights="aenet.pt", **AENET)
    assert "time about 2 minutes and 10 seconds, 30 s of them to start and to read; by a few steps" in told


@pytest.mark.slow
def test_warnings_are_no_errors(page, folder):
    (folder / "old.tif").write_text("the user's")
    told = page("inference", output="old.tif", weights="aenet.pt", factor=20, **AENET)
    assert "warning old.tif exists: the run needs --overwrite true" in told
    assert "warning the factor 20 is outside the range" in told
    told = page("inference", output="old.tif", weights="aenet.pt", factor=2, overwrite="true", **AENET)
    assert "old.tif exists and would be replaced" in told


@pytest.mark.slow
def test_what_would_fail_fails_alike(folder, monkeypatch):
    monkeypatch.chdir(folder)
    good = {"output": "out.tif", "weights": "aenet.pt", **AENET}
    assert "nan.tif: has" in refusal("inference", **{**good, "volume": "nan.tif", "factor": 2})
    assert "weights of another network" in refusal("inference", **{**good, "weights": "prior.pt"})
    assert "give a number above 1 and up to 1000" in refusal("inference", **good, factor=1e9)
    assert "this format cannot be written" in refusal("inference", **{**good, "output": "x.png"})
    assert "--output is missing" in refusal("inference", weights="aenet.pt")
    assert "too few for four planes" in refusal(
        "train", **AENET, **AENET_TRAINING, output_dir="a", train_factors=[15, 16]
    )
    assert "--preset fast" in refusal("d2r", output="out.tif", workdir="w", preset="fast")


def test_only_the_header_of_a_large_volume_is_read(page, monkeypatch):
    monkeypatch.setattr(page_of_check, "READ_UP_TO", 100)
    told = page("inference", volume="nan.tif", output="out.tif", weights="aenet.pt", factor=2, **AENET)
    assert "values not read" in told and "only its header was read" in told


@pytest.mark.slow
def test_stages_one_by_one(page):
    told = page("train_diffusion", output_dir="prior", **PRIOR_NETWORK, **PRIOR_TRAINING)
    assert "4 steps of 2 patches of 32 x" in told and "prior/model_diffusion.pt" in told
    told = page("generate", output_dir="pseudo", weights="prior.pt", **PRIOR_NETWORK)
    assert "40 XZ and 48 YZ slices, 8 evaluations" in told and "pseudo/pseudo_hr.tif: 48 x 40 x 31 voxels" in told
    told = page("train", output_dir="aenet", **AENET, **AENET_TRAINING)
    assert "4 steps of 2 patches of" in told and "aenet/model.pt" in told
    told = page("train", output_dir="sup", architecture="srunet", factor=4, sequence_axes=["z"], **AENET_TRAINING)
    assert "SRUNet with 2,408,257 parameters" in told and "4 steps of 2 patches of 24 x 32" in told  # XY


def test_results_that_a_run_would_not_replace(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "others").mkdir(exist_ok=True)
    (folder / "others" / "disagreement.tif").write_text("the user's")
    told = refusal("generate", output_dir="others", weights="prior.pt", **PRIOR_NETWORK)
    assert "others/disagreement.tif: exists already, without the provenance.json of a run" in told


def test_several_volumes_are_told_one_by_one(page, folder):
    (folder / "several").mkdir(exist_ok=True)
    for name, slices in (("a.tif", 5), ("b.tif", 9)):
        voxels = np.random.default_rng(0).integers(20, 200, (slices, 32, 32)).astype(np.uint8)
        tifffile.imwrite(folder / "several" / name, voxels, imagej=True, metadata={"axes": "ZYX"})
    options = {"volume": None, "dataset_dir": "several", "output_dir": "out", "weights": "aenet.pt", "factor": 2}
    told = page("inference", **options, **AENET)
    for name, slices in (("a_x2.tif", 4), ("b_x2.tif", 8)):
        assert f"{slices} new slices of 32 x 32" in told.split(name)[1].split("x2.tif")[0]


@pytest.mark.slow
def test_d2r_tells_what_is_done_before(page, folder):
    quick = {"prior": PRIOR_TRAINING, "prior_network": PRIOR_NETWORK, "generate": {"num_steps": 2}}
    presets = {"quick": {**quick, "teacher": AENET_TRAINING, "aenet": AENET_TRAINING, "aenet_network": AENET}}
    options = {"output": "out.tif", "workdir": "W", "preset": "quick", "presets": presets, "factor": 2}
    told = page("d2r", **options)
    assert "W: nothing there yet" in told and "done before" not in told
    for number, words in enumerate(("4 steps of 2", "2 evaluations", "4 steps of 2", "12 new slices"), 1):
        assert words in told.split(f"{number} of 4 ")[1].split(f"{number + 1} of 4 ")[0]
    (folder / "W" / "prior").mkdir(parents=True)
    numbers = {"delta": 50 / 255, "steps": 100, "percentiles": [0.1, 99.9], "prior_factor": 2, "factor": 2}
    save_weights(ConditionalNAFNet(**PRIOR_NETWORK, settings=numbers), folder / "W" / "prior" / "model_diffusion.pt")
    (folder / "W" / "run.json").write_text(json.dumps({"volume": "in.tif"}))
    assert "--workdir W holds a run with factor None, not 2.0" in refusal("d2r", **options)
    (folder / "W" / "run.json").unlink()
    assert "W/prior/model_diffusion.pt: was not written by this run" in refusal("d2r", **options)
    Finished(folder / "W" / "run.json").keep(folder / "W" / "prior" / "model_diffusion.pt")
    with pytest.MonkeyPatch.context() as patch:  # as if the record were that of this run
        patch.setattr("scripts.cli.pipeline.difference", lambda stored, settings: None)
        assert "1 of 4 stage I, learn the prior: done before (W/prior/model_diffusion.pt)" in page("d2r", **options)
    shutil.rmtree(folder / "W")
    assert "1 of 2 stage III" in page("d2r", **options, prior_factor=1)
    told = page("d2r", **options, self_training=True, prior_factor=1)
    assert (
        "1 of 4 stage III, train the teacher" in told and "4 steps of 2" in told.split("3 of 4 ")[1].split("4 of 4 ")[0]
    )
    told = page("d2r", **options, architecture="srunet")
    assert "SRUNet with 2,408,257 parameters" in told.split("3 of 4 ")[1].split("4 of 4 ")[0]
    assert "SRUNet at factor 2.5" in refusal("d2r", **{**options, "factor": 2.5}, architecture="srunet")


@pytest.mark.slow
def test_what_looks_wrong_is_told_on_the_page(page, folder, caplog):
    voxels = tifffile.imread(folder / "in.tif")
    voxels[4], voxels[7] = 0, voxels[6]
    tifffile.imwrite(folder / "odd.tif", voxels, imagej=True)  # says that its slices are channels
    options = {"volume": "odd.tif", "axes": "ZYX", "spacing": [32, 8, 8], "factor": 8}
    wanted = (
        "warning odd.tif: slice 4 (counted from 0) is black",
        "warning odd.tif: slice 7 (counted from 0) repeats the one before",
        "warning x8 makes voxels of 8 x 8 x 4 micrometer (x, y, z), which are not cubic; x4 would",
    )
    for config, others in (
        ("inference", {"output": "out.tif", "weights": "aenet.pt", **AENET}),
        ("train_diffusion", {"output_dir": "prior", **PRIOR_NETWORK, **PRIOR_TRAINING}),
    ):
        told = page(config, **options, **others)
        for words in wanted:
            assert words in told
    assert "scripts.errors" not in {record.name for record in caplog.records}
    assert "--axes ZYX" in refusal(
        "inference", **{**options, "axes": None}, output="out.tif", weights="aenet.pt", **AENET
    )


def test_interrupted_training_counts_what_is_left(page, folder, monkeypatch):
    monkeypatch.setattr(trial.TrainingTrial, "_epochs_done", lambda self: 1)
    told = page("train", output_dir="aenet", **AENET, **AENET_TRAINING)
    assert "2 steps of 2 patches" in told and "epochs 1 to 1 of 2 were done before" in told


def test_missing_packages_and_other_versions(tmp_path):
    document = {"numpy_version": np.__version__, "required_packages_version": {"no-such-package": "1", "scipy": "0.1"}}
    (tmp_path / "metadata.json").write_text(json.dumps(document))
    told = page_of_check.packages(tmp_path / "metadata.json")
    assert "missing: no-such-package; install with pip install no-such-package" in told
    assert "(0.1)" in told and "numpy" not in told


def test_pinned_versions_raise_no_alarm(monkeypatch):
    constraints = (BUNDLE.parent / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower(): version for name, version in re.findall(r"^([\w-]+)==(\S+)", constraints, re.MULTILINE)}
    monkeypatch.setattr(
        page_of_check, "version", lambda name: pinned[name.lower()] + ("+cpu" if name == "torch" else "")
    )
    assert page_of_check.packages() == "all there"


def test_about():
    words = {0.01: "1 second", 42.4: "42 seconds", 100: "1 minute and 40 seconds", 3000: "50 minutes"}
    words |= {8000: "2 hours and 13 minutes", 400000: "4 days and 15 hours"}
    assert {seconds: page_of_check.about(seconds) for seconds in words} == {s: f"about {w}" for s, w in words.items()}


@pytest.mark.slow
def test_check_from_another_folder_with_bundle_root(folder):
    options = {"volume": "in.tif", "output": "out.tif", "bundle_root": BUNDLE, "factor": 2}
    done = succeed("inference.yaml", {"run_id": "check", **options}, cwd=folder)
    assert f"{BUNDLE}/models/model.pt: fit the network" in " ".join(done.stdout.split())
    assert not (folder / "out.tif").exists()
