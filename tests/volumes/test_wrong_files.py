# SPDX-License-Identifier: Apache-2.0
"""Files that cannot be read are refused in one line that says why."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume
from volume_files import (
    SHAPE,
    assert_in_one_line,
    expect_refusal,
    save_slices,
    sizes_of,
    stack,
    volume,
    write_one_by_one,
    write_plain,
    write_shaped,
)


@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_special_files_are_not_opened(tmp_path, name):
    """A pipe would be waited for, for ever."""
    os.mkfifo(tmp_path / name)
    expect_refusal(tmp_path / name, name, "is a pipe (FIFO)")
    (tmp_path / f"device_{name}").symlink_to("/dev/zero")
    expect_refusal(tmp_path / f"device_{name}", "is a device")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / f"s_{name}"))  # the whole path may be too long for a socket
        expect_refusal(tmp_path / f"s_{name}", "is a socket")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_special_files_among_slices(tmp_path, make):
    save_slices(tmp_path, ["1.png", "2.png"])
    make(tmp_path / "3.png")
    expect_refusal(tmp_path, "3.png", "no regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_file_that_may_not_be_read(tmp_path):
    write_volume(volume(), tmp_path / "v.tif")
    (tmp_path / "v.tif").chmod(0)
    expect_refusal(tmp_path / "v.tif", "may not be read")


@pytest.mark.parametrize("name", ["a" * 300 + ".tif", "loop.tif", "a\0.tif"])
def test_names_that_lead_nowhere(tmp_path, name):
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    expect_refusal(tmp_path / name, "cannot be read")


def test_missing_file_and_unknown_format(tmp_path):
    expect_refusal(tmp_path / "none.tif", "none.tif", "no such file")
    (tmp_path / "v.jpg").write_bytes(b"1")
    expect_refusal(tmp_path / "v.jpg", "v.jpg", ".tif", ".ome.tif", ".nii.gz", "PNG")
    for value in (True, None, 2024, ""):
        expect_refusal(value, "a file name is needed")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif", "v.nii", "v.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"no such thing", bytes(2000)])
def test_unreadable_file(tmp_path, name, content, capfd):
    (tmp_path / name).write_bytes(content)
    expect_refusal(tmp_path / name, name, "cannot be read")
    assert capfd.readouterr().err == ""  # what the libraries log would come before the one line


def _write_zlib_ome(path: Path) -> None:
    tifffile.imwrite(path, stack(), ome=True, compression="zlib", metadata={"axes": "ZYX"})


@pytest.mark.parametrize(
    "write, name",
    [
        (write_plain, "plain.tif"),
        (write_one_by_one, "compressed.tif"),
        (write_shaped, "shaped.tif"),
        (_write_zlib_ome, "zlib.ome.tif"),
        (lambda path: write_volume(volume(), path), "imagej.tif"),
        (lambda path: write_volume(volume(), path), "v.ome.tif"),
        (lambda path: write_volume(volume(), path), "v.nii"),
        (lambda path: write_volume(volume(), path), "v.nii.gz"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_truncated_file(tmp_path, write, name):
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    assert read_volume(path).shape == (1, *SHAPE[::-1])
    for size in range(1, len(content) - 16, 41):  # the last bytes may be padding
        path.write_bytes(content[:size])
        with pytest.raises(InputError) as error:
            read_volume(path)
        assert_in_one_line(error, name)
        assert "cannot be read" in str(error.value), f"{size} of {len(content)} bytes: {error.value}"


def test_corrupt_gzip(tmp_path):
    write_volume(volume("float32"), tmp_path / "v.nii.gz")
    content = bytearray((tmp_path / "v.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "v.nii.gz").write_bytes(content)
    expect_refusal(tmp_path / "v.nii.gz", "v.nii.gz", "cannot be read")


def test_images_that_are_no_volume(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, stack()[0])
    expect_refusal(path, "v.tif", "2-D", "volume")
    tifffile.imwrite(path, np.zeros((6, 7, 3), np.uint8), photometric="rgb")
    expect_refusal(path, "color", "3 channels")
    tifffile.imwrite(path, np.zeros((5, 6, 7, 4), np.uint8), photometric="rgb")
    expect_refusal(path, "color", "4 channels")
    tifffile.imwrite(path, np.zeros((5, 2, 6, 7), np.uint8), imagej=True, metadata={"axes": "ZCYX"})
    expect_refusal(path, "2 channels", "save one channel")
    tifffile.imwrite(path, np.zeros((3, 5, 6, 7), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    expect_refusal(path, "TZYX", "one time point")
    tifffile.imwrite(path, stack())
    tifffile.imwrite(path, stack()[:, :3], append=True)
    expect_refusal(path, "2 images", "5 x 6 x 7")
    tifffile.imwrite(path, stack()[:1], imagej=True, metadata={"axes": "ZYX"})
    expect_refusal(path, "v.tif", "2-D")


def test_nifti_images_that_are_no_volume(tmp_path):
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(np.zeros((7, 6), np.uint8), np.eye(4)), path)
    expect_refusal(path, "2-D")
    nib.save(nib.Nifti1Image(np.zeros((7, 6, 1), np.uint8), np.eye(4)), path)
    expect_refusal(path, "1 slice", "at least 2")
    nib.save(nib.Nifti1Image(np.zeros((7, 6, 5, 3), np.uint8), np.eye(4)), path)
    expect_refusal(path, "3 volumes")
    rgb = np.zeros((7, 6, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), path)
    expect_refusal(path, "color", "3 channels")
    nib.save(nib.Nifti1Image(stack().transpose(2, 1, 0)[..., None], np.eye(4)), path)
    assert read_volume(path).shape == (1, *SHAPE[::-1])


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("axes", ["XYZ", "YXZ", "ZYX", "XZY"])
def test_axes_of_nifti(tmp_path, name, axes):
    array, affine = stack("int16"), np.diag([1.0, 2, 3, 1])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / name)
    loaded = read_volume(tmp_path / name, ReadOptions(axes=axes))
    assert np.array_equal(loaded[0], array.transpose([axes.index(axis) for axis in "XYZ"]))
    assert dict(zip("XYZ", sizes_of(loaded))) == dict(zip(axes, (1, 2, 3)))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-9])  # to its last byte, in any order
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(tmp_path / name, ReadOptions(axes=axes))


def test_slices_along_the_time_of_nifti(tmp_path):
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(stack().transpose(2, 1, 0)[:, :, None], np.diag([1.0, 2, 3, 1])), path)
    expect_refusal(path, "5 volumes or channels", "--axes XYZ")
    loaded = read_volume(path, ReadOptions(axes="XYZ"))
    assert np.array_equal(loaded[0], stack().transpose(2, 1, 0))
    np.testing.assert_allclose(sizes_of(loaded), (1, 2, 3))


def test_nifti_header_in_doubt(tmp_path, caplog):
    image = nib.Nifti1Image(stack().transpose(2, 1, 0), np.diag([1.0, 1, 8, 1]))
    image.set_sform(np.diag([1.0, 1, 8, 1]), 1)
    image.set_qform(np.diag([1.0, 1, 4, 1]), 1)
    nib.save(image, tmp_path / "forms.nii")
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "forms.nii")), (1, 1, 8))
    assert "sform has the voxel size 1 x 1 x 8 and its qform 1 x 1 x 4" in caplog.text
    image = nib.Nifti1Image(stack().transpose(2, 1, 0), np.eye(4))
    image.header["xyzt_units"] = 5
    nib.save(image, tmp_path / "unit.nii")
    assert read_volume(tmp_path / "unit.nii").meta["unit"] == "pixel"
    assert "unit of length, code 5, is not known" in caplog.text


@pytest.mark.parametrize("name", ["v.ome.tif", "v.nii.gz"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(tmp_path, name, bad):
    broken = volume("float32")
    broken[0, 1, 2, 3] = bad
    write_volume(broken, tmp_path / name)
    expect_refusal(tmp_path / name, name, "1 voxels", "NaN")


def test_voxels_that_are_no_use(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, np.full(SHAPE, 7, np.uint8))
    expect_refusal(path, "v.tif", "same value 7")
    tifffile.imwrite(path, stack() > 9)
    expect_refusal(path, "bool", "grayscale")
    tifffile.imwrite(path, stack("float32").astype(np.complex64))
    expect_refusal(path, "complex64")
    tifffile.imwrite(path, np.arange(210, dtype=np.uint32).reshape(SHAPE) + 2**24)
    expect_refusal(path, "values up to 16777425", "16 bits")
    tifffile.imwrite(path, stack("float64") * 1e200)
    expect_refusal(path, "beyond float32")
