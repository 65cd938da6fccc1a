# SPDX-License-Identifier: Apache-2.0
"""Shows volumes in napari as layers on top of each other, each with the voxel size of its file.

    python examples/napari_layers.py IN.tif OUT.tif

Napari, 0.5 or newer, does not come with the bundle: pip install "napari[all]" in the same environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume

LayerData = tuple[np.ndarray, dict[str, Any], str]

_MICROMETERS = {"nanometer": 0.001, "micrometer": 1.0, "millimeter": 1000.0}


def layer_data(paths: Sequence[str | os.PathLike], spacing: Sequence[float] | None = None) -> list[LayerData]:
    """
    Read volumes as napari takes layers: voxels, keywords of the layer, kind of layer.

    Args:
        paths: files, or folders of slices; the first one is the lowest layer.
        spacing: voxel size [z, y, x] of the first volume, in place of its file's.

    Returns:
        For each volume its voxels (z, y, x) in the dtype of the file; its ``name``, its ``scale`` (z, y, x) and the
        ``units`` of that, micrometers, or voxels when no file has a voxel size; and "image".

    Raises:
        InputError: a file cannot be read, or some have a voxel size and others have none.
    """
    layers: list[LayerData] = []
    without: list[str] = []
    for number, path in enumerate(paths):
        volume = read_volume(path, ReadOptions(spacing if number == 0 else None))
        unit = str(volume.meta["unit"])
        if unit not in _MICROMETERS:
            without.append(str(path))
        voxels = volume.numpy()[0].transpose(2, 1, 0).astype(volume.meta["dtype"])
        sizes = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)[::-1] * _MICROMETERS.get(unit, 1.0)
        units = "micrometer" if unit in _MICROMETERS else "pixel"
        layers.append((voxels, {"name": Path(path).name, "scale": tuple(sizes.tolist()), "units": units}, "image"))
    if without and len(without) < len(layers):
        # one in micrometers and one in voxels would not lie on top of each other
        raise InputError(
            f"{without[0]}: has no voxel size, but other files have one; give it first, with --spacing z y x"
        )
    return layers


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the files that the command line names and show them."""
    parser = argparse.ArgumentParser(description="Show volumes in napari, each with the voxel size of its file.")
    parser.add_argument(
        "volumes", nargs="+", metavar="VOLUME", help="TIFF, NIfTI or folder of slices: input, result, ..."
    )
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=float,
        metavar=("Z", "Y", "X"),
        help="voxel size of the first, in place of its file's",
    )
    options = parser.parse_args(arguments)
    try:
        import napari
    except ImportError:
        sys.exit('error: napari is not installed: run pip install "napari[all]" in the environment of the bundle')
    try:
        layers = layer_data(options.volumes, options.spacing)
    except InputError as error:
        sys.exit(f"error: {error}")
    viewer = napari.Viewer()
    for voxels, keywords, _ in layers:
        viewer.add_image(voxels, **keywords)
    napari.run()


if __name__ == "__main__":
    main()
