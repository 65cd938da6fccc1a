# SPDX-License-Identifier: Apache-2.0
"""Reading and writing of volumes: what goes in comes out, and what is wrong is said in one line."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from scripts.errors import InputError
from scripts.networks.tensor_file import write_tensors
from scripts.transforms.load_volume import LoadVolume, LoadVolumed
from scripts.transforms.save_volume import SaveVolume, SaveVolumed
from scripts.volumes.factor import axial_factor, warn_unless_cubic
from scripts.volumes.formats import nifti, tiff
from scripts.volumes.outputs import check_folder, check_output
from scripts.volumes.reading import check_volume, open_volume, read_header, read_volume
from scripts.volumes.writing import volume_writer, write_volume

SHAPE = (5, 6, 7)  # (z, y, x)
UNITS = ("nanometer", "micrometer", "millimeter", "pixel")


def stack(dtype: str = "uint8", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels in the order of the files, no two slices, rows or columns alike; both limits of the dtype are there."""
    kind = np.dtype(dtype)
    generator = np.random.default_rng(0)
    if kind.kind == "f":
        return generator.normal(size=shape).astype(kind)
    limits = np.iinfo(kind)
    low, high = max(limits.min, -(2**20)), min(limits.max, 2**20)
    array = generator.integers(low, high, shape, kind, endpoint=True)
    array.flat[0], array.flat[-1] = low, high
    return array


def volume(dtype: str = "uint8", sizes: tuple[float, ...] = (0.26, 0.27, 0.5), unit: str = "micrometer") -> MetaTensor:
    voxels = torch.from_numpy(stack(dtype).transpose(2, 1, 0).astype(np.float32).copy())[None]
    meta = {"unit": unit, "dtype": dtype}
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64)), meta=meta)


def sizes_of(loaded: MetaTensor) -> np.ndarray:
    return np.linalg.norm(np.asarray(loaded.affine)[:3, :3], axis=0)


def assert_in_one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def expect_refusal(path: Path, *words: str, spacing: object = None, axes: object = None) -> None:
    with pytest.raises(InputError) as error:
        read_volume(path, spacing, axes)  # type: ignore[arg-type]
    assert_in_one_line(error, *words)


# ---------------------------------------------------------------------------------------------------- round trips


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
    assert np.array_equal(nib.load(tmp_path / "v.nii").dataobj, stack().transpose(2, 1, 0))


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
    changed = read_volume(tmp_path / "in.nii.gz", [4, 1, 3])
    np.testing.assert_allclose(changed.affine, [[0, -1, 0, 5], [3, 0, 0, -7], [0, 0, 4, 3], [0, 0, 0, 1]])
    assert changed.meta["unit"] == "millimeter"


def test_nifti_scaling_is_applied(tmp_path):
    image = nib.Nifti1Image(stack("int16").transpose(2, 1, 0), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "v.nii")
    loaded = read_volume(tmp_path / "v.nii")
    np.testing.assert_allclose(loaded[0], stack("int16").transpose(2, 1, 0) * 0.5 + 3, rtol=1e-6)
    assert loaded.meta["dtype"] == "float32"


# ------------------------------------------------------------------------------------------------- TIFF variants


@pytest.mark.parametrize(
    "written, unit, scale",
    [
        ("micron", "micrometer", 1),
        ("um", "micrometer", 1),
        ("\\u00B5m", "micrometer", 1),
        ("nm", "nanometer", 1),
        ("mm", "millimeter", 1),
        ("cm", "millimeter", 10),
        ("inch", "millimeter", 25.4),
        ("pm", "nanometer", 1e-3),
        ("A", "nanometer", 0.1),
    ],
)
def test_imagej_voxel_size(tmp_path, written, unit, scale):
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": written}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(1 / 0.26, 1 / 0.27), metadata=metadata)
    loaded = read_volume(tmp_path / "v.tif")
    assert loaded.meta["unit"] == unit
    np.testing.assert_allclose(sizes_of(loaded), np.multiply((0.26, 0.27, 0.5), scale), rtol=1e-6)


def test_imagej_units_of_single_axes(tmp_path):
    metadata = {"axes": "ZYX", "spacing": 0.08, "unit": "nm", "zunit": "micron"}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(0.1, 0.1), metadata=metadata)
    loaded = read_volume(tmp_path / "v.tif")
    assert loaded.meta["unit"] == "nanometer"
    np.testing.assert_allclose(sizes_of(loaded), (10, 10, 80))


def test_unknown_unit_is_named(tmp_path, caplog):
    """The ratio of the sizes is right in any unit, and is what the factor comes from."""
    metadata = {"axes": "ZYX", "spacing": 2.5, "unit": "furlong"}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(1, 1), metadata=metadata)
    read_volume(tmp_path / "v.tif", [3, 2, 1])
    assert caplog.text == ""  # what is replaced is in no doubt
    for _ in range(3):
        loaded = read_volume(tmp_path / "v.tif")
    (record,) = caplog.records
    for word in ("v.tif", '"furlong"', "1 x 1 x 2.5", "give --spacing"):
        assert word in record.getMessage()
    assert loaded.meta["unit"] == "pixel"
    np.testing.assert_allclose(sizes_of(loaded), (1, 1, 2.5))


@pytest.mark.parametrize("spacing", ["abc", 0, "nan", "inf"])
def test_imagej_spacing_that_is_no_size(tmp_path, spacing):
    metadata = {"axes": "ZYX", "spacing": spacing, "unit": "nm"}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(1, 1), metadata=metadata)
    expect_refusal(tmp_path / "v.tif", "v.tif", "voxel size", "--spacing")


