# SPDX-License-Identifier: Apache-2.0
"""MRC: headers made by hand from the specification of 2014, what is wrong in one line, files that mrcfile reads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from coded import SHAPE, Wrong, assert_read, assert_refused, coded, read_all, write_in_parts
from scripts.errors import InputError
from scripts.volumes.outputs import check_space
from scripts.volumes.writing import volume_writer

MODES = {"int8": 0, "uint8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
IMOD = 1146047817


def save(path: Path, array: np.ndarray | None = None, order: Any = "<", **fields: Any) -> Path:
    """
    A file by the specification: 256 words of 4 bytes, the extended header, and the voxels, the fastest axis last in
    ``array``, which is (sections, rows, columns).
    """
    pages = coded().transpose(2, 1, 0) if array is None else array
    sections, rows, columns = pages.shape
    of: dict[str, Any] = {
        "n": (columns, rows, sections),
        "mode": MODES[pages.dtype.name],
        "start": (0, 0, 0),
        "m": (columns, rows, sections),
        "cell": (70.0, 120.0, 500.0),  # of SHAPE: 10, 20 and 100 angstrom a voxel
        "angles": (90.0, 90.0, 90.0),
        "crossed": (1, 2, 3),
        "statistics": (float(pages.min()), float(pages.max()), float(pages.mean())),
        "ispg": 1,
        "extended": b"",
        "nversion": 20141,
        "imod": (0, 0),
        "origin": (0.0, 0.0, 0.0),
        "map": b"MAP ",
        "machst": b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0",
        "size": None,
    } | fields
    header = bytearray(1024)

    def put(word: int, kind: str, *values: Any) -> None:
        """Words are counted from 1."""
        struct.pack_into(f"{order}{len(values)}{kind}", header, 4 * (word - 1), *values)

    put(1, "i", *of["n"], of["mode"], *of["start"], *of["m"])
    put(11, "f", *of["cell"], *of["angles"])
    put(17, "i", *of["crossed"])
    put(20, "f", *of["statistics"])
    put(23, "i", of["ispg"], len(of["extended"]))
    put(28, "i", of["nversion"])
    put(39, "i", *of["imod"])
    put(50, "f", *of["origin"])
    header[208:212], header[212:216] = of["map"], of["machst"]
    voxels = pages.astype(pages.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(bytes(header) + of["extended"] + voxels[: of["size"]])
    return path


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "float32", "float16"])
@pytest.mark.parametrize("extended", [b"", b"SERI" * 100])
def test_voxels_of_every_mode_and_byte_order(tmp_path, dtype, order, extended):
    voxels = coded(dtype)
    path = save(tmp_path / "v.mrc", voxels.transpose(2, 1, 0), order, extended=extended)
    assert_read(path, voxels, (1, 2, 10), "nanometer")


@pytest.mark.parametrize("crossed", [(1, 2, 3), (2, 1, 3), (3, 1, 2), (3, 2, 1), (0, 0, 0)])
def test_order_of_axes(tmp_path, crossed):
    """mapc, mapr and maps say which axis columns, rows and sections are; the cell and the origin are always x, y, z."""
    axes = [(each or place) - 1 for place, each in enumerate(crossed, start=1)]
    array = coded().transpose(axes[::-1])
    path = save(tmp_path / "v.rec", array, crossed=crossed, m=SHAPE, origin=(30.0, 20.0, 10.0))
    assert_read(path, coded(), (1, 2, 10), "nanometer", (3, 2, 1))
    path = save(tmp_path / "s.rec", array, crossed=crossed, m=SHAPE, start=[(-1, 2, 3)[axis] for axis in axes])
    assert_read(path, coded(), (1, 2, 10), "nanometer", (-1, 4, 30))


def test_voxel_size_is_the_cell_over_its_intervals(tmp_path):
    """A part of a cell has fewer voxels than the cell has intervals."""
    path = save(tmp_path / "v.map", m=(70, 60, 50))
    assert_read(path, coded(), (0.1, 0.2, 1), "nanometer")


@pytest.mark.parametrize(
    "fields, signed",
    [
        ({"imod": (IMOD, 1)}, True),
        ({"imod": (IMOD, 0)}, False),
        ({"imod": (IMOD, 0), "statistics": (-5.0, 5.0, 0.0)}, False),
        ({"statistics": (-60.0, 66.0, 3.0)}, True),
        ({"statistics": (0.0, 200.0, 3.0)}, False),
        ({"statistics": (0.0, -1.0, -2.0)}, True),  # not known: the file says that it is of MRC 2014
        ({"statistics": (0.0, -1.0, -2.0), "nversion": 0}, False),
        ({"statistics": (-60.0, 66.0, 3.0), "nversion": 0}, True),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_sign_of_8_bits(tmp_path, fields, signed, order):
    voxels = coded("int8").view(np.int8 if signed else np.uint8)
    assert_read(save(tmp_path / "v.mrc", voxels.transpose(2, 1, 0), order, **fields), voxels, (1, 2, 10), "nanometer")


def test_file_from_before_2000(tmp_path):
    path = save(tmp_path / "v.mrc", map=b"\0\0\0\0", machst=bytes(4), nversion=0)
    assert_read(path, coded(), (1, 2, 10), "nanometer")
    path = save(tmp_path / "v.mrc", order=">", map=b"\0\0\0\0", machst=bytes(4), nversion=0)
    assert_read(path, coded(), (1, 2, 10), "nanometer")


def test_stack_of_volumes(tmp_path):
    voxels = np.concatenate([coded().transpose(2, 1, 0) + 1000, coded().transpose(2, 1, 0)])
    path = save(tmp_path / "v.mrc", voxels, ispg=401, m=SHAPE)
    assert_read(path, coded(), (1, 2, 10), "nanometer", time=1)
    assert_refused(path, "--time 0 to 1")
    assert_refused(path, "--time 2", "has 2 time points", time=2)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def make(**fields: Any) -> Callable[[Path], Any]:
    return lambda path: save(path, **fields)


BIG = 2**31 - 1
WRONG: dict[str, Wrong] = {  # for test_wrong_volumes.py
    "empty": (lambda path: path.write_bytes(b""), {}, ("cannot be read",)),
    "text": (lambda path: path.write_text("no volume " * 300), {}, ("mode", "no MRC file")),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), {}, ("0 x 0 x 0 voxels",)),
    "cut header": (lambda path: cut(save(path), 500), {}, ("cannot be read",)),
    "truncated": (lambda path: cut(save(path), 1300), {}, ("ends at byte 1300", "go on to 1444")),
    "more than there is": (make(n=(7, 6, 6)), {}, ("ends at byte 1444", "go on to 1528")),
    "far more than there is": (make(n=(BIG, BIG, BIG)), {}, ("ends at byte 1444",)),
    "extended header that is not there": (
        lambda path: (save(path), path.write_bytes(path.read_bytes()[:92] + b"\0\0\1\0" + path.read_bytes()[96:])),
        {},
        ("cannot be read",),
    ),
    "negative sizes": (make(n=(7, -6, 5)), {}, ("7 x -6 x 5 voxels",)),
    "one slice": (make(array=coded()[:, :, :1].transpose(2, 1, 0)), {}, ("1 slice",)),
    "complex": (make(mode=4), {}, ("complex numbers (mode 4)",)),
    "4 bits": (make(mode=101), {}, ("4-bit integers (mode 101)",)),
    "colors": (make(mode=16), {}, ("colors (mode 16)",)),
    "unknown mode": (make(mode=77), {}, ("mode 77",)),
    "axes": (make(crossed=(1, 1, 3)), {}, ("mapc, mapr and maps are 1, 1 and 3",)),
    "stack that does not divide": (make(ispg=401, m=(7, 6, 2)), {}, ("volumes of 2 sections", "but has 5")),
    "stack of nothing": (make(ispg=401, m=(7, 6, 0)), {}, ("volumes of 0 sections",)),
    "negative cell": (make(cell=(70.0, -120.0, 500.0)), {}, ("not positive", "--spacing")),
    "flat cell": (make(cell=(70.0, 120.0, 0.0)), {}, ("not positive", "--spacing")),
    "cell that is no number": (make(cell=(70.0, 120.0, float("nan"))), {}, ("not positive", "--spacing")),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(2000)), {}, ("is compressed",)),
    "dataset": (make(), {"dataset": "raw"}, ("--dataset raw", "is an MRC file")),
    "channel": (make(), {"channel": 0}, ("--channel 0", "no axis of channels")),
    "no mark": (make(map=b"\0\0\0\0", extended=b"", size=-100), {}, ("cannot be read",)),
    "no mark and more bytes": (
        lambda path: path.write_bytes(save(path, map=b"\0\0\0\0").read_bytes() + bytes(7)),
        {},
        ("no MRC file in spite of its name",),
    ),
}


@pytest.mark.parametrize(
    "fields, words, size, unit",
    [
        ({"cell": (0.0, 0.0, 0.0)}, "no cell lengths", (1, 1, 1), "pixel"),
        ({"m": (0, 0, 0)}, "mx, my and mz are 0, 0, 0", (1, 1, 1), "pixel"),
        ({"angles": (90.0, 90.0, 60.0)}, "angles 90, 90, 60", (1, 2, 10), "nanometer"),
        ({"ispg": 0, "m": (7, 6, 1)}, "stack of images", (1, 2, 50), "nanometer"),
    ],
)
def test_doubtful_voxel_size_is_told(tmp_path, caplog, fields, words, size, unit):
    assert_read(save(tmp_path / "v.mrc", **fields), coded(), size, unit)
    assert len(caplog.messages) == 1 and words in caplog.text and "give --spacing" in caplog.text
    caplog.clear()
    read_all(tmp_path / "v.mrc", spacing=[3, 2, 1])
    assert caplog.messages == []


AFFINE = np.array([[0.25, 0, 0, 1], [0, 0.5, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("unit, angstroms", [("nanometer", 10), ("micrometer", 1e4), ("millimeter", 1e7)])
def test_written_files_have_what_mrcfile_reads(tmp_path, dtype, unit, angstroms, capsys):
    path = tmp_path / "v.mrc"
    write_in_parts(path, coded(dtype), AFFINE, unit)
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, coded(dtype).transpose(2, 1, 0))
        assert file.data.dtype == dtype and file.is_volume()
        np.testing.assert_allclose(file.voxel_size.tolist(), np.array([0.25, 0.5, 4]) * angstroms, rtol=1e-6)
        np.testing.assert_allclose(file.header.origin.tolist(), np.array([1, -2, 3]) * angstroms, rtol=1e-6)
        assert (file.header.dmin, file.header.dmax) == (coded(dtype).min(), coded(dtype).max())
        assert np.isclose(file.header.dmean, coded(dtype).mean())
    assert_read(path, coded(dtype), np.diag(AFFINE)[:3] * angstroms / 10, "nanometer", AFFINE[:3, 3] * angstroms / 10)


def test_volume_without_a_unit_claims_none(tmp_path):
    write_in_parts(tmp_path / "v.mrc", coded(), np.diag([1, 1, 0.125, 1]), "pixel")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert file.voxel_size.tolist() == (0, 0, 0)
    assert_read(tmp_path / "v.mrc", coded(), (1, 1, 1), "pixel")


def test_voxels_that_are_never_written_count(tmp_path):
    with volume_writer(tmp_path / "v.mrc", SHAPE, "float32", np.eye(4), "nanometer") as writer:
        writer.write(np.full((2, 2, 2), 5, np.float32), 3, 2, 1)
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert (file.header.dmin, file.header.dmax) == (0, 5) and np.isclose(file.header.dmean, 40 / 210)
        assert file.data[1, 2, 3] == 5 and file.data.sum() == 40


@pytest.mark.parametrize("dtype, stored", [("uint8", "uint16"), ("float16", "float32")])
def test_type_that_is_not_there_is_stored_in_the_next_one(tmp_path, caplog, dtype, stored):
    write_in_parts(tmp_path / "v.mrc", coded(dtype), np.eye(4), "nanometer")
    assert_read(tmp_path / "v.mrc", coded(dtype).astype(stored), (1, 1, 1), "nanometer")
    assert dtype == "float16" or f"MRC has no voxels of type {dtype}" in caplog.text and stored in caplog.text


@pytest.mark.parametrize("dtype", ["uint32", "int32", "float64"])
def test_type_that_no_other_holds_is_refused_before_the_work(tmp_path, dtype):
    for refuse in (
        lambda: check_space(tmp_path / "v.mrc", SHAPE, dtype, 8),
        lambda: write_in_parts(tmp_path / "v.mrc", coded(dtype), np.eye(4), "nanometer"),
    ):
        with pytest.raises(InputError, match=f"MRC has no voxels of type {dtype}; give .*HDF5") as error:
            refuse()
        assert "\n" not in str(error.value) and "MRC (" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        with volume_writer(tmp_path / "v.mrc", SHAPE, "int16", np.eye(4), "pixel") as writer:
            writer.write(coded("int16"))
            raise KeyError
    assert list(tmp_path.iterdir()) == []
