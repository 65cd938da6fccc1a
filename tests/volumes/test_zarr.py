# SPDX-License-Identifier: Apache-2.0
"""zarr of version 2 and 3 and OME-Zarr, written by zarr-python or by hand: voxels, places, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from chunked_files import SHAPE, assert_coded, coded, voxel_size, write_group, write_json, write_zarr
from scripts.errors import InputError
from scripts.volumes.formats import precomputed, registry, slice_folder
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import VolumeSource, read_volume
from volume_files import assert_in_one_line, expect_refusal, save_slices
from zarr.codecs import BytesCodec

NM = [{"name": each, "type": "space", "unit": "nanometer"} for each in "zyx"]


def pyramid(
    scales: list[list[float]],
    translations: list[list[float]] | None = None,
    axes: list[dict[str, Any]] | None = None,
    overall: list[dict[str, Any]] | None = None,
    version: str = "0.4",
) -> dict[str, Any]:
    """The attributes of a group with a pyramid."""
    datasets: list[dict[str, Any]] = []
    for number, scale in enumerate(scales):
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if translations:
            steps.append({"type": "translation", "translation": translations[number]})
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    found: dict[str, Any] = {"axes": axes or NM, "datasets": datasets}
    if overall:
        found["coordinateTransformations"] = overall
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **found}]}
    return {"ome": {"version": version, "multiscales": [found]}}


def write_pyramid(path: Path, version: Literal[2, 3] = 2, **more: Any) -> Path:
    """Two levels, of which the second is another volume, with its voxels shifted by one."""
    more.setdefault("scales", [[40, 4, 4], [80, 8, 8]])
    write_group(path, pyramid(version="0.4" if version == 2 else "0.5", **more), version)
    write_zarr(path / "0", version=version)
    write_zarr(path / "1", coded() + np.uint16(1), version=version)
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_voxels_of_plain_zarr(tmp_path, version, dtype):
    assert_coded(write_zarr(tmp_path / "v.zarr", coded(dtype), version))
    with VolumeSource(tmp_path / "v.zarr") as source:
        assert (source.header.dtype, source.header.unit, source.chunk) == (dtype, "pixel", (4, 3, 2))


@pytest.mark.parametrize("how", [{"dtype": ">u2"}, {"order": "F"}, {"separator": "/"}, {"codec": "zlib"}])
def test_layouts_of_version_2(tmp_path, how):
    layout: dict[str, Any] = {}
    if "order" in how:
        layout["order"] = "F"
    if "separator" in how:
        layout["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    if "codec" in how:
        import numcodecs

        layout["compressors"] = numcodecs.Zlib()
    assert_coded(write_zarr(tmp_path / "v.zarr", coded(how.get("dtype", "uint16")), **layout))


def test_shards_big_endian_and_names_of_version_3(tmp_path):
    """The layout that large volumes have; the order of the axes is told by their names."""
    layout: dict[str, Any] = {"shards": (4, 6, 4), "dimension_names": ["x", "y", "z"], "chunks": (2, 3, 2)}
    layout["serializer"] = BytesCodec(endian="big")
    assert_coded(write_zarr(tmp_path / "v.zarr", coded().transpose(), 3, **layout))


@pytest.mark.parametrize("version", [2, 3])
def test_levels_of_a_pyramid(tmp_path, version):
    """The first level is taken; another by its number or its path, from the group or by a path into the store."""
    path = write_pyramid(tmp_path / "v.zarr", version, translations=[[1, 2, 3], [21, 4, 5]])
    assert_coded(path)
    assert voxel_size(path) == ((4, 4, 40), (3, 2, 1), "nanometer")
    assert voxel_size(path, dataset="1") == voxel_size(path / "1") == ((8, 8, 80), (5, 4, 21), "nanometer")
    assert int(read_volume_of(path, dataset="1").min()) == 1


def read_volume_of(path: Path, **how: Any) -> np.ndarray:
    with VolumeSource(path, ReadOptions(**how)) as source:
        return np.stack([source.read(index) for index in range(source.header.shape[2])], axis=2)


def test_levels_that_are_not_called_by_their_number(tmp_path):
    attributes = pyramid([[40, 4, 4], [80, 8, 8]])
    for number, each in enumerate(attributes["multiscales"][0]["datasets"]):
        each["path"] = f"levels/s{number}"
        write_zarr(tmp_path / "v.zarr" / each["path"], coded() + np.uint16(number))
    write_group(tmp_path / "v.zarr", attributes)
    assert int(read_volume_of(tmp_path / "v.zarr", dataset="1").min()) == 1
    assert voxel_size(tmp_path / "v.zarr" / "levels" / "s1")[0] == (8, 8, 80)


def test_scale_of_the_whole_pyramid_comes_after_that_of_a_level(tmp_path):
    """First the level's scale and translation, then those of the pyramid; micrometers and nanometers together."""
    axes = [{**NM[0], "unit": "micrometer"}, *NM[1:]]
    overall = [{"type": "scale", "scale": [2, 2, 2]}, {"type": "translation", "translation": [1, 100, 200]}]
    path = write_pyramid(
        tmp_path / "v.zarr",
        scales=[[0.02, 2, 2], [0.04, 4, 4]],
        translations=[[0, 0, 0], [0.01, 1, 1]],
        axes=axes,
        overall=overall,
    )
    assert voxel_size(path, dataset="1") == ((8, 8, 80), (202, 102, 1020), "nanometer")