@pytest.mark.parametrize(
    "sizes, units, says",
    [
        ((0.1, 0.1, None), ("nm", "nm", None), "no distance of slices"),
        ((-1, 1, 1), ("nm", "nm", "nm"), "PhysicalSizeX -1"),
        ((0, 1, 1), ("nm", "nm", "nm"), "not three positive numbers"),
        ((1, 1, 5), ("ly", "nm", "nm"), '"ly" and "nm"'),
        ((1, 1, 5), ("nm", "nm", "reference frame"), '"reference frame"'),
    ],
)
def test_ome_voxel_size_in_doubt(tmp_path, caplog, sizes, units, says):
    metadata: dict[str, object] = {"axes": "ZYX"}
    for axis, size, unit in zip("XYZ", sizes, units):
        if size is not None:
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(tmp_path / "v.ome.tif", stack(), metadata=metadata)
    loaded = read_volume(tmp_path / "v.ome.tif")
    assert loaded.meta["unit"] == "pixel"
    np.testing.assert_allclose(sizes_of(loaded), 1)
    assert says in caplog.text and "v.ome.tif" in caplog.text and "give --spacing" in caplog.text


@pytest.mark.parametrize(
    "name, unit, scale",
    [
        *[("m", "millimeter", 1e3), ("km", "millimeter", 1e6), ("Mm", "millimeter", 1e9), ("\u00c5", "nanometer", 0.1)],
        *[
            ("in", "millimeter", 25.4),
            ("ft", "millimeter", 304.8),
            ("thou", "micrometer", 25.4),
            ("pm", "nanometer", 1e-3),
        ],
    ],
)
def test_ome_units(tmp_path, name, unit, scale):
    metadata: dict[str, object] = {"axes": "ZYX"}
    for axis, size in zip("XYZ", (1, 2, 3)):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": name}
    tifffile.imwrite(tmp_path / "v.ome.tif", stack(), metadata=metadata)
    loaded = read_volume(tmp_path / "v.ome.tif")
    assert loaded.meta["unit"] == unit
    np.testing.assert_allclose(sizes_of(loaded), np.multiply((1, 2, 3), scale))


def test_imagej_unit_in_raw_bytes(tmp_path):
    # older programs write the sign itself instead of the escape; same length, so that the offsets stay right
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "QQm"}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(4, 4), metadata=metadata)
    content = (tmp_path / "v.tif").read_bytes().replace(b"unit=QQm", "unit=\u00b5m".encode())
    (tmp_path / "v.tif").write_bytes(content)
    loaded = read_volume(tmp_path / "v.tif")
    assert loaded.meta["unit"] == "micrometer"
    np.testing.assert_allclose(sizes_of(loaded), (0.25, 0.25, 0.5))


def test_imagej_leaves_out_a_spacing_of_one(tmp_path):
    metadata = {"axes": "ZYX", "unit": "micron"}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(4, 4), metadata=metadata)
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "v.tif")), (0.25, 0.25, 1))


def test_imagej_dots_per_inch_are_no_voxel_size(tmp_path):
    metadata = {"axes": "ZYX", "unit": "inch"}
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, resolution=(72, 72), metadata=metadata)
    loaded = read_volume(tmp_path / "v.tif")
    assert loaded.meta["unit"] == "pixel"
    np.testing.assert_allclose(sizes_of(loaded), 1)


@pytest.mark.parametrize(
    "metadata, sizes, unit",
    [
        ({}, (1, 1, 1), "pixel"),
        ({"PhysicalSizeX": 0.26, "PhysicalSizeY": 0.27, "PhysicalSizeZ": 0.5}, (0.26, 0.27, 0.5), "micrometer"),
        (
            {
                "PhysicalSizeX": 10,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 10,
                "PhysicalSizeYUnit": "nm",
                "PhysicalSizeZ": 0.08,
            },
            (10, 10, 80),
            "nanometer",
        ),
        ({"PhysicalSizeX": 0.26, "PhysicalSizeY": 0.27}, (1, 1, 1), "pixel"),  # the distance of slices is missing
    ],
)
def test_ome_voxel_size(tmp_path, metadata, sizes, unit):
    tifffile.imwrite(tmp_path / "v.ome.tif", stack(), metadata={"axes": "ZYX", **metadata})
    loaded = read_volume(tmp_path / "v.ome.tif")
    np.testing.assert_allclose(sizes_of(loaded), sizes)
    assert loaded.meta["unit"] == unit


