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

"""The voxel size of a TIFF: from an OME-XML header, from what ImageJ or tifffile write, or from the tags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tifffile
from scripts.volumes import units

_PER_INCH, _PER_CENTIMETER = 2, 3
_PRINTED = 0.02  # millimeters; a coarser resolution per inch is that of a printer


class VoxelSize(NamedTuple):
    """The voxel size in a header.

    Attributes:
        sizes: (x, y, z), None if there are none that can be used.
        unit: of these, None if it is unknown or "pixel".
        doubt: what is wrong with the header, None if nothing is.
    """

    sizes: tuple[float, float, float] | None = None
    unit: str | None = None
    doubt: str | None = None


_NO_DISTANCE = VoxelSize(doubt="has a lateral voxel size but no distance of slices, neither is used")


def voxel_size(tif: tifffile.TiffFile) -> VoxelSize:
    """Return the voxel size of an open file."""
    if tif.is_ome:
        return _of_ome(tif.ome_metadata or "")
    # shaped_metadata is what tifffile writes into plain files, with the same keys as ImageJ
    metadata = tif.imagej_metadata or (tif.shaped_metadata or ({},))[0]
    tags = tif.pages.first.tags
    lateral = [_resolution(tags.get(name)) for name in ("XResolution", "YResolution")]
    if tif.is_imagej or "spacing" in metadata:
        return _of_imagej(metadata, lateral)
    tag = tags.get("ResolutionUnit")
    per = 0 if tag is None else int(tag.value)
    if all(lateral) and (per == _PER_CENTIMETER or (per == _PER_INCH and 25.4 * (lateral[0] or 1) < _PRINTED)):
        return _NO_DISTANCE
    return VoxelSize()


def _of_imagej(metadata: dict[str, Any], lateral: Sequence[float | None]) -> VoxelSize:
    unit = str(metadata.get("unit", ""))
    if units.length(unit) == units.length("inch") and "spacing" not in metadata:
        return VoxelSize()  # dots per inch of a printer, which ImageJ keeps
    # ImageJ leaves out a spacing of 1, and the units of Y and Z where they are that of X
    sizes = [size or 1.0 for size in lateral] + [abs(_number(metadata.get("spacing", 1.0)))]
    return _in_one_unit(sizes, [unit, str(metadata.get("yunit", unit)), str(metadata.get("zunit", unit))])


def _resolution(tag: tifffile.TiffTag | None) -> float | None:
    """Return the pixel size of a resolution tag, a fraction of pixels per unit."""
    if tag is None:
        return None
    pixels, per = tag.value
    return per / pixels if pixels > 0 and per > 0 else None


def _of_ome(xml: str) -> VoxelSize:
    images = tifffile.xml2dict(xml, sep="")["OME"].get("Image") or {}  # with numbers converted
    pixels = (images[0] if isinstance(images, list) else images).get("Pixels") or {}
    written = [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"]
    if written == [None] * 3:
        return VoxelSize()
    if written[2] is None and None not in written[:2]:
        return _NO_DISTANCE
    sizes = [_number(size) for size in written]
    if not all(0 < size < math.inf for size in sizes):
        shown = ", ".join(f"PhysicalSize{axis} {size}" for axis, size in zip("XYZ", written) if size is not None)
        return VoxelSize(doubt=f"its voxel size ({shown}) is not three positive numbers and is not used")
    return _in_one_unit(sizes, [pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m") for axis in "XYZ"])


def _in_one_unit(sizes: Sequence[float], names: Sequence[str]) -> VoxelSize:
    """Return sizes (x, y, z) in the unit of x. With one unknown unit the numbers are kept: their ratio holds in any."""
    shown = " x ".join(f"{size:g}" for size in sizes)
    named = " and ".join(dict.fromkeys(f'"{name}"' for name in names))
    common = units.common_unit(names)
    if common is not None:
        unit, scales = common
        if unit == "pixel":
            return VoxelSize(None if all(size == 1 for size in sizes) else (sizes[0], sizes[1], sizes[2]))
        x, y, z = (size * scale for size, scale in zip(sizes, scales))
        return VoxelSize((x, y, z), unit)
    if len(set(names)) == 1:
        doubt = f"its unit of length, {named}, is not known, so that its voxel size {shown} is taken without a unit"
        return VoxelSize((sizes[0], sizes[1], sizes[2]), None, doubt)
    return VoxelSize(doubt=f"its voxel size {shown} has the units {named}, of which not all are known, and is not used")


def _number(text: Any) -> float:
    """Return a number of a header, NaN where it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
