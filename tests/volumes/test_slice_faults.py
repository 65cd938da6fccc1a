# SPDX-License-Identifier: Apache-2.0
"""Slices that look wrong at a glance are told by their number."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scripts.volumes.reading import check_volume, read_volume
from volume_files import stack


def warnings_of(array: np.ndarray, folder: Path, caplog: pytest.LogCaptureFixture, name: str = "v.tif") -> list[str]:
    if name.endswith(".tif"):
        tifffile.imwrite(folder / name, array, metadata={"axes": "ZYX"}, photometric="minisblack")
    else:
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.eye(4)), folder / name)
    caplog.clear()
    read_volume(folder / name)
    return [record.getMessage().removeprefix(f"{folder / name}: ") for record in caplog.records]


@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_odd_slices_are_told_by_number(tmp_path, caplog, dtype, name):
    array = np.random.default_rng(0).integers(10, 100, (40, 20, 21)).astype(dtype)
    array[[3, 7, 8, 9]] = 0
    array[12] = 55
    array[20] = array[19]
    array[30], array[35] = array[2], array[1]
    assert warnings_of(array, tmp_path, caplog, name) == [
        "slices 3, 7-9 (counted from 0) are black: every voxel is 0",
        "slice 12 (counted from 0) is blank: every voxel is 55",
        "slice 20 (counted from 0) repeats the one before",
        "some slices (counted from 0) are there again: 30 repeats 2, 35 repeats 1",
    ]


@pytest.mark.parametrize("dtype, limit", [("uint8", 255), ("uint16", 65535), ("uint16", 4095), ("int16", 32767)])
def test_saturated_slices_are_told(tmp_path, caplog, dtype, limit):
    array = np.random.default_rng(0).integers(10, limit, (12, 20, 20)).astype(dtype)
    array[2] = np.where(np.random.default_rng(1).random((20, 20)) < 0.3, limit, array[2])
    array[5] = limit
    array[7, :2, :2] = limit  # a few voxels are no fault
    assert warnings_of(array, tmp_path, caplog) == [
        f"slices 2, 5 (counted from 0) are saturated: over 10% of the voxels are {limit}"
    ]


def test_long_lists_are_cut(tmp_path, caplog):
    array = np.random.default_rng(0).integers(10, 100, (40, 8, 8)).astype(np.uint8)
    array[::2] = 0
    (told,) = warnings_of(array, tmp_path, caplog)
    assert "slices 0, 2, 4, 6, 8, 10, 12, 14, ... (20 in all)" in told


@pytest.mark.parametrize("again, more", [(8, ""), (9, ", ... (9 in all)")])
def test_long_lists_of_repeats_are_cut(tmp_path, caplog, again, more):
    array = np.random.default_rng(0).integers(10, 100, (20, 8, 8)).astype(np.uint8)
    array[11 : 11 + again] = array[:again]
    (told,) = warnings_of(array, tmp_path, caplog)
    assert told.endswith(f", 18 repeats 7{more}")


def test_good_slices_are_not_warned_of(tmp_path, caplog):
    array = np.random.default_rng(0).integers(0, 120, (12, 160, 160)).astype(np.uint16)
    array[:, :10] = 0  # a border, in the file all alike
    array[:, 80:] += np.random.default_rng(1).integers(0, 9000, (12, 80, 160)).astype(np.uint16)
    array[:, -10:] = 0
    array[:, :, -20:] = 65535
    assert warnings_of(array, tmp_path, caplog) == []
    mirrored = array.copy()
    mirrored[4] = mirrored[3][::-1]  # the same voxels elsewhere
    mirrored[6] = np.roll(mirrored[5], 8, axis=0)
    assert warnings_of(mirrored, tmp_path, caplog, "other.tif") == []


def test_odd_slices_of_one_file_are_told_once(tmp_path, caplog):
    array = stack()
    array[1] = 0
    assert len(warnings_of(array, tmp_path, caplog)) == 1
    caplog.clear()
    told: list[str] = []
    check_volume(tmp_path / "v.tif", warn=told.append)
    assert caplog.records == [] and told == [
        f"{tmp_path / 'v.tif'}: slice 1 (counted from 0) is black: every voxel is 0"
    ]
