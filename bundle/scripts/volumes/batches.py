# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Checks of the batches of volumes that inferers take, and the affine of what they return."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from scripts import lattice
from scripts.errors import InputError
from scripts.volumes import memory


def check_volumes(inputs: torch.Tensor, one: bool = False) -> None:
    """
    Check a batch of volumes.

    Args:
        inputs: (B, C, X, Y, Z), floats, with two slices or more.
        one: whether it must be a single volume of one channel, (1, 1, X, Y, Z).

    Raises:
        InputError: it is something else.
    """
    if not isinstance(inputs, torch.Tensor):
        raise InputError(f"a tensor of volumes (B, C, X, Y, Z) is needed, not a {type(inputs).__name__}")
    shape = tuple(inputs.shape)
    if len(shape) != 5:
        missing = ", ".join(["None"] * (5 - len(shape)))
        advice = f": give a single volume as volume[{missing}]" if len(shape) in (3, 4) else ""
        raise InputError(f"volumes have the shape (B, C, X, Y, Z), not {shape}{advice}")
    if not inputs.is_floating_point():
        raise InputError(
            f"volumes are floats scaled to [0, 1], not {inputs.dtype}: scale them first, "
            "with ScalePercentiles for instance"
        )
    if 0 in shape or shape[-1] < 2:
        raise InputError(
            f"volumes (B, C, X, Y, Z) need voxels and at least 2 slices along Z, the last axis, but these are {shape}"
        )
    if one and shape[:2] != (1, 1):
        raise InputError(
            f"one volume of one channel (1, 1, X, Y, Z) is restored at a time, not {shape}: give each on its own"
        )


def check_memory(voxels: int, factor: float) -> None:
    """
    Check that memory holds an output in single precision and its copy for the file.

    Args:
        voxels: of the output.
        factor: that made it so large, for the error.

    Raises:
        InputError: it does not.
    """
    memory.check_memory(
        2 * 4 * voxels, f"--factor {factor:g}: the output would need", "give a lower --factor, or cut the volume"
    )


def with_grid_of(result: torch.Tensor, inputs: torch.Tensor, factor: float) -> torch.Tensor:
    """Return ``result`` with the metadata of ``inputs`` and their affine, refined along Z by ``factor``."""
    if not isinstance(inputs, MetaTensor):
        return result
    refined = MetaTensor(result).copy_meta_from(inputs)
    affine = torch.as_tensor(lattice.refined_affine(inputs.affine.cpu().numpy(), factor))
    refined.affine = affine
    return refined
