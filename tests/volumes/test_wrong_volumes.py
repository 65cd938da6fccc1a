# SPDX-License-Identifier: Apache-2.0
"""The same faults in volumes of every format: each ends in one line that names the file, and nothing else is printed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import test_hdf5
import test_metaimage
import test_mrc
import test_nrrd
import tifffile
from chunked_files import coded, read_voxels, write_group, write_n5, write_precomputed, write_zarr
from coded import Wrong, assert_refused
from PIL import Image
from scripts.errors import InputError

OF_FORMATS: dict[str, dict[str, Wrong]] = {
    "v.mha": test_metaimage.WRONG,
    "v.nrrd": test_nrrd.WRONG,
    "v.mrc": test_mrc.WRONG,
    "v.h5": test_hdf5.WRONG,
}


@pytest.mark.parametrize("name, fault", [(name, fault) for name, faults in OF_FORMATS.items() for fault in faults])
def test_faults_of_a_format(tmp_path, name, fault, capfd):
    write, how, words = OF_FORMATS[name][fault]
    write(tmp_path / name)
    assert_refused(tmp_path / name, name, *words, **how)
    assert capfd.readouterr().err == ""


class Kind(NamedTuple):
    """A format.

    Attributes:
        name: of the volume.
        write: writes it.
        metadata: files in a store that say how the array lies there.
        chunk: a file with voxels in a store, or a slice in a folder.
    """

    name: str
    write: Callable[[Path], Any]
    metadata: tuple[str, ...] = ()
    chunk: str = ""


def multiscale() -> dict[str, Any]:
    steps = [{"type": "scale", "scale": [40, 5, 4]}, {"type": "translation", "translation": [1, 2, 3]}]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    return {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}


def ome_zarr_4(path: Path) -> None:
    write_zarr(write_group(path, {"multiscales": [multiscale()], "omero": {"channels": [{"label": "a"}]}}) / "0")


def ome_zarr_5(path: Path) -> None:
    group = write_group(path, {"ome": {"version": "0.5", "multiscales": [multiscale()]}}, 3)
    write_zarr(group / "0", None, 3, dimension_names=("z", "y", "x"))


def sharded(path: Path) -> None:
    write_zarr(path, None, 3, shards=(4, 6, 8))


TRANSFORM = {"axes": ["z", "y", "x"], "scale": [40, 5, 4], "translate": [1, 2, 3], "units": ["nm"] * 3}


def attributes_of_an_array(path: Path) -> None:
    pixels = {"pixelResolution": {"unit": "nm", "dimensions": [4, 5, 40]}}
    write_zarr(path, attributes={"transform": TRANSFORM, "resolution": [40, 5, 4], "offset": [0, 0, 0], **pixels})


def n5(path: Path) -> None:
    units = {"axes": ["x", "y", "z"], "resolution": [4, 5, 40], "units": ["nm"] * 3}
    write_n5(path, {**units, "transform": TRANSFORM, "pixelResolution": {"unit": "nm", "dimensions": [4, 5, 40]}})


def n5_group(path: Path) -> None:
    write_n5(path / "s0", {"downsamplingFactors": [1, 1, 1]})
    levels = [{"datasets": [{"path": "s0", "transform": TRANSFORM}]}]
    group = {"scales": [[1, 1, 1], [2, 2, 2]], "multiscales": levels, "pixelResolution": [4, 5, 40]}
    (path / "attributes.json").write_text(json.dumps(group))


def slices(path: Path) -> None:
    path.mkdir()
    for number, page in enumerate(coded("uint8")):
        Image.fromarray(page).save(path / f"{number}.png")


def nifti(path: Path) -> None:
    nib.save(nib.Nifti1Image(coded("int16").transpose(2, 1, 0), np.eye(4)), path)


STORES = [
    Kind("v.zarr", ome_zarr_4, (".zattrs", "0/.zarray"), "0/1.1.1"),
    Kind("v5.zarr", ome_zarr_5, ("zarr.json", "0/zarr.json"), "0/c/1/1/1"),
    Kind("shards.zarr", sharded, ("zarr.json",), "c/0/0/0"),
    Kind("array.zarr", attributes_of_an_array, (".zarray", ".zattrs"), "1.1.1"),
    Kind("v.n5", n5, ("attributes.json",), "1/1/1"),
    Kind("group.n5", n5_group, ("s0/attributes.json", "attributes.json"), "s0/1/1/1"),
    Kind("v", write_precomputed, ("info",), "4_4_40/0-4_0-3_0-2"),
]
FILES = [
    Kind("v.tif", lambda path: tifffile.imwrite(path, coded(), imagej=True, metadata={"axes": "ZYX"})),
    Kind("v.ome.tif", lambda path: tifffile.imwrite(path, coded(), compression="zlib", metadata={"axes": "ZYX"})),
    Kind("v.nii", nifti),
    Kind("v.nii.gz", nifti),
    Kind("v.h5", test_hdf5.save),
    Kind("v.mrc", test_mrc.save),
    Kind("v.nrrd", test_nrrd.save),
    Kind("v.mha", test_metaimage.save),
]
FOLDER = Kind("slices", slices, (), "3.png")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("no volume, but words\n" * 200)


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def closed(file: Path) -> None:
    file.chmod(0)


NOT_BY_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
FAULTS = [empty, text, half, folder, pytest.param(closed, marks=NOT_BY_ROOT)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.name)
def test_file(tmp_path, kind, fault, capfd):
    path = tmp_path / kind.name
    kind.write(path)
    assert len(read_voxels(path))
    fault(path)
    assert_refused(path, kind.name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", [*STORES, FOLDER], ids=lambda kind: kind.name)
def test_chunk(tmp_path, kind, fault, capfd):
    path = tmp_path / kind.name
    kind.write(path)
    fault(path / kind.chunk)
    assert_refused(path, kind.name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind, file", [(kind, file) for kind in STORES for file in kind.metadata[:1]])
def test_metadata(tmp_path, kind, file, fault):
    path = tmp_path / kind.name
    kind.write(path)
    fault(path / file)
    assert_refused(path, kind.name)


@pytest.mark.parametrize("kind", [*FILES, *STORES, FOLDER], ids=lambda kind: kind.name)
def test_dataset_time_point_and_axes_that_are_not_there(tmp_path, kind):
    path = tmp_path / kind.name
    kind.write(path)
    assert_refused(path, "--dataset nothing/here", dataset="nothing/here")
    assert_refused(path, "--time 3", time=3)
    assert_refused(path, "--axes CTZYX", axes="CTZYX")


OTHERS: tuple[Any, ...] = (None, "x", "", -1, 0, 2**31, 2**63, 1e308, float("nan"), True, [], {}, ["a"], [None] * 3)
OTHERS += ([-1] * 3, [0] * 3, [2**40] * 3, [1e-300] * 3, ["nm", "parsec", None], {"a": 1}, [[1, 2], [3]], "|S3", ">f8")


@pytest.mark.slow
@pytest.mark.parametrize("kind, file", [(kind, file) for kind in STORES for file in kind.metadata])
def test_every_value_of_the_metadata_may_be_anything(tmp_path, kind, file):
    """Null, text for numbers, lists for objects, sizes beyond all memory: one line, or a volume."""
    path = tmp_path / kind.name
    kind.write(path)
    document = json.loads((path / file).read_text())
    refused = 0
    for place in places(document):
        for other in OTHERS:
            changed = copy.deepcopy(document)
            inside = changed
            for key in place[:-1]:
                inside = inside[key]
            inside[place[-1]] = other
            (path / file).write_text(json.dumps(changed))
            try:
                read_voxels(path)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and kind.name in str(error)
    assert refused


def places(document: Any, above: tuple = ()) -> Iterator[tuple]:
    """The keys and indices that lead to each value of a JSON document."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*above, key))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"shape": [2**20] * 3}, ("a part of 0 needs", "is its shape right?")),
        ({"chunks": [2**20, 2**20, 2]}, ("a chunk of 0 needs", "is its chunk size right?")),
    ],
)
def test_sizes_beyond_all_memory(tmp_path, changes, words):
    """tensorstore would end the process."""
    ome_zarr_4(tmp_path / "v.zarr")
    file = tmp_path / "v.zarr" / "0" / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert_refused(tmp_path / "v.zarr", *words)