@pytest.mark.parametrize("axes", ["ZYX", "TZCYX", "QYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_axes_of_length_one_are_dropped(tmp_path, axes, compression):
    shape = (1, 5, 1, 6, 7) if axes == "TZCYX" else SHAPE
    array = stack().reshape(shape)
    tifffile.imwrite(
        tmp_path / "v.tif", array, metadata={"axes": axes}, compression=compression, photometric="minisblack"
    )
    assert np.array_equal(read_volume(tmp_path / "v.tif")[0], stack().transpose(2, 1, 0))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes, meaning", [("TYX", "time points"), ("CYX", "channels"), ("AYX", "angles")])
def test_pages_that_a_file_calls_something_else_than_slices(tmp_path, axes, meaning, compression):
    path = tmp_path / "v.tif"
    options = {"compression": compression, "photometric": "minisblack"}
    tifffile.imwrite(path, stack(), metadata={"axes": axes}, **options)
    expect_refusal(path, "v.tif", axes, f"5 {meaning}", "--axes ZYX")
    assert np.array_equal(read_volume(path, axes="ZYX")[0], stack().transpose(2, 1, 0))


@pytest.mark.parametrize("shape, kind", [(SHAPE, "imagej"), (SHAPE, "ome"), ((3, 6, 7), None)])
def test_stack_written_without_saying_that_it_is_one(tmp_path, shape, kind):
    """tifffile calls its slices channels, in ImageJ's format and in OME's, and three of them colors."""
    path, array = tmp_path / "v.tif", stack(shape=shape)
    tifffile.imwrite(path, array, **({kind: True} if kind else {}))
    expect_refusal(path, f"{shape[0]} ", "channels", "--axes ZYX")
    assert np.array_equal(read_volume(path, axes="zyx")[0], array.transpose(2, 1, 0))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["ZYX", "ZXY", "YZX", "YXZ", "XYZ", "XZY"])
def test_axes_in_any_order(tmp_path, axes, compression):
    expected = stack().transpose([axes.index(axis) for axis in "XYZ"])
    tifffile.imwrite(tmp_path / "says.tif", stack(), metadata={"axes": axes}, compression=compression)
    assert np.array_equal(read_volume(tmp_path / "says.tif")[0], expected)
    sizes = {"resolution": (1 / 2, 1 / 3), "metadata": {"axes": "ZYX", "spacing": 5, "unit": "nm"}}
    tifffile.imwrite(tmp_path / "told.tif", stack(), imagej=True, **sizes)
    loaded = read_volume(tmp_path / "told.tif", axes=axes)
    assert np.array_equal(loaded[0], expected)
    # pages are 5 apart, rows 3 and columns 2, whatever they are called
    assert dict(zip("XYZ", sizes_of(loaded).round(6))) == dict(zip(axes, (5, 3, 2)))
    assert read_header(tmp_path / "told.tif", axes=axes).shape == tuple(loaded.shape[1:])


def test_axes_with_those_of_length_one(tmp_path):
    path = tmp_path / "v.ome.tif"
    tifffile.imwrite(path, stack().reshape(5, 1, 1, 6, 7), metadata={"axes": "TZCYX"})
    expect_refusal(path, "TYX", "--axes ZYX")
    for axes in ("ZYX", "ZTCYX", "ztcyx"):
        assert np.array_equal(read_volume(path, axes=axes)[0], stack().transpose(2, 1, 0))
    expect_refusal(path, "--axes TZCYX", "5 x 1 x 1 x 6 x 7", axes="TZCYX")


@pytest.mark.parametrize("axes", ["ZY", "ZYXX", "zzz", "", 3, True, "Z-Y"])
def test_axes_that_are_none(tmp_path, axes):
    write_volume(volume(), tmp_path / "v.tif")
    expect_refusal(tmp_path / "v.tif", f"--axes {axes}:", "such as --axes ZYX", axes=axes)


def test_axes_that_do_not_fit(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, np.stack([stack(), stack()]), metadata={"axes": "TZYX"}, photometric="minisblack")
    expect_refusal(path, "--axes ZYX", "2 x 5 x 6 x 7", axes="ZYX")
    tifffile.imwrite(path, stack()[0])
    expect_refusal(path, "--axes ZYX", "6 x 7", axes="ZYX")


def test_axes_along_which_sequences_run_have_another_name(tmp_path):
    expect_refusal(tmp_path, "--axes ['z']", "now --sequence_axes \"['z']\"", axes=["z"])


@pytest.mark.parametrize("metadata", [None, {}])
def test_plain_pages_written_one_by_one(tmp_path, metadata):
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        for page in stack():
            writer.write(page, metadata=metadata, contiguous=False)
    loaded = read_volume(tmp_path / "v.tif")
    assert np.array_equal(loaded[0], stack().transpose(2, 1, 0))
    assert loaded.meta["unit"] == "pixel"


def test_pages_of_pillow(tmp_path):
    first, *others = [Image.fromarray(page) for page in stack()]
    first.save(tmp_path / "v.tif", save_all=True, append_images=others)
    assert np.array_equal(read_volume(tmp_path / "v.tif")[0], stack().transpose(2, 1, 0))


def test_big_endian_bigtiff(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", stack("uint16"), byteorder=">", bigtiff=True)
    loaded = read_volume(tmp_path / "v.tif")
    assert np.array_equal(loaded[0], stack("uint16").transpose(2, 1, 0))
    assert loaded.meta["dtype"] == "uint16"


def test_plain_lateral_resolution_alone_is_no_voxel_size(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "v.tif", stack(), resolution=(4e4, 4e4), resolutionunit="CENTIMETER")
    with caplog.at_level(logging.WARNING):
        loaded = read_volume(tmp_path / "v.tif")
    assert loaded.meta["unit"] == "pixel"
    np.testing.assert_allclose(sizes_of(loaded), 1)
    assert "give --spacing" in caplog.text


def test_pages_that_the_header_does_not_name_are_told(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "v.tif", stack(), imagej=True, metadata={"axes": "ZYX"})
    read_volume(tmp_path / "v.tif")
    assert caplog.text == ""
    content = (tmp_path / "v.tif").read_bytes().replace(b"slices=5", b"slices=3").replace(b"images=5", b"images=3")
    (tmp_path / "v.tif").write_bytes(content)
    assert read_volume(tmp_path / "v.tif").shape[-1] == 3
    assert "holds 5 pages, but its header names 3" in caplog.text


def test_inverted_tiff_is_told(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "v.tif", stack(), photometric="miniswhite")
    assert np.array_equal(read_volume(tmp_path / "v.tif")[0], stack().transpose(2, 1, 0))
    assert "MINISWHITE" in caplog.text


def test_volume_beyond_the_limit_of_imagej_becomes_ome(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_IMAGEJ_MAX_BYTES", 100)
    write_volume(volume(), tmp_path / "v.tif")
    with tifffile.TiffFile(tmp_path / "v.tif") as tif:
        assert tif.is_ome and tif.is_bigtiff
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "v.tif")), (0.26, 0.27, 0.5))


# ------------------------------------------------------------------------------------------------------- spacing


@pytest.mark.parametrize(
    "name, unit, expected",
    [("v.ome.tif", "nanometer", "nanometer"), ("v.tif", "pixel", "micrometer"), ("v.nii", "pixel", "micrometer")],
)
def test_spacing_is_z_y_x_in_the_unit_of_the_file_or_micrometer(tmp_path, name, unit, expected):
    write_volume(volume(unit=unit), tmp_path / name)
    loaded = read_volume(tmp_path / name, [3, 2, 1])
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
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "v.nii", [3, 2, 1])), (1, 2, 3))