@pytest.mark.parametrize("order", ["tczyx", "cxzy", "yxz", "xyzt"])
def test_order_of_axes_time_and_channel(tmp_path, order):
    """Any order, by the names; of two time points and three channels one is chosen."""
    sizes = {"t": 2, "c": 3}
    letters = [each for each in order if each in "zyx"]
    voxels = coded().transpose(["zyx".index(each) for each in letters])
    for place, each in enumerate(order):
        if each in sizes:
            voxels = np.stack([voxels + np.uint16(number * (each == "c")) for number in range(sizes[each])], place)
    spacing, begin = {"z": 40.0, "y": 5.0, "x": 4.0}, {"z": 3.0, "y": 2.0, "x": 1.0}
    axes: list[dict[str, Any]] = [{"name": each, "unit": "nanometer"} for each in order]
    scale, translation = [spacing.get(each, 1.0) for each in order], [begin.get(each, 0.0) for each in order]
    write_group(tmp_path / "v.zarr", pyramid([scale], [translation], axes))
    write_zarr(tmp_path / "v.zarr" / "0", voxels, chunks=[{"t": 1, "c": 1, "z": 2, "y": 3, "x": 4}[c] for c in order])
    choice = {option: 0 for letter, option in (("t", "time"), ("c", "channel")) if letter in order}
    assert_coded(tmp_path / "v.zarr", **choice)
    assert voxel_size(tmp_path / "v.zarr", **choice) == ((4, 5, 40), (1, 2, 3), "nanometer")
    if "c" in order:
        assert int(read_volume_of(tmp_path / "v.zarr", **{**choice, "channel": 2}).min()) == 2
        expect_refusal(tmp_path / "v.zarr", "channels", "--channel 0 to 2")


FUNLIB = {"voxel_size": [40, 4, 5], "offset": [80, 8, 10], "units": ["nm", "nm", "nm"], "axis_names": ["z", "y", "x"]}


