# SPDX-License-Identifier: Apache-2.0
"""HDF5: which array, its axes, its voxel size; what is wrong in one line; files that others read."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import itk
import numpy as np
import pytest
from coded import SHAPE, Wrong, assert_read, assert_refused, coded, read_all, write_in_parts
from scripts.errors import InputError
from scripts.volumes.writing import volume_writer

CREMI = {"resolution": (40.0, 4.0, 8.0), "offset": (400.0, 12.0, 16.0)}  # z, y, x


def save(path: Path, name: str = "volumes/raw", array: Any = None, attributes: Any = None, **options: Any) -> Path:
    """An array (z, y, x), added to a file."""
    with h5py.File(path, "a") as file:
        data = coded().transpose(2, 1, 0) if array is None else array
        dataset = file.create_dataset(name, data=data, **options)
        dataset.attrs.update(attributes or {})
    return path


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 4, 3)}, {"chunks": (5, 6, 7), "compression": "gzip"}])
@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2", ">i2", "int16", "<f4", ">f4"])
def test_voxels_of_every_type_and_byte_order(tmp_path, dtype, options):
    path = save(tmp_path / "v.hdf", array=coded(dtype).transpose(2, 1, 0), attributes=CREMI, **options)
    assert_read(path, coded(dtype), (8, 4, 40), "nanometer", (16, 12, 400))
    chunk = options.get("chunks")
    assert read_all(path)[1].chunk == (chunk and chunk[::-1])


@pytest.mark.parametrize(
    "attributes, size, unit, origin",
    [
        ({"resolution": (40, 4, 8)}, (8, 4, 40), "nanometer", (0, 0, 0)),  # CREMI, whose older files have no offset
        (CREMI, (8, 4, 40), "nanometer", (16, 12, 400)),
        ({"element_size_um": (0.5, 0.1, 0.2)}, (0.2, 0.1, 0.5), "micrometer", (0, 0, 0)),
        ({"voxel_size": (40, 4, 8), "units": ["nm"] * 3, "offset": (1, 2, 3)}, (8, 4, 40), "nanometer", (3, 2, 1)),
        ({"voxel_size": (4, 2, 3), "units": ["um", "nm", "nm"]}, (3, 2, 4000), "nanometer", (0, 0, 0)),
        ({"voxel_size": (4, 2, 3), "units": "micrometers"}, (3, 2, 4), "micrometer", (0, 0, 0)),
        ({"voxel_size": (4, 2, 3), "units": ["", "", ""]}, (3, 2, 4), "pixel", (0, 0, 0)),
        ({"resolution": (4, 2, 3), "units": [b"um"] * 3, "offset": (1, 0, 0)}, (3, 2, 4), "micrometer", (0, 0, 1)),
        ({"resolution": (500, 100, 200), "element_size_um": (0.5, 0.1, 0.2)}, (200, 100, 500), "nanometer", (0, 0, 0)),
        ({**CREMI, "element_size_um": (0.04, 0.004, 0.008)}, (8, 4, 40), "nanometer", (16, 12, 400)),
        ({}, (1, 1, 1), "pixel", (0, 0, 0)),
    ],
)
def test_voxel_size(tmp_path, caplog, attributes, size, unit, origin):
    assert_read(save(tmp_path / "v.h5", attributes=attributes), coded(), size, unit, origin)
    assert caplog.messages == []


def test_voxel_size_of_the_groups_around_the_array(tmp_path):
    path = save(tmp_path / "v.h5", attributes={"offset": (1, 2, 3)})
    with h5py.File(path, "a") as file:
        file.attrs["resolution"] = (9, 9, 9)
        file["volumes"].attrs["resolution"] = (40, 4, 8)
    assert_read(path, coded(), (8, 4, 40), "nanometer", (3, 2, 1))


def test_the_source_of_the_voxel_size_is_known(tmp_path):
    from scripts.volumes.formats.hdf5 import open_stack

    with open_stack(save(tmp_path / "v.h5", attributes=CREMI)) as stack:
        assert stack.source == "resolution of volumes/raw"


AXES: dict[str, tuple[tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    # order of (t, c, z, y, x) in the array; attributes; what is asked for
    "funlib": ((1, 2, 3, 4), {"axis_names": ["c^", "z", "y", "x"], "voxel_size": (30, 20, 10)}, {"channel": 1}),
    "no names given": (
        (1, 2, 3, 4),
        {"axis_names": ["c0^", "d0", "d1", "d2"], "voxel_size": (30, 20, 10)},
        {"channel": 1},
    ),
    "x first": ((4, 3, 2, 1), {"axis_names": ["x", "y", "z", "c"], "voxel_size": (10, 20, 30)}, {"channel": 1}),
    "five": (
        (0, 1, 2, 3, 4),
        {"axis_names": list("tczyx"), "voxel_size": (1, 1, 30, 20, 10)},
        {"time": 0, "channel": 1},
    ),
    "option": ((2, 3, 4, 1), {"voxel_size": (30, 20, 10)}, {"axes": "ZYXC", "channel": 1}),
    "option in another order": ((1, 4, 3, 2), {"voxel_size": (10, 20, 30)}, {"axes": "cxyz", "channel": 1}),
    "ilastik": (
        (0, 2, 3, 4, 1),
        {"axistags": json.dumps({"axes": [{"key": key} for key in "tzyxc"]}), "voxel_size": (30, 20, 10)},
        {"time": 0, "channel": 1},
    ),
}


@pytest.mark.parametrize("name", AXES)
def test_channels_and_time_points_one_by_one(tmp_path, name):
    order, attributes, how = AXES[name]
    voxels = np.stack([coded() + 1000, coded(), coded() + 2000])[None].transpose(0, 1, 4, 3, 2)  # t, c, z, y, x
    if 0 in order:
        voxels = np.concatenate([voxels, voxels + 5000])
    array = voxels.transpose(*order, *(() if 0 in order else (0,)))
    array = array if 0 in order else array[..., 0]
    path = save(tmp_path / "v.h5", array=array, attributes={**attributes, "units": "nm"})
    assert_read(path, coded(), (10, 20, 30), "nanometer", **how)
    assert_refused(path, *(("--axes",) if "axes" in how else ("--channel 0 to 2",)), **{**how, "channel": None})
    assert_refused(path, "--channel 3", "has 3 channels", **{**how, "channel": 3})


def test_axes_of_length_one(tmp_path):
    path = save(tmp_path / "v.h5", array=coded().transpose(2, 1, 0)[None, ..., None])
    assert_read(path, coded(), (1, 1, 1), "pixel")


def test_labels_of_dimensions(tmp_path):
    path = save(tmp_path / "v.h5", array=coded())
    with h5py.File(path, "a") as file:
        for number, label in enumerate("xyz"):
            file["volumes/raw"].dims[number].label = label
    assert_read(path, coded(), (1, 1, 1), "pixel")


def test_the_only_volume_or_a_list_of_them(tmp_path):
    path = save(tmp_path / "v.h5", "Data")
    save(path, "preview", coded()[:, :, 0])
    save(path, "page", coded()[:, :, 0][None])
    save(path, "names", np.array([b"a", b"b"]))
    assert_read(path, coded(), (1, 1, 1), "pixel")
    save(path, "labels/ids", coded("uint32").transpose(2, 1, 0))
    assert_refused(path, "holds 2 arrays", "--dataset: Data (5 x 6 x 7), labels/ids (5 x 6 x 7)")
    for name in ("Data", "/Data", "Data/"):
        assert_read(path, coded(), (1, 1, 1), "pixel", dataset=name)
    assert_read(path, coded("uint32"), (1, 1, 1), "pixel", dataset="labels/ids")


@pytest.mark.slow
def test_another_writer(tmp_path):
    """itk writes HDF5 in its own layout."""
    image = itk.image_from_array(coded("float32").transpose(2, 1, 0).copy())
    itk.imwrite(image, str(tmp_path / "v.h5"))
    assert_read(tmp_path / "v.h5", coded("float32"), (1, 1, 1), "pixel", dataset="ITKImage/0/VoxelData")


def test_links_and_voxels_in_other_files(tmp_path):
    save(tmp_path / "raw.h5", "data")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("raw.h5", "/data")
        layout = h5py.VirtualLayout((5, 6, 7), np.uint16)
        layout[:] = h5py.VirtualSource("raw.h5", "data", (5, 6, 7))
        file.create_virtual_dataset("virtual", layout)
    for name in ("linked", "virtual"):
        assert_read(tmp_path / "v.h5", coded(), (1, 1, 1), "pixel", dataset=name)
    (tmp_path / "raw.h5").unlink()
    assert_refused(tmp_path / "v.h5", "linked", "a link to /data of the file raw.h5", dataset="linked")
    assert_refused(tmp_path / "v.h5", "virtual", "raw.h5, which is missing", dataset="virtual")


def with_unknown_filter(path: Path, number: int = 32017) -> None:
    """Chunks that say that they are compressed with what HDF5 does not have."""
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((5, 6, 7))
        settings.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (0,))
        space = h5py.h5s.create_simple((5, 6, 7))
        dataset = h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, settings)
        dataset.write_direct_chunk((0, 0, 0), b"compressed", 0)


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def make(**options: Any) -> Callable[[Path], Any]:
    return lambda path: save(path, **options)


WRONG: dict[str, Wrong] = {  # for test_wrong_volumes.py
    "empty": (lambda path: path.write_bytes(b""), {}, ("cannot be read",)),
    "text": (lambda path: path.write_text("no volume"), {}, ("cannot be read",)),
    "truncated": (lambda path: cut(save(path), 0.7), {}, ("cannot be read", "truncated")),
    "cut header": (lambda path: cut(save(path), 0.01), {}, ("cannot be read",)),
    "no array": (lambda path: h5py.File(path, "w").close(), {}, ("holds no array of three axes",)),
    "dataset that is not there": (
        make(),
        {"dataset": "volumes/row"},
        ("--dataset volumes/row", "volumes/raw (5 x 6 x 7)"),
    ),
    "path through an array": (make(), {"dataset": "volumes/raw/0"}, ("--dataset volumes/raw/0", "volumes/raw")),
    "group": (make(), {"dataset": "volumes"}, ("is a group", "volumes/raw (5 x 6 x 7)")),
    "number": (make(), {"dataset": 0}, ("--dataset 0", "volumes/raw")),
    "image": (make(array=coded()[0]), {}, ("holds no array of three axes; it has volumes/raw (6 x 5)",)),
    "single voxel": (make(array=np.ones((1, 1, 1))), {}, ("no array of three axes; it has volumes/raw (1 x 1 x 1)",)),
    "image by name": (make(array=coded()[0]), {"dataset": "volumes/raw"}, ("is 6 x 5", "a volume is needed")),
    "single value": (make(array=5), {"dataset": "volumes/raw"}, ("a single value", "a volume is needed")),
    "one slice": (make(array=coded()[:, :, :1]), {"axes": "XYZ", "dataset": "volumes/raw"}, ("1 slice",)),
    "four axes": (make(array=np.zeros((3, 4, 5, 6))), {}, ("4 axes without names", "3 x 4 x 5 x 6", "--axes CZYX")),
    "text voxels": (make(array=np.full((3, 4, 5), b"a")), {"dataset": "volumes/raw"}, ("voxels of type |S1",)),
    "bool": (make(array=np.ones((3, 4, 5), bool)), {"dataset": "volumes/raw"}, ("voxels of type bool",)),
    "complex": (make(array=np.ones((3, 4, 5), complex)), {"dataset": "volumes/raw"}, ("voxels of type complex",)),
    "three names for four axes": (
        make(array=np.zeros((3, 4, 5, 6)), attributes={"axis_names": ["z", "y", "x"]}),
        {},
        ("axis_names of volumes/raw are z, y, x,", "its 4 axes"),
    ),
    "names of other axes": (
        make(attributes={"axis_names": ["z", "y", "q"]}),
        {},
        ("z, y, q, which are not z, y and x",),
    ),
    "wrong axes": (make(), {"axes": "TZYX"}, ("--axes TZYX", "5 x 6 x 7")),
    "time without time": (make(), {"time": 1}, ("--time 1", "no axis of time points")),
    "zero": (make(attributes={"resolution": (0, 4, 4)}), {}, ("not positive", "--spacing")),
    "negative": (make(attributes={"element_size_um": (1, -4, 4)}), {}, ("not positive", "--spacing")),
    "NaN": (make(attributes={"voxel_size": (1, 4, np.nan), "units": "nm"}), {}, ("not positive", "--spacing")),
    "filter": (with_unknown_filter, {}, ("data is compressed with SZ (HDF5 filter 32017)", "hdf5plugin", "h5repack")),
}


# As the HDF Group registers them, with which a user finds the plugin.
REGISTERED = {
    307: "bzip2",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32026: "Blosc2",
}


@pytest.mark.parametrize("number, name", REGISTERED.items())
def test_missing_filter_is_named(tmp_path, number, name):
    with_unknown_filter(tmp_path / "v.h5", number)
    assert_refused(tmp_path / "v.h5", f"is compressed with {name} (HDF5 filter {number})")


def test_damaged_chunk(tmp_path):
    path = save(tmp_path / "v.h5", chunks=(5, 6, 7), compression="gzip")
    with h5py.File(path) as file:
        place = file["volumes/raw"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert_refused(path, "v.h5", "cannot be read")


BESIDE = {"resolution": (40, 4, 8), "element_size_um": (0.04, 0.004, 0.016)}


@pytest.mark.parametrize(
    "attributes, words, size, unit",
    [
        (BESIDE, "its element_size_um 0.016 x 0.004 x 0.04 micrometer, of which the first", (8, 4, 40), "nanometer"),
        ({"voxel_size": (40, 4, 8)}, "voxel_size has the voxel size 8 x 4 x 40 without a unit", (8, 4, 40), "pixel"),
        ({"voxel_size": (40, 4, 8), "units": ["furlong"] * 3}, 'unit of length, "furlong"', (8, 4, 40), "pixel"),
        ({"resolution": (40, 4)}, "resolution has 2 sizes for 3 axes, and is not used", (1, 1, 1), "pixel"),
        ({"resolution": "fine"}, "resolution is no list of numbers ('fine'), and is not used", (1, 1, 1), "pixel"),
        ({**CREMI, "offset": (0, 1)}, "resolution has 2 origin for 3 axes, and is not used", (1, 1, 1), "pixel"),
    ],
)
def test_doubtful_voxel_size_is_told(tmp_path, caplog, attributes, words, size, unit):
    path = save(tmp_path / "v.h5", attributes=attributes)
    assert_read(path, coded(), size, unit)
    assert len(caplog.messages) == 1 and words in caplog.text and "give --spacing" in caplog.text
    caplog.clear()
    read_all(path, spacing=[3, 2, 1])
    assert caplog.messages == []


def test_chunks_that_were_never_written_are_counted(tmp_path, caplog):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        dataset = file.create_dataset("data", SHAPE[::-1], np.uint16, chunks=(2, 6, 7), fillvalue=9)
        dataset[:2] = coded().transpose(2, 1, 0)[:2]
    with caplog.at_level(logging.WARNING):
        block, _ = read_all(tmp_path / "v.h5")
    assert (block[:, :, 2:] == 9).all()
    assert "2 of 3 chunks of data were never written; they read as 9" in caplog.text


AFFINE = np.array([[0.25, 0, 0, 1], [0, 0.5, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("unit, nanometers", [("nanometer", 1), ("micrometer", 1e3), ("millimeter", 1e6)])
def test_written_files_have_what_others_read(tmp_path, dtype, unit, nanometers):
    write_in_parts(tmp_path / "v.h5", coded(dtype), AFFINE, unit)
    with h5py.File(tmp_path / "v.h5") as file:
        dataset = file["volumes/raw"]
        np.testing.assert_array_equal(dataset, coded(dtype).transpose(2, 1, 0))
        assert dataset.dtype == dtype and dataset.compression is None
        attributes = dict(dataset.attrs)
    for name in ("resolution", "voxel_size"):
        np.testing.assert_allclose(attributes[name], np.array([4, 0.5, 0.25]) * nanometers)
    np.testing.assert_allclose(attributes["offset"], np.array([3, -2, 1]) * nanometers)
    np.testing.assert_allclose(attributes["element_size_um"], np.array([4, 0.5, 0.25]) * nanometers / 1000)
    assert list(attributes["units"]) == ["nm"] * 3 and list(attributes["axis_names"]) == ["z", "y", "x"]
    voxel, origin = np.diag(AFFINE)[:3] * nanometers, AFFINE[:3, 3] * nanometers
    assert_read(tmp_path / "v.h5", coded(dtype), voxel, "nanometer", origin)


def test_chunks_of_a_larger_volume(tmp_path):
    voxels = coded("int32", (70, 131, 66))
    with volume_writer(tmp_path / "v.h5", (70, 131, 66), "int32", np.eye(4), "pixel") as writer:
        writer.write(voxels[:, :, 50:], z=50)
        writer.write(voxels[:, 100:, :50], y=100)
        writer.write(voxels[20:, :100, :50], x=20)
        writer.write(voxels[:20, :100, :50])
    with h5py.File(tmp_path / "v.h5") as file:
        assert file["volumes/raw"].chunks == (64, 64, 64)
        np.testing.assert_array_equal(file["volumes/raw"], voxels.transpose(2, 1, 0))
    assert_read(tmp_path / "v.h5", voxels, (1, 1, 1), "pixel")


def test_voxels_that_are_never_written_are_zero(tmp_path):
    with volume_writer(tmp_path / "v.h5", SHAPE, "float32", np.eye(4), "pixel") as writer:
        writer.write(np.ones((2, 2, 2), np.float32), 3, 2, 1)
    with h5py.File(tmp_path / "v.h5") as file:
        assert np.asarray(file["volumes/raw"]).sum() == 8 and file["volumes/raw"][1, 2, 3] == 1


def test_volume_without_a_unit_claims_none(tmp_path):
    write_in_parts(tmp_path / "v.h5", coded(), np.diag([1, 1, 0.125, 1]), "pixel")
    with h5py.File(tmp_path / "v.h5") as file:
        names = set(file["volumes/raw"].attrs)
    assert names & {"resolution", "element_size_um"} == set()
    assert_read(tmp_path / "v.h5", coded(), (1, 1, 0.125), "pixel")


def test_origin_of_a_turned_volume_is_left_out(tmp_path):
    turned = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    write_in_parts(tmp_path / "v.h5", coded(), turned, "nanometer")
    assert_read(tmp_path / "v.h5", coded(), (1, 1, 2), "nanometer")


def test_failed_write_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written") as error:
            write_in_parts(tmp_path / "v.h5", np.zeros((40, 40, 40), np.uint8), np.eye(4), "pixel")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    with pytest.raises(KeyError):
        with volume_writer(tmp_path / "v.h5", SHAPE, "uint8", np.eye(4), "pixel"):
            raise KeyError
    assert list(tmp_path.iterdir()) == []
