# SPDX-License-Identifier: Apache-2.0
"""The transforms that load and save volumes."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import Compose
from scripts.errors import InputError
from scripts.transforms.load_volume import LoadVolume, LoadVolumed
from scripts.transforms.save_volume import SaveVolume, SaveVolumed
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.writing import write_volume
from volume_files import sizes_of, volume


def test_transforms(tmp_path, capsys):
    write_volume(volume(unit="nanometer"), tmp_path / "in.tif")
    chain = Compose([LoadVolumed("volume", ReadOptions([8, 4, 4])), SaveVolumed("volume", tmp_path / "out.ome.tif")])
    chain({"volume": tmp_path / "in.tif"})
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"wrote {tmp_path / 'out.ome.tif'}: 7 x 6 x 5 voxels (x, y, z) of 4 x 4 x 8 nanometer"
    loaded = LoadVolume()(tmp_path / "out.ome.tif")
    np.testing.assert_allclose(sizes_of(loaded), (4, 4, 8))
    with pytest.raises(InputError, match="--overwrite true"):
        SaveVolume(tmp_path / "out.ome.tif")(loaded)
    SaveVolume(tmp_path / "out.ome.tif", overwrite=True)(loaded)
