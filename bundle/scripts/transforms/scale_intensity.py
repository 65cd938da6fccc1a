# SPDX-License-Identifier: Apache-2.0
"""Intensity scale: percentiles of the whole volume to [0, 1], and back to the file's range and type."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from scripts.errors import InputError

ENOUGH_VOXELS = 10_000_000
"""Percentiles of more voxels than this are taken from an even subsample: their error is far below a grey level."""

_META = ("intensity_low", "intensity_high", "value_min", "value_max")  # where the meta data keep an Intensity


class Intensity(NamedTuple):
    """The intensity scale of a volume.

    Attributes:
        low, high: values that become 0 and 1.
        smallest, largest: range of the values.
    """

    low: float
    high: float
    smallest: float
    largest: float

    def scale(self, values: torch.Tensor) -> torch.Tensor:
        """Values of a file -> around [0, 1], not clipped."""
        return (values - self.low) / (self.high - self.low)

    def restore(self, values: torch.Tensor, dtype: str) -> torch.Tensor:
        """The way back, clipped to the range; rounded for integers, still as floats. ``dtype``: NumPy's name of the file's."""
        values = (values * (self.high - self.low) + self.low).clamp(self.smallest, self.largest)
        return values.round() if np.issubdtype(np.dtype(dtype), np.integer) else values


def measure_intensity(slices: Iterable[np.ndarray], shape: Sequence[int], lower: float, upper: float) -> Intensity:
    """Find the intensity scale of a volume in one pass over its slices.

    Args:
        slices: (X, Y), all of the volume, in order.
        shape: of the volume (X, Y, Z).
        lower, upper: percentiles in [0, 100] that become 0 and 1. Of large volumes they are those of an even subsample, the voxels
            that a step through the volume in the order x, y, z meets; where they are the same value, the range is taken.
    """
    voxels, z = math.prod(shape), shape[2]
    step = -(-voxels // ENOUGH_VOXELS)
    while math.gcd(step, z) > 1:  # a step in time with Z would see some slices only
        step += 1
    sample = np.empty(-(-voxels // step), np.float32)
    filled, smallest, largest = 0, math.inf, -math.inf
    for index, plane in enumerate(slices):
        # voxel n of the plane is voxel n * z + index of the volume; this is the first that the step divides
        first = -index * pow(z, -1, step) % step
        part = plane.reshape(-1)[first::step]
        sample[filled : filled + len(part)] = part
        filled += len(part)
        smallest, largest = min(smallest, float(plane.min())), max(largest, float(plane.max()))
    low, high = (float(value) for value in np.percentile(sample, (lower, upper), overwrite_input=True))
    if high <= low:  # nearly all voxels share one value
        low, high = smallest, largest
    return Intensity(low, high, smallest, largest)


def check_percentiles(lower: float, upper: float) -> None:
    """Raise InputError unless the percentiles are two rising numbers from 0 to 100."""
    if not (isinstance(lower, (int, float)) and isinstance(upper, (int, float)) and 0 <= lower < upper <= 100):
        raise InputError(f"--percentiles [{lower},{upper}]: give two rising numbers from 0 to 100")


class ScalePercentiles(Transform):
    """Map two percentiles of the whole volume linearly to 0 and 1, without clipping; see :func:`measure_intensity`.

    Stores "intensity_low", "intensity_high" (the percentiles) and "value_min", "value_max" (the range) in the meta data for
    :class:`RestoreIntensity`.

    Args:
        lower, upper: percentiles in [0, 100].
    """

    def __init__(self, lower: float, upper: float) -> None:
        check_percentiles(lower, upper)
        self.lower = lower
        self.upper = upper

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """(1, X, Y, Z) -> the same shape."""
        values = volume.as_tensor()
        slices = (values[0, :, :, index].cpu().numpy() for index in range(values.shape[-1]))
        intensity = measure_intensity(slices, values.shape[1:], self.lower, self.upper)
        result = MetaTensor(intensity.scale(values)).copy_meta_from(volume)
        result.meta.update(zip(_META, intensity))
        return result


class ScalePercentilesd(MapTransform):
    """Dictionary form of :class:`ScalePercentiles`."""

    def __init__(self, keys: KeysCollection, lower: float, upper: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = ScalePercentiles(lower, upper)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.scale(result[key])
        return result


class RestoreIntensity(Transform):
    """Undo :class:`ScalePercentiles` and clip to the range the input file had; integer types are rounded.

    Args:
        difference: the values are differences: scaled, neither shifted nor clipped, and left as float32.
    """

    def __init__(self, difference: bool = False) -> None:
        self.difference = difference

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """(1, X, Y, Z) -> the same shape, float32 with the values of ``meta["dtype"]``."""
        intensity = Intensity(*(volume.meta[name] for name in _META))
        if self.difference:
            values = volume.as_tensor() * (intensity.high - intensity.low)
        else:
            values = intensity.restore(volume.as_tensor(), volume.meta["dtype"])
        result = MetaTensor(values).copy_meta_from(volume)
        if self.difference:
            result.meta["dtype"] = "float32"
        return result


class RestoreIntensityd(MapTransform):
    """Dictionary form of :class:`RestoreIntensity`."""

    def __init__(self, keys: KeysCollection, difference: bool = False, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.restore = RestoreIntensity(difference)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.restore(result[key])
        return result