# ----------------------------------------------------------------------------------------------- folder of slices


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_slices_come_in_natural_order(tmp_path, suffix, dtype):
    array = stack(dtype, (12, 6, 7))
    for index, page in enumerate(array):
        Image.fromarray(page).save(tmp_path / f"slice{index}{suffix}")
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / ".hidden.png").write_text("not a slice")
    loaded = read_volume(tmp_path)
    assert np.array_equal(loaded[0], array.transpose(2, 1, 0))
    assert (loaded.meta["dtype"], loaded.meta["unit"]) == (dtype, "pixel")
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path, [8, 10, 10])), (10, 10, 8))


def test_wrong_folders(tmp_path):
    expect_refusal(tmp_path, str(tmp_path), "without slices", ".png")
    Image.fromarray(stack()[0]).save(tmp_path / "1.png")
    expect_refusal(tmp_path, "1 slice", "at least 2")
    Image.fromarray(stack()[1, :3]).save(tmp_path / "2.png")
    expect_refusal(tmp_path, "2.png", "7 x 3", "7 x 6")
    Image.fromarray(stack("uint16")[1]).save(tmp_path / "2.png")
    expect_refusal(tmp_path, "2.png", "uint16", "uint8")
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(tmp_path / "2.png")
    expect_refusal(tmp_path, "2.png", "greyscale", "RGB")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    expect_refusal(tmp_path, "2.png", "cannot be read")
    (tmp_path / "2.png").rename(tmp_path / "2.tif")
    expect_refusal(tmp_path, "both PNG and TIFF")


def test_stacks_in_a_folder(tmp_path):
    for index in range(2):
        tifffile.imwrite(tmp_path / f"{index}.tif", stack())
    expect_refusal(tmp_path, "0.tif", "5 pages", "one 2-D slice")


