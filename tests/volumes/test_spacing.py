# SPDX-License-Identifier: Apache-2.0
"""The option --spacing, and voxel sizes that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume
from volume_files import expect_refusal, sizes_of, volume


@pytest.mark.parametrize(
    "name, unit, expected",
    [("v.ome.tif", "nanometer", "nanometer"), ("v.tif", "pixel", "micrometer"), ("v.nii", "pixel", "micrometer")],
)
def test_spacing_is_z_y_x_in_the_unit_of_the_file_or_micrometer(tmp_path, name, unit, expected):
    write_volume(volume(unit=unit), tmp_path / name)
    loaded = read_volume(tmp_path / name, ReadOptions([3, 2, 1]))
    np.testing.assert_allclose(sizes_of(loaded), (1, 2, 3))
    assert loaded.meta["unit"] == expected


@pytest.mark.parametrize(
    "spacing", [[1, 1], [1, 1, 1, 1], [0, 1, 1], [1, -1, 1], [1, float("nan"), 1], "111", 3, ["a"]]
)
def test_invalid_spacing(tmp_path, spacing):
    write_volume(volume(), tmp_path / "v.tif")
    expect_refusal(tmp_path / "v.tif", "--spacing", "three positive numbers", spacing=spacing)


def test_voxel_size_of_zero_in_the_header(tmp_path):
    write_volume(volume(), tmp_path / "v.nii")
    content = bytearray((tmp_path / "v.nii").read_bytes())
    content[320:324] = bytes(4)  # the third number of srow_z; nibabel would not write it so
    (tmp_path / "v.nii").write_bytes(content)
    expect_refusal(tmp_path / "v.nii", "v.nii", "voxel size", "--spacing")
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "v.nii", ReadOptions([3, 2, 1]))), (1, 2, 3))