@pytest.mark.parametrize(
    "attributes, expected",
    [
        (FUNLIB, ((5, 4, 40), (10, 8, 80), "nanometer")),
        ({"resolution": [40, 4, 5], "units": "um"}, ((5, 4, 40), (0, 0, 0), "micrometer")),
        ({"resolution": [40, 4, 5], "offset": [80, 8, 10]}, ((5, 4, 40), (10, 8, 80), "pixel")),
        (
            {
                "transform": {
                    "axes": ["x", "z", "y"],
                    "scale": [4, 40, 5],
                    "translate": [1, 3, 2],
                    "units": ["nm", "um", "nm"],
                }
            },
            ((4, 5, 40000), (1, 2, 3000), "nanometer"),
        ),
        ({"pixelResolution": {"dimensions": [4, 5, 40], "unit": "\u00b5m"}}, ((4, 5, 40), (0, 0, 0), "micrometer")),
        ({}, ((1, 1, 1), (0, 0, 0), "pixel")),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_attributes_of_an_array(tmp_path, attributes, expected, version):
    assert voxel_size(write_zarr(tmp_path / "v.zarr", version=version, attributes=attributes)) == expected


def test_channels_of_funlib_come_before_the_axes_of_its_sizes(tmp_path):
    attributes = {**FUNLIB, "axis_names": ["c^", "z", "y", "x"]}
    path = write_zarr(tmp_path / "v.zarr", np.stack([coded(), coded()]), attributes=attributes, chunks=(1, 2, 3, 4))
    assert_coded(path, channel=1)
    assert voxel_size(path, channel=1) == ((5, 4, 40), (10, 8, 80), "nanometer")


def test_axes_by_the_option(tmp_path):
    """The numbers go with the axes of the array, whatever these are called."""
    path = write_zarr(tmp_path / "v.zarr", coded().transpose(2, 1, 0), attributes={"voxel_size": [4, 5, 40]})
    assert_coded(path, axes="XYZ")
    assert voxel_size(path, axes="XYZ")[0] == (4, 5, 40)
    many = write_zarr(tmp_path / "m.zarr", np.stack([coded(), coded()]), chunks=(1, 2, 3, 4))
    expect_refusal(many, "4 axes without names", "2 x 5 x 6 x 7", "--axes CZYX")
    assert_coded(many, axes="TZYX", time=1)


def test_several_arrays_are_listed(tmp_path):
    for name in ("volumes/raw", "volumes/labels/neurons"):
        write_zarr(tmp_path / "v.zarr" / name)
    write_group(tmp_path / "v.zarr", {})
    expect_refusal(tmp_path / "v.zarr", "2 arrays", "--dataset", "volumes/labels/neurons, volumes/raw")
    assert_coded(tmp_path / "v.zarr", dataset="volumes/raw")
    assert_coded(tmp_path / "v.zarr", dataset="/volumes/labels")
    assert_coded(tmp_path / "v.zarr" / "volumes" / "raw")
    assert_coded(tmp_path / "v.zarr" / "volumes", dataset="raw")


def test_the_only_volume_is_taken(tmp_path):
    """Tables and masks of one slice are passed over; of a pyramid under a group the first level is meant."""
    write_pyramid(tmp_path / "v.zarr" / "0")
    write_zarr(tmp_path / "v.zarr" / "table", np.arange(4))
    write_zarr(tmp_path / "v.zarr" / "mask", np.ones(SHAPE[1:], np.uint8))
    write_group(tmp_path / "v.zarr", {"bioformats2raw.layout": 3})
    assert_coded(tmp_path / "v.zarr")
    assert_coded(tmp_path / "v.zarr", dataset="0")
    assert int(read_volume_of(tmp_path / "v.zarr", dataset="0/1").min()) == 1


@pytest.mark.parametrize("version", [2, 3])
def test_absent_chunks_are_counted(tmp_path, caplog, version):
    """They are what the fill value says, and the rest of the box is read."""
    path = write_zarr(tmp_path / "v.zarr", version=version, fill_value=9)
    for name in ("0.0.0", "2.1.1") if version == 2 else ("c/0/0/0", "c/2/1/1"):
        (path / name).unlink()
    truth = coded()
    truth[:2, :3, :4] = truth[4:, 3:, 4:] = 9
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_volume_of(path), truth.transpose(2, 1, 0))
    text = "\n".join(caplog.messages)
    assert f"{path}: chunk (0, 0, 0) of the array" in text and "is absent, and read as the fill value 9" in text
    assert f"{path}: 2 of its 12 chunks are absent" in text


def test_absent_chunks_of_other_boxes_are_not_counted(tmp_path, caplog):
    path = write_zarr(tmp_path / "v.zarr")
    (path / "2.1.1").unlink()
    with caplog.at_level(logging.WARNING), VolumeSource(path) as source:
        source.read_block(slice(0, 7), slice(0, 6), [0, 1])
    assert not caplog.messages


def test_absent_inner_chunks_of_a_shard(tmp_path, caplog):
    path = write_zarr(tmp_path / "v.zarr", np.zeros(SHAPE, "uint16"), 3, shards=(4, 6, 8), config=None, fill_value=0)
    zarr.open_array(str(path))[4, 5, 6] = 1
    with caplog.at_level(logging.WARNING):
        assert read_volume_of(path).sum() == 1
    assert "11 of its 12 chunks are absent" in "\n".join(caplog.messages)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"\0" * 40])
def test_damaged_chunk_is_named(tmp_path, version, damage):
    path = write_zarr(tmp_path / "v.zarr", np.random.default_rng(0).integers(0, 9999, SHAPE, "uint16"), version)
    file = path / ("1.0.1" if version == 2 else "c/1/0/1")
    file.write_bytes(damage(file.read_bytes()))
    with VolumeSource(path) as source:
        source.read_block(slice(0, 4), slice(0, 6), [0, 1, 2, 3, 4])  # beside it
        with pytest.raises(InputError) as error:
            source.read_block(slice(0, 7), slice(0, 6), [0, 1, 2, 3, 4])
    assert_in_one_line(error, str(path), "chunk (1, 0, 1)", str(file), "copy it again")


def test_damaged_shard_is_named(tmp_path):
    path = write_zarr(tmp_path / "v.zarr", version=3, shards=(4, 6, 8))
    file = path / "c" / "1" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-7])
    expect_refusal(path, "chunk (2, 0, 0)", str(file), "copy it again")


