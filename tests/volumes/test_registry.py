# SPDX-License-Identifier: Apache-2.0
"""A format is found by the name of a file, and a new one is a module and its name in the registry."""

from __future__ import annotations

import subprocess
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.volumes.formats import hdf5, nifti, registry, slice_folder, tiff
from scripts.volumes.formats.base import Stack
from scripts.volumes.outputs import check_output
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import volume_writer

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.mark.parametrize(
    "name, suffix, module",
    [
        ("v.tif", ".tif", tiff),
        ("v.OME.TIFF", ".OME.TIFF", tiff),
        ("v.nii.tif", ".tif", tiff),
        ("v.nii", ".nii", nifti),
        ("v.tif.nii.gz", ".nii.gz", nifti),
        ("v.HDF", ".HDF", hdf5),
    ],
)
def test_format_of_a_name(name, suffix, module):
    assert registry.suffix_of_volume(Path(name)) == suffix
    assert registry.format_to_read(Path(name)) is registry.format_to_write(Path(name)) is module


@pytest.mark.parametrize("name", ["v", "tif", "v.gz", "v.png"])
def test_name_of_no_format(name):
    assert registry.suffix_of_volume(Path(name)) is None
    for find in (registry.format_to_read, registry.format_to_write):
        with pytest.raises(InputError, match=r"TIFF \(.tif, .tiff, .ome.tif, .ome.tiff\), NIfTI \(.nii, .nii.gz\)"):
            find(Path(name))


def test_folder_is_read_as_slices_whatever_it_is_called(tmp_path):
    (tmp_path / "v.tif").mkdir()
    assert registry.format_to_read(tmp_path / "v.tif") is slice_folder
    assert registry.format_to_read(tmp_path / "*.png") is slice_folder


def test_format_that_is_added(tmp_path, monkeypatch):
    @contextmanager
    def open_stack(path, selection=None):
        voxels = np.load(path)
        yield Stack(voxels.shape, voxels.dtype, np.diag([1, 2, 3, 1.0]), "nanometer", lambda z: voxels[:, :, z], False)

    class Writer:
        def __init__(self, shape, dtype):
            self.voxels = np.zeros(shape, dtype)

        def write(self, block, x=0, y=0, z=0):
            width, height, depth = block.shape
            self.voxels[x : x + width, y : y + height, z : z + depth] = block

    @contextmanager
    def open_writer(path, shape, dtype, affine, unit):
        writer = Writer(shape, dtype)
        yield writer
        np.save(path, writer.voxels)

    added = types.SimpleNamespace(NAME="NumPy", SUFFIXES=(".npy",), open_stack=open_stack, open_writer=open_writer)
    monkeypatch.setattr(registry, "_FORMATS", (*registry._FORMATS, added))
    monkeypatch.setattr(registry, "SUFFIXES", (*registry.SUFFIXES, ".npy"))
    check_output(tmp_path / "v.npy")
    voxels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    with volume_writer(tmp_path / "v.npy", (2, 3, 4), "uint16", np.eye(4), "nanometer") as writer:
        writer.write(voxels[:, 1:, 2:], 0, 1, 2)
        writer.write(voxels[:, :, :2])
        writer.write(voxels[:, :1, 2:], z=2)
    loaded = read_volume(tmp_path / "v.npy")
    assert np.array_equal(loaded[0], voxels) and loaded.meta["dtype"] == "uint16"
    assert loaded.pixdim.tolist() == [1, 2, 3]


def test_libraries_of_formats_wait_for_their_files():
    """Help and mistakes in options are told before anything that takes seconds to import."""
    code = "import sys; import scripts.volumes.formats.registry; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=BUNDLE, capture_output=True, text=True, check=True)
    assert {"h5py", "mrcfile", "itk", "bioio"} & set(found.stdout.split()) == set()
