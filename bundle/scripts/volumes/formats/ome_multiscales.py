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

"""The pyramids of OME-Zarr 0.1 to 0.5: their levels, the names of the axes, and where the voxels are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from scripts.volumes.formats.voxel_attributes import Statement, letters, state

_BEFORE_AXES = "TCZYX"  # of versions 0.1 and 0.2, which have no names


class Level(NamedTuple):
    """
    What a pyramid says of one of its levels.

    Attributes:
        names: of the axes, a letter for each; None if it does not fit the array.
        voxel_size: as stated there; None if it is not.
        named: number of axes that it names.
        channels: their names, empty where one has none.
    """

    names: str | None
    voxel_size: Statement | None
    named: int
    channels: tuple[str, ...] = ()


def metadata(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where OME's metadata is: under "ome" from version 0.5 on."""
    found = attributes.get("ome")
    return found if isinstance(found, dict) else attributes


def levels_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of the levels of the first pyramid of a group, none if it has no pyramid."""
    return tuple(
        each["path"].strip("/")
        for each in _datasets(_pyramid(attributes))
        if isinstance(each, dict) and isinstance(each.get("path"), str)
    )


def level_of(attributes: Mapping[str, Any], path: str, rank: int) -> Level | None:
    """
    Return what a group says of a level of its pyramid.

    Args:
        attributes: of the group.
        path: of the level in it.
        rank: number of axes of its array.

    Returns:
        The level; None if the group does not name it.
    """
    pyramid = _pyramid(attributes)
    found = [each for each in _datasets(pyramid) if isinstance(each, dict) and str(each.get("path")).strip("/") == path]
    if not found:
        return None
    axes = pyramid.get("axes")
    if not isinstance(axes, list):
        return Level(_BEFORE_AXES if rank == len(_BEFORE_AXES) else None, None, len(_BEFORE_AXES))
    named = [each if isinstance(each, dict) else {"name": each} for each in axes]
    names = letters([each.get("name") for each in named], rank)
    if names is None:
        return Level(None, None, len(axes))
    source, channels = f"multiscales (level {path})", _channels(attributes)
    scale, translation, fault = _combined(
        [*_list(found[0], "coordinateTransformations"), *_list(pyramid, "coordinateTransformations")], rank
    )
    if fault is not None:
        return Level(names, Statement(source, {}, {}, {}, fault), rank, channels)
    if scale is None:
        return Level(names, None, rank, channels)
    units = [each.get("unit") for each in named]
    return Level(names, state(source, names, scale, translation, units), rank, channels)


def _channels(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    shown = metadata(attributes).get("omero")
    channels = _list(shown, "channels") if isinstance(shown, dict) else []
    return tuple(str(each.get("label") or "") if isinstance(each, dict) else "" for each in channels)


def _combined(steps: list[Any], rank: int) -> tuple[list[float] | None, list[float], str | None]:
    """Scale and translation of transformations one after the other, and what is wrong with them."""
    scale, translation, scaled = [1.0] * rank, [0.0] * rank, False
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            return None, [], f'has a transformation "{kind}", which is neither scale nor translation'
        try:
            numbers = [float(each) for each in step[kind]]
        except (KeyError, TypeError, ValueError):
            return None, [], f"has a {kind} that is no list of numbers"
        if len(numbers) != rank:
            return None, [], f"has a {kind} of {len(numbers)} numbers for {rank} axes"
        if kind == "scale":
            scaled = True
            scale = [first * second for first, second in zip(scale, numbers)]
            translation = [first * second for first, second in zip(translation, numbers)]
        else:
            translation = [first + second for first, second in zip(translation, numbers)]
    return scale if scaled else None, translation, None


def _pyramid(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    pyramids = _list(metadata(attributes), "multiscales")
    return pyramids[0] if pyramids and isinstance(pyramids[0], dict) else {}


def _datasets(pyramid: Mapping[str, Any]) -> list[Any]:
    return _list(pyramid, "datasets")


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []
