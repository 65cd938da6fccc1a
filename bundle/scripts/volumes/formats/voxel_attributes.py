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

"""The voxel size of an array from its attributes, each read by the convention that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scripts.volumes import units
from scripts.volumes.formats.axis_names import letters

_ALIKE = 0.01  # sizes that differ by less are rounded


class Statement(NamedTuple):
    """
    What one attribute says.

    Attributes:
        source: its name.
        sizes: of a voxel along "X", "Y" and "Z".
        origin: place of the first voxel along them.
        units: names of their units; None where it names none.
        fault: what is wrong with it, without its name; None if it can be used.
    """

    source: str
    sizes: Mapping[str, float]
    origin: Mapping[str, float]
    units: Mapping[str, str | None]
    fault: str | None = None


class VoxelSize(NamedTuple):
    """
    The voxel size by all attributes, as :func:`scripts.volumes.formats.array_stack.array_stack` takes it.

    Attributes:
        voxel_size: along "X", "Y" and "Z" in ``unit``; None if it is not known.
        unit: one of ours, None if it is not known.
        origin: place of the center of the first voxel along them, 0 where there is none.
        doubt: what may be wrong with it; None if nothing.
        source: the attribute that it is from.
    """

    voxel_size: dict[str, float] | None = None
    unit: str | None = None
    origin: dict[str, float] | None = None
    doubt: str | None = None
    source: str | None = None

    def of(self, name: str) -> VoxelSize:
        """The same, from an attribute of an array of this name."""
        return self._replace(source=self.source and f"{self.source} of {name}")


NOT_KNOWN = VoxelSize()
"""Of a file without a voxel size."""


def state(source: str, axes: str, sizes: Any, origin: Any = None, unit: Any = None, factors: Any = None) -> Statement:
    """
    Read an attribute whose numbers follow the order of axes.

    Args:
        source: its name.
        axes: a letter for each number.
        sizes: one number for each of the axes.
        origin: as many numbers; None if it says nothing of that.
        unit: name for all of them, or a list of as many names; None if it says nothing of that.
        factors: how many times coarser a level of a pyramid is than the level that the sizes are given for. The center
            of its first voxel is then the center of a block of as many voxels.
    """
    if sizes is None:
        return Statement(source, {}, {}, {}, "has no sizes")
    lists: dict[str, list[Any]] = {}
    for what, given, default in (
        ("sizes", sizes, 1.0),
        ("origin", origin, 0.0),
        ("units", unit, None),
        ("factors", factors, 1.0),
    ):
        values = (
            list(given) if isinstance(given, (list, tuple)) else [given if what == "units" else default] * len(axes)
        )
        if given is not None and what != "units" and not isinstance(given, (list, tuple)):
            return Statement(source, {}, {}, {}, f"is no list of numbers ({given!r})")
        if len(values) != len(axes):
            return Statement(source, {}, {}, {}, f"has {len(values)} {what} for {len(axes)} axes")
        lists[what] = values
    if any(axes.count(axis) != 1 for axis in "XYZ"):
        return Statement(source, {}, {}, {}, f"is of the axes {axes}, not of Z, Y and X once each")
    try:
        numbers = {what: [float(each) for each in lists[what]] for what in ("sizes", "origin", "factors")}
    except (TypeError, ValueError):
        return Statement(source, {}, {}, {}, "holds something else than numbers")
    at = {axis: axes.index(axis) for axis in "XYZ"}
    fine = {axis: numbers["sizes"][place] for axis, place in at.items()}
    return Statement(
        source,
        {axis: fine[axis] * numbers["factors"][place] for axis, place in at.items()},
        {
            axis: numbers["origin"][place] + (numbers["factors"][place] - 1) / 2 * fine[axis]
            for axis, place in at.items()
        },
        {axis: None if lists["units"][place] is None else str(lists["units"][place]) for axis, place in at.items()},
    )


def of_transform(transform: dict[str, Any], rank: int) -> Statement:
    """Read COSEM's ``transform``, whose numbers go by the names of its axes, in either order."""
    axes = transform.get("axes")
    names = letters(axes, len(axes)) if isinstance(axes, list) else None
    if names is None or len(names) != rank:
        return Statement("transform", {}, {}, {}, f"has the axes {axes} for an array of {rank}")
    return state("transform", names, transform.get("scale"), transform.get("translate"), transform.get("units"))


