# SPDX-License-Identifier: Apache-2.0
"""MetaImage: headers made by hand from its documentation, what is wrong in one line, files that itk reads."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import numpy as np
import pytest
from coded import SHAPE, Wrong, assert_read, assert_refused, coded, read_all, write_in_parts
from scripts.errors import InputError
from scripts.volumes.writing import volume_writer

TYPES = {"uint8": "MET_UCHAR", "int8": "MET_CHAR", "uint16": "MET_USHORT", "int16": "MET_SHORT", "float32": "MET_FLOAT"}


def save(path: Path, array: Any = None, msb: bool = False, packed: bool = False, **fields: Any) -> Path:
    """A file by the documentation; ``array`` has the fastest axis first."""
    voxels: np.ndarray = coded() if array is None else array
    order: Any = ">" if msb else "<"
    data = np.asfortranarray(voxels).astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    data = zlib.compress(data) if packed else data
    header: dict[str, Any] = {
        "ObjectType": "Image",
        "NDims": voxels.ndim,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": msb,
        "CompressedData": packed,
        "CompressedDataSize": len(data) if packed else None,
        "ElementSpacing": "0.1 0.2 0.5",
        "DistanceUnits": "um",
        "DimSize": " ".join(str(size) for size in voxels.shape),
        "ElementType": TYPES.get(voxels.dtype.name, "none"),
    } | fields
    named = header.pop("ElementDataFile", "LOCAL")
    lines = [f"{key} = {value}" for key, value in header.items() if value is not None]
    text = "\n".join([*lines, *([f"ElementDataFile = {named}"] if named else []), ""]).encode()
    path.write_bytes(text + (data if named in ("LOCAL", None) else b""))
    if named not in ("LOCAL", None):
        (path.parent / named).write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("msb", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_voxels_of_every_type_and_byte_order(tmp_path, dtype, msb, packed):
    path = save(tmp_path / "v.mha", coded(dtype), msb, packed)
    assert_read(path, coded(dtype), (0.1, 0.2, 0.5), "micrometer")


@pytest.mark.parametrize("packed", [False, True])
def test_detached_header(tmp_path, packed):
    path = save(tmp_path / "v.mhd", packed=packed, ElementDataFile="v.raw")
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer")
    (tmp_path / "v.raw").unlink()
    assert_refused(path, "v.mhd", "its voxels are in v.raw, which is missing")


@pytest.mark.parametrize("size", [10, -1])
def test_header_of_another_program_before_the_voxels(tmp_path, size):
    path = save(tmp_path / "v.mhd", ElementDataFile="v.raw", HeaderSize=size)
    (tmp_path / "v.raw").write_bytes(b"any header" + (tmp_path / "v.raw").read_bytes())
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer")


def test_text(tmp_path):
    path = save(tmp_path / "v.mhd", BinaryData=False, ElementDataFile="v.txt")
    (tmp_path / "v.txt").write_text(" ".join(str(value) for value in coded().ravel(order="F")))
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["v.mha", "v.mhd"])
def test_files_of_itk(tmp_path, name, packed, caplog):
    image = itk.image_from_array(coded().transpose(2, 1, 0).copy())
    image.SetSpacing([0.1, 0.2, 0.5])
    image.SetOrigin([1, 2, 3])
    itk.imwrite(image, str(tmp_path / name), compression=packed)
    assert_read(tmp_path / name, coded(), (0.1, 0.2, 0.5), "pixel", (-1, -2, 3))  # itk's coordinates are LPS
    assert "0.1 x 0.2 x 0.5 (x, y, z) without a unit" in caplog.text


@pytest.mark.parametrize(
    "fields, size, unit, origin",
    [
        ({"DistanceUnits": "mm"}, (0.1, 0.2, 0.5), "millimeter", (0, 0, 0)),
        ({"DistanceUnits": "cm"}, (1, 2, 5), "millimeter", (0, 0, 0)),
        ({"Offset": "1 2 3"}, (0.1, 0.2, 0.5), "micrometer", (1, 2, 3)),
        ({"Offset": "1 2 3", "TransformMatrix": "1 0 0 0 1 0 0 0 1"}, (0.1, 0.2, 0.5), "micrometer", (-1, -2, 3)),
        ({"ElementSpacing": None, "ElementSize": "4 5 6"}, (4, 5, 6), "micrometer", (0, 0, 0)),
        ({"ElementSize": "0.1 0.2 0.5"}, (0.1, 0.2, 0.5), "micrometer", (0, 0, 0)),
        ({"ElementSpacing": None, "DistanceUnits": None}, (1, 1, 1), "pixel", (0, 0, 0)),
        ({"ElementSpacing": "1 1 1", "DistanceUnits": None}, (1, 1, 1), "pixel", (0, 0, 0)),
    ],
)
def test_voxel_size(tmp_path, caplog, fields, size, unit, origin):
    assert_read(save(tmp_path / "v.mha", **fields), coded(), size, unit, origin)
    assert caplog.messages == []


def test_directions_are_those_of_itk(tmp_path):
    path = save(tmp_path / "v.mha", TransformMatrix="0 -1 0 1 0 0 0 0 1", Offset="1 2 3")
    _, source = read_all(path)
    image = itk.imread(str(path))
    lps = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    np.testing.assert_allclose(source.header.affine[:3, :3], np.diag([-1, -1, 1]) @ lps, atol=1e-12)


def test_channels_and_time_points_one_by_one(tmp_path):
    voxels = np.stack([coded() + 1000, coded()])
    path = save(tmp_path / "c.mha", voxels, NDims=3, DimSize="7 6 5", ElementNumberOfChannels=2)
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer", channel=1)
    assert_refused(path, "--channel 0 to 1")
    path = save(tmp_path / "t.mha", voxels.transpose(1, 2, 3, 0), ElementSpacing="0.1 0.2 0.5 1")
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer", time=1)
    assert_refused(path, "--time 0 to 1")
    assert_refused(path, "--time 2", time=2)


def cut(path: Path, less: int) -> None:
    path.write_bytes(path.read_bytes()[:-less])


def make(**fields: Any) -> Callable[[Path], Any]:
    return lambda path: save(path, **fields)


def damaged(path: Path) -> None:
    """itk reads such a file with wrong voxels."""
    content = bytearray(save(path, packed=True).read_bytes())
    content[-60:-40] = b"\xff" * 20
    path.write_bytes(content)


WRONG: dict[str, Wrong] = {  # for test_wrong_volumes.py
    "empty": (lambda path: path.write_bytes(b""), {}, ("no MetaImage file in spite of its name",)),
    "text": (lambda path: path.write_text("no volume\n\n"), {}, ("no MetaImage file in spite of its name",)),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), {}, ("no MetaImage file",)),
    "cut header": (make(ElementDataFile=None), {}, ("no ElementDataFile",)),
    "truncated": (lambda path: cut(save(path), 10), {}, ("its voxels go on to",)),
    "truncated and packed": (lambda path: cut(save(path, packed=True), 40), {}, ("compressed voxels are truncated",)),
    "damaged and packed": (damaged, {}, ("compressed voxels are damaged",)),
    "more than there is": (make(DimSize="7 6 6"), {}, ("its voxels go on to",)),
    "more than memory": (make(DimSize="7000000 60000 60000", packed=True), {}, ("compressed as a whole and needs",)),
    "more than is packed": (make(DimSize="7 6 6", packed=True), {}, ("voxels end after 420 bytes of 504",)),
    "no sizes": (make(DimSize=None), {}, ("DimSize = nothing",)),
    "dimension": (make(NDims=4), {}, ("NDims = 4 and DimSize = 7 6 5",)),
    "negative sizes": (make(DimSize="7 -6 5"), {}, ("DimSize = 7 -6 5",)),
    "no number": (make(NDims="three"), {}, ("NDims is three",)),
    "image": (make(array=coded()[0]), {}, ("the sizes 6 5, but a volume is needed",)),
    "one slice": (make(array=coded()[:, :, :1]), {}, ("1 slice",)),
    "another object": (make(ObjectType="Mesh"), {}, ("holds a Mesh",)),
    "unknown type": (make(ElementType="MET_STRING"), {}, ("voxels of the type MET_STRING",)),
    "no type": (make(ElementType=None), {}, ("voxels of the type that its header does not give",)),
    "zero": (make(ElementSpacing="0.1 0 0.5"), {}, ("not positive", "ElementSpacing 0.1 0 0.5", "--spacing")),
    "negative": (make(ElementSpacing="0.1 -0.2 0.5"), {}, ("not positive", "--spacing")),
    "NaN": (make(ElementSpacing="0.1 nan 0.5"), {}, ("not positive", "--spacing")),
    "two sizes": (make(ElementSpacing="0.1 0.2"), {}, ("not positive", "--spacing")),
    "dataset": (make(), {"dataset": "raw"}, ("--dataset raw", "is a MetaImage file")),
    "time": (make(), {"time": 0}, ("--time 0", "no axis of time points")),
    "wrong axes": (make(), {"axes": "XYZC"}, ("--axes XYZC",)),
}


@pytest.mark.parametrize(
    "fields, words, unit",
    [
        ({"DistanceUnits": None}, "voxel size 0.1 x 0.2 x 0.5 (x, y, z) without a unit", "pixel"),
        ({"DistanceUnits": "furlong"}, "unit of length, furlong, is not known", "pixel"),
        ({"ElementSize": "1 2 3"}, "ElementSize 1 2 3, of which the first is taken", "micrometer"),
    ],
)
def test_doubtful_voxel_size_is_told(tmp_path, caplog, fields, words, unit):
    assert_read(save(tmp_path / "v.mha", **fields), coded(), (0.1, 0.2, 0.5), unit)
    assert len(caplog.messages) == 1 and words in caplog.text and "give --spacing" in caplog.text
    caplog.clear()
    read_all(tmp_path / "v.mha", spacing=[3, 2, 1])
    assert caplog.messages == []


AFFINE = np.array([[0.25, 0, 0, 1], [0, 0.5, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_written_files_have_what_itk_reads(tmp_path, dtype):
    write_in_parts(tmp_path / "v.mha", coded(dtype), AFFINE, "micrometer")
    image = itk.imread(str(tmp_path / "v.mha"))
    np.testing.assert_array_equal(itk.array_from_image(image), coded(dtype).transpose(2, 1, 0))
    assert itk.array_from_image(image).dtype == dtype
    np.testing.assert_allclose(list(image.GetSpacing()), (0.25, 0.5, 4))
    np.testing.assert_allclose(
        list(image.GetOrigin()), (-1, 2, 3)
    )  # itk's coordinates are LPS, as it reads a NIfTI file
    assert_read(tmp_path / "v.mha", coded(dtype), (0.25, 0.5, 4), "micrometer", (1, -2, 3))


@pytest.mark.parametrize("unit, scale", [("nanometer", 1e-3), ("micrometer", 1), ("millimeter", 1)])
def test_units_and_directions_come_back(tmp_path, unit, scale):
    turned = np.array([[0, -0.3, 0, 5], [0.1, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    write_in_parts(tmp_path / "v.mha", coded(), turned, unit)
    _, source = read_all(tmp_path / "v.mha")
    np.testing.assert_allclose(source.header.affine[:3], turned[:3] * scale, atol=1e-12)
    assert source.header.unit == ("micrometer" if unit == "nanometer" else unit)


def test_signed_8_bits_that_itk_lacks(tmp_path):
    write_in_parts(tmp_path / "v.mha", coded("int8"), AFFINE, "micrometer")
    assert_read(tmp_path / "v.mha", coded("int8"), (0.25, 0.5, 4), "micrometer", (1, -2, 3))


def test_volume_without_a_unit_claims_none(tmp_path):
    write_in_parts(tmp_path / "v.mha", coded(), np.diag([1, 1, 0.125, 1]), "pixel")
    assert b"DistanceUnits" not in (tmp_path / "v.mha").read_bytes()
    assert_read(tmp_path / "v.mha", coded(), (1, 1, 0.125), "pixel")


def test_only_attached_headers_are_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written; .* MetaImage \(.mha\)"):
        write_in_parts(tmp_path / "v.mhd", coded(), np.eye(4), "pixel")


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        with volume_writer(tmp_path / "v.mha", SHAPE, "uint16", np.eye(4), "pixel") as writer:
            writer.write(coded())
            raise KeyError
    assert list(tmp_path.iterdir()) == []
