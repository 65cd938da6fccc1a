# SPDX-License-Identifier: Apache-2.0
"""A file of several channels, in every format that can have them: which one is meant is chosen with ``--channel``, and the
message that asks for it names the numbers, and the names where the file has some.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import tifffile
from chunked_files import coded, write_group, write_n5, write_precomputed, write_zarr
from PIL import Image
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume

BOTH = np.stack([coded(), coded() + 1])  # (c, z, y, x)
OMERO = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
AXES = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "zyx")]


def multiscale() -> dict[str, Any]:
    scale = {"type": "scale", "scale": [1, 1, 1, 1]}
    return {"axes": AXES, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}


def ome_zarr_4(path: Path) -> None:
    write_group(path, {"multiscales": [{**multiscale(), "version": "0.4"}], "omero": OMERO})
    write_zarr(path / "0", BOTH, chunks=(1, 2, 3, 4))


def ome_zarr_5(path: Path) -> None:
    write_group(path, {"ome": {"version": "0.5", "multiscales": [multiscale()], "omero": OMERO}}, 3)
    write_zarr(path / "0", BOTH, 3, chunks=(1, 2, 3, 4))


def named_zarr(path: Path) -> None:
    write_zarr(path, BOTH, 3, chunks=(1, 2, 3, 4), dimension_names=("c", "z", "y", "x"))


def n5(path: Path) -> None:
    write_n5(path, {"axes": ["x", "y", "z", "c"]}, BOTH, block=(4, 3, 2, 1))


def precomputed(path: Path) -> None:
    write_precomputed(path, channels=2)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["raw"] = BOTH
        file["raw"].attrs["axis_names"] = ["c^", "z", "y", "x"]


def ome_tiff(path: Path) -> None:
    tifffile.imwrite(path, BOTH, metadata={"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP"]}})


def imagej(path: Path) -> None:
    tifffile.imwrite(path, BOTH.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"})


def nifti(path: Path) -> None:
    nib.save(nib.Nifti1Image(BOTH.transpose(3, 2, 1, 0)[:, :, :, None], np.eye(4)), path)


def nrrd(path: Path) -> None:
    header = "type: uint16\ndimension: 4\nsizes: 2 7 6 5\nkinds: vector domain domain domain\nendian: little\n"
    voxels = BOTH.transpose(1, 2, 3, 0).tobytes()
    path.write_bytes(f"NRRD0004\n{header}encoding: raw\n\n".encode() + voxels)


def metaimage(path: Path) -> None:
    header = (
        "NDims = 3\nDimSize = 7 6 5\nElementNumberOfChannels = 2\nElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + BOTH.transpose(1, 2, 3, 0).tobytes())


@pytest.mark.parametrize(
    "make, name, choice",
    [
        (ome_zarr_4, "v.zarr", "0 (DAPI) or 1 (GFP)"),
        (ome_zarr_5, "v.zarr", "0 (DAPI) or 1 (GFP)"),
        (named_zarr, "v.zarr", "0 to 1"),
        (n5, "v.n5", "0 to 1"),
        (precomputed, "v", "0 to 1"),
        (hdf5, "v.h5", "0 to 1"),
        (ome_tiff, "v.ome.tif", "0 (DAPI) or 1 (GFP)"),
        (imagej, "v.tif", "0 to 1"),
        (nifti, "v.nii", "(the fifth)"),
        (nrrd, "v.nrrd", "0 to 1"),
        (metaimage, "v.mha", "0 to 1"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_channel_is_asked_for_and_chosen(tmp_path, make: Callable[[Path], None], name, choice):
    make(tmp_path / name)
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / name)
    told = str(error.value)
    assert name in told and "--channel" in told and choice in told and "\n" not in told
    for channel in (0, 1):
        voxels = read_volume(tmp_path / name, ReadOptions(channel=channel))
        np.testing.assert_array_equal(voxels[0].numpy().transpose(2, 1, 0), BOTH[channel])
    with pytest.raises(InputError, match=f"--channel 2: .*{name} has 2 channels, numbered from 0"):
        read_volume(tmp_path / name, ReadOptions(channel=2))


@pytest.mark.parametrize("labels", [["DAPI"], ["", "GFP"], [{}, {}], "DAPI", None, ["a\nb", "c"]])
def test_names_that_do_not_fit_are_left_out(tmp_path, labels):
    channels = [{"label": each} for each in labels] if isinstance(labels, list) else labels
    group = {"multiscales": [multiscale()], "omero": {"channels": channels}}
    write_zarr(write_group(tmp_path / "v.zarr", group) / "0", BOTH, chunks=(1, 2, 3, 4))
    with pytest.raises(InputError, match=r"choose one with --channel (0 to 1|0 \(a b\) or 1 \(c\)), or") as error:
        read_volume(tmp_path / "v.zarr")
    assert "\n" not in str(error.value)


def test_fourth_axis_of_nifti_is_time(tmp_path):
    nib.save(nib.Nifti1Image(BOTH.transpose(3, 2, 1, 0), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(InputError, match="--channel 1: .* has no axis of channels; leave it out"):
        read_volume(tmp_path / "v.nii", ReadOptions(channel=1))
    voxels = read_volume(tmp_path / "v.nii", ReadOptions(time=1))
    np.testing.assert_array_equal(voxels[0].numpy().transpose(2, 1, 0), BOTH[1])


def test_slices_along_the_fourth_axis_of_nifti(tmp_path):
    """As the refusal advises; their distance and their origin are those of the third."""
    affine = np.array([[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 8, 30], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(coded().transpose(2, 1, 0)[:, :, None], affine), tmp_path / "v.nii")
    with pytest.raises(InputError, match="if they are its slices, add --axes XYZ"):
        read_volume(tmp_path / "v.nii")
    voxels = read_volume(tmp_path / "v.nii", ReadOptions(axes="XYZ"))
    np.testing.assert_array_equal(voxels[0].numpy().transpose(2, 1, 0), coded())
    np.testing.assert_allclose(voxels.affine, affine)


@pytest.mark.parametrize("channel", [None, 1])
@pytest.mark.parametrize(
    "kind, says",
    [
        ("RGB", "not a grayscale image"),
        ("RGBA", "not a grayscale image"),
        ("LA", "not a grayscale image"),
        ("P", "not a grayscale image"),
        ("color TIFF", "is a color image"),
        ("channels", "holds 2 channels"),
    ],
)
def test_slices_of_several_channels(tmp_path, kind, says, channel):
    for number in range(3):
        if kind == "color TIFF":
            tifffile.imwrite(tmp_path / f"{number}.tif", np.zeros((6, 7, 3), np.uint8), photometric="rgb")
        elif kind == "channels":
            pages = np.zeros((2, 6, 7), np.uint8)
            tifffile.imwrite(tmp_path / f"{number}.tif", pages, imagej=True, metadata={"axes": "CYX"})
        else:
            Image.new(kind, (7, 6)).save(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match=says) as error:
        read_volume(tmp_path, ReadOptions(channel=channel))
    assert "\n" not in str(error.value) and "grayscale" in str(error.value)