def save_slices(folder: Path, names: Sequence[str]) -> dict[int, str]:
    """Save slices of which the first voxel tells the name, which is returned by that."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        page = stack()[0].copy()
        page[0, 0] = index
        Image.fromarray(page).save(folder / name)
    return dict(enumerate(names))


def order_of(path: Path, names: dict[int, str]) -> list[str]:
    return [names[int(index)] for index in read_volume(path)[0, 0, 0]]


GOOD_NAMES = {
    "padding": ["s_8.png", "s_9.png", "s_10.png", "s_011.png"],
    "another number": ["v1.0008.png", "v1.0009.png", "v1.0010.png"],
    "decimals": ["z_0.25um.png", "z_0.5um.png", "z_0.75um.png", "z_1.0um.png"],
    "decimals below 1": ["z_0.25um.png", "z_0.5um.png", "z_0.75um.png"],
    "decimals with a comma": ["z_0,5.png", "z_0,75.png", "z_1,0.png"],
    "rounded decimals": ["z_0.33.png", "z_0.67.png", "z_1.00.png", "z_1.33.png"],
    "two that are no decimals": ["s_1.9.png", "s_1.10.png"],
    "no decimals": ["s_1.8.png", "s_1.9.png", "s_1.10.png", "s_1.11.png"],
    "number and place": ["slice_1_z=0.0050um.png", "slice_2_z=0.0101um.png", "slice_3_z=0.0149um.png"],
    "negative": ["z_-2.png", "z_-1.png", "z_0.png", "z_1.png"],
    "negative after a letter": ["z-2.png", "z-1.png", "z0.png", "z1.png"],
    "hyphens": ["slice-1.png", "slice-2.png", "slice-3.png"],
    "capitals": ["S_1.png", "s_2.PNG", "S_3.png"],
    "TIFF and TIF": ["s_1.tif", "s_2.tiff", "s_3.TIF"],
    "steps": ["z_000.png", "z_005.png", "z_010.png"],
}


@pytest.mark.parametrize("names", GOOD_NAMES.values(), ids=GOOD_NAMES)
def test_order_of_slices(tmp_path, names):
    shuffled = sorted(names, key=lambda name: name[::-1])
    assert order_of(tmp_path, save_slices(tmp_path, shuffled)) == names


def test_slices_that_are_numbered_by_more_than_one_are_told(tmp_path, caplog):
    save_slices(tmp_path, GOOD_NAMES["steps"])
    read_volume(tmp_path)
    assert "numbered by 5" in caplog.text and "z_005.png" in caplog.text


# names, what the line says, the pattern that it offers, and the names that this takes, in their order
DOUBTS = {
    "missing": (
        ["s_001.png", "s_002.png", "s_004.png"],
        ("slice 3 is missing between s_002.png and s_004.png",),
        "s_*.png",
        ["s_001.png", "s_002.png", "s_004.png"],
    ),
    "several missing": (
        ["s_1.png", "s_2.png", "s_5.png", "s_6.png", "s_8.png"],
        ("slices 3 to 4 are missing between s_2.png and s_5.png", "1 more"),
        "s_*.png",
        ["s_1.png", "s_2.png", "s_5.png", "s_6.png", "s_8.png"],
    ),
    "missing among steps": (
        ["s_0.png", "s_5.png", "s_15.png", "s_20.png"],
        ("slice 10 is missing",),
        "s_*.png",
        ["s_0.png", "s_5.png", "s_15.png", "s_20.png"],
    ),
    "missing of two": (["s_1.png", "s_3.png"], ("slice 2 is missing",), "s_*.png", ["s_1.png", "s_3.png"]),
    "missing decimal": (
        ["z_0.5um.png", "z_0.25um.png", "z_1.0um.png"],
        ("slice 0.75 is missing between z_0.5um.png and z_1.0um.png",),
        "z_*um.png",
        ["z_0.25um.png", "z_0.5um.png", "z_1.0um.png"],
    ),
    "uneven": (
        ["im_01.png", "im_07.png", "im_13.png", "im_20.png"],
        ("not numbered evenly", "im_13.png and im_20.png"),
        "im_*.png",
        ["im_01.png", "im_07.png", "im_13.png", "im_20.png"],
    ),
    "series": (
        ["a_1.png", "a_2.png", "b_1.png", "b_2.png"],
        ("2 series", "a_1.png", "b_1.png"),
        "a_*.png",
        ["a_1.png", "a_2.png"],
    ),
    "channels": (
        ["img_z001_c0.png", "img_z001_c1.png", "img_z002_c0.png", "img_z002_c1.png"],
        ("more than one number", "c0, c1"),
        "img_z*_c0.png",
        ["img_z001_c0.png", "img_z002_c0.png"],
    ),
    "time points": (
        ["t0_z1.png", "t0_z2.png", "t0_z3.png", "t1_z1.png", "t1_z2.png", "t1_z3.png"],
        ("t0, t1",),
        "t0_z*.png",
        ["t0_z1.png", "t0_z2.png", "t0_z3.png"],
    ),
    "one more file": (
        ["overview.png", "s_1.png", "s_2.png", "s_3.png"],
        ("holds overview.png beside 3 slices",),
        "s_*.png",
        ["s_1.png", "s_2.png", "s_3.png"],
    ),
    "a copy": (
        ["s_1.png", "s_2.png", "s_2 (1).png"],
        ("holds s_2 (1).png beside 2 slices",),
        "s_?.png",
        ["s_1.png", "s_2.png"],
    ),
    "no numbers": (["b.png", "a.png", "c.png"], ("no numbers",), "*.png", ["a.png", "b.png", "c.png"]),
    "brackets": (
        ["s[1].png", "s[2].png", "s[4].png"],
        ("slice 3 is missing",),
        "s[[]*].png",
        ["s[1].png", "s[2].png", "s[4].png"],
    ),
}


@pytest.mark.parametrize("names, says, pattern, taken", DOUBTS.values(), ids=DOUBTS)
def test_folders_in_doubt(tmp_path, names, says, pattern, taken):
    folder = tmp_path / "Mouse #3 [a]"  # of which no part is a pattern
    saved = save_slices(folder, names)
    expect_refusal(folder, str(folder), *says, f"'{folder / pattern}'")
    assert order_of(folder / pattern, saved) == taken


@pytest.mark.parametrize(
    "names, says",
    [
        (["1.png", "01.png", "2.png"], ("01.png, 1.png have the same number",)),
        (["s_1.tif", "s_1.tiff", "s_2.tif"], ("s_1.tif, s_1.tiff have the same number",)),
        (["z_0.5.png", "z_0.25.png", "z_0.8.png"], ("may be decimals or not", "rename")),
        (["1f.png", "2a.png", "30.png"], ("differ in more than a number",)),
        (["s1_77.png", "s2_12.png", "s3_45.png"], ("more than one number",)),
    ],
)
def test_folders_that_no_pattern_helps(tmp_path, names, says):
    save_slices(tmp_path, names)
    expect_refusal(tmp_path, str(tmp_path), *says)
    expect_refusal(tmp_path / f"*{Path(names[0]).suffix}*", *says)


def test_series_that_go_on_are_one_if_the_user_says_so(tmp_path):
    saved = save_slices(tmp_path, ["t0_z1.png", "t0_z2.png", "t1_z3.png", "t1_z4.png"])
    expect_refusal(tmp_path, "t0, t1", "t0_z*.png", "to take them all as one", "t*_z*.png")
    assert order_of(tmp_path / "t*_z*.png", saved) == list(saved.values())


def test_pattern_of_several_series(tmp_path):
    save_slices(tmp_path, ["a_1.png", "a_2.png", "b_1.png", "b_2.png"])
    expect_refusal(tmp_path / "*.png", "2 series", "narrow the pattern", "a_*.png")
    expect_refusal(tmp_path / "c_*.png", "c_*.png: no such file or folder")


def test_file_with_the_name_of_a_pattern_is_that_file(tmp_path):
    write_volume(volume(), tmp_path / "v[1].tif")
    write_volume(volume(sizes=(1, 1, 1)), tmp_path / "v1.tif")
    np.testing.assert_allclose(sizes_of(read_volume(tmp_path / "v[1].tif")), (0.26, 0.27, 0.5))


def test_slices_of_another_format(tmp_path):
    save_slices(tmp_path, ["s_1.png", "s_2.png", "s_3.jpg", "preview.jpg", "s_1.jpg"])
    expect_refusal(tmp_path, "s_3.jpg is named like a slice")
    (tmp_path / "s_3.jpg").unlink()
    assert read_volume(tmp_path).shape[-1] == 2


def test_axes_of_a_folder(tmp_path):
    save_slices(tmp_path, ["1.png", "2.png", "3.png"])
    assert read_volume(tmp_path, axes="ZYX").shape == (1, 7, 6, 3)
    assert torch.equal(read_volume(tmp_path, axes="ZXY")[0], read_volume(tmp_path)[0].transpose(0, 1))
    expect_refusal(tmp_path, "--axes YXZ", "Z comes first", axes="YXZ")


def test_png_that_is_none(tmp_path):
    for name in ("1.png", "2.png"):
        Image.fromarray(stack()[0]).save(tmp_path / name, format="JPEG")
    expect_refusal(tmp_path, "1.png", "is a JPEG file in spite of its name")
    for name in ("1.png", "2.png"):
        Image.fromarray(stack()[0]).save(
            tmp_path / name, format="PNG", save_all=True, append_images=[Image.fromarray(stack()[1])]
        )
    expect_refusal(tmp_path, "1.png", "2 frames")


# ------------------------------------------------------------------------------------------------- special files


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


# ------------------------------------------------------------------------------------------ what looks wrong at a glance


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
    assert axial_factor(tmp_path / "v.ome.tif", factor=factor) == factor
    warn_unless_cubic(tmp_path / "v.ome.tif", factor)
    assert len(caplog.records) == (words is not None)
    for word in words or ():
        assert word in caplog.text


def test_factor_without_a_voxel_size_is_not_warned_of(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "v.tif", stack())
    warn_unless_cubic(tmp_path / "v.tif", 8)
    assert caplog.text == ""
    warn_unless_cubic(tmp_path / "v.tif", 8, spacing=[32, 8, 8])
    assert "x4 would" in caplog.text


# --------------------------------------------------------------------------------------------------- wrong input


def test_missing_file_and_unknown_format(tmp_path):
    expect_refusal(tmp_path / "none.tif", "none.tif", "no such file")
    (tmp_path / "v.czi").write_bytes(b"1")
    expect_refusal(tmp_path / "v.czi", "v.czi", ".tif", ".ome.tif", ".nii.gz", "PNG")
    for value in (True, None, 2024, ""):
        expect_refusal(value, "a file name is needed")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif", "v.nii", "v.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"no such thing", bytes(2000)])
def test_unreadable_file(tmp_path, name, content, capfd):
    (tmp_path / name).write_bytes(content)
    expect_refusal(tmp_path / name, name, "cannot be read")
    assert capfd.readouterr().err == ""  # what the libraries log would come before the one line


def _write_plain(path: Path) -> None:
    tifffile.imwrite(path, stack(), metadata=None)


def _write_one_by_one(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in stack():
            writer.write(page, metadata=None, compression="zlib")


def _write_shaped(path: Path) -> None:
    tifffile.imwrite(path, stack())


def _write_zlib_ome(path: Path) -> None:
    tifffile.imwrite(path, stack(), ome=True, compression="zlib", metadata={"axes": "ZYX"})


@pytest.mark.parametrize(
    "write, name",
    [
        (_write_plain, "plain.tif"),
        (_write_one_by_one, "compressed.tif"),
        (_write_shaped, "shaped.tif"),
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
    expect_refusal(path, "colour", "3 channels")
    tifffile.imwrite(path, np.zeros((5, 6, 7, 4), np.uint8), photometric="rgb")
    expect_refusal(path, "colour", "4 channels")
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
    expect_refusal(path, "colour", "3 channels")
    nib.save(nib.Nifti1Image(stack().transpose(2, 1, 0)[..., None], np.eye(4)), path)
    assert read_volume(path).shape == (1, *SHAPE[::-1])


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("axes", ["XYZ", "YXZ", "ZYX", "XZY"])
def test_axes_of_nifti(tmp_path, name, axes):
    array, affine = stack("int16"), np.diag([1.0, 2, 3, 1])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / name)
    loaded = read_volume(tmp_path / name, axes=axes)
    assert np.array_equal(loaded[0], array.transpose([axes.index(axis) for axis in "XYZ"]))
    assert dict(zip("XYZ", sizes_of(loaded))) == dict(zip(axes, (1, 2, 3)))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-9])  # to its last byte, in any order
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(tmp_path / name, axes=axes)


def test_slices_along_the_time_of_nifti(tmp_path):
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(stack().transpose(2, 1, 0)[:, :, None], np.diag([1.0, 2, 3, 1])), path)
    expect_refusal(path, "5 volumes or channels", "--axes XYZ")
    loaded = read_volume(path, axes="XYZ")
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
    expect_refusal(path, "bool", "greyscale")
    tifffile.imwrite(path, stack("float32").astype(np.complex64))
    expect_refusal(path, "complex64")
    tifffile.imwrite(path, np.arange(210, dtype=np.uint32).reshape(SHAPE) + 2**24)
    expect_refusal(path, "values up to 16777425", "16 bits")
    tifffile.imwrite(path, stack("float64") * 1e200)
    expect_refusal(path, "beyond float32")


# ------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("other")])
@pytest.mark.parametrize(
    "name, where, function",
    [
        ("v.tif", tiff, "create"),
        ("v.nii", nifti, "create"),
        ("v.ome.tif", os, "pwrite"),
        ("v.nii.gz", os, "pwrite"),
        ("v.nii.gz", nifti, "compress"),
    ],
)
def test_failing_write_leaves_nothing(tmp_path, monkeypatch, failure, name, where, function):
    def fail(*_):
        others = [file for file in os.listdir(tmp_path) if file != name and not file.endswith(".lock")]
        assert len(others) == (function != "create") and all(file.startswith(".") for file in others)
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


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_is_the_file_that_tifffile_writes(tmp_path, name, dtype):
    write_volume(volume(dtype), tmp_path / name)
    if "ome" in name:
        sizes = {"PhysicalSizeX": 0.26, "PhysicalSizeY": 0.27, "PhysicalSizeZ": 0.5}
        units = {f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XYZ"}
        options = {"ome": True, "bigtiff": True, "metadata": {"axes": "ZYX", **sizes, **units}}
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


# ------------------------------------------------------------------------------------------------ slice by slice


def _write_deflated(path: Path) -> None:
    tifffile.imwrite(path, stack("uint16"), compression="zlib", metadata={"axes": "ZYX"})


@pytest.mark.parametrize(
    "write, name",
    [
        (_write_plain, "plain.tif"),
        (_write_one_by_one, "compressed.tif"),
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
        header = nib.load(tmp_path / "v.nii").header
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


def test_check_output(tmp_path):
    check_output(tmp_path / "new" / "folder" / "v.tif")
    assert os.listdir(tmp_path) == []
    for name in ("v.png", "v", "v.zarr"):
        with pytest.raises(InputError) as error:
            check_output(tmp_path / name)
        assert_in_one_line(error, name, "cannot be written", ".ome.tif", ".nii.gz")
    with pytest.raises(InputError) as error:
        check_output(tmp_path)
    assert_in_one_line(error, str(tmp_path), "is a folder", ".tif")
    existing = tmp_path / "v.tif"
    existing.write_text("1")
    for no in (False, "false", "False"):
        with pytest.raises(InputError) as error:
            check_output(existing, no)
        assert_in_one_line(error, "v.tif", "exists", "--overwrite true")
    for yes in (True, "true", "True"):
        check_output(existing, yes)
    with pytest.raises(InputError, match="--overwrite maybe: must be true or false"):
        check_output(existing, "maybe")
    with pytest.raises(InputError) as error:
        check_output(existing / "below" / "v.tif")
    assert_in_one_line(error, "v.tif", "is a file and not a folder")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even the superuser cannot write to")
def test_folder_that_cannot_be_written_to():
    with pytest.raises(InputError) as error:
        check_output("/proc/v.tif")
    assert_in_one_line(error, "/proc/v.tif", "cannot be written")
    with pytest.raises(InputError) as error:
        write_volume(volume(), "/proc/new/v.tif")
    assert_in_one_line(error, "/proc/new/v.tif", "cannot be written")


# ------------------------------------------------------------------------------------------------- safe outputs


def refuses(path: Path | str, *words: str, inputs: tuple = (), overwrite: bool = True) -> None:
    with pytest.raises(InputError) as error:
        check_output(path, overwrite, inputs)
    assert_in_one_line(error, *words)


@pytest.fixture
def spellings(tmp_path, monkeypatch) -> list[Path]:
    """Names of one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.tif").write_text("raw data")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.tif").symlink_to("in.tif")
    (tmp_path / "link_to_link.tif").symlink_to(tmp_path / "link.tif")
    (tmp_path / "way").symlink_to(".")
    os.link(tmp_path / "in.tif", tmp_path / "hard.tif")
    names = ["in.tif", "./in.tif", "folder/../in.tif", "link.tif", "link_to_link.tif", "way/in.tif", "hard.tif"]
    return [Path(name) for name in names] + [tmp_path / "in.tif", tmp_path / "way" / "way" / "link.tif"]


