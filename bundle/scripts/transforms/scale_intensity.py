# SPDX-License-Identifier: Apache-2.0
"""Intensity scale: percentiles of the whole volume to [0, 1], and back to the file's range and type."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from scripts.errors import InputError

# Percentiles of more voxels than this are taken from an even subsample: their error is far below a grey level.
_ENOUGH_VOXELS = 10_000_000


class ScalePercentiles(Transform):
    """Map two percentiles of the whole volume linearly to 0 and 1, without clipping.

    Stores "intensity_low", "intensity_high" (the percentiles) and "value_min", "value_max" (the range) in the meta data for
    :class:`RestoreIntensity`.

    Args:
        lower, upper: percentiles in [0, 100].
    """

    def __init__(self, lower: float, upper: float) -> None:
        if not (isinstance(lower, (int, float)) and isinstance(upper, (int, float)) and 0 <= lower < upper <= 100):
            raise InputError(f"--percentiles [{lower},{upper}]: give two rising numbers from 0 to 100")
        self.lower = lower
        self.upper = upper

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """(1, X, Y, Z) -> the same shape."""
        values = volume.as_tensor().flatten()
        step = -(-values.numel() // _ENOUGH_VOXELS)
        while math.gcd(step, volume.shape[-1]) > 1:  # a step in time with Z would see some slices only
            step += 1
        sample = values[::step].cpu().numpy()
        low, high = (float(value) for value in np.percentile(sample, (self.lower, self.upper)))
        if high <= low:  # nearly all voxels share one value
            low, high = float(values.min()), float(values.max())
        result = MetaTensor((volume.as_tensor() - low) / (high - low)).copy_meta_from(volume)
        result.meta.update(
            intensity_low=low,
            intensity_high=high,
            value_min=float(values.min()),
            value_max=float(values.max()),
        )
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
        meta = volume.meta
        values = volume.as_tensor() * (meta["intensity_high"] - meta["intensity_low"])
        if not self.difference:
            values = (values + meta["intensity_low"]).clamp(meta["value_min"], meta["value_max"])
            if np.issubdtype(np.dtype(meta["dtype"]), np.integer):
                values = values.round()
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
