# SPDX-License-Identifier: Apache-2.0
"""Each mistake of a user, made on the command line, ends in one line that says what is wrong and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from bundle_run import AENET, AENET_TRAINING, PRIOR_NETWORK, PRIOR_TRAINING, Finished, run_bundle, side_by_side
from PIL import Image
from scripts.networks.aenet import AENet
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.weights import save_weights

pytestmark = pytest.mark.slow

OLD = b"the user's earlier result"
FACTOR = 2
LEAVE_OUT = "<leave out>"
LOW_FACTORS = {"train_factors": "[2,3]", "val_factor": 2}
"""Of stage III on the small volumes here."""
LOUD = ("output.fuse.weight", "output.refine.weight", "output.head.weight")


class Case(NamedTuple):
    """A mistake: what differs from a good command, and what the line must say."""

    config: str
    options: dict[str, Any]
    says: tuple[str, ...]


# Of a good command for each config; paths are those of the folder that the commands are started in.
GOOD: dict[str, dict[str, Any]] = {
    "inference": {"volume": "good.tif", "factor": FACTOR, "output": "OUT", "weights": "aenet.pt", **AENET},
    "train_diffusion": {"volume": "good.tif", "output_dir": "OUT", **PRIOR_NETWORK},
    "generate": {"volume": "good.tif", "weights": "prior.pt", "output_dir": "OUT", **PRIOR_NETWORK},
    "train": {"volume": "good.tif", "output_dir": "OUT", **AENET},
    "evaluate": {"reconstruction": "good.tif", "truth": "good.tif", "factor": FACTOR, "output_dir": "OUT"},
    "decimate": {"volume": "good.tif", "factor": FACTOR, "output": "OUT"},
    "d2r": {"volume": "good.tif", "factor": FACTOR, "output": "OUT", "workdir": "WORK"},
    "sample": {"output_dir": "OUT"},
}


def inference(says: str | tuple[str, ...], **options: Any) -> Case:
    """A mistake in the command of the main job."""
    return Case("inference", options, (says,) if isinstance(says, str) else says)


CASES = {
    # the volume
    "missing file": inference("none.tif: no such file or folder", volume="none.tif"),
    "not an image": inference(("garbage.tif: cannot be read", "complete"), volume="garbage.tif"),
    "unknown format": inference(("notes.txt: cannot be read", ".tif", ".nii.gz"), volume="notes.txt"),
    "truncated TIFF": inference(("cut.tif: cannot be read", "complete"), volume="cut.tif"),
    "truncated NIfTI": inference(("cut.nii.gz: cannot be read", "complete"), volume="cut.nii.gz"),
    "2-D image": inference(("flat.tif: is a single 2-D image", "stack"), volume="flat.tif"),
    "RGB image": inference(("rgb.tif: is a color image", "grayscale"), volume="rgb.tif"),
    "one slice": inference(("one.tif: has 1 slice", "at least 2"), volume="one.tif"),
    "NaN": inference(("nan.tif: has 1 voxels that are NaN", "replace"), volume="nan.tif"),
    "infinite": inference(("inf.tif: has 1 voxels", "infinite", "replace"), volume="inf.tif"),
    "constant": inference(("constant.tif: all voxels have the same value 7", "right file"), volume="constant.tif"),
    "channels": inference(("channels.tif: says that its axes are CYX", "add --axes ZYX"), volume="channels.tif"),
    "axes that do not fit": inference("--axes ZYX: does not fit flat.tif", volume="flat.tif", axes="ZYX"),
    "a slice is missing": inference(
        ("slice 2 is missing between s1.png and s3.png", "'slices/s*.png'"), volume="slices"
    ),
    "a pipe": inference("pipe.tif: is a pipe (FIFO), not a file", volume="pipe.tif"),
    "no volume": inference("--volume is missing: add --volume", volume=LEAVE_OUT),
    # the factor and the voxel size
    "factor 1": inference("--factor 1: give a number above 1", factor=1),
    "factor 0.5": inference("--factor 0.5: give a number above 1", factor=0.5),
    "factor in words": inference("--factor eight: give a number above 1", factor="eight"),
    "factor beyond memory": inference("--factor 1e9: give a number above 1 and up to 1000", factor="1e9"),
    "no factor, isotropic": inference(("--factor", "--spacing", "nothing is coarse"), factor=LEAVE_OUT),
    # the weights
    "no weights": inference(("--weights none.pt: no such file", "point --weights"), weights="none.pt"),
    "weights of a wider AENet": inference(("--weights wide.pt: weights of another network", "use"), weights="wide.pt"),
    "weights of the prior": inference(("--weights prior.pt: weights of another network", "use"), weights="prior.pt"),
    "weights of other settings": inference(
        ("--weights other.pt", "trained with percentiles = [1.0, 99.0]", "use"),
        weights="other.pt",
        percentiles="[0.1,99.9]",
    ),
    "weights that are NaN": inference(("--weights nan.pt: stem.bias is not finite", "give"), weights="nan.pt"),
    "weights with a flipped bit": inference(
        ("--weights flipped.pt: not a weights file", "damaged"), weights="flipped.pt"
    ),
    "weights without an end": inference("--weights /dev/zero: no such file", weights="/dev/zero"),
    "NaN out of good weights": inference(("slices from", "NaN or infinite", "--amp false"), weights="loud.pt"),
    "no such network": inference(
        "--architecture unet: there is none of that name; choose aenet or srunet", architecture="unet"
    ),
    "srunet at factor 2.5": inference(
        ("SRUNet at factor 2.5", "--architecture aenet"), architecture="srunet", factor=2.5
    ),
    "weights of aenet in srunet": inference(
        ("--weights aenet.pt: weights of another network", "use"), architecture="srunet"
    ),
    "tta perhaps": inference("--tta perhaps: must be true or false", tta="perhaps"),
    "weights that are text": inference(("--weights notes.txt: not a weights file", "give"), weights="notes.txt"),
    "a pickled network": inference(("--weights module.pt: not a weights file", "give"), weights="module.pt"),
    # the output
    "folder is a file": inference(("notes.txt/x.tif: cannot be written", "is a file"), output="notes.txt/x.tif"),
    "format without a writer": inference(("x.png: this format cannot be written", ".tif"), output="x.png"),
    "output exists": inference(("old.tif: exists already", "--overwrite true"), output="old.tif"),
    "overwrite false": inference(("old.tif: exists already", "--overwrite true"), output="old.tif", overwrite="false"),
    "overwrite perhaps": inference("--overwrite perhaps: must be true or false", output="old.tif", overwrite="perhaps"),
    # the options
    "tile in words": inference("--tile big: give a whole number from 1", tile="big"),
    "widths, one number": inference("--widths 32: give 4 whole numbers from 1 to 65536 in brackets", widths=32),
    "percentiles in words": inference("--percentiles abc: give 2 numbers from 0 to 100", percentiles="abc"),
    "no such GPU": inference(("--device cuda:99: ", "GPU"), device="cuda:99"),
    "expression that fails": inference("--halo $1/0: cannot be evaluated: ZeroDivisionError", halo="$1/0"),
    "path that looks like code": inference("$print(1).tif: no such file or folder", volume="$print(1).tif"),
    "path with a number sign": inference("Mouse #3/a.tif: no such file or folder", volume="Mouse #3/a.tif"),
    "mistyped volume": inference("unknown option --voulme: did you mean --volume?", voulme="good.tif"),
    "mistyped factor": inference("unknown option --factr: did you mean --factor?", factr=8),
    # the other configs
    "stage II, batch of -1": Case(
        "generate", {"batch_size": -1, "factor": 2}, ("--batch_size -1: give a whole number",)
    ),
    "stage I, unlike blocks": Case(
        "train_diffusion", {"encoder_blocks": "[1,1]", "factor": 2}, ("--encoder_blocks [1, 1]", "the same length")
    ),
    "stage III, seed in words": Case("train", {"seed": "x"}, ("--seed x: give a whole number from 0",)),
    "d2r, batch of -1": Case(
        "d2r",
        {"preset": "quick", "presets#quick#prior#batch_size": -1},
        ("stage I, learn the prior: --batch_size -1: give a whole number",),
    ),
    "stage I, no file": Case("train_diffusion", {"volume": "none.tif"}, ("none.tif: no such file",)),
    "stage I, factor 1": Case("train_diffusion", {"factor": 1}, ("--factor 1: give a number above 1",)),
    "stage I, folder is a file": Case(
        "train_diffusion", {"output_dir": "notes.txt/x", "factor": 2}, ("notes.txt/x", "cannot be written")
    ),
    "stage II, no prior": Case("generate", {"weights": "none.pt", "factor": 2}, ("--weights none.pt: no such file",)),
    "stage I diverges": Case(
        "train_diffusion",
        {**PRIOR_TRAINING, "factor": 2, "learning_rate": "1e30"},
        ("diverged in epoch 1 of 2", "no checkpoint", "lower --learning_rate"),
    ),
    "stage III diverges": Case(
        "train",
        {**AENET_TRAINING, "train_factors": "[2,3]", "learning_rate": "1e30"},
        ("diverged in epoch 1 of 2", "no checkpoint", "lower --learning_rate"),
    ),
    "stage II, NaN": Case(
        "generate", {"weights": "loud_prior.pt", "factor": 2}, ("XZ slices from 0", "NaN or infinite")
    ),
    "stage II, other k": Case(
        "generate", {"factor": 3}, ("trained with prior_factor = 2.0, the configuration says 3.0",)
    ),
    "stage III, NaN": Case(
        "train", {**LOW_FACTORS, "volume": "nan.tif"}, ("nan.tif: has 1 voxels that are NaN", "replace")
    ),
    "stage III, too small": Case(
        "train", {"volume": "narrow.tif", "train_factors": "[4,6]"}, ("too few for four planes",)
    ),
    "stage III, no such network": Case(
        "train", {"architecture": "unet"}, ("--architecture unet: there is none", "aenet or srunet")
    ),
    "stage III, srunet": Case(
        "train", {"architecture": "srunet"}, ("--factor is missing", "whole number from 2 to 22")
    ),
    "stage III, axes": Case(
        "train", {"sequence_axes": "['w']"}, ("--sequence_axes ['w']: give one or more of x, y and z",)
    ),
    "stage III, axes of sequences": Case("train", {"axes": "['z']"}, ("--axes ['z']", "now --sequence_axes \"['z']\"")),
    "stage III, few slices": Case(
        "train", {**LOW_FACTORS, "volume": "thin.tif"}, ("at least 11",)
    ),  # the window of SSIM
    "truth of another size": Case(
        "evaluate", {"reconstruction": "narrow.tif"}, ("the reconstruction has 11 x 24 x 13 voxels", "same grid")
    ),
    "evaluate, channels": Case("evaluate", {"reconstruction": "channels.tif"}, ("add --reconstruction_axes ZYX",)),
    "evaluate, factor 2.5": Case("evaluate", {"factor": 2.5}, ("--factor 2.5: give a whole number from 2",)),
    "decimate, output exists": Case("decimate", {"output": "old.tif"}, ("old.tif: exists already", "--overwrite")),
    "sample of no size": Case("sample", {"size": "[0,8,9]"}, ("--size [0,8,9]: give 3 whole numbers from 1",)),
    "d2r, no file": Case("d2r", {"volume": "none.tif"}, ("none.tif: no such file",)),
    "d2r, NaN": Case("d2r", {"volume": "nan.tif"}, ("nan.tif: has 1 voxels that are NaN", "replace")),
    "d2r, no workdir": Case("d2r", {"workdir": LEAVE_OUT}, ("--workdir is missing: add --workdir",)),
    "d2r, preset": Case("d2r", {"preset": "fast"}, ("--preset fast: there is none", "quick, standard, thorough")),
    "d2r, no such network": Case(
        "d2r", {"architecture": "unet"}, ("--architecture unet: there is none", "aenet or srunet")
    ),
    "d2r, srunet": Case(
        "d2r", {"architecture": "srunet", "factor": 2.5}, ("SRUNet at factor 2.5", "--architecture aenet")
    ),
    "d2r, output exists": Case("d2r", {"output": "old.tif"}, ("old.tif: exists already", "--overwrite true")),
    "d2r, workdir is a file": Case("d2r", {"workdir": "notes.txt/x"}, ("notes.txt/x", "cannot be written")),
    "d2r, k no divisor": Case(
        "d2r", {"factor": 8, "prior_factor": 3, "preset": "quick"}, ("--prior_factor 3 does not divide the factor 8",)
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the commands are started: good and bad files, and an earlier result."""
    path = tmp_path_factory.mktemp("mistakes")
    random = np.random.default_rng(0)
    volume = random.integers(20, 200, (13, 24, 24)).astype(np.uint8)
    tifffile.imwrite(path / "good.tif", volume)
    tifffile.imwrite(path / "narrow.tif", volume[:, :, :11])
    tifffile.imwrite(path / "thin.tif", volume[:8])
    tifffile.imwrite(path / "flat.tif", volume[0])
    tifffile.imwrite(path / "channels.tif", volume, imagej=True)
    (path / "slices").mkdir()
    for number in (1, 3, 4):
        Image.fromarray(volume[number]).save(path / "slices" / f"s{number}.png")
    os.mkfifo(path / "pipe.tif")
    tifffile.imwrite(path / "rgb.tif", np.stack([volume[:5]] * 3, -1), photometric="rgb")
    tifffile.imwrite(path / "one.tif", volume[:1], metadata={"axes": "ZYX"})
    tifffile.imwrite(path / "constant.tif", np.full_like(volume, 7))
    for name, value in {"nan": np.nan, "inf": -np.inf}.items():
        floats = volume.astype(np.float32)
        floats[1, 2, 3] = value
        tifffile.imwrite(path / f"{name}.tif", floats)
    nib.save(nib.Nifti1Image(volume.T, np.eye(4)), path / "cut.nii.gz")
    for name, source in {"cut.tif": "good.tif", "cut.nii.gz": "cut.nii.gz"}.items():
        whole = (path / source).read_bytes()
        (path / name).write_bytes(whole[: len(whole) // 2])
    (path / "garbage.tif").write_bytes(random.bytes(4000))
    (path / "notes.txt").write_text("no volume and no weights")
    (path / "old.tif").write_bytes(OLD)

    widths, strides = AENET["widths"], AENET["strides"]
    numbers = {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}
    save_weights(AENet(widths, strides, numbers), path / "aenet.pt")
    save_weights(AENet([4, 4, 4, 4], strides, numbers), path / "wide.pt")
    save_weights(AENet(widths, strides, {**numbers, "percentiles": [1, 99]}), path / "other.pt")
    torch.save(AENet(widths, strides, numbers), path / "module.pt")
    state = torch.load(path / "aenet.pt", weights_only=True)
    torch.save({**state, "stem.bias": torch.full((2,), torch.nan)}, path / "nan.pt")
    # finite, and too large for what is computed with them
    large = {name: torch.full_like(state[name], 1e30, dtype=torch.float32) for name in LOUD}
    torch.save({**state, **large}, path / "loud.pt")
    data = bytearray((path / "aenet.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "flipped.pt").write_bytes(data)
    numbers = {"delta": 50 / 255, "steps": 100, "percentiles": [0.1, 99.9], "prior_factor": FACTOR}
    save_weights(ConditionalNAFNet(**PRIOR_NETWORK, settings=numbers), path / "prior.pt")
    state = torch.load(path / "prior.pt", weights_only=True)
    large = {
        name: torch.full_like(state[name], 1e30, dtype=torch.float32) for name in ("intro.weight", "ending.weight")
    }
    torch.save({**state, **large}, path / "loud_prior.pt")
    return path


def options_of(number: int, case: Case) -> dict[str, Any]:
    """The good command with the mistake; files to be written get a name of their own."""
    options = {**GOOD[case.config], **case.options}
    names = {"OUT": f"out{number}" if "output_dir" in options else f"out{number}.tif", "WORK": f"work{number}"}
    return {name: names.get(str(value), value) for name, value in options.items() if value != LEAVE_OUT}


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def before(folder) -> set[str]:
    """The files before the commands."""
    return files_in(folder)


@pytest.fixture(scope="module")
def answers(folder, before) -> Iterator[dict[str, Finished]]:
    """What each of the commands says."""
    jobs = [
        partial(run_bundle, f"{case.config}.yaml", options_of(number, case), folder)
        for number, case in enumerate(CASES.values())
    ]
    yield dict(zip(CASES, side_by_side(jobs)))


@pytest.mark.parametrize("name", CASES)
def test_mistake_ends_in_one_line(answers, name):
    answer = answers[name]
    assert answer.status > 0, answer.output
    assert "Traceback" not in answer.output, answer.output
    assert answer.last_line.startswith("error: "), answer.output
    for words in CASES[name].says:
        assert words in answer.last_line
    # the error stands once, and no library adds its own report of it
    assert answer.output.count(answer.last_line.removeprefix("error: ")) == 1
    assert "terminating due to exception" not in answer.output and "input info" not in answer.output


@pytest.mark.usefixtures("answers")
def test_no_mistake_leaves_a_result_or_a_part_of_one(folder, before):
    new = files_in(folder) - before
    results = {name for name in new if name.endswith((".tif", ".nii", ".gz", ".pt", ".png", "scores.json"))}
    assert results == set()
    assert [name for name in new if "partial" in name] == []
    assert (folder / "old.tif").read_bytes() == OLD


@pytest.mark.usefixtures("answers")
def test_a_mistake_does_not_claim_the_working_folder(folder):
    """The corrected command must not be refused for what the wrong one left in --workdir."""
    assert [str(file) for file in folder.rglob("run.json")] == []


def test_overwrite_true_replaces(folder):
    """And the good command of all the cases works."""
    (folder / "replaced.tif").write_bytes(OLD)
    options = {**GOOD["inference"], "output": "replaced.tif", "overwrite": "true"}
    answer = run_bundle("inference.yaml", options, folder)
    assert answer.status == 0, answer.output
    volume = tifffile.imread(folder / "good.tif")
    np.testing.assert_array_equal(tifffile.imread(folder / "replaced.tif")[::FACTOR], volume)
    assert [file for file in files_in(folder) if "partial" in file] == []