def of_funlib(names: str, attributes: Mapping[str, Any], of_resolution: str | None = None) -> list[Statement]:
    """
    Read the attributes of funlib and CREMI, whose numbers follow the order of the array.

    Args:
        names: a letter for each axis of the array.
        attributes: beside it.
        of_resolution: unit of ``resolution`` where there are no ``units``; None if it is not known.
    """
    statements = []
    for key in ("voxel_size", "resolution"):
        sizes = attributes.get(key)
        if sizes is None:
            continue
        # funlib gives numbers for the axes in space alone
        axes = "".join(each for each in names if each in "XYZ") or names
        if isinstance(sizes, list) and len(sizes) == len(names):
            axes = names
        offset, unit = attributes.get("offset"), attributes.get("units", attributes.get("unit"))
        if isinstance(unit, list) and len(unit) == len(names) != len(axes):
            unit = [each for each, letter in zip(unit, names) if letter in "XYZ"]
        if isinstance(offset, list) and len(offset) == len(names) != len(axes):
            offset = [each for each, letter in zip(offset, names) if letter in "XYZ"]
        if unit is None and key == "resolution":
            unit = of_resolution
        statements.append(state(key, axes, sizes, offset, unit))
    return statements


def settle(statements: Sequence[Statement]) -> VoxelSize:
    """
    Return the voxel size that the first usable attribute says.

    Args:
        statements: of the attributes that exist, the preferred one first.

    Returns:
        The voxel size, with a doubt where an attribute cannot be used, where two disagree, and where a unit is missing
        or not known. Sizes that are not positive are kept, and refused by :func:`scripts.volumes.header.header_of`.
    """
    doubts = [f"its {each.source} {each.fault}, and is not used" for each in statements if each.fault]
    usable = [_in_one_unit(each) for each in statements if each.fault is None]
    if not usable:
        return VoxelSize(doubt="; ".join(doubts) or None)
    first = usable[0]
    doubts += [each for each in (first.doubt,) if each]
    for other in usable[1:]:
        if not _alike(first, other):
            doubts.append(
                f"its {first.source} says {_shown(first)} and its {other.source} {_shown(other)}, of which the first "
                "is taken"
            )
            break
    return first._replace(doubt="; ".join(doubts) or None)


def _in_one_unit(stated: Statement) -> VoxelSize:
    """A statement in the unit of X. With one unknown unit the numbers are kept: their ratio holds in any."""
    names = [stated.units[axis] for axis in "XYZ"]
    sizes, origin, source = dict(stated.sizes), dict(stated.origin), stated.source
    shown = " x ".join(f"{sizes[axis]:g}" for axis in "XYZ")
    if any(not 0 < size < math.inf for size in sizes.values()):
        nothing = dict.fromkeys("XYZ", 0.0)
        return VoxelSize(nothing, None, nothing, None, f"{shown} in {source}")
    if all(name is None for name in names):
        doubt = f"its {source} has the voxel size {shown} without a unit" if set(sizes.values()) != {1.0} else None
        return VoxelSize(sizes, None, origin, doubt, source)
    common = units.common_unit([name or "" for name in names])
    if common is not None:
        unit, scales = common
        for axis, scale in zip("XYZ", scales):
            sizes[axis] *= scale
            origin[axis] *= scale
        return VoxelSize(sizes, None if unit == "pixel" else unit, origin, None, source)
    named = " and ".join(dict.fromkeys("no unit" if name is None else f'"{name}"' for name in names))
    if len(set(names)) == 1:
        doubt = f"its unit of length, {named} in {source}, is not known, so that its voxel size {shown} has none"
        return VoxelSize(sizes, None, origin, doubt, source)
    doubt = f"its voxel size {shown} ({source}) has the units {named}, of which not all are known, and is not used"
    return VoxelSize(doubt=doubt, source=source)


def _alike(first: VoxelSize, other: VoxelSize) -> bool:
    if first.voxel_size is None or other.voxel_size is None:
        return True
    scale = 1.0
    if first.unit is not None and other.unit is not None:
        scale = units.MILLIMETERS[other.unit] / units.MILLIMETERS[first.unit]
    return all(math.isclose(first.voxel_size[axis], other.voxel_size[axis] * scale, rel_tol=_ALIKE) for axis in "XYZ")


def _shown(size: VoxelSize) -> str:
    return f"{' x '.join(f'{(size.voxel_size or {})[axis]:g}' for axis in 'XYZ')} {size.unit or 'without a unit'}"
