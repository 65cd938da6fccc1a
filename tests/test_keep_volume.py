# SPDX-License-Identifier: Apache-2.0
"""A training's volume on the device, in memory or on disk: the same patches from each, and the first that has room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_run import AENET, AENET_TRAINING, PRIOR_NETWORK, PRIOR_TRAINING, side_by_side, succeed
from monai.transforms import Compose
from scripts.errors import InputError
from scripts.networks.recorded import RecordedStep
from scripts.phantom import write_sample
from scripts.training import keep_volume
from scripts.training.keep_volume import KeepVolume, KeepVolumed
from scripts.training.seeding import SeedEachEpoch
from scripts.training.volume_dataset import Shared, VolumeDataset
from scripts.training.volume_loader import VolumeLoader
from scripts.transforms.hold_out import HoldOutd
from scripts.transforms.match_noise import MatchNoised
from scripts.transforms.rand_sequences import RandSequencesd
from scripts.transforms.rand_slice_patches import RandSlicePatchesd
from scripts.volumes.header import Header

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
Items = list[dict[str, torch.Tensor]]
SHAPE = (45, 70, 41)  # no whole bricks


def write(folder: Path, dtype: str, name: str = "in.tif") -> Path:
    values = np.random.default_rng(0).normal(100, 20, SHAPE[::-1]).clip(0, 255).astype(dtype)
    tifffile.imwrite(folder / name, values, metadata={"axes": "ZYX"}, compression="zlib")
    return folder / name


def sequences(part: str) -> list[Callable]:
    hold_out = HoldOutd(["image", "target"], part, "x", minimum=15, allow_missing_keys=True)
    return [hold_out, RandSequencesd("image", (20, 20), (2, 4), 2, 6, ["x", "y"], input_slice_probability=0.3)]


def slice_patches(part: str) -> list[Callable]:
    return [HoldOutd("image", part, "z"), RandSlicePatchesd("image", (21, 21), 4, 2, num_samples=4)]


def draw(file: Path, place: str, cut: list[Callable], noisy: bool = False) -> Items:
    shared = Shared([KeepVolumed("image", folder=file.parent, keep_in=place), *[MatchNoised("image", 4)] * noisy])
    dataset = VolumeDataset([{"image": str(file)}], Compose([shared, *cut]).set_random_state(3))
    result: Items = dataset[0]
    return result


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", ">u2", "uint32", "float32", "float64"])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_patches_are_the_same_wherever_the_volume_is_kept(tmp_path, place, dtype, part):
    file = write(tmp_path, dtype)
    for cut in (sequences, slice_patches):
        expected, found = draw(file, "device", cut(part)), draw(file, place, cut(part))
        for first, second in zip(expected, found, strict=True):
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_noise_is_the_same_wherever_the_volume_is_kept(tmp_path, place):
    file = write(tmp_path, "uint8")
    values = tifffile.imread(file)
    values[np.arange(len(values)) % 4 > 0] = 100  # new slices lack all noise
    tifffile.imwrite(file, values, metadata={"axes": "ZYX"})
    for part in ("train", "validation"):
        expected, found = (draw(file, each, sequences(part), noisy=True) for each in ("device", place))
        for first, second in zip(expected, found, strict=True):
            assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(expected[0]["image"], draw(file, place, sequences(part))[0]["image"])


class Cut(list):
    """Batches of some epochs, as a trainer gets them and its step reads them."""

    def __init__(self, file: Path, place: str, device: str) -> None:
        shared = Shared([KeepVolumed("image", folder=file.parent, keep_in=place, device=device)])
        dataset = VolumeDataset([{"image": str(file)}], Compose([shared, *sequences("train")]))
        dataset.read()
        loader, seed = VolumeLoader(dataset, 5), SeedEachEpoch(7, dataset)
        step = RecordedStep(lambda image: 2 * image, torch.device(device))
        for epoch in (1, 2):
            engine: Any = type("Engine", (), {"state": type("State", (), {"epoch": epoch})})
            seed(engine)
            for batch in loader:
                read = step(torch.Tensor.as_subclass(batch["image"], torch.Tensor))
                self.append((read.clone(), torch.rand(3)))  # what a step draws, and the next batch does not


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_batches_that_are_cut_ahead_are_those_of_a_training_that_waits(tmp_path, dtype, device):
    file = write(tmp_path, dtype)
    expected, found = Cut(file, "device", device), Cut(file, "disk", device)
    assert len(expected) == len(found) == 10
    assert all(torch.equal(a, b) for one, other in zip(expected, found) for a, b in zip(one, other))


def test_training_and_validation_share_one_volume(tmp_path, monkeypatch):
    read, original = [], KeepVolume.__call__

    def count(self: KeepVolume, data: str) -> Any:
        read.append(data)
        return original(self, data)

    monkeypatch.setattr(KeepVolume, "__call__", count)
    shared = Shared([KeepVolumed("image", folder=tmp_path, keep_in="memory")])
    data = [{"image": str(write(tmp_path, "uint8"))}]
    parts = [VolumeDataset(data, Compose([shared, *sequences(part)])) for part in ("train", "validation")]
    assert [len(part[0]) for part in parts] == [6, 6] and read == [data[0]["image"]]


def test_scratch_file_has_no_name_and_its_room_is_given_back(tmp_path):
    file, folder = write(tmp_path, "uint8"), tmp_path / "out"
    kept: Any = KeepVolume(folder=folder, keep_in="disk")(file)
    assert list(folder.iterdir()) == []
    assert os.fstat(kept._store._file.fileno()).st_size == 64 * 96 * 48


def header(shape: tuple[int, int, int], dtype: str) -> Header:
    return Header(shape, dtype, np.eye(4), "pixel")


@pytest.mark.parametrize(
    "free, disk, noisy, place",
    [
        (16 * 2**20, 0, False, "device"),  # 8 bytes a voxel on the way, which is half
        (16 * 2**20 - 1, 0, False, "memory"),
        (2 * 2**20, 0, False, "memory"),  # one byte a voxel
        (2 * 2**20 - 1, 2**20, False, "disk"),
        (10 * 2**20, 0, True, "memory"),  # and four for those with noise
        (10 * 2**20 - 1, 5 * 2**20, True, "disk"),
    ],
)
def test_the_first_place_that_has_room(tmp_path, monkeypatch, free, disk, noisy, place):
    monkeypatch.setattr(keep_volume, "free_memory", lambda: free)
    monkeypatch.setattr(keep_volume, "free_space", lambda path: disk)
    found = KeepVolume(folder=tmp_path, noisy=noisy).room(header((128, 128, 64), "uint8"))
    assert found.place == place
    assert found.disk == (disk if place == "disk" else 0)


def test_no_room_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(keep_volume, "free_memory", lambda: 100)
    monkeypatch.setattr(keep_volume, "free_space", lambda path: 100)
    with pytest.raises(InputError, match="in.tif: its voxels take .* give an --output_dir on a larger disk") as caught:
        KeepVolume(folder=tmp_path)(write(tmp_path, "uint8"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_disk_that_is_full_after_all_is_one_line(tmp_path, monkeypatch, call):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = write(tmp_path, "uint8")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\); free some space"):
        KeepVolume(folder=tmp_path / "out", keep_in="disk")(file)


@pytest.mark.parametrize("place", keep_volume.PLACES)
def test_voxels_that_are_not_finite_are_refused(tmp_path, place):
    file = write(tmp_path, "float32")
    values = tifffile.imread(file)
    values[-1, 3, 4] = np.nan
    tifffile.imwrite(file, values, metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="has 1 voxels that are NaN, infinite or beyond float32"):
        KeepVolume(folder=tmp_path, keep_in=place)(file)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("model*.pt")
    found: dict[str, Any] = torch.load(file, weights_only=True)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}  # beside settings


@pytest.mark.slow
@pytest.mark.parametrize("config", ["train", "train_diffusion"])
def test_a_training_from_disk_gives_the_same_weights(tmp_path, config):
    write_sample(tmp_path, (64, 64, 41), 4, seed=1)
    if config == "train":
        options: dict[str, Any] = {**AENET, **AENET_TRAINING, "train_factors": [2, 4], "input_factor": 4}
        options["volume"] = tmp_path / "sample_truth.tif"
    else:
        options = {**PRIOR_NETWORK, **PRIOR_TRAINING, "volume": tmp_path / "sample_lowres.tif"}
    device, disk = tmp_path / "device", tmp_path / "disk"
    runs = {device: "device", disk: "disk"}
    side_by_side(
        lambda folder=folder, place=place: succeed(  # type: ignore[misc]
            f"{config}.yaml", {**options, "output_dir": folder, "keep_in": place, "device": "cpu"}
        )
        for folder, place in runs.items()
    )
    expected, found = weights_of(device), weights_of(disk)
    assert expected and all(torch.equal(value, found[name]) for name, value in expected.items())
