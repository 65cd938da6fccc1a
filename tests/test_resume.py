# SPDX-License-Identifier: Apache-2.0
"""An interrupted run, started again by the same command, is the run it continues."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_run import (
    AENET,
    AENET_TRAINING,
    PRIOR_NETWORK,
    PRIOR_TRAINING,
    Finished,
    interrupt,
    run_bundle,
    side_by_side,
    succeed,
    tiff_stack,
)
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.weights import save_weights
from scripts.phantom import write_sample

pytestmark = pytest.mark.slow

FACTOR = 4
# Long enough that a signal meets the run at work, with validations and, in stage III, smaller and smaller steps.
EPOCHS = 30
LENGTH = {"max_epochs": EPOCHS, "epoch_length": 4, "val_interval": 7, "learning_rate": 0.003}
Runs = tuple[Path, Path, Finished, Finished]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, (64, 64, 41), FACTOR, seed=1)
    return folder


def files(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def whole_and_continued(config: str, options: dict[str, Any], folder: Path, started: str) -> Runs:
    """Run a config to its end, and beside that kill it once a file is there and run it again."""
    whole, continued = folder / "whole", folder / "continued"

    def kill_and_continue() -> tuple[Finished, Finished]:
        again = {**options, "output_dir": continued}
        killed = interrupt(config, again, (continued / started).exists, signal.SIGKILL)
        return killed, succeed(config, again)

    to_the_end: Callable = partial(succeed, config, {**options, "output_dir": whole})
    _, (killed, result) = side_by_side([to_the_end, kill_and_continue])
    return whole, continued, killed, result


@pytest.fixture(scope="module")
def prior(sample, tmp_path_factory) -> Runs:
    options = {"volume": sample / "sample_lowres.tif", **PRIOR_NETWORK, **PRIOR_TRAINING, **LENGTH}
    folder = tmp_path_factory.mktemp("prior")
    return whole_and_continued("train_diffusion.yaml", options, folder, "checkpoint.pt")


@pytest.fixture(scope="module")
def aenet(sample, tmp_path_factory) -> Runs:
    options = {"volume": sample / "sample_lowres.tif", "train_factors": "[2,6]"}
    options = {**options, **AENET, **AENET_TRAINING, **LENGTH, "val_interval": 2}
    return whole_and_continued("train.yaml", options, tmp_path_factory.mktemp("aenet"), "checkpoint.pt")


@pytest.mark.parametrize("stage, weights", [("prior", "model_diffusion.pt"), ("aenet", "model.pt")])
def test_killed_training_goes_on_as_if_it_had_not_been(stage, weights, request):
    whole, continued, killed, result = request.getfixturevalue(stage)
    assert killed.status == -signal.SIGKILL
    found = re.search(rf"going on after epoch (\d+) of {EPOCHS}", result.output)
    assert found, result.output
    epoch = int(found[1])
    assert 1 <= epoch < EPOCHS
    # the progress bar goes on as well
    bar = result.stderr.replace("\r", "\n").split("\n")
    steps = [int(step[1]) for step in (re.search(r"(\d+)/120 ", line) for line in bar) if step]
    assert steps[0] >= 4 * epoch and steps[-1] == 120

    if (
        torch.cuda.is_available()
    ):  # CUDA sums in no fixed order, which training amplifies: the same run, but not to the bit
        expected, state = (flat(torch.load(folder / weights, weights_only=True)) for folder in (whole, continued))
        assert state.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(state[name], values, atol=0.05)
        return
    for name in (weights, "checkpoint.pt"):
        expected, state = (torch.load(folder / name, weights_only=True) for folder in (whole, continued))
        assert flat(state) == flat(expected)


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    """Nested states as one mapping of plain values, tensors as lists."""
    if isinstance(state, dict):
        return {k: v for key, item in state.items() for k, v in flat(item, f"{prefix}{key}.").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for key, item in enumerate(state) for k, v in flat(item, f"{prefix}{key}.").items()}
    return {prefix: state.tolist() if isinstance(state, torch.Tensor) else state}


def test_learning_rate_and_its_schedule_are_part_of_the_state(aenet):
    state = torch.load(aenet[1] / "checkpoint.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] < LENGTH["learning_rate"]


def test_saved_weights_are_the_average(aenet):
    """Rounded to half precision."""
    checkpoint = torch.load(aenet[1] / "checkpoint.pt", weights_only=True)
    weights = {name: value.half() for name, value in torch.load(aenet[1] / "model.pt", weights_only=True).items()}
    average, network = ({k: v.half() for k, v in checkpoint[name].items()} for name in ("ema", "network"))
    assert flat(weights) == flat(average) != flat(network)


def test_finished_training_is_not_repeated(aenet, sample):
    """A longer run of the same settings goes on from the finished one; here it is just as long."""
    _, folder, _, _ = aenet
    options = {"volume": sample / "sample_lowres.tif", "train_factors": "[2,6]", "output_dir": folder}
    expected = torch.load(folder / "model.pt", weights_only=True)
    before = files(folder)["checkpoint.pt"]
    (folder / "model.pt").unlink()  # as if it had been killed between the last checkpoint and the weights
    result = run_bundle("train.yaml", {**options, **AENET, **AENET_TRAINING, **LENGTH, "val_interval": 2})
    assert result.status == 0, result.output
    assert f"going on after epoch {EPOCHS} of {EPOCHS}" in result.output
    assert "loss=" not in result.output and "/120 " not in result.output  # no step
    assert files(folder)["checkpoint.pt"] == before
    assert flat(torch.load(folder / "model.pt", weights_only=True)) == flat(expected)


@pytest.mark.parametrize(
    "stage, config, changed",
    [
        ("prior", "train_diffusion.yaml", {"learning_rate": 0.001}),
        ("prior", "train_diffusion.yaml", {"width": 6}),
        ("aenet", "train.yaml", {"train_factors": "[2,7]"}),
    ],
)
def test_checkpoint_of_other_settings_is_refused(stage, config, changed, request, sample):
    _, folder, _, _ = request.getfixturevalue(stage)
    network = {**PRIOR_NETWORK, **PRIOR_TRAINING} if stage == "prior" else {**AENET, **AENET_TRAINING}
    options = {"volume": sample / "sample_lowres.tif", "output_dir": folder, "train_factors": "[2,6]"}
    if stage == "prior":
        del options["train_factors"]
    before = (folder / "checkpoint.pt").read_bytes()
    result = run_bundle(config, {**options, **network, **LENGTH, **changed})
    (name,) = changed
    assert result.status == 1
    assert "Traceback" not in result.output, result.output
    assert result.last_line.startswith(f"error: {folder / 'checkpoint.pt'} belongs to a run with {name} ")
    assert "another output folder" in result.last_line
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_damaged_checkpoint_is_named(prior, sample, tmp_path):
    _, folder, _, _ = prior
    whole = (folder / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    options = {"volume": sample / "sample_lowres.tif", "output_dir": tmp_path}
    result = run_bundle("train_diffusion.yaml", {**options, **PRIOR_NETWORK, **PRIOR_TRAINING, **LENGTH})
    assert result.status == 1
    assert "Traceback" not in result.output, result.output
    assert result.last_line.startswith(f"error: {tmp_path / 'checkpoint.pt'}: damaged checkpoint; delete it")


def test_killed_restoration_goes_on_after_the_finished_slices(sample, tmp_path):
    numbers = {"delta": 50 / 255, "steps": 100, "percentiles": [0.1, 99.9], "prior_factor": FACTOR}
    torch.manual_seed(0)
    save_weights(ConditionalNAFNet(**PRIOR_NETWORK, settings=numbers), tmp_path / "prior.pt")
    options = {"volume": sample / "sample_lowres.tif", "weights": tmp_path / "prior.pt", **PRIOR_NETWORK}
    options = {**options, "batch_size": 2, "num_steps": 20}
    whole, continued, other = tmp_path / "whole", tmp_path / "continued", tmp_path / "other.tif"
    volume = tifffile.imread(sample / "sample_lowres.tif")
    volume[5, 6, 7] ^= 1
    metadata = {"axes": "ZYX", "spacing": 40, "unit": "nm"}
    tifffile.imwrite(other, volume, imagej=True, resolution=(0.1, 0.1), metadata=metadata)

    def kill_and_continue() -> None:
        again = {**options, "output_dir": continued}
        interrupt("generate.yaml", again, (continued / "unfinished" / "xz.json").exists, signal.SIGKILL)
        assert not (continued / "pseudo_hr.tif").exists()
        assert json.loads((continued / "unfinished" / "xz.json").read_text())["planes"] >= 2
        kept = (continued / "unfinished" / "xz.json").read_text()
        refused = run_bundle("generate.yaml", {**again, "volume": other})
        assert refused.status == 1 and "Traceback" not in refused.output
        assert "unfinished holds slices of a run on another volume (its voxels differ)" in refused.last_line
        assert (continued / "unfinished" / "xz.json").read_text() == kept
        shutil.copy(sample / "sample_lowres.tif", other)  # under another name it is the same volume
        result = succeed("generate.yaml", {**again, "volume": other})
        first = re.search(r"(\d+)/64 ", result.stderr)
        assert first and int(first[1]) >= json.loads(kept)["planes"] // 2  # finished slices are not restored once more

    side_by_side([partial(succeed, "generate.yaml", {**options, "output_dir": whole}), kill_and_continue])
    for name in ("pseudo_hr.tif", "disagreement.tif"):
        assert (continued / name).read_bytes() == (whole / name).read_bytes()
    assert not (continued / "unfinished").exists()

    before = files(whole)
    again, changed = side_by_side(
        [
            partial(succeed, "generate.yaml", {**options, "output_dir": whole}),
            partial(run_bundle, "generate.yaml", {**options, "output_dir": continued, "seed": 1}),
        ]
    )
    assert f"done before ({whole / 'pseudo_hr.tif'})" in again.output and files(whole) == before
    assert changed.status == 1 and "pseudo_hr.tif: exists already" in changed.last_line


def test_d2r_goes_on_from_what_is_finished(sample, tmp_path):
    sizes = {
        "prior": PRIOR_TRAINING,
        "prior_network": PRIOR_NETWORK,
        "generate": {"num_steps": 2, "batch_size": 32},
        "teacher": AENET_TRAINING,
        "aenet": {**AENET_TRAINING, "max_epochs": EPOCHS},
        "aenet_network": AENET,
    }
    work, output = tmp_path / "work", tmp_path / "out.tif"
    options = {"volume": sample / "sample_lowres.tif", "output": output, "workdir": work, "presets#standard": sizes}
    options["self_training"] = False

    stopped = interrupt("d2r.yaml", options, (work / "aenet" / "checkpoint.pt").exists, signal.SIGINT)
    assert stopped.last_line == "interrupted; run the same command again to go on"
    assert "Traceback" not in stopped.output, stopped.output
    assert "terminating due to exception" not in stopped.output
    assert not output.exists()
    finished = {name: time for name, time in files(work).items() if name.startswith(("prior/", "pseudo/"))}
    assert {"prior/model_diffusion.pt", "pseudo/pseudo_hr.tif"} <= finished.keys()

    other = tmp_path / "other"  # the same folder under another name, for a second command at the same time
    shutil.copytree(work, other)
    again, refused = side_by_side(
        [
            partial(succeed, "d2r.yaml", options),
            partial(run_bundle, "d2r.yaml", {**options, "output": tmp_path / "o.tif", "workdir": other, "seed": 1}),
        ]
    )
    assert "1 of 4: stage I, learn the prior: done before" in again.output
    assert "2 of 4: stage II, restore XZ and YZ slices: done before" in again.output
    assert re.search(rf"going on after epoch \d+ of {EPOCHS}", again.output)
    now = files(work)
    assert {name: now[name] for name in finished} == finished
    assert tiff_stack(output)[0].shape == (64, 64, 41)

    # As if it had been killed just after the output was moved into place, without the table that was asked for, and
    # with a stage whose result was changed since.
    before = files(tmp_path)
    with (other / "prior" / "model_diffusion.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    done, changed = side_by_side(
        [
            partial(succeed, "d2r.yaml", {**options, "slice_table": tmp_path / "table.csv"}),
            partial(run_bundle, "d2r.yaml", {**options, "output": tmp_path / "o.tif", "workdir": other}),
        ]
    )
    assert (tmp_path / "table.csv").read_text().splitlines()[1] == "0,0,0,yes"
    assert done.output.count("done before") == 4 and f"4 of 4: reconstruct: done before ({output})" in done.output
    now = files(tmp_path)
    assert {name for name in before if now[name] != before[name]} == {"other/prior/model_diffusion.pt"}
    weights = other / "prior" / "model_diffusion.pt"
    assert f"{weights}: is no longer the file that this run wrote; delete it" in changed.last_line

    assert refused.status == 1 and "Traceback" not in refused.output
    assert refused.last_line.startswith(f"error: --workdir {other} holds a run with seed 0, not 1: ")
