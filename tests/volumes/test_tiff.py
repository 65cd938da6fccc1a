# SPDX-License-Identifier: Apache-2.0
"""The kinds of TIFF: who wrote it, what its header says of axes and voxel size."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts.volumes.formats import tiff
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_header, read_volume
from scripts.volumes.writing import write_volume
from volume_files import SHAPE, expect_refusal, sizes_of, stack, volume


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
        ("NM", "nanometer", 1),
        ("MM", "millimeter", 1),
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
    read_volume(tmp_path / "v.tif", ReadOptions([3, 2, 1]))
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


@pytest.mark.slow
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
    options: dict[str, Any] = {"compression": compression, "photometric": "minisblack"}
    tifffile.imwrite(path, stack(), metadata={"axes": axes}, **options)
    expect_refusal(path, "v.tif", axes, f"5 {meaning}", "--axes ZYX")
    assert np.array_equal(read_volume(path, ReadOptions(axes="ZYX"))[0], stack().transpose(2, 1, 0))


@pytest.mark.parametrize("shape, kind", [(SHAPE, "imagej"), (SHAPE, "ome"), ((3, 6, 7), None)])
def test_stack_written_without_saying_that_it_is_one(tmp_path, shape, kind):
    """tifffile calls its slices channels, in ImageJ's format and in OME's, and three of them colors."""
    path, array = tmp_path / "v.tif", stack(shape=shape)
    options: dict[str, Any] = {kind: True} if kind else {}
    tifffile.imwrite(path, array, **options)
    expect_refusal(path, f"{shape[0]} ", "channels", "--axes ZYX")
    assert np.array_equal(read_volume(path, ReadOptions(axes="zyx"))[0], array.transpose(2, 1, 0))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["ZYX", "ZXY", "YZX", "YXZ", "XYZ", "XZY"])
def test_axes_in_any_order(tmp_path, axes, compression):
    expected = stack().transpose([axes.index(axis) for axis in "XYZ"])
    tifffile.imwrite(tmp_path / "says.tif", stack(), metadata={"axes": axes}, compression=compression)
    assert np.array_equal(read_volume(tmp_path / "says.tif")[0], expected)
    sizes: dict[str, Any] = {"resolution": (1 / 2, 1 / 3), "metadata": {"axes": "ZYX", "spacing": 5, "unit": "nm"}}
    tifffile.imwrite(tmp_path / "told.tif", stack(), imagej=True, **sizes)
    loaded = read_volume(tmp_path / "told.tif", ReadOptions(axes=axes))
    assert np.array_equal(loaded[0], expected)
    # pages are 5 apart, rows 3 and columns 2, whatever they are called
    assert dict(zip("XYZ", sizes_of(loaded).round(6))) == dict(zip(axes, (5, 3, 2)))
    assert read_header(tmp_path / "told.tif", ReadOptions(axes=axes)).shape == tuple(loaded.shape[1:])


def test_axes_with_those_of_length_one(tmp_path):
    path = tmp_path / "v.ome.tif"
    tifffile.imwrite(path, stack().reshape(5, 1, 1, 6, 7), metadata={"axes": "TZCYX"})
    expect_refusal(path, "TYX", "--axes ZYX")
    for axes in ("ZYX", "ZTCYX", "ztcyx"):
        assert np.array_equal(read_volume(path, ReadOptions(axes=axes))[0], stack().transpose(2, 1, 0))
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


@pytest.mark.parametrize("resolution, per", [(4e4, "CENTIMETER"), (1e5, "INCH")])
def test_plain_lateral_resolution_alone_is_no_voxel_size(tmp_path, caplog, resolution, per):
    tifffile.imwrite(tmp_path / "v.tif", stack(), resolution=(resolution, resolution), resolutionunit=per)
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
