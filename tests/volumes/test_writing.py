# SPDX-License-Identifier: Apache-2.0
"""Writing block by block: the file that libraries write, or none."""

from __future__ import annotations

import gzip
import os
import re
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scripts.errors import InputError
from scripts.volumes.formats import nifti
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import volume_writer, write_volume
from volume_files import assert_in_one_line, stack, volume


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("other")])
@pytest.mark.parametrize(
    "name, where, function",
    [
        ("v.tif", tifffile, "imwrite"),
        ("v.nii", nifti, "create"),
        ("v.ome.tif", os, "pwrite"),
        ("v.nii.gz", os, "pwrite"),
        ("v.nii.gz", nifti, "compress"),
    ],
)
def test_failing_write_leaves_nothing(tmp_path, monkeypatch, failure, name, where, function):
    def fail(*_, **__):
        others = [file for file in os.listdir(tmp_path) if file != name and not file.endswith(".lock")]
        assert len(others) == (function not in ("create", "imwrite")) and all(file.startswith(".") for file in others)
        raise failure

    expected = InputError if isinstance(failure, OSError) else type(failure)
    with monkeypatch.context() as patch:
        patch.setattr(where, function, fail)
        with pytest.raises(expected) as error:
            write_volume(volume(), tmp_path / name)
        if expected is InputError:
            assert_in_one_line(error, name, "disk full")
        assert os.listdir(tmp_path) == []
        (tmp_path / name).write_text("older")
        with pytest.raises(expected):
            write_volume(volume(), tmp_path / name)
    assert (tmp_path / name).read_text() == "older" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif", "v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("short_row", [0, 4096])
def test_blocks_in_any_order_make_the_volume(tmp_path, monkeypatch, name, dtype, short_row):
    monkeypatch.setattr("scripts.volumes.formats.uncompressed._SHORT_ROW", short_row)
    voxels = stack(dtype).transpose(2, 1, 0)  # 7 x 6 x 5
    corners = [(x, y, z) for x in (4, 0) for z in (2, 4, 0) for y in (3, 0)]
    with volume_writer(tmp_path / name, voxels.shape, dtype, np.diag([2, 3, 8, 1.0]), "nanometer") as writer:
        for x, y, z in corners:
            writer.write(voxels[x : x + 4, y : y + 3, z : z + 2].astype(np.float64), x, y, z)
        assert not (tmp_path / name).exists()
    loaded = read_volume(tmp_path / name)
    assert np.array_equal(loaded[0], voxels) and loaded.meta["dtype"] == dtype
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["v.tif", "v.nii", "v.nii.gz", "v.nrrd", "v.mha", "v.mrc"])
def test_block_without_a_place_is_the_first(tmp_path, name):
    voxels = stack().transpose(2, 1, 0)
    with volume_writer(tmp_path / name, voxels.shape, "uint8", np.eye(4), "pixel") as writer:
        writer.write(voxels[:4, :3, :2])
    expected = np.zeros_like(voxels)
    expected[:4, :3, :2] = voxels[:4, :3, :2]
    assert np.array_equal(read_volume(tmp_path / name)[0], expected)


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_is_the_file_that_tifffile_writes(tmp_path, name, dtype):
    write_volume(volume(dtype), tmp_path / name)
    if "ome" in name:
        sizes = {"PhysicalSizeX": 0.26, "PhysicalSizeY": 0.27, "PhysicalSizeZ": 0.5}
        units = {f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XYZ"}
        options: dict[str, Any] = {"ome": True, "bigtiff": True, "metadata": {"axes": "ZYX", **sizes, **units}}
    else:
        metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "micron"}
        options = {"imagej": True, "resolution": (1 / 0.26, 1 / 0.27), "metadata": metadata}
    tifffile.imwrite(tmp_path / f"whole_{name}", stack(dtype), photometric="minisblack", **options)
    contents = [(tmp_path / file).read_bytes() for file in (name, f"whole_{name}")]
    ours, theirs = (re.sub(rb"urn:uuid:[-0-9a-f]{36}", b"", content) for content in contents)  # one of its own a file
    assert ours == theirs


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_nifti_is_the_file_that_nibabel_writes(tmp_path, name, dtype):
    write_volume(volume(dtype), tmp_path / name)
    image = nib.Nifti1Image(stack(dtype).transpose(2, 1, 0), np.diag([0.26, 0.27, 0.5, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / f"whole_{name}")
    unpack = gzip.open if name.endswith(".gz") else open
    with unpack(tmp_path / name, "rb") as ours, unpack(tmp_path / f"whole_{name}", "rb") as theirs:
        assert ours.read() == theirs.read()
