# SPDX-License-Identifier: Apache-2.0
"""Small volumes with the layout and the metadata of OpenOrganelle, MICrONS, FlyEM, CREMI and funlib are opened as the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest
from chunked_files import (
    assert_coded,
    coded,
    read_voxels,
    scale_of,
    voxel_size,
    write_group,
    write_json,
    write_n5,
    write_precomputed,
    write_zarr,
)
from scripts.errors import InputError


def open_organelle_n5(folder: Path) -> None:
    group = folder / "jrc_x.n5" / "em" / "fibsem-uint16"
    levels: list[dict[str, Any]] = []
    for number in range(2):
        axis = {"axes": ["z", "y", "x"], "units": ["nm", "nm", "nm"]}
        scale, translate = [each * 2**number for each in (5.24, 4.0, 4.0)], [2.62 * number, 2.0 * number, 2.0 * number]
        transform = {**axis, "scale": scale, "translate": translate}
        write_n5(
            group / f"s{number}", {"transform": transform, "pixelResolution": {"dimensions": scale[::-1], "unit": "nm"}}
        )
        levels.append({"path": f"s{number}", "transform": transform})
    pixels = {"dimensions": [4.0, 4.0, 5.24], "unit": "nm"}
    more = {"axes": ["x", "y", "z"], "units": ["nm"] * 3, "scales": [[1, 1, 1], [2, 2, 2]], "pixelResolution": pixels}
    write_json(group / "attributes.json", {"name": "fibsem-uint16", "multiscales": [{"datasets": levels}], **more})
    write_json(folder / "jrc_x.n5" / "attributes.json", {"n5": "2.0.0"})


def open_organelle_zarr(folder: Path) -> None:
    group = folder / "jrc_x.zarr" / "recon-1" / "em" / "fibsem-uint8"
    levels = [
        {
            "path": f"s{number}",
            "coordinateTransformations": [
                {"type": "scale", "scale": [5.24 * 2**number, 4.0 * 2**number, 4.0 * 2**number]},
                {"type": "translation", "translation": [2.62 * number, 2.0 * number, 2.0 * number]},
            ],
        }
        for number in range(2)
    ]
    axes = [{"name": each, "type": "space", "unit": "nanometer"} for each in "zyx"]
    overall = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    pyramid = {"version": "0.4", "name": "", "axes": axes, "datasets": levels, "coordinateTransformations": overall}
    write_group(group, {"multiscales": [pyramid]})
    for number in range(2):
        write_zarr(group / f"s{number}", coded("uint8"), chunk_key_encoding={"name": "v2", "separator": "/"})
    write_group(folder / "jrc_x.zarr", {})


def microns(folder: Path) -> None:
    scales = [
        scale_of("8_8_40", (26, 30, 14), resolution=[8, 8, 40]),
        scale_of("16_16_40", (13, 15, 14), resolution=[16, 16, 40]),
    ]
    write_precomputed(folder / "em", scales, "uint8")


def fly_em_n5(folder: Path) -> None:
    pixels = {"dimensions": [8.0, 8.0, 8.0], "unit": "nm"}
    write_json(
        folder / "slab.n5" / "attributes.json",
        {"n5": "2.1.0", "pixelResolution": pixels, "scales": [[1, 1, 1], [2, 2, 2], [4, 4, 4]]},
    )
    for number in range(3):
        write_n5(folder / "slab.n5" / f"s{number}", {"downsamplingFactors": [2**number] * 3}, coded("uint8"))


def cremi(folder: Path) -> None:
    with h5py.File(folder / "sample_A.hdf", "w") as file:
        for name, dtype, offset in (("raw", "uint8", (1520, 3644, 3644)), ("labels/neuron_ids", "uint64", (0, 0, 0))):
            file[f"volumes/{name}"] = coded(dtype)
            file[f"volumes/{name}"].attrs["resolution"] = (40.0, 4.0, 4.0)
            file[f"volumes/{name}"].attrs["offset"] = [float(each) for each in offset]


def funlib(folder: Path) -> None:
    raw = {"axis_names": ["c^", "z", "y", "x"], "voxel_size": [40, 4, 4], "offset": [80, 0, 0], "units": ["nm"] * 3}
    write_zarr(folder / "x.zarr" / "volumes" / "raw", coded("uint8")[None], attributes=raw, chunks=(1, 2, 3, 4))
    write_group(folder / "x.zarr", {})


def tensorstore_n5(folder: Path) -> None:
    write_n5(folder / "v.n5", {"axes": ["x", "y", "z"], "resolution": [4, 4, 40], "units": ["nm"] * 3})


@pytest.mark.parametrize(
    "write, path, size, origin",
    [
        (open_organelle_n5, "jrc_x.n5", (4, 4, 5.24), (0, 0, 0)),
        (open_organelle_n5, "jrc_x.n5/em/fibsem-uint16/s1", (8, 8, 10.48), (2, 2, 2.62)),
        (open_organelle_zarr, "jrc_x.zarr", (4, 4, 5.24), (0, 0, 0)),
        (open_organelle_zarr, "jrc_x.zarr/recon-1/em/fibsem-uint8", (4, 4, 5.24), (0, 0, 0)),
        (open_organelle_zarr, "jrc_x.zarr/recon-1/em/fibsem-uint8/s1", (8, 8, 10.48), (2, 2, 2.62)),
        (microns, "em", (8, 8, 40), (208, 240, 560)),
        (microns, "em/16_16_40", (16, 16, 40), (208, 240, 560)),
        (fly_em_n5, "slab.n5", (8, 8, 8), (0, 0, 0)),
        (fly_em_n5, "slab.n5/s2", (32, 32, 32), (12, 12, 12)),
        (funlib, "x.zarr", (4, 4, 40), (0, 0, 80)),
        (funlib, "x.zarr/volumes/raw", (4, 4, 40), (0, 0, 80)),
        (tensorstore_n5, "v.n5", (4, 4, 40), (0, 0, 0)),
    ],
)
def test_volume_of_a_portal(tmp_path, write, path, size, origin, caplog):
    """Nothing is in doubt: what their several attributes say agrees."""
    write(tmp_path)
    assert_coded(tmp_path / path)
    assert voxel_size(tmp_path / path) == (size, origin, "nanometer")
    assert not caplog.messages


def test_cremi(tmp_path, caplog):
    cremi(tmp_path)
    with pytest.raises(InputError, match="--dataset: .*volumes/raw"):
        read_voxels(tmp_path / "sample_A.hdf")
    assert_coded(tmp_path / "sample_A.hdf", dataset="volumes/raw")
    found = voxel_size(tmp_path / "sample_A.hdf", dataset="volumes/raw")
    assert found == ((4, 4, 40), (3644, 3644, 1520), "nanometer") and not caplog.messages


def test_list_of_the_n5_viewer_has_no_unit(tmp_path, caplog):
    write_n5(tmp_path / "v.n5", {"pixelResolution": [4, 4, 40]})
    assert voxel_size(tmp_path / "v.n5") == ((4, 4, 40), (0, 0, 0), "pixel")
    assert "pixelResolution has the voxel size 4 x 4 x 40 without a unit" in caplog.text
