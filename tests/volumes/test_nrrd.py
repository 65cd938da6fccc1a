# SPDX-License-Identifier: Apache-2.0
"""NRRD: headers made by hand from the specification, what is wrong in one line, files that itk reads."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import numpy as np
import pytest
from coded import SHAPE, Wrong, assert_read, assert_refused, coded, read_all, write_in_parts
from scripts.errors import InputError
from scripts.volumes.writing import volume_writer

TYPES = {"uint8": "uchar", "int8": "int8", "uint16": "unsigned short", "int16": "short", "float32": "float"}
DIRECTIONS = "(0.1,0,0) (0,0.2,0) (0,0,0.5)"
MICRONS = '"um" "um" "um"'
PLAIN: dict[str, str | None] = {"spacings": "0.1 0.2 0.5", "units": MICRONS}
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "hex": lambda data: data.hex().encode(),
    "ascii": lambda data: " ".join(str(value) for value in np.frombuffer(data, np.uint16)).encode(),
}


def save(path: Path, array: Any = None, order: Any = "little", **fields: Any) -> Path:
    """A file by the specification; ``array`` has the fastest axis first. Names of fields have _ for the blank."""
    voxels: np.ndarray = coded() if array is None else array
    data = np.asfortranarray(voxels).astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    header: dict[str, Any] = {
        "type": TYPES.get(voxels.dtype.name, voxels.dtype.name),
        "dimension": voxels.ndim,
        "sizes": " ".join(str(size) for size in voxels.shape),
        "encoding": "raw",
        "endian": order,
        **(PLAIN if not {"space_directions", "spacings"} & fields.keys() and voxels.ndim == 3 else {}),
    } | fields
    named, content = header.get("data_file"), ENCODERS.get(str(header["encoding"]), bytes)(data)
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in header.items() if value is not None]
    text = "\n".join(["NRRD0005", "# a comment", *lines, "made by:=hand", "", ""]).encode()
    if named is None:
        path.write_bytes(text + content)
    else:
        path.write_bytes(text)
        (path.parent / named).write_bytes(content)
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("dtype", TYPES)
def test_voxels_of_every_type_and_byte_order(tmp_path, dtype, order, encoding):
    path = save(tmp_path / "v.nrrd", coded(dtype), order, encoding=encoding)
    assert_read(path, coded(dtype), (0.1, 0.2, 0.5), "micrometer")


@pytest.mark.parametrize("encoding", ["bzip2", "hex", "ascii"])
def test_rare_encodings(tmp_path, encoding):
    assert_read(save(tmp_path / "v.nrrd", encoding=encoding), coded(), (0.1, 0.2, 0.5), "micrometer")


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("skip", [{}, {"byte_skip": 0}, {"line_skip": 0}])
def test_detached_header(tmp_path, encoding, skip):
    path = save(tmp_path / "v.nhdr", encoding=encoding, data_file="v.raw", **skip)
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer")
    (tmp_path / "v.raw").unlink()
    assert_refused(path, "v.nhdr", "its voxels are in v.raw, which is missing")


def test_bytes_and_lines_that_are_passed_over(tmp_path):
    path = save(tmp_path / "v.nhdr", data_file="v.raw", line_skip=2, byte_skip=3)
    (tmp_path / "v.raw").write_bytes(b"one\ntwo\nabc" + (tmp_path / "v.raw").read_bytes())
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer")
    path = save(tmp_path / "v.nhdr", data_file="v.raw", byte_skip=-1)
    (tmp_path / "v.raw").write_bytes(b"any header" + (tmp_path / "v.raw").read_bytes())
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer")


@pytest.mark.parametrize(
    "fields, size, unit, origin",
    [
        ({"spacings": "40 4 8", "units": '"nm" "nm" "nm"'}, (40, 4, 8), "nanometer", (0, 0, 0)),
        ({"spacings": "40 4 8", "units": '"nm" "nm" "\u00b5m"'}, (40, 4, 8000), "nanometer", (0, 0, 0)),
        ({"spacings": "1 1 1"}, (1, 1, 1), "pixel", (0, 0, 0)),
        ({"spacings": None, "units": None}, (1, 1, 1), "pixel", (0, 0, 0)),
        # right-anterior-superior as it is, left-posterior-superior with other signs of x and y
        ({"space": "RAS", "space_origin": "(1,2,3)"}, (0.1, 0.2, 0.5), "micrometer", (1, 2, 3)),
        ({"space": "left-posterior-superior", "space_origin": "(1,2,3)"}, (0.1, 0.2, 0.5), "micrometer", (-1, -2, 3)),
        ({"space_dimension": 3, "space_origin": "(1,2,3)"}, (0.1, 0.2, 0.5), "micrometer", (-1, -2, 3)),
    ],
)
def test_voxel_size(tmp_path, caplog, fields, size, unit, origin):
    if "spacings" not in fields:
        fields = fields | {"space_directions": DIRECTIONS, "space_units": MICRONS}
    assert_read(save(tmp_path / "v.nrrd", **fields), coded(), size, unit, origin)
    assert caplog.messages == []


@pytest.mark.parametrize("space", ["RAS", "left-anterior-superior", "LPS"])
def test_directions_are_those_of_itk(tmp_path, space):
    """A volume that is turned: x of the file runs along -y of space, y along x."""
    turned = "(0,-0.1,0) (0.2,0,0) (0,0.3,0.4)"
    path = save(tmp_path / "v.nrrd", space=space, space_directions=turned, space_origin="(1,2,3)", space_units=MICRONS)
    _, source = read_all(path)
    np.testing.assert_allclose(source.header.voxel_size, (0.1, 0.2, 0.5))
    image = itk.imread(str(path))
    lps = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    np.testing.assert_allclose(source.header.affine[:3, :3], np.diag([-1, -1, 1]) @ lps, atol=1e-12)
    np.testing.assert_allclose(source.header.affine[:3, 3], np.array([-1, -1, 1]) * np.array(image.GetOrigin()))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind, option", [("list", "channel"), ("time", "time")])
def test_channels_and_time_points_one_by_one(tmp_path, kind, option, last):
    voxels = np.stack([coded() + 1000, coded()], axis=-1 if last else 0)
    kinds = ["domain"] * 3
    kinds.insert(3 if last else 0, kind)
    spacings = ["0.1", "0.2", "0.5"]
    spacings.insert(3 if last else 0, "1")
    units = ['"um"'] * 3
    units.insert(3 if last else 0, '""')
    path = save(tmp_path / "v.nrrd", voxels, kinds=" ".join(kinds), spacings=" ".join(spacings), units=" ".join(units))
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer", **{option: 1})
    assert_refused(path, f"--{option}")
    assert_refused(path, f"--{option} 2", **{option: 2})


def test_axes_without_kinds(tmp_path):
    voxels = np.stack([coded() + 1000, coded()], axis=-1)
    path = save(tmp_path / "v.nrrd", voxels, spacings="0.1 0.2 0.5 1", units='"um" "um" "um" ""')
    assert_refused(path, "4 axes in space", "7 x 6 x 5 x 2", "--axes XYZT")
    assert_read(path, coded(), (0.1, 0.2, 0.5), "micrometer", axes="xyzc", channel=1)


def cut(path: Path, less: int) -> None:
    path.write_bytes(path.read_bytes()[:-less])


def make(**fields: Any) -> Callable[[Path], Any]:
    return lambda path: save(path, **fields)


def damaged(path: Path) -> None:
    content = bytearray(save(path, encoding="gzip").read_bytes())
    content[-60:-40] = b"\xff" * 20
    path.write_bytes(content)


WRONG: dict[str, Wrong] = {  # for test_wrong_volumes.py
    "empty": (lambda path: path.write_bytes(b""), {}, ("no NRRD file in spite of its name",)),
    "text": (lambda path: path.write_text("no volume\n\n"), {}, ("no NRRD file in spite of its name",)),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), {}, ("no NRRD file",)),
    "only the mark": (lambda path: path.write_bytes(b"NRRD0004\n"), {}, ("no sizes",)),
    "a line that is no field": (lambda path: path.write_bytes(b"NRRD0004\nhello\n\n"), {}, ("no field ('hello')",)),
    "a long line that is no field": (
        lambda path: path.write_bytes(b"NRRD0004\n" + b"x" * 60000 + b"\n\n"),
        {},
        (f"no field ('{'x' * 40}')",),
    ),
    "truncated": (lambda path: cut(save(path), 10), {}, ("its voxels go on to",)),
    "truncated gzip": (lambda path: cut(save(path, encoding="gzip"), 40), {}, ("compressed voxels are truncated",)),
    "gzip without its end": (lambda path: cut(save(path, encoding="gzip"), 4), {}, ("cannot be read",)),
    "damaged gzip": (damaged, {}, ("compressed voxels are damaged",)),
    "truncated text": (make(encoding="ascii", sizes="7 6 6"), {}, ("after 210 voxels of 252",)),
    "truncated bzip2": (lambda path: cut(save(path, encoding="bzip2"), 40), {}, ("cannot be read",)),
    "more than there is": (make(sizes="7 6 6"), {}, ("its voxels go on to",)),
    "far more than there is": (make(sizes="70000000 60000000 60000000"), {}, ("its voxels go on to",)),
    "more than memory": (make(sizes="7000000 60000 60000", encoding="gzip"), {}, ("compressed as a whole and needs",)),
    "more than is packed": (make(sizes="7 6 6", encoding="gzip"), {}, ("voxels end after 420 bytes of 504",)),
    "more than is packed by bzip2": (make(sizes="7 6 6", encoding="bzip2"), {}, ("after 420 bytes of 504",)),
    "no sizes": (make(sizes=None), {}, ("no sizes",)),
    "dimension": (make(dimension=4), {}, ("dimension 4 and the sizes 7 6 5",)),
    "negative sizes": (make(sizes="7 -6 5"), {}, ("the sizes 7 -6 5",)),
    "sizes of text": (make(sizes="seven six five"), {}, ("the sizes seven six five",)),
    "image": (make(array=coded()[0], spacings="1 1"), {}, ("the sizes 6 5, but a volume is needed",)),
    "one slice": (make(array=coded()[:, :, :1]), {}, ("1 slice",)),
    "unknown encoding": (make(encoding="zstd"), {}, ("encoding zstd", "raw, gzip")),
    "no encoding": (make(encoding=None), {}, ("encoding that its header does not give",)),
    "unknown type": (make(type="block"), {}, ("voxels of the type block",)),
    "no type": (make(type=None), {}, ("voxels of the type that its header does not give",)),
    "no byte order": (make(endian=None), {}, ("little or big endian",)),
    "skip": (make(byte_skip="few"), {}, ("line skip or byte skip",)),
    "zero": (make(spacings="0.1 0 0.5"), {}, ("not positive", "spacings 0.1 0 0.5", "--spacing")),
    "negative": (make(spacings="0.1 -0.2 0.5"), {}, ("not positive", "--spacing")),
    "NaN": (make(spacings="0.1 nan 0.5"), {}, ("not positive", "--spacing")),
    "no length": (make(space="RAS", space_directions="(0.1,0,0) (0,0,0) (0,0,1)"), {}, ("not positive", "--spacing")),
    "two spacings": (make(spacings="0.1 0.2"), {}, ("not positive", "--spacing")),
    "kinds": (make(kinds="domain domain"), {}, ("2 kinds for 3 axes",)),
    "dataset": (make(), {"dataset": "raw"}, ("--dataset raw", "is an NRRD file")),
    "time": (make(), {"time": 0}, ("--time 0", "no axis of time points")),
    "wrong axes": (make(), {"axes": "XYZC"}, ("--axes XYZC",)),
}


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"units": None, "spacings": "0.1 0.2 0.5"}, "voxel size 0.1 x 0.2 x 0.5 (x, y, z) without a unit"),
        (
            {"units": '"furlong" "furlong" "furlong"', "spacings": "0.1 0.2 0.5"},
            "unit of length, furlong, is not known",
        ),
        ({"space": "LPS", "space_directions": DIRECTIONS}, "voxel size 0.1 x 0.2 x 0.5 (x, y, z) without a unit"),
    ],
)
def test_doubtful_voxel_size_is_told(tmp_path, caplog, fields, words):
    assert_read(save(tmp_path / "v.nrrd", **fields), coded(), (0.1, 0.2, 0.5), "pixel")
    assert len(caplog.messages) == 1 and words in caplog.text and "give --spacing" in caplog.text
    caplog.clear()
    read_all(tmp_path / "v.nrrd", spacing=[3, 2, 1])
    assert caplog.messages == []


AFFINE = np.array([[0.25, 0, 0, 1], [0, 0.5, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_written_files_have_what_itk_reads(tmp_path, dtype):
    write_in_parts(tmp_path / "v.nrrd", coded(dtype), AFFINE, "micrometer")
    image = itk.imread(str(tmp_path / "v.nrrd"))
    np.testing.assert_array_equal(itk.array_from_image(image), coded(dtype).transpose(2, 1, 0))
    assert itk.array_from_image(image).dtype == dtype
    np.testing.assert_allclose(list(image.GetSpacing()), (0.25, 0.5, 4))
    np.testing.assert_allclose(
        list(image.GetOrigin()), (-1, 2, 3)
    )  # itk's coordinates are LPS, as it reads a NIfTI file
    np.testing.assert_allclose(itk.array_from_matrix(image.GetDirection()), np.diag([-1, -1, 1]))
    assert_read(tmp_path / "v.nrrd", coded(dtype), (0.25, 0.5, 4), "micrometer", (1, -2, 3))


@pytest.mark.parametrize("unit", ["nanometer", "micrometer", "millimeter"])
def test_units_and_directions_come_back(tmp_path, unit):
    turned = np.array([[0, -0.3, 0, 5], [0.1, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    write_in_parts(tmp_path / "v.nrrd", coded(), turned, unit)
    _, source = read_all(tmp_path / "v.nrrd")
    np.testing.assert_allclose(source.header.affine, turned, atol=1e-12)
    assert source.header.unit == unit


def test_signed_8_bits_that_itk_lacks(tmp_path):
    write_in_parts(tmp_path / "v.nrrd", coded("int8"), AFFINE, "micrometer")
    assert_read(tmp_path / "v.nrrd", coded("int8"), (0.25, 0.5, 4), "micrometer", (1, -2, 3))


def test_volume_without_a_unit_claims_none(tmp_path):
    write_in_parts(tmp_path / "v.nrrd", coded(), np.diag([1, 1, 0.125, 1]), "pixel")
    assert b"units" not in (tmp_path / "v.nrrd").read_bytes()
    assert_read(tmp_path / "v.nrrd", coded(), (1, 1, 0.125), "pixel")


def test_only_attached_headers_are_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written; .* NRRD \(.nrrd\)"):
        write_in_parts(tmp_path / "v.nhdr", coded(), np.eye(4), "pixel")


def save_list(tmp_path: Path) -> Path:
    path = save(tmp_path / "v.nhdr", data_file="LIST", byte_skip=0)
    for z in range(5):
        (tmp_path / f"{z}.raw").write_bytes(coded()[:, :, z].tobytes(order="F"))
    path.write_bytes(path.read_bytes().rstrip() + b"\n")
    text = "\n".join(
        line for line in path.read_text().splitlines() if "data file" not in line and "made by" not in line
    )
    path.write_text(f"{text}\ndata file: LIST 2\n" + "".join(f"{z}.raw\n" for z in range(5)))
    return path


def test_slices_in_a_list_of_files(tmp_path):
    """itk reads these."""
    assert_read(save_list(tmp_path), coded(), (0.1, 0.2, 0.5), "micrometer")


def test_slice_of_a_list_that_is_cut_short(tmp_path):
    """The reason is what itk says last, not its chain of functions."""
    path = save_list(tmp_path)
    cut(tmp_path / "3.raw", 10)
    assert_refused(path, "v.nhdr", "cannot be read", "got only 37 2-sized things, not 42")


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        with volume_writer(tmp_path / "v.nrrd", SHAPE, "uint16", np.eye(4), "pixel") as writer:
            writer.write(coded())
            raise KeyError
    assert list(tmp_path.iterdir()) == []
