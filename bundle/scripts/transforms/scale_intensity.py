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

"""Intensity scale: percentiles of the whole volume to [0, 1], and back to the file's range and type."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scripts.errors import InputError
from scripts.lattice import sample_boxes
from scripts.transforms.channels import check_axes
from scripts.volumes.reading import VolumeSource
from scripts.volumes.volume_block import WHOLE
from tqdm import tqdm

ENOUGH_VOXELS = 10_000_000
"""Percentiles of more voxels than this are taken from an even subsample: their error is far below a gray level."""

_measured: dict[tuple, Intensity] = {}  # of this process
_measuring = threading.Lock()
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

    def scale(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Values of a file -> around [0, 1], not clipped; ``out`` takes the result, and may be ``values``."""
        # by a tensor: by a number, CUDA multiplies with its reciprocal, which rounds otherwise than a CPU
        return torch.sub(values, self.low, out=out).div_(torch.full((), self.high - self.low, device=values.device))

    def restore(self, values: torch.Tensor, dtype: str) -> torch.Tensor:
        """The way back, clipped to the range; rounded for integers, still as floats. ``dtype``: NumPy's name of the
        file's.
        """
        values = (values * (self.high - self.low)).add_(self.low).clamp_(self.smallest, self.largest)
        return values.round_() if np.issubdtype(np.dtype(dtype), np.integer) else values


