# SPDX-License-Identifier: Apache-2.0
"""What is written comes back: values, type, axes, voxel size and unit."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume
from volume_files import SHAPE, UNITS, sizes_of, stack, volume


@pytest.mark.parametrize("name", ["v.tif", "v.TIFF", "v.ome.tif", "v.ome.tiff", "v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64", "int8"])
def test_round_trip_keeps_values_dtype_and_voxel_size(tmp_path, name, dtype):
    original = volume(dtype)
    write_volume(original, tmp_path / name)
    loaded = read_volume(tmp_path / name)
    assert isinstance(loaded, MetaTensor) and loaded.dtype == torch.float32
    assert loaded.shape == (1, *SHAPE[::-1])
    assert torch.equal(loaded.as_tensor(), original.as_tensor())
    assert loaded.meta["dtype"] == dtype
    assert loaded.meta["unit"] == "micrometer"
    assert loaded.meta["filename_or_obj"] == str(tmp_path / name)
    np.testing.assert_allclose(sizes_of(loaded), (0.26, 0.27, 0.5), rtol=1e-6)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif", "v.nii.gz"])
@pytest.mark.parametrize("sizes", [(0.26, 0.27, 0.5), (10.0, 10.0, 80.0), (1.0, 1.0, 1 / 6.5)])
def test_round_trip_keeps_every_unit(tmp_path, name, unit, sizes):
    write_volume(volume(sizes=sizes, unit=unit), tmp_path / name)
    loaded = read_volume(tmp_path / name)
    if unit == "nanometer" and name.endswith("nii.gz"):  # which knows no nanometer
        unit, sizes = "micrometer", tuple(size / 1000 for size in sizes)
    assert loaded.meta["unit"] == unit
    np.testing.assert_allclose(sizes_of(loaded), sizes, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16"])
def test_dtype_that_no_format_holds_is_stored_in_the_next(tmp_path, dtype):
    np_array = stack(dtype)
    tifffile.imwrite(tmp_path / "in.tif", np_array)
    loaded = read_volume(tmp_path / "in.tif")
    for name in ("out.ome.tif", "out.nii"):
        write_volume(loaded, tmp_path / name)
        assert torch.equal(read_volume(tmp_path / name).as_tensor(), loaded.as_tensor())


def test_values_are_rounded_and_clipped(tmp_path):
    values = torch.tensor([-3.0, 0.4, 0.6, 254.6, 300.0]).repeat(2, 2, 1)
    for dtype, expected in (("uint8", [0, 0, 1, 255, 255]), ("int16", [-3, 0, 1, 255, 300])):
        write_volume(MetaTensor(values, meta={"dtype": dtype}), tmp_path / "v.ome.tif")
        assert read_volume(tmp_path / "v.ome.tif")[0, 0, 0].tolist() == expected
    huge = MetaTensor(torch.full((2, 2, 2), 1e20), meta={"dtype": "uint32"})
    write_volume(huge, tmp_path / "v.tif")
    assert tifffile.imread(tmp_path / "v.tif").min() == 2**32 - 1


def test_nan_is_not_written_as_an_integer(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_volume(MetaTensor(torch.full((2, 2, 2), float("nan")), meta={"dtype": "uint8"}), tmp_path / "v.tif")
    assert os.listdir(tmp_path) == []


def test_axes_are_x_y_z_in_memory(tmp_path):
    write_volume(volume(), tmp_path / "v.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "v.tif"), stack())
    write_volume(volume(), tmp_path / "v.nii")
    assert np.array_equal(nib.Nifti1Image.from_filename(tmp_path / "v.nii").dataobj, stack().transpose(2, 1, 0))


def test_volume_without_channel_axis_and_in_a_new_folder(tmp_path):
    write_volume(volume()[0], tmp_path / "new" / "folder" / "v.tif")
    assert read_volume(tmp_path / "new" / "folder" / "v.tif").shape == (1, *SHAPE[::-1])


def test_nifti_keeps_the_whole_affine(tmp_path):
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 8, 3], [0, 0, 0, 1]])
    image = nib.Nifti1Image(stack().transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "in.nii.gz")
    loaded = read_volume(tmp_path / "in.nii.gz")
    np.testing.assert_allclose(loaded.affine, affine)
    write_volume(loaded, tmp_path / "out.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "out.nii.gz").affine, affine)
    # another voxel size changes neither directions nor origin
    changed = read_volume(tmp_path / "in.nii.gz", ReadOptions([4, 1, 3]))
    np.testing.assert_allclose(changed.affine, [[0, -1, 0, 5], [3, 0, 0, -7], [0, 0, 4, 3], [0, 0, 0, 1]])
    assert changed.meta["unit"] == "millimeter"


def test_nifti_scaling_is_applied(tmp_path):
    image = nib.Nifti1Image(stack("int16").transpose(2, 1, 0), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "v.nii")
    loaded = read_volume(tmp_path / "v.nii")
    np.testing.assert_allclose(loaded[0], stack("int16").transpose(2, 1, 0) * 0.5 + 3, rtol=1e-6)
    assert loaded.meta["dtype"] == "float32"
