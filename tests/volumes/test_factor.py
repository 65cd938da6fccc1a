# SPDX-License-Identifier: Apache-2.0
"""Factors that do not make voxels cubic are told."""

from __future__ import annotations

import pytest
import tifffile
from scripts.volumes.factor import factor_of, warn_unless_cubic
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_header
from scripts.volumes.writing import write_volume
from volume_files import stack, volume


@pytest.mark.parametrize(
    "sizes, factor, words",
    [
        ((8, 8, 32), 8, ("x8 makes voxels of 8 x 8 x 4 nanometer", "not cubic", "x4 would")),
        ((8, 8, 32), 4, None),
        ((8, 8, 32.3), 4, None),
        ((8, 8, 8), 8, ("x8 makes voxels of 8 x 8 x 1 nanometer", "nothing is coarse in Z", "--spacing")),
        ((8, 16, 22.63), 2, ("not cubic", "X and Y differ")),
        ((8, 16, 64), 2, ("not cubic", "would come closest")),
    ],
)
def test_factor_that_does_not_make_voxels_cubic(tmp_path, caplog, sizes, factor, words):
    write_volume(volume(sizes=sizes, unit="nanometer"), tmp_path / "v.ome.tif")
    assert factor_of(read_header(tmp_path / "v.ome.tif"), factor) == factor
    warn_unless_cubic(read_header(tmp_path / "v.ome.tif"), factor)
    assert len(caplog.records) == (words is not None)
    for word in words or ():
        assert word in caplog.text


def test_factor_without_a_voxel_size_is_not_warned_of(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "v.tif", stack())
    warn_unless_cubic(read_header(tmp_path / "v.tif"), 8)
    assert caplog.text == ""
    warn_unless_cubic(read_header(tmp_path / "v.tif", ReadOptions([32, 8, 8])), 8)
    assert "x4 would" in caplog.text