def damaged(name: str) -> Any:
    """Return what makes a store wrong, by its name."""

    def edit(file: Path, **changes: Any) -> None:
        write_json(file, {**json.loads(file.read_text()), **changes})

    def change_array(**changes: Any) -> Any:
        return lambda path: edit(write_zarr(path) / ".zarray", **changes)

    def change_array_3(**changes: Any) -> Any:
        return lambda path: edit(write_zarr(path, version=3) / "zarr.json", **changes)

    def broken(file: str, content: bytes) -> Any:
        return lambda path: (write_zarr(path) / file).write_bytes(content)

    def other_axes(path: Path) -> None:
        write_pyramid(path, axes=[{"name": each} for each in "tzyx"])

    def level_is_missing(path: Path) -> None:
        write_group(path, pyramid([[40, 4, 4], [80, 8, 8]]))

    return {
        "empty folder": Path.mkdir,
        "no group": lambda path: write_json(path / "a" / "b.json", {}),
        "empty group": lambda path: write_group(path, {}),
        "broken JSON": broken(".zarray", b'{"shape": [5,'),
        "broken attributes": broken(".zattrs", b"\xff\xfe{}"),
        "list of JSON": broken(".zarray", b"[]"),
        "unknown codec": change_array(compressor={"id": "imaginary"}),
        "codec of numcodecs alone": change_array(compressor={"id": "lz4", "acceleration": 1}),
        "filters": change_array(filters=[{"id": "delta", "dtype": "<u2"}]),
        "unknown codec of version 3": change_array_3(codecs=[{"name": "imaginary"}]),
        "unknown dtype": change_array(dtype="<q7"),
        "unknown dtype of version 3": change_array_3(data_type="decimal"),
        "zero size": change_array(shape=[5, 0, 7]),
        "no shape": change_array(shape=None),
        "chunks of another rank": change_array(chunks=[2, 3]),
        "complex": lambda path: write_zarr(path, coded("complex64")),
        "bool": lambda path: write_zarr(path, coded() > 9),
        "structured": change_array(dtype=[["a", "<u2"], ["b", "<u2"]], fill_value=None),
        "2-D": lambda path: write_zarr(path, coded()[0]),
        "5-D": lambda path: write_zarr(path, np.stack([coded()] * 2)[None].repeat(2, 0), chunks=(1, 1, 2, 3, 4)),
        "one slice": lambda path: write_zarr(path, coded()[:1]),
        "axes of another rank": other_axes,
        "level is missing": level_is_missing,
        "scale 0": lambda path: write_pyramid(path, scales=[[40, 0, 4], [80, 8, 8]]),
        "negative scale": lambda path: write_zarr(path, attributes={"voxel_size": [40, -4, 4]}),
        "NaN": lambda path: write_zarr(path, attributes={"voxel_size": [float("nan"), 4, 4]}),
    }[name]


@pytest.mark.parametrize(
    "name, words",
    [
        ("empty folder", "holds no array"),
        ("no group", "holds no array"),
        ("empty group", "holds no array"),
        ("broken JSON", ".zarray: is no valid JSON"),
        ("broken attributes", ".zattrs: is no valid JSON"),
        ("list of JSON", "no JSON object"),
        ("unknown codec", "imaginary"),
        ("codec of numcodecs alone", "lz4"),
        ("filters", "filters"),
        ("unknown codec of version 3", "imaginary"),
        ("unknown dtype", "<q7"),
        ("unknown dtype of version 3", "decimal"),
        ("zero size", "[5, 0, 7] has a size of 0"),
        ("no shape", "shape None"),
        ("chunks of another rank", "cannot be opened"),
        ("complex", "voxels of type complex64"),
        ("bool", "voxels of type bool"),
        ("structured", "several numbers each"),
        ("2-D", "single 2-D image"),
        ("5-D", "5 axes without names"),
        ("one slice", "1 slice"),
        ("axes of another rank", "has 3 axes, and the multiscales of the group above 4"),
        ("level is missing", "names 0 as level 0"),
        ("scale 0", "not positive (4 x 0 x 40 in multiscales"),
        ("negative scale", "not positive (4 x -4 x 40 in voxel_size"),
        ("NaN", "not positive (4 x 4 x nan in voxel_size"),
    ],
)
def test_wrong_store(tmp_path, name, words):
    damaged(name)(tmp_path / "v.zarr")
    expect_refusal(tmp_path / "v.zarr", str(tmp_path / "v.zarr"), words)


