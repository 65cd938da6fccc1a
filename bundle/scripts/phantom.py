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

"""Synthetic neural tissue with a known truth, of any size: the sample the demo and the tests run on.

The volume imitates FIB-SEM of insect neuropil at 10 nm: processes packed without gaps, dark membranes between them,
mitochondria with cristae, vesicles, microtubules, synaptic densities and camera noise. Every shape is given by a
formula in continuous space and every direction is drawn uniformly on the sphere, so no axis is special; but one volume
holds few cells, and at 160 voxels a side the gray level steps along X, Y and Z still differ by 3 to 14 % from seed to
seed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scripts import lattice
from scripts.errors import InputError
from scripts.volumes.memory import check_memory

# Lengths are in voxels of 10 nm, gray levels in 0..255; both were set by eye and by histogram against FIB-25.
REFERENCE_VOXEL_NM = 10.0
MEMBRANE_SIGMA = 1.55
MEMBRANE_GRAY = 84.0
MITOCHONDRION_GRAY = 92.0
MEDIAN_RADIUS = 6.5  # of the processes drawn; the many thin ones that find no room are dropped
REACH = 9.0  # no point is farther than this from the surface of its process; what lies beyond is a gap ...
GAP_DEPTH = 3.0
GAP_GRAY = 120.0  # ... and is filled like a thin dark process
MARGIN = 30.0  # processes are also placed this far outside the volume
VOLUME_PER_TRIAL = 2.0e3  # one attempt to place a process for so many voxels
# The fields that bend the processes: distance between their control points, displacement (standard deviation).
WARPS = ((40.0, 10.0), (16.0, 1.6))
FINEST_TEXTURE = 2.6  # distance between the control points of the finest granularity
BLOCK_EDGE = 24
BYTES_PER_VOXEL = 24  # of memory, at least


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: a center, three orthonormal rows `frame` and the semi-axes along them."""

    center: np.ndarray
    frame: np.ndarray
    semi_axes: np.ndarray
    lamella: np.ndarray  # normal of the cristae, its length is their spatial frequency


@dataclass(frozen=True)
class Contents:
    """What one process contains."""

    gray: float
    microtubules: np.ndarray  # (n, 3) points that the lines pass through, parallel to the process
    vesicles: np.ndarray  # (n, 3) centers
    mitochondrion: Ellipsoid | None