def test_input_is_never_an_output(spellings):
    for output in spellings:
        for given in spellings:
            refuses(output, str(output), "is the same file as", "never replaces", inputs=(None, given))
    check_output("other.tif", inputs=spellings)
    refuses("in.tif", "is the same file as", inputs=("./in.tif",), overwrite=False)


def test_slice_of_the_input_is_never_an_output(tmp_path):
    slices = tmp_path / "slices"
    slices.mkdir()
    for index, plane in enumerate(stack()):
        tifffile.imwrite(slices / f"{index}.tif", plane)
    (tmp_path / "link").symlink_to("slices")
    os.link(slices / "2.tif", tmp_path / "hard.tif")
    (tmp_path / "to_slice.tif").symlink_to("slices/3.tif")
    for given in (slices, tmp_path / "link"):
        for output in (slices / "1.tif", slices / "new.ome.tif", tmp_path / "link" / "new.tiff"):
            refuses(output, "among the slices", str(given), inputs=(given,))
        for output in (tmp_path / "hard.tif", tmp_path / "to_slice.tif"):
            refuses(output, str(given), "this run reads", inputs=(given,))
        for output in (slices / "new.nii.gz", slices / "below" / "new.tif", tmp_path / "new.tif"):
            check_output(output, inputs=(given,))
    for given in (slices / "*.tif", tmp_path / "link" / "[0-9]*"):  # a pattern in place of the folder
        refuses(slices / "7.tif", "among the slices", str(given), inputs=(given,))
        refuses(tmp_path / "hard.tif", str(given), "this run reads", inputs=(given,))
        check_output(tmp_path / "new.tif", inputs=(given,))
    check_output(slices / "result.tif", inputs=(slices / "[0-9]*.tif",))
    with pytest.raises(InputError, match="among the slices"):
        check_folder(slices, ["comparison.png"], inputs=[slices])


