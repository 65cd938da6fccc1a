# SPDX-License-Identifier: Apache-2.0
"""OME-Zarr outputs are what other programs take for OME-Zarr: the models of its specification, ome_zarr, and napari with
its reader. These are no dependencies of the tests: a job of .github/workflows/test.yml installs them.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import zarr
from scripts.volumes.formats.ome_zarr_writer import COMPRESSIONS, VERSIONS, OmeZarrStore, check_layout

SHAPES = [(6, 40, 300), (3, 20, 150)]  # (z, y, x) of the levels
NOT_INSTALLED = "needs pip install ome-zarr ome-zarr-models 'napari[pyqt6]' napari-ome-zarr"

logging.getLogger("numcodecs").setLevel(logging.WARNING)


def voxels() -> np.ndarray:
    """(z, y, x)"""
    return np.random.default_rng(0).integers(0, 200, SHAPES[0]).astype(np.uint16)


@pytest.fixture(params=[(version, kind) for version in VERSIONS for kind in COMPRESSIONS], ids="-".join)
def output(tmp_path, request) -> tuple[Path, str]:
    """A store as a reconstruction writes it, and its version."""
    version, compression = request.param
    affine = np.diag([4.0, 5.0, 40.0, 1.0])
    affine[:3, 3] = 10, 20, 30
    layout = check_layout(version, [4, 16, 64], [4, 32, 128], compression)
    path = tmp_path / "o.zarr"
    store = OmeZarrStore(path, SHAPES[0][::-1], np.dtype("uint16"), affine, "nanometer", layout)
    store.create()
    for level in range(len(store.shapes)):
        for box in store.boxes(level):
            store.reduce(level, box) if level else store.write(box, voxels().transpose()[box.slices])
    return path, version


def test_models_of_the_specification_accept_it(output):
    models = pytest.importorskip("ome_zarr_models", reason=NOT_INSTALLED)
    path, version = output
    group = models.open_ome_zarr(zarr.open_group(str(path), mode="r"), version=version)
    assert type(group).__name__ == "Image"
    assert (path / ("zarr.json" if version == "0.5" else ".zattrs")).is_file()


def test_ome_zarr_tells_of_it(output, capsys):
    utils = pytest.importorskip("ome_zarr.utils", reason=NOT_INSTALLED)
    path, version = output
    (found,) = utils.info(str(path))
    assert found.zarr.version == version
    told = capsys.readouterr().out
    assert f"version: {version}" in told and "Multiscales" in told
    assert [tuple(level.shape) for level in found.data] == SHAPES
    np.testing.assert_array_equal(np.asarray(found.data[0]), voxels())


def test_napari_shows_it_at_its_scale(output, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    components = pytest.importorskip("napari.components", reason=NOT_INSTALLED)
    pytest.importorskip("napari_ome_zarr", reason=NOT_INSTALLED)
    npe2 = pytest.importorskip("npe2", reason=NOT_INSTALLED)
    npe2.PluginManager.instance().discover()
    path, _ = output
    (layer,) = components.ViewerModel().open(str(path), plugin="napari-ome-zarr")
    assert [tuple(level.shape) for level in layer.data] == SHAPES
    assert list(layer.scale) == [40, 5, 4] and [f"{unit}" for unit in layer.units] == ["nanometer"] * 3
    np.testing.assert_array_equal(np.asarray(layer.data[0]), voxels())
