# SPDX-License-Identifier: Apache-2.0
"""The transforms that load and save volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, SaveImage, SaveImaged
from scripts.errors import InputError
from scripts.transforms.load_volume import LoadVolume, LoadVolumed
from scripts.transforms.save_volume import SaveVolume, SaveVolumed
from scripts.volumes.monai_io import VolumeReader, VolumeWriter
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import open_volume
from scripts.volumes.volume_block import VolumeBlock
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


def test_every_volume_is_loaded_and_saved_under_its_own_name(tmp_path):
    """Floats are kept as they are stored for each of them, and a volume may be missing."""
    for name, dtype in (("a", "float32"), ("b", "float64"), ("c", "uint8")):
        write_volume(volume(dtype), tmp_path / f"{name}.tif")
    paths: dict = {name: tmp_path / f"{name}.tif" for name in "abc"}
    data = LoadVolumed(["a", "b", "c", "d"], allow_missing_keys=True)(paths)
    assert set(data) == {"a", "b", "c", "a_recorded", "b_recorded"}
    for name in "ab":
        assert torch.equal(data[f"{name}_recorded"], data[name].as_tensor())
        assert torch.equal(data[name].as_tensor(), LoadVolume()(paths[name]).as_tensor())
    save = SaveVolumed(["c", "d", "a"], [tmp_path / f"{name}2.tif" for name in "cda"], allow_missing_keys=True)
    save(data)
    assert [(tmp_path / f"{name}2.tif").exists() for name in "acd"] == [True, True, False]
    for name in "ac":
        assert torch.equal(LoadVolume()(tmp_path / f"{name}2.tif").as_tensor(), data[name].as_tensor())


def test_loaded_volumes_are_channel_first_to_monai(tmp_path):
    path = tmp_path / "in.tif"
    write_volume(volume(), path)
    with open_volume(path) as source:
        block = VolumeBlock(source, slice(0, 4), slice(1, 5), slice(0, 3), {})
        data = Compose([LoadVolumed(["whole", "block"]), EnsureChannelFirstd(["whole", "block"])])(
            {"whole": path, "block": block}
        )
    assert data["whole"].shape == (1, 7, 6, 5) and data["block"].shape == (1, 4, 4, 3)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".nii.gz"])
def test_monais_transforms_read_and_write_our_formats(tmp_path, suffix):
    """Voxels, type and voxel size, where MONAI's own reader and writer of TIFF lose them."""
    path = tmp_path / f"in{suffix}"
    write_volume(volume("uint16"), path)
    expected = LoadVolume()(path)
    assert VolumeReader().verify_suffix([path]) and not VolumeReader().verify_suffix("in.xyz")
    load = LoadImaged(["one", "two"], reader="scripts.volumes.monai_io.VolumeReader")
    data = Compose([load, EnsureChannelFirstd(["one", "two"])])({"one": path, "two": [path, path]})
    assert torch.equal(data["one"].as_tensor(), expected.as_tensor())
    assert torch.equal(data["two"].as_tensor(), torch.cat([expected.as_tensor()] * 2))
    for each in data.values():
        np.testing.assert_allclose(sizes_of(each), sizes_of(expected))
        assert each.meta["unit"] == expected.meta["unit"]
    save = SaveImaged(
        "one", output_dir=tmp_path, output_ext=suffix, output_dtype=None, separate_folder=False, writer=VolumeWriter
    )
    save(data)
    (written,) = tmp_path.glob(f"*_trans{suffix}")
    again = LoadVolume()(written)
    assert torch.equal(again.as_tensor(), expected.as_tensor()) and again.meta["dtype"] == "uint16"
    np.testing.assert_allclose(sizes_of(again), sizes_of(expected))
    with pytest.raises(RuntimeError, match="exists already"):
        save(data)
    with pytest.raises(RuntimeError, match="a file has one channel, not 2"):
        SaveImage(tmp_path, "both", suffix, writer=VolumeWriter)(data["two"])


def test_reader_takes_a_voxel_size_and_channels_of_one_grid(tmp_path):
    write_volume(volume(), tmp_path / "a.tif")
    write_volume(volume(sizes=(1, 1, 2)), tmp_path / "b.tif")
    load = LoadImaged("image", VolumeReader, reading=ReadOptions([8, 4, 4]))
    np.testing.assert_allclose(sizes_of(load({"image": tmp_path / "a.tif"})["image"]), (4, 4, 8))
    with pytest.raises(InputError, match="one size and one voxel size"):
        LoadImaged("image", VolumeReader)({"image": [tmp_path / "a.tif", tmp_path / "b.tif"]})