@dataclass(frozen=True)
class Processes:
    """Neurites as capsules: all points nearer than the radius to the segment center +- half_length * axis."""

    centers: np.ndarray  # (n, 3)
    axes: np.ndarray  # (n, 3), unit vectors
    half_lengths: np.ndarray  # (n,)
    radii: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.radii)

    def __getitem__(self, chosen: np.ndarray | slice) -> Processes:
        return Processes(self.centers[chosen], self.axes[chosen], self.half_lengths[chosen], self.radii[chosen])

    def distance(self, at: np.ndarray) -> np.ndarray:
        """Signed distance of points (m, 3) to the surface of each process, negative inside: (n, m) float32."""
        origin = at[len(at) // 2]  # one of the points, so that float32 loses nothing in the squares below
        local = at - origin
        centers = (self.centers - origin).astype(np.float32)
        axes = self.axes.astype(np.float32)
        squared = (local**2).sum(1) - 2 * centers @ local.T + (centers**2).sum(1)[:, None]
        along = axes @ local.T - (axes * centers).sum(1)[:, None]
        beyond = np.maximum(np.abs(along) - self.half_lengths.astype(np.float32)[:, None], 0)
        to_segment = np.sqrt(np.maximum(squared - along**2 + beyond**2, 0))
        return to_segment - self.radii.astype(np.float32)[:, None]


def tissue(
    shape: tuple[int, int, int], seed: int = 0, noise: float = 4.0, voxel_size: float = REFERENCE_VOXEL_NM
) -> np.ndarray:
    """A volume of synthetic tissue, isotropic.

    Args:
        shape: voxels along X, Y and Z; any size from 1 up.
        seed: the same seed and shape give the same volume.
        noise: standard deviation of the noise in gray levels, independent for every voxel; 0 switches it off. It does
            not change the shapes: the same seed with and without noise is the same tissue.
        voxel_size: edge of a voxel in nanometers; shapes keep their physical size.

    Returns:
        uint8 array of shape (X, Y, Z), gray levels 0..255.

    Raises:
        InputError: for a shape that is not three positive numbers or that memory does not hold, a negative noise or a
            voxel size that is not positive.
    """
    shape = _check_size(shape, voxel_size)
    if not voxel_size > 0:
        raise InputError(f"voxel size of the sample: must be above 0 nanometers, got {voxel_size}")
    if not noise >= 0:
        raise InputError(f"noise of the sample: must be 0 or more gray levels, got {noise}")
    shapes_rng, noise_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    scale = voxel_size / REFERENCE_VOXEL_NM

    points = _bent_coordinates(shape, scale, shapes_rng)
    bounds = np.array([(p.min(), p.max()) for p in points])
    processes = _pack_processes(bounds, shapes_rng)
    contents = [_fill_process(c, a, h, r, shapes_rng) for c, a, h, r in zip(*vars(processes).values())]
    synapses = _place_synapses(processes, shapes_rng)
    image = 4.0 * _smooth_field(shape, FINEST_TEXTURE / scale, shapes_rng) + 4.0 * _smooth_field(
        shape, 8.0 / scale, shapes_rng
    )
    # in blocks: only the processes near a block are measured there, and little memory is needed
    for corner in itertools.product(*(range(0, n, BLOCK_EDGE) for n in shape)):
        box = tuple(slice(c, c + BLOCK_EDGE) for c in corner)
        at = np.stack([p[box] for p in points], axis=-1)
        image[box] = _paint(at.reshape(-1, 3), image[box].ravel(), processes, contents, synapses).reshape(at.shape[:3])
    del points
    image = ndimage.gaussian_filter(image, 0.55 / scale, output=np.float32)  # the width of the microscope's beam
    if noise > 0:
        image += noise * noise_rng.standard_normal(shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def write_sample(
    folder: str | os.PathLike, size: Sequence[int] = (192, 192, 129), factor: int = 8, seed: int = 0
) -> tuple[Path, Path]:
    """Write a sample with its truth: `sample_truth.tif` (10 nm, isotropic) and `sample_lowres.tif`.

    Args:
        folder: where to write; made when missing. Files of an earlier call are replaced.
        size: voxels of the truth along X, Y and Z; Z is cut to the next lattice size, (K - 1) * factor + 1.
        factor: every factor-th slice is kept in the low-resolution volume; a whole number from 2 up.
        seed: passed on to `tissue`.

    Returns:
        The paths of the truth and of the low-resolution volume.

    Raises:
        InputError: for a factor that is not a whole number from 2 up, or fewer than two low-resolution slices.
    """
    if lattice.check_factor(factor) != int(factor):
        raise InputError(f"factor of the sample: must be a whole number of 2 or more, got {factor}")
    x, y, z = _check_size(size)
    if z <= factor:
        raise InputError(f"--size {[x, y, z]}: with --factor {factor:g} z must be {int(factor) + 1} or more")
    # imported here, for making tissue needs numpy and scipy alone
    import torch
    from monai.data import MetaTensor
    from scripts.volumes.claim import Claim
    from scripts.volumes.outputs import check_folder
    from scripts.volumes.paths import as_path
    from scripts.volumes.writing import write_volume

    place = as_path(folder)
    paths = place / "sample_truth.tif", place / "sample_lowres.tif"
    with ExitStack() as claims:
        for path in paths:
            claims.enter_context(Claim(path))
        check_folder(place, [path.name for path in paths])
        kept = lattice.decimated_indices(z, factor)
        truth = tissue((x, y, kept[-1] + 1), seed=seed)
        affine = np.diag([REFERENCE_VOXEL_NM] * 3 + [1.0])
        affines = affine, lattice.coarsened_affine(affine, factor)
        for path, volume, matrix in zip(paths, (truth, truth[:, :, kept]), affines):
            meta = {"unit": "nanometer", "dtype": "uint8", "filename_or_obj": str(path)}
            values = torch.from_numpy(volume[None].astype(np.float32))
            write_volume(MetaTensor(values, affine=torch.from_numpy(matrix), meta=meta), path)
    return paths


def _check_size(size: Sequence[float], voxel_size: float = REFERENCE_VOXEL_NM) -> tuple[int, int, int]:
    """Return the size of a sample (X, Y, Z), or raise InputError unless it is three whole numbers above 0 that memory
    holds.
    """
    try:
        x, y, z = (int(n) if float(n) == int(n) and not isinstance(n, (bool, str)) else 0 for n in size)
    except (TypeError, ValueError, OverflowError):
        x = y = z = 0
    if min(x, y, z) < 1:
        raise InputError(f"--size {size}: give three positive whole numbers (x, y, z), such as '[192,192,129]'")
    splines = 4 * max(x, y, z) ** 2 / FINEST_TEXTURE * voxel_size / REFERENCE_VOXEL_NM
    check_memory(BYTES_PER_VOXEL * x * y * z + splines, f"--size {[x, y, z]}: needs", "give smaller ones")
    return x, y, z


def _smooth_field(shape: Sequence[int], step: float, rng: np.random.Generator) -> np.ndarray:
    """A random field, mean 0 and standard deviation about 1, that varies over `step` voxels (cubic B-splines)."""
    weights = []
    for n in shape:
        at = np.arange(n) / step + rng.random()
        cell = np.floor(at).astype(int)
        w = at - cell
        taps = (1 - w) ** 3, 3 * w**3 - 6 * w**2 + 4, -3 * w**3 + 3 * w**2 + 3 * w + 1, w**3
        matrix = np.zeros((n, int(cell[-1]) + 4), dtype=np.float32)
        for k, tap in enumerate(taps):
            matrix[np.arange(n), cell + k] = tap / 6
        weights.append(matrix)
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for w in weights:  # each pass contracts the first axis and appends the result as the last: X, Y, Z come round again
        field = np.tensordot(field, w, axes=(0, 1))
    # a uniform cubic B-spline keeps on average 0.479 of the variance of its coefficients along each axis
    return field / np.float32(0.479365**1.5)


def _bent_coordinates(shape: Sequence[int], scale: float, rng: np.random.Generator) -> list[np.ndarray]:
    """The place of every voxel in the space where processes are straight: three float32 arrays of `shape`."""
    points = []
    for axis, n in enumerate(shape):
        line = np.arange(n, dtype=np.float32) * np.float32(scale)
        line = line.reshape([-1 if a == axis else 1 for a in range(3)])
        for step, size in WARPS:
            line = line + np.float32(size) * _smooth_field(shape, step / scale, rng)
        points.append(line)
    return points


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _frame(axis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three orthonormal rows, the first along `axis`, the others turned at random about it."""
    side = np.cross(axis, _direction(rng))
    side /= np.linalg.norm(side)
    return np.stack([axis, side, np.cross(axis, side)])


def _pack_processes(bounds: np.ndarray, rng: np.random.Generator) -> Processes:
    """Draw processes, thick ones first, each where the thicker ones leave room.

    Args:
        bounds: lowest and highest coordinate of the volume along each axis, (3, 2).
        rng: source of the draws.
    """
    low, high = bounds[:, 0] - MARGIN, bounds[:, 1] + MARGIN
    count = int(np.prod(high - low) / VOLUME_PER_TRIAL) + 8
    radii = np.sort(np.clip(rng.lognormal(np.log(MEDIAN_RADIUS), 0.7, count), 3.5, 30.0))[::-1]
    packed = Processes(np.zeros((count, 3)), np.zeros((count, 3)), np.zeros(count), np.zeros(count))
    kept = 0
    for radius in radii:
        axis, center = _direction(rng), rng.uniform(low, high)
        half_length = radius * rng.uniform(0.3, 1.6) + rng.uniform(0, 25)
        if kept:
            along = np.linspace(-1, 1, 5)[:, None] * half_length * axis + center
            gap = packed[:kept].distance(along.astype(np.float32)).min(0)
            # two processes may squeeze each other, but none runs through the inside of another
            if gap.min() < -0.1 * radius or np.median(gap) < 0.6 * radius:
                continue
        packed.centers[kept], packed.axes[kept] = center, axis
        packed.half_lengths[kept], packed.radii[kept] = half_length, radius
        kept += 1
    return packed[:kept]


def _fill_process(
    center: np.ndarray, axis: np.ndarray, half_length: float, radius: float, rng: np.random.Generator
) -> Contents:
    """Give a process its gray level and its organelles; thin ones are darker and have fewer."""
    frame = _frame(axis, rng)

    def inside(count: int, filling: float) -> np.ndarray:
        disc = filling * radius * np.sqrt(rng.random((count, 1)))
        angle = rng.uniform(0, 2 * np.pi, (count, 1))
        along = rng.uniform(-1, 1, (count, 1)) * (half_length + 0.5 * radius)
        return center + along * frame[0] + disc * (np.cos(angle) * frame[1] + np.sin(angle) * frame[2])

    thickness = np.clip((radius - 4) / 12, 0, 1)
    mitochondrion = None
    if radius > 8 and rng.random() < 0.7:
        middle = center + axis * half_length * rng.uniform(-0.7, 0.7) + frame[1] * radius * rng.uniform(0, 0.25)
        across = radius * rng.uniform(0.55, 0.85)
        semi_axes = np.array([across * rng.uniform(1.1, 2.6), across, across * rng.uniform(0.7, 1.0)])
        lamella = _direction(rng) / rng.uniform(7, 10)
        mitochondrion = Ellipsoid(middle, _frame(_direction(rng) * 0.25 + axis, rng), semi_axes, lamella)
    volume = np.pi * radius**2 * 2 * (half_length + radius)
    return Contents(
        gray=float(np.clip(rng.normal(132 + 42 * thickness, 12), 105, 196)),
        microtubules=inside(int(rng.poisson(0.006 * np.pi * radius**2)), 0.75),
        vesicles=inside(int(rng.poisson(min(volume * rng.choice([1e-4, 4e-4, 1e-3]), 300))), 0.85),
        mitochondrion=mitochondrion,
    )


def _place_synapses(processes: Processes, rng: np.random.Generator) -> np.ndarray:
    """Centers of synaptic densities, on the surface of the thicker processes: (n, 3)."""
    centers = []
    for center, axis, half_length, radius in zip(*vars(processes).values()):
        for _ in range(rng.poisson(0.6) if radius > 7 else 0):
            along = axis * half_length * rng.uniform(-1, 1)
            centers.append(center + along + _frame(axis, rng)[1] * radius)
    return np.array(centers).reshape(-1, 3)


def _paint(
    at: np.ndarray, texture: np.ndarray, processes: Processes, contents: Sequence[Contents], synapses: np.ndarray
) -> np.ndarray:
    """Gray levels of the points of one block.

    Args:
        at: coordinates of the points, (n, 3) float32.
        texture: granularity of the cytoplasm at these points, in gray levels, (n,).
        processes: all processes of the volume.
        contents: what each of them contains.
        synapses: centers of all synaptic densities, (m, 3).
    """
    low = np.array([column.min() for column in at.T])
    high = np.array([column.max() for column in at.T])
    middle, half_diagonal = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    near = np.flatnonzero(processes.distance(middle[None])[:, 0] < half_diagonal + REACH)

    # the last two rows stand for whatever lies in a gap that no process fills
    distance = np.full((len(near) + 2, len(at)), REACH, dtype=np.float32)
    distance[-1] += 2 * GAP_DEPTH
    if len(near):
        distance[:-2] = processes[near].distance(at)
    nearest = distance.argmin(0)
    first, second = np.partition(distance, 1, axis=0)[:2]
    depth = (second - first) / 2  # how far the membrane is: half the difference of the two smallest distances

    gray = np.full(len(at), GAP_GRAY, dtype=np.float32)
    for row, index in enumerate(near.tolist()):
        own = np.flatnonzero(nearest == row)
        if len(own):
            gray[own] = _paint_process(contents[index], processes.axes[index], at[own], depth[own], texture[own])
    for center in synapses[((synapses > low - 12) & (synapses < high + 12)).all(1)].astype(np.float32):
        gray -= 45 * np.exp(-((at - center) ** 2).sum(1) / (2 * 4.0**2) - (depth / 5) ** 2)
    membrane = np.exp(-0.5 * (depth / MEMBRANE_SIGMA) ** 2)
    return gray + (MEMBRANE_GRAY - gray) * membrane


def _paint_process(
    contents: Contents, axis: np.ndarray, at: np.ndarray, depth: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    """Gray levels inside one process, its membrane not yet drawn; `depth` is the distance to that membrane."""
    low = np.array([column.min() for column in at.T])
    high = np.array([column.max() for column in at.T])
    dots = np.zeros(len(at), dtype=np.float32)
    vesicles = contents.vesicles
    for center in vesicles[((vesicles > low - 5) & (vesicles < high + 5)).all(1)].astype(np.float32):
        np.maximum(dots, np.exp(-((at - center) ** 2).sum(1) / (2 * 1.9**2)), out=dots)
    if len(contents.microtubules):
        direction = axis.astype(np.float32)
        across = at - np.outer(at @ direction, direction)
        lines = contents.microtubules - np.outer(contents.microtubules @ axis, axis)
        for line in lines.astype(np.float32):
            np.maximum(dots, 0.7 * np.exp(-((across - line) ** 2).sum(1) / (2 * 1.3**2)), out=dots)
    gray = contents.gray + texture - 40 * dots

    body = contents.mitochondrion
    if body is not None:
        local = (at - body.center.astype(np.float32)) @ body.frame.T.astype(np.float32)
        semi_axes = body.semi_axes.astype(np.float32)
        size = np.sqrt(((local / semi_axes) ** 2).sum(1))
        slope = np.sqrt(((local / semi_axes**2) ** 2).sum(1))
        inside = size * (1 - size) / np.maximum(slope, 1e-6)  # close to the distance to the ellipsoid's surface
        inside = np.minimum(inside, depth - 4.5)  # and never through the membrane of the process
        cristae = 7 * np.sin(2 * np.pi * (at @ body.lamella.astype(np.float32)) + texture / 4)
        matrix = MITOCHONDRION_GRAY + cristae + 0.4 * texture
        gray += 10 * np.exp(-0.5 * ((inside + 4) / 2) ** 2)  # the bright rim of cytoplasm around it
        gray += (matrix - gray) / (1 + np.exp(-2.2 * np.clip(inside, -20, 20)))
        gray -= 14 * np.exp(-0.5 * ((inside - 1) / 1.2) ** 2)
    return gray