@pytest.mark.parametrize(
    "dataset, words",
    [
        ("volumes/none", "its levels are --dataset 0, 1"),
        ("2", "has 2 levels, numbered from 0"),
        ("../other.zarr", "there is no such array"),
        ("", "there is no such array"),
    ],
)
def test_dataset_that_does_not_exist(tmp_path, dataset, words):
    write_zarr(tmp_path / "other.zarr")
    with pytest.raises(InputError) as error:
        VolumeSource(write_pyramid(tmp_path / "v.zarr"), ReadOptions(dataset=dataset))
    assert_in_one_line(error, f"--dataset {dataset}: ", str(tmp_path / "v.zarr"), words)


@pytest.mark.parametrize(
    "attributes, words",
    [
        ({"voxel_size": [40, 4]}, ("voxel_size has 2 sizes for 3 axes",)),
        ({"voxel_size": "40,4,4"}, ("voxel_size is no list of numbers",)),
        ({"voxel_size": ["a", 4, 4]}, ("voxel_size holds something else than numbers",)),
        ({"voxel_size": [40, 4, 4], "offset": [1]}, ("has 1 origin for 3 axes",)),
        ({"voxel_size": [40, 4, 4]}, ("4 x 4 x 40 without a unit",)),
        ({"voxel_size": [40, 4, 4], "units": ["furlong"] * 3}, ('"furlong"', "not known")),
        ({"voxel_size": [40, 4, 4], "units": ["nm", "nm", "furlong"]}, ('"furlong"', "is not used")),
        (
            {"voxel_size": [40, 4, 4], "resolution": [30, 4, 4], "units": "nm"},
            ("voxel_size says 4 x 4 x 40 nanometer", "resolution 4 x 4 x 30 nanometer", "the first is taken"),
        ),
        ({"transform": {"axes": ["z", "y"], "scale": [40, 4]}}, ("transform has the axes ['z', 'y']",)),
        ({"transform": {"axes": ["z", "z", "x"], "scale": [40, 4, 4]}}, ("transform is of the axes ZZX",)),
    ],
)
def test_doubtful_voxel_size_is_told(tmp_path, attributes, words, caplog):
    """Both sides are named; with ``--spacing`` nothing is in doubt."""
    path = write_zarr(tmp_path / "v.zarr", attributes=attributes)
    with caplog.at_level(logging.WARNING):
        with VolumeSource(path, ReadOptions([3, 2, 1])):
            assert not caplog.messages
        with VolumeSource(path):
            pass
    (message,) = caplog.messages
    assert all(word in message for word in (str(path), "--spacing", *words))


@pytest.mark.parametrize(
    "step, words",
    [
        ({"type": "affine", "affine": []}, 'a transformation "affine"'),
        ({"type": "scale", "scale": [1, 2]}, "a scale of 2 numbers for 3 axes"),
        ({"type": "scale"}, "a scale that is no list"),
    ],
)
def test_transformation_that_cannot_be_used(tmp_path, step, words, caplog):
    with caplog.at_level(logging.WARNING):
        unit = voxel_size(write_pyramid(tmp_path / "v.zarr", overall=[step]))[2]
    assert unit == "pixel" and words in caplog.text and "is not used" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_store_that_may_not_be_read(tmp_path):
    path = write_zarr(tmp_path / "v.zarr")
    (path / "0.0.0").chmod(0)
    expect_refusal(path, "chunk (0, 0, 0)", "change its permissions")
    (path / ".zarray").chmod(0)
    expect_refusal(path, ".zarray: may not be read")


def test_folder_of_slices_is_no_store(tmp_path):
    """Whatever it is called, and whatever else lies in it."""
    for name, extra in (("v.zarr", "readme.txt"), ("v.n5", "attributes.json"), ("slices", "info")):
        save_slices(tmp_path / name, ["1.png", "2.png"])
        (tmp_path / name / extra).write_text("{}")
        assert registry.format_to_read(tmp_path / name) is slice_folder
        assert read_volume(tmp_path / name).shape[-1] == 2
    (tmp_path / "empty").mkdir()
    assert registry.format_to_read(tmp_path / "empty") is slice_folder


@pytest.mark.slow
def test_tensorstore_is_not_imported_for_other_formats(tmp_path):
    """It takes half a second."""
    save_slices(tmp_path / "slices", ["1.png", "2.png"])
    code = (
        "import sys; from scripts.volumes.formats.registry import format_to_read; from pathlib import Path; "
        f"format_to_read(Path({str(tmp_path / 'slices')!r})); assert 'tensorstore' not in sys.modules"
    )
    bundle = Path(precomputed.__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], cwd=bundle, check=True, timeout=120)
