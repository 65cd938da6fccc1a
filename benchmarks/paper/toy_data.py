# SPDX-License-Identifier: Apache-2.0
"""Two phantoms in the place of FIB-25, to see on a CPU that the benchmark runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scripts import lattice
from scripts.evaluation.segmentation import cells_from_membranes
from scripts.phantom import tissue, write_sample
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume


def make_toy_data(folder: Path, factor: int) -> Path:
    """Two phantoms in the place of FIB-25, with the cells of one."""
    for name, seed in (("train", 0), ("test", 1)):
        if not (folder / f"{name}.ome.tif").is_file():
            truth, _ = write_sample(folder / name, (64, 64, 16 * factor + 1), factor, seed)
            write_volume(read_volume(truth), folder / f"{name}.ome.tif")
    labels = folder / "test_neurons.ome.tif"
    if not labels.is_file():
        volume = read_volume(folder / "test.ome.tif")
        # the phantom has no labels: what is bright stands for cells
        gray = tissue((64, 64, 16 * factor + 1), seed, noise=0).astype(np.float32)
        cells = cells_from_membranes(-gray, -105, 20, lattice.voxel_size(volume.affine.numpy()))
        neurons = MetaTensor(torch.from_numpy(cells[None].astype(np.float32))).copy_meta_from(volume)
        neurons.meta["dtype"] = "uint16"
        write_volume(neurons, labels)
    return folder
