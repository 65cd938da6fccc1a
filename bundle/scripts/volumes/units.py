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

"""Units of length as files name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MILLIMETERS = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0}
"""The units of a volume in millimeters; besides them there is "pixel"."""

_MICRO = ("u", "\u00b5", "\u03bc", "\\u00b5", "\\u03bc", "\u00e2\u00b5")  # the last is UTF-8 read as Latin-1
_INCH = 25.4


class Length(NamedTuple):
    """The meaning of the name of a unit.

    Attributes:
        unit: ours, "nanometer", "micrometer", "millimeter" or "pixel".
        scale: how many of these it is.
    """

    unit: str
    scale: float


def length(name: str) -> Length | None:
    """
    Return the meaning of the name of a unit, None if it is unknown.

    Args:
        name: as in OME and ImageJ files. OME's symbols are case-sensitive (Mm is 10^9 mm), other names are not.
    """
    name = name.strip()
    return _SYMBOLS.get(name) or _NAMES.get(name.lower())


class CommonUnit(NamedTuple):
    """One unit for several lengths.

    Attributes:
        unit: ours, as in :class:`Length`.
        scales: how many of it each of them is.
    """

    unit: str
    scales: tuple[float, ...]


def common_unit(names: Sequence[str]) -> CommonUnit | None:
    """
    Return one unit for the units of several axes: that of the first.

    Args:
        names: of the units, one for each axis.

    Returns:
        The unit; None if one of them is unknown, or some are pixels and others are not.
    """
    lengths = [length(name) for name in names]
    known = [each for each in lengths if each is not None]
    if len(known) < len(lengths) or not known:
        return None
    unit = known[0].unit
    if any((each.unit == "pixel") != (unit == "pixel") for each in known):
        return None
    size = MILLIMETERS.get(unit, 1.0)
    alike = (1.0 if each.unit == unit else MILLIMETERS[each.unit] / size for each in known)
    return CommonUnit(unit, tuple(each.scale * scale for each, scale in zip(known, alike)))


def _metric(meters: float) -> Length:
    """Return a metric unit in the nearest of ours."""
    if meters >= 1e-3:
        return Length("millimeter", meters * 1e3)
    return Length("micrometer", meters * 1e6) if meters >= 1e-6 else Length("nanometer", meters * 1e9)


# of OME, case-sensitive
_SYMBOLS = {
    f"{prefix}m": _metric(meters)
    for prefix, meters in {
        **{"Y": 1e24, "Z": 1e21, "E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "h": 1e2, "da": 1e1},
        **{"d": 1e-1, "c": 1e-2, "m": 1e-3, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18, "z": 1e-21, "y": 1e-24},
    }.items()
}

_NAMES = {
    **dict.fromkeys((f"{micro}m" for micro in _MICRO), Length("micrometer", 1.0)),
    **dict.fromkeys(("micron", "microns"), Length("micrometer", 1.0)),
    **{
        f"{name}{end}": Length(unit, scale)
        for name, (unit, scale) in {
            "nano": ("nanometer", 1.0),
            "micro": ("micrometer", 1.0),
            "milli": ("millimeter", 1.0),
            "centi": ("millimeter", 10.0),
            "pico": ("nanometer", 1e-3),
            "": ("millimeter", 1e3),
        }.items()
        for end in ("meter", "meters", "metre", "metres")
    },
    **{"nm": Length("nanometer", 1.0), "mm": Length("millimeter", 1.0), "cm": Length("millimeter", 10.0)},
    **{"pm": Length("nanometer", 1e-3), "m": Length("millimeter", 1e3)},
    **dict.fromkeys(
        ("\u00e5", "a", "angstrom", "angstroms", "\\u00c5".lower(), "\u00e5ngstr\u00f6m"), Length("nanometer", 0.1)
    ),
    **dict.fromkeys(("inch", "inches", "in", '"'), Length("millimeter", _INCH)),
    **{"thou": Length("micrometer", _INCH), "li": Length("millimeter", _INCH / 12)},
    **{"ft": Length("millimeter", 12 * _INCH), "yd": Length("millimeter", 36 * _INCH)},
    **{"mi": Length("millimeter", 63360 * _INCH), "pt": Length("millimeter", _INCH / 72)},
    **dict.fromkeys(("pixel", "pixels", "voxel", "voxels", "px", "reference frame", ""), Length("pixel", 1.0)),
}
