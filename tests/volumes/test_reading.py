# SPDX-License-Identifier: Apache-2.0
"""Reading by slices, and of nothing but the header."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import check_volume, open_volume, read_header, read_volume
from scripts.volumes.writing import write_volume
from volume_files import assert_in_one_line, stack, volume, write_one_by_one, write_plain, write_shaped


def _write_deflated(path: Path) -> None:
    tifffile.imwrite(path, stack("uint16"), compression="zlib", metadata={"axes": "ZYX"})


@pytest.mark.parametrize(
    "write, name",
    [
        (write_plain, "plain.tif"),
        (write_one_by_one, "compressed.tif"),
        (_write_deflated, "deflated.tif"),
        (lambda path: tifffile.imwrite(path, stack("uint16"), byteorder=">", bigtiff=True), "big.tif"),
        (lambda path: write_volume(volume("uint16"), path), "imagej.tif"),
        (lambda path: write_volume(volume("int32"), path), "v.ome.tif"),
        (lambda path: write_volume(volume("float64"), path), "v.nii"),
        (lambda path: write_volume(volume("int8"), path), "v.nii.gz"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_slices_are_those_of_the_volume(tmp_path, write, name):
    write(tmp_path / name)
    loaded = read_volume(tmp_path / name)
    with open_volume(tmp_path / name) as source:
        for index in (3, 0, 4, 4, 1):  # in any order
            read = source.read(index)
            assert read.dtype.name == source.header.dtype == loaded.meta["dtype"]
            np.testing.assert_array_equal(read.astype(np.float32), loaded[0, :, :, index])
        for index, checked in enumerate(source.checked_slices()):
            np.testing.assert_array_equal(checked, loaded[0, :, :, index])


def test_open_volume_reads_no_voxels(tmp_path):
    """A file of 40 GB, most of which is not there."""
    write_volume(volume(), tmp_path / "v.nii")
    with open(tmp_path / "v.nii", "r+b") as file:
        header = nib.Nifti1Image.from_filename(tmp_path / "v.nii").header
        header.set_data_shape((4000, 2000, 5000))
        header.write_to(file)
        file.truncate(352 + 4000 * 2000 * 5000)
    with open_volume(tmp_path / "v.nii") as source:
        assert source.header.shape == (4000, 2000, 5000)
        assert source.read(4999).shape == (4000, 2000)


def test_error_of_other_work_on_an_open_volume_is_not_blamed_on_the_file(tmp_path):
    write_volume(volume(), tmp_path / "v.tif")
    with pytest.raises(ZeroDivisionError):
        with open_volume(tmp_path / "v.tif"):
            raise ZeroDivisionError


def test_check_volume_tells_the_range(tmp_path):
    write_volume(volume(), tmp_path / "v.tif")
    assert check_volume(tmp_path / "v.tif") == (0, 255)


def test_volume_that_memory_does_not_hold_is_refused(tmp_path, monkeypatch):
    write_volume(volume(), tmp_path / "v.tif")
    monkeypatch.setattr("scripts.volumes.memory.free_memory", lambda: 4 * 7 * 6 * 5 - 1)
    with pytest.raises(InputError, match="v.tif: needs 840 Bytes of memory and 839 Bytes are free"):
        read_volume(tmp_path / "v.tif")


@pytest.mark.parametrize(
    "write, name",
    [
        (write_plain, "plain.tif"),
        (write_one_by_one, "compressed.tif"),
        (write_shaped, "shaped.tif"),
        (lambda path: write_volume(volume("uint16"), path), "imagej.tif"),
        (lambda path: write_volume(volume("int32"), path), "v.ome.tif"),
        (lambda path: write_volume(volume("float32"), path), "v.nii"),
        (lambda path: write_volume(volume("uint8"), path), "v.nii.gz"),
        (lambda path: write_volume(volume("int16", unit="pixel", sizes=(1, 1, 1)), path), "none.tif"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("spacing", [None, [3, 2, 1]])
def test_header_is_that_of_the_volume(tmp_path, write, name, spacing):
    write(tmp_path / name)
    loaded, header = read_volume(tmp_path / name, ReadOptions(spacing)), read_header(
        tmp_path / name, ReadOptions(spacing)
    )
    assert header.shape == tuple(loaded.shape[1:])
    assert (header.dtype, header.unit) == (loaded.meta["dtype"], loaded.meta["unit"])
    np.testing.assert_array_equal(header.affine, np.asarray(loaded.affine))


def test_header_of_a_scaled_nifti(tmp_path):
    image = nib.Nifti1Image(stack().transpose(2, 1, 0).astype(np.float32), np.eye(4))
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(0.5, 1)
    nib.save(image, tmp_path / "v.nii.gz")
    assert read_header(tmp_path / "v.nii.gz").dtype == read_volume(tmp_path / "v.nii.gz").meta["dtype"] == "float32"


def test_header_of_a_folder(tmp_path):
    for index, plane in enumerate(stack("uint16")):
        tifffile.imwrite(tmp_path / f"slice{index}.tif", plane)
    loaded, header = read_volume(tmp_path), read_header(tmp_path)
    assert (header.shape, header.dtype) == (tuple(loaded.shape[1:]), loaded.meta["dtype"])


def test_header_finds_bad_files(tmp_path):
    def refuse(name: str, *words: str) -> None:
        with pytest.raises(InputError) as error:
            read_header(tmp_path / name)
        assert_in_one_line(error, name, *words)

    refuse("none.tif", "no such file")
    for name in ("v.tif", "v.nii"):
        write_volume(volume(), tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) - 40])
        refuse(name, "cannot be read", "complete")
    tifffile.imwrite(tmp_path / "flat.tif", stack()[0])
    refuse("flat.tif", "2-D")
    tifffile.imwrite(tmp_path / "complex.tif", stack("float32").astype(np.complex64))
    refuse("complex.tif", "complex64")
    with pytest.raises(InputError, match="--spacing"):
        read_header(tmp_path / "flat.tif", ReadOptions([1, 2]))