def test_results_of_others_in_a_folder_are_not_replaced(tmp_path):
    """A bundle's own weights, for instance, where its folder is given for a training."""
    job = {"files": ["model.pt", "checkpoint.pt"], "results": ["model.pt"], "unless": "checkpoint.pt"}
    check_folder(tmp_path / "new", **job)
    (tmp_path / "model.pt").write_text("of others")
    with pytest.raises(InputError) as error:
        check_folder(tmp_path, **job)
    assert_in_one_line(error, str(tmp_path / "model.pt"), "exists already", "give another --output_dir")
    check_folder(tmp_path, **job, overwrite=True)
    (tmp_path / "checkpoint.pt").write_text("of this run")
    check_folder(tmp_path, **job)
    with pytest.raises(InputError, match="is the same file as"):
        check_folder(tmp_path, **job, inputs=[tmp_path / "model.pt"])


@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_link_is_followed(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / name, tmp_path / "elsewhere" / f"real_{name}"
    link.symlink_to(target)
    check_output(link)
    SaveVolume(link)(volume())
    assert link.is_symlink() and np.array_equal(read_volume(target), read_volume(link))
    refuses(link, "exists already", overwrite=False)
    SaveVolume(link, overwrite=True)(volume("uint16"))
    assert link.is_symlink() and read_volume(target).meta["dtype"] == "uint16"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", name] and os.listdir(target.parent) == [target.name]


def test_links_that_cannot_be_outputs(tmp_path):
    (tmp_path / "a.tif").symlink_to("b.tif")
    (tmp_path / "b.tif").symlink_to("a.tif")
    (tmp_path / "c.tif").symlink_to("c.nii.gz")
    (tmp_path / "d.tif").symlink_to(tmp_path)
    (tmp_path / "e.tif").symlink_to("e.tiff")
    refuses(tmp_path / "a.tif", "a.tif: cannot be written", "circle")
    refuses(tmp_path / "c.tif", "c.tif: points to", "another format")
    refuses(tmp_path / "d.tif", "d.tif: is a folder")
    check_output(tmp_path / "e.tif")


def test_special_files_cannot_be_outputs(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.tif"))
        (tmp_path / "device.tif").symlink_to("/dev/null")
        for name, kind in (("pipe.tif", "a named pipe"), ("socket.tif", "a socket"), ("device.tif", "a device")):
            refuses(tmp_path / name, f"{name}: is {kind}", "give the name of a file")
            with pytest.raises(InputError, match=kind):
                write_volume(volume(), tmp_path / name)
            with pytest.raises(InputError, match=kind):
                write_tensors(tmp_path / name, {})


@pytest.mark.parametrize("name", ["a" * 252 + ".tif", "\u00e9" * 126 + ".tif", "a" * 5000 + ".nii"])
def test_names_that_are_too_long(tmp_path, name):
    refuses(tmp_path / name, "File name too long", "shorter name")
    with pytest.raises(InputError, match="File name too long"):
        write_volume(volume(), tmp_path / name)
    refuses(tmp_path / "null\0byte.tif", "cannot be written", "null")


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".ome.tif", ".ome.tiff", ".nii", ".nii.gz"])
@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u5c42"])
def test_longest_names_of_every_format(tmp_path, suffix, letter):
    name = letter * ((255 - len(suffix)) // len(letter.encode())) + suffix
    check_output(tmp_path / name)
    write_volume(volume(), tmp_path / name)
    assert os.listdir(tmp_path) == [name] and np.array_equal(read_volume(tmp_path / name)[0], volume()[0])


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif", "v.nii", "v.nii.gz"])
@pytest.mark.parametrize("links", [True, False])
def test_what_appears_is_left_alone(tmp_path, monkeypatch, name, links):
    def no_links(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    free = [tmp_path / f"v_{number}{name[1:]}" for number in (1, 2)]
    for expected in free:
        with pytest.raises(InputError) as error:
            with volume_writer(tmp_path / name, (7, 6, 5), "uint8", np.eye(4), "pixel") as writer:
                writer.write(stack().transpose(2, 1, 0))
                (tmp_path / name).write_text("of somebody else")
        assert_in_one_line(error, f"{name}: appeared", "left alone", str(expected))
        assert (tmp_path / name).read_text() == "of somebody else"
        assert np.array_equal(read_volume(expected)[0], stack().transpose(2, 1, 0))
        (tmp_path / name).unlink()
    with volume_writer(tmp_path / name, (7, 6, 5), "uint8", np.eye(4), "pixel", overwrite=True) as writer:
        (tmp_path / name).write_text("of somebody else")
    assert read_header(tmp_path / name).shape == (7, 6, 5)
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_folder_that_appears_does_not_lose_the_result(tmp_path, name):
    with pytest.raises(InputError, match="appeared"):
        with volume_writer(tmp_path / name, (7, 6, 5), "uint8", np.eye(4), "pixel", overwrite=True):
            (tmp_path / name).mkdir()
    assert read_header(tmp_path / name.replace("v", "v_1")).shape == (7, 6, 5)


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_error_of_the_system_names_its_reason(tmp_path, monkeypatch, reason, name):
    def fail(*_: object) -> int:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", fail)
        with pytest.raises(InputError) as error:
            write_volume(volume(), tmp_path / name)
        assert_in_one_line(error, f"{name}: cannot be written ({os.strerror(reason)})")
    assert os.listdir(tmp_path) == []
    write_volume(volume(), tmp_path / name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_weights_on_a_full_disk(tmp_path, monkeypatch):
    """torch itself ends in an assertion of its own there."""
    path = tmp_path / "model.pt"
    write_tensors(path, {"a": torch.zeros(3)})
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["scripts.volumes.whole_file"], "partial_name", lambda *_: "full")
        (tmp_path / "full").symlink_to("/dev/full")
        with pytest.raises(InputError, match="model.pt: cannot be written .No space left on device.; free some space"):
            write_tensors(path, {"a": torch.ones(3)})
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.zeros(3)) and os.listdir(tmp_path) == [
        "model.pt"
    ]


def test_volume_that_memory_does_not_hold_is_refused(tmp_path, monkeypatch):
    write_volume(volume(), tmp_path / "v.tif")
    monkeypatch.setattr("scripts.volumes.memory.free_memory", lambda: 4 * 7 * 6 * 5 - 1)
    with pytest.raises(InputError, match="v.tif: needs 840 Bytes of memory and 839 Bytes are free"):
        read_volume(tmp_path / "v.tif")


# ---------------------------------------------------------------------------------------------------- transforms


def test_transforms(tmp_path, capsys):
    write_volume(volume(unit="nanometer"), tmp_path / "in.tif")
    chain = Compose([LoadVolumed("volume", spacing=[8, 4, 4]), SaveVolumed("volume", tmp_path / "out.ome.tif")])
    chain({"volume": tmp_path / "in.tif"})
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"wrote {tmp_path / 'out.ome.tif'}: 7 x 6 x 5 voxels (x, y, z) of 4 x 4 x 8 nanometer"
    loaded = LoadVolume()(tmp_path / "out.ome.tif")
    np.testing.assert_allclose(sizes_of(loaded), (4, 4, 8))
    with pytest.raises(InputError, match="--overwrite true"):
        SaveVolume(tmp_path / "out.ome.tif")(loaded)
    SaveVolume(tmp_path / "out.ome.tif", overwrite=True)(loaded)


# ------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "write, name",
    [
        (_write_plain, "plain.tif"),
        (_write_one_by_one, "compressed.tif"),
        (_write_shaped, "shaped.tif"),
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
    loaded, header = read_volume(tmp_path / name, spacing), read_header(tmp_path / name, spacing)
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
        read_header(tmp_path / "flat.tif", [1, 2])