def measure_intensity(slices: Iterable[np.ndarray], shape: Sequence[int], lower: float, upper: float) -> Intensity:
    """Find the intensity scale of a volume in one pass over its slices.

    Args:
        slices: (X, Y), all of the volume, in order, of any type.
        shape: of the volume (X, Y, Z).
        lower, upper: percentiles in [0, 100] that become 0 and 1. Of large volumes they are those of an even subsample,
            the voxels that a step through the volume in the order x, y, z meets; where they are the same value, the
            range is taken.
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
        part = plane[np.divmod(np.arange(first, plane.size, step), plane.shape[1])]
        with np.errstate(over="ignore"):  # a float64 beyond float32, which is refused once all slices are read
            sample[filled : filled + len(part)] = part
            least, most = np.float32(plane.min()), np.float32(plane.max())
        filled += len(part)
        smallest, largest = min(smallest, float(least)), max(largest, float(most))
    low, high = (float(value) for value in np.percentile(sample, (lower, upper), overwrite_input=True))
    if high <= low:  # nearly all voxels share one value
        low, high = smallest, largest
    return Intensity(low, high, smallest, largest)


def measure_sample(parts: Iterable[np.ndarray], number: int, dtype: str, lower: float, upper: float) -> Intensity:
    """Find the intensity scale of a volume that is too large to be read for it.

    Args:
        parts: that are spread over the volume, of any shape.
        number: of them.
        dtype: NumPy's name of the volume's type. Values of the volume beyond those of the sample are kept: the range is
            all that the type holds.
        lower, upper: percentiles in [0, 100] that become 0 and 1.

    Raises:
        InputError: the sample has values that are not finite, or one value alone.
    """
    sample = []
    for part in parts:
        step = max(1, part.size * number // ENOUGH_VOXELS)
        sample.append(np.asarray(part.reshape(-1)[::step], np.float32))
    values = np.concatenate(sample)
    if not np.isfinite(values).all():
        raise InputError("the volume has voxels that are NaN or infinite; replace them first")
    low, high = (float(value) for value in np.percentile(values, (lower, upper)))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        raise InputError(f"all sampled voxels have the same value {low:g}; is it the right volume?")
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "ui" else np.finfo(np.float32)
    return Intensity(low, high, float(limits.min), float(limits.max))


def _intensity_of(source: VolumeSource, lower: float, upper: float) -> Intensity:
    """The scale of a file, which is read once for it: a run reconstructs the same volume by the teacher and
    once more, and several threads ask at once."""
    key = (source.fingerprint, lower, upper)
    with _measuring:
        if key not in _measured:
            _measured[key] = _measure_file(source, lower, upper)
        return _measured[key]


def _measure_file(source: VolumeSource, lower: float, upper: float) -> Intensity:
    shape = source.header.shape
    if source.is_large:
        number = len(sample_boxes(shape))
        parts = tqdm(source.sample(), "reading a sample", number, leave=False, unit="part")
        return measure_sample(parts, number, source.header.dtype, lower, upper)
    slices = tqdm(source.checked_slices(), "reading", shape[2], leave=False, unit="slice")
    return measure_intensity(slices, shape, lower, upper)


def check_percentiles(lower: float, upper: float) -> None:
    """Raise InputError unless the percentiles are two rising numbers from 0 to 100."""
    if not (isinstance(lower, (int, float)) and isinstance(upper, (int, float)) and 0 <= lower < upper <= 100):
        raise InputError(f"--percentiles [{lower},{upper}]: give two rising numbers from 0 to 100")


class ScalePercentiles(Transform):
    """Map two percentiles of the whole volume linearly to 0 and 1, without clipping; see :func:`measure_intensity`.

    Stores "intensity_low", "intensity_high" (the percentiles) and "value_min", "value_max" (the range) in the meta data
    for :class:`RestoreIntensity`. Each channel has a scale of its own; with several, each entry is a list. A part of a
    volume (:class:`scripts.volumes.volume_block.VolumeBlock`) has the scale of all of it, which is read once for that.

    Args:
        lower, upper: percentiles in [0, 100].
    """

    def __init__(self, lower: float, upper: float) -> None:
        check_percentiles(lower, upper)
        self.lower = lower
        self.upper = upper

    def __call__(self, volume: torch.Tensor) -> MetaTensor:
        """(C, X, Y, Z) -> the same shape, float32.

        Raises:
            InputError: the axes are others, or a channel has values that are not finite, or one value alone.
        """
        check_axes(volume, type(self).__name__)
        values = torch.Tensor.as_subclass(volume, torch.Tensor).to(torch.float32, copy=True)
        result = MetaTensor(values)
        if isinstance(volume, MetaTensor):
            result.copy_meta_from(volume)
        source = result.meta.pop(WHOLE, None)
        intensities = [self._scale(channel, source) for channel in values]
        for name, numbers in zip(_META, zip(*intensities)):
            result.meta[name] = numbers[0] if len(numbers) == 1 else list(numbers)
        return result

    def _scale(self, channel: torch.Tensor, source: VolumeSource | None) -> Intensity:
        """Scale a channel (X, Y, Z), of a part of the volume ``source`` if there is one, in its place, and
        return how."""
        if source is not None:
            intensity = _intensity_of(source, self.lower, self.upper)
            intensity.scale(channel, out=channel)
            return intensity
        planes = (channel[..., index].cpu().numpy() for index in range(channel.shape[-1]))
        intensity = measure_intensity(planes, channel.shape, self.lower, self.upper)
        if not channel.isfinite().all():
            raise InputError("the volume has voxels that are NaN or infinite; replace them first")
        if not intensity.low < intensity.high:
            raise InputError(f"all voxels have the same value {intensity.low:g}; is it the right volume?")
        intensity.scale(channel, out=channel)
        return intensity


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

    What was made of a volume of one channel has its scale in all channels; of several channels each has its own.

    Args:
        difference: the values are differences: scaled, neither shifted nor clipped, and left as float32.
    """

    def __init__(self, difference: bool = False) -> None:
        self.difference = difference

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """(C, X, Y, Z) -> the same shape, float32 with the values of ``meta["dtype"]``.

        Raises:
            InputError: the axes are others, the volume was not scaled, or it had another number of channels when it
                was.
        """
        check_axes(volume, type(self).__name__)
        intensities = _stored_intensities(volume)
        if len(intensities) not in (1, len(volume)):
            raise InputError(
                f"a volume of {len(volume)} channels cannot get the intensities of {len(intensities)} back: restore "
                "all that were scaled"
            )
        values = volume.as_tensor().to(torch.float32, copy=True)
        for channel, intensity in zip(values, intensities * (len(volume) // len(intensities))):
            if self.difference:
                channel.mul_(intensity.high - intensity.low)
            else:
                channel.copy_(intensity.restore(channel, volume.meta["dtype"]))
        result = MetaTensor(values).copy_meta_from(volume)
        if self.difference:
            result.meta["dtype"] = "float32"
        return result


def _stored_intensities(volume: MetaTensor) -> list[Intensity]:
    """The scales of the channels that :class:`ScalePercentiles` wrote into the meta data."""
    try:
        # what went through a batch may come back as tensors
        columns = [np.array([float(number) for number in np.ravel(volume.meta[name])]) for name in _META]
    except (KeyError, AttributeError) as error:
        raise InputError(
            "the volume has no intensity scale in its meta data: RestoreIntensity undoes ScalePercentiles"
        ) from error
    return [Intensity(*numbers) for numbers in zip(*(column.tolist() for column in columns))]


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
