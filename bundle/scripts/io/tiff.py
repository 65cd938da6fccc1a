# SPDX-License-Identifier: Apache-2.0
"""TIFF stacks: plain, ImageJ and OME."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from scripts.errors import InputError
from scripts.io.stack import Stack

SUFFIXES = (".tif", ".tiff")

# Name in a file -> (our unit, how many of our unit one of it is). Names are compared in lower case.
UNITS = {
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\\u00b5m", "\\u03bcm", "micron", "microns"), ("micrometer", 1.0)),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), ("micrometer", 1.0)),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), ("nanometer", 1.0)),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), ("millimeter", 1.0)),
    **dict.fromkeys(("\u00e5", "angstrom"), ("nanometer", 0.1)),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), ("millimeter", 10.0)),
    "m": ("millimeter", 1000.0),
    **dict.fromkeys(("pixel", "pixels", "voxel", "reference frame", ""), ("pixel", 1.0)),
}
_PER_UNIT = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0}  # in millimeter, to bring mixed units together
_OME_UNITS = {"nanometer": "nm", "micrometer": "\u00b5m", "millimeter": "mm", "pixel": "pixel"}
_IMAGEJ_UNITS = {"nanometer": "nm", "micrometer": "micron", "millimeter": "mm", "pixel": "pixel"}
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_IMAGEJ_MAX_BYTES = 2**32 - 2**25  # a classic TIFF ends at 4 GB; some of it goes to the page headers

logger = logging.getLogger(__name__)


@contextmanager
def open_stack(path: Path) -> Iterator[Stack]:
    """
    Open a stack of 2-D pages.

    A plain TIFF has no tag for the distance of slices, so that its lateral resolution alone is not a voxel size; it is
    then left out, with a warning.

    Args:
        path: file to read.

    Yields:
        The stack. The slices of a contiguous file are memory maps, of which only what is looked at is read.

    Raises:
        InputError: the file holds something else than one single-channel volume.
        OSError: it is damaged; one that ends too early is found here, not only where its slices are read.
    """
    with ExitStack() as opened:
        with _damage_raised():
            tif = opened.enter_context(tifffile.TiffFile(path))
            layout = _layout(tif, path)
            affine, unit = _describe_stack(tif, layout, path)
            series = tif.series[0]
            read_page = _page_reader(tif, layout, path)

        def read(index: int) -> np.ndarray:
            with _damage_raised():
                return read_page(index).transpose()

        yield Stack(layout.shape[::-1], np.dtype(series.dtype), affine, unit, read)


def read_slice(path: Path) -> np.ndarray:
    """
    Read a TIFF that holds one 2-D image.

    Args:
        path: file to read.

    Returns:
        The pixels in (y, x) order.

    Raises:
        InputError: the file holds something else than one single-channel image.
        OSError: it is damaged.
    """
    with _damage_raised(), tifffile.TiffFile(path) as tif:
        layout = _layout(tif, path)
        if len(layout.shape) != 2:
            raise InputError(f"{path}: holds {layout.shape[0]} pages, but each file in a folder must be one 2-D slice")
        return tif.series[0].asarray().reshape(layout.shape)


def create(path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str) -> int:
    """
    Write a stack of zeros with its voxel size, readable by Fiji, napari and :func:`open_stack`.

    OME-TIFF if the name ends in ``.ome.tif(f)``, or if ImageJ's format cannot hold the volume (its dtypes are uint8,
    uint16 and float32, its size stays under 4 GB), otherwise an ImageJ stack.

    Args:
        path: file to write.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4, of which the voxel size is kept; TIFF has no place for a rotation or an origin.
        unit: unit of the affine: nanometer, micrometer, millimeter or pixel.

    Returns:
        The byte of the file where its voxels begin; they follow each other without a gap, x fastest, z slowest.
    """
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    options: dict[str, Any]
    if ome or dtype.name not in _IMAGEJ_DTYPES or math.prod(shape) * dtype.itemsize > _IMAGEJ_MAX_BYTES:
        metadata: dict[str, object] = {"axes": "ZYX"}
        for axis, size in zip("XYZ", (x, y, z)):
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = _OME_UNITS[unit]
        options = {"ome": True, "bigtiff": True, "metadata": metadata}
    else:
        metadata = {"axes": "ZYX", "spacing": z, "unit": _IMAGEJ_UNITS[unit]}
        options = {"imagej": True, "resolution": (1 / x, 1 / y), "metadata": metadata}
    place: Any = tifffile.imwrite(
        path, shape=shape[::-1], dtype=dtype, photometric="minisblack", returnoffset=True, **options
    )
    return int(place[0])


@contextmanager
def _damage_raised() -> Iterator[None]:
    """What tifffile only logs about a damaged file, such as lost pages, becomes an error."""
    errors: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                errors.append(record.getMessage())

    tifffile_logger, collect = logging.getLogger("tifffile"), Collect()
    propagate, tifffile_logger.propagate = tifffile_logger.propagate, False
    tifffile_logger.addHandler(collect)
    try:
        yield
        if errors:
            raise OSError(errors[0])
    except InputError:
        # lost pages can make a volume look like a 2-D image: the damage is the cause to name
        if errors:
            raise OSError(errors[0]) from None
        raise
    finally:
        tifffile_logger.removeHandler(collect)
        tifffile_logger.propagate = propagate


class _Layout(NamedTuple):
    """How the one image of a file is stored: sizes and names of its axes, without those of length 1, and whether each page is a
    series of its own."""

    shape: tuple[int, ...]
    axes: str
    pages_of_a_stack: bool


def _describe_stack(tif: tifffile.TiffFile, layout: _Layout, path: Path) -> tuple[np.ndarray | None, str | None]:
    """Return the affine of the stack and its unit, or raise InputError when it is none."""
    shape, axes, _ = layout
    if len(shape) < 3:
        raise InputError(f"{path}: is a single 2-D image, but a volume is needed; give a stack of slices")
    if len(shape) > 3:
        raise InputError(
            f"{path}: has the axes {axes} of sizes {shape}, but a volume has three; save one time point or "
            "position as a file of its own"
        )
    sizes, unit = _voxel_size(tif, path)
    return None if sizes is None else np.diag([*sizes, 1.0]), unit


def _layout(tif: tifffile.TiffFile, path: Path) -> _Layout:
    """Return how the file is stored, or raise when it ends too early or holds something else than one image of one channel."""
    file_size = tif.filehandle.size
    for page in tif.pages:
        for offset, count in zip(page.dataoffsets, page.databytecounts):
            if offset + count > file_size:
                raise OSError(f"ends at byte {file_size}, but its pixels go on to {offset + count}")
    series = tif.series
    if not series:
        raise OSError("holds no image")
    # Pages written one by one by tifffile come as one 2-D series each, and are a stack all the same.
    pages_of_a_stack = len(series) > 1 and len({(s.shape, s.dtype) for s in series}) == 1 and series[0].axes == "YX"
    if len(series) > 1 and not pages_of_a_stack:
        sizes = " and ".join(" x ".join(map(str, s.shape)) for s in series[:2])
        raise InputError(f"{path}: holds {len(series)} images ({sizes} ...); save the one to use as a file of its own")
    axes, shape = ("IYX", (len(series), *series[0].shape)) if pages_of_a_stack else (series[0].axes, series[0].shape)
    for axis, size in zip(axes, shape):
        if axis in "CS" and size > 1:
            kind = "a colour image" if axis == "S" else "an image"
            raise InputError(f"{path}: is {kind} of {size} channels; save one channel in greyscale")
    if None in series[0].pages:
        raise OSError("pages are missing")
    kept = [index for index, (axis, size) in enumerate(zip(axes, shape)) if size > 1 or axis in "ZYX"]
    return _Layout(tuple(shape[index] for index in kept), "".join(axes[index] for index in kept), pages_of_a_stack)


def _page_reader(tif: tifffile.TiffFile, layout: _Layout, path: Path) -> Callable[[int], np.ndarray]:
    """Return what reads one page (y, x) of a stack."""
    series = tif.series[0]
    _, height, width = layout.shape
    begin = None if layout.pages_of_a_stack else series.dataoffset
    if begin is not None:  # one block of the file, as ImageJ writes, even where only its first page has a header
        dtype = np.dtype(tif.byteorder + np.dtype(series.dtype).char)
        size = height * width * dtype.itemsize
        # mapped anew for each slice: what stays mapped counts as memory of the process
        return lambda index: np.memmap(path, dtype, "r", begin + index * size, (height, width))
    pages: Any = [s.pages[0] for s in tif.series] if layout.pages_of_a_stack else series.pages
    if len(pages) == layout.shape[0]:
        return lambda index: pages[index].asarray().reshape(height, width)
    voxels = series.asarray().reshape(layout.shape)  # several slices in one compressed page: there is no part to read
    return lambda index: voxels[index]


def _voxel_size(tif: tifffile.TiffFile, path: Path) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the voxel size (x, y, z), None if there is none, and its unit, None if that is unknown or pixel."""
    if tif.is_ome:
        return _ome_voxel_size(tif.ome_metadata or "")
    # shaped_metadata is what tifffile itself writes into plain files; it knows the same two words as ImageJ
    metadata = tif.imagej_metadata or (tif.shaped_metadata or ({},))[0]
    tags = tif.pages.first.tags
    lateral = [_resolution(tags.get(name)) for name in ("XResolution", "YResolution")]
    if tif.is_imagej or "spacing" in metadata:
        unit, scale = UNITS.get(str(metadata.get("unit", "")).strip().lower(), (None, 1.0))
        # ImageJ leaves out a spacing of 1
        sizes = [(size or 1.0) * scale for size in (*lateral, abs(float(metadata.get("spacing", 1.0))))]
        if unit is None or (unit == "pixel" and sizes == [1.0, 1.0, 1.0]):
            return None, None
        return (sizes[0], sizes[1], sizes[2]), None if unit == "pixel" else unit
    resolution_unit = tags.get("ResolutionUnit")
    if all(lateral) and resolution_unit is not None and int(resolution_unit.value) == 3:  # per centimeter
        logger.warning(f"{path}: has a lateral voxel size but no distance of slices, neither is used; give --spacing")
    return None, None


def _resolution(tag: tifffile.TiffTag | None) -> float | None:
    """Return the pixel size of a resolution tag, a fraction of pixels per unit."""
    if tag is None:
        return None
    pixels, units = tag.value
    return units / pixels if pixels > 0 and units > 0 else None


def _ome_voxel_size(xml: str) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the voxel size (x, y, z) of an OME-XML header in the unit of x, and that unit."""
    pixels = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", xml)).find(".//{*}Pixels")
    attributes = {} if pixels is None else pixels.attrib
    sizes: list[float] = []
    unit: str | None = None
    for axis in "XYZ":
        size = float(attributes.get(f"PhysicalSize{axis}", 0))
        axis_unit, scale = UNITS.get(attributes.get(f"PhysicalSize{axis}Unit", "\u00b5m").lower(), (None, 1.0))
        if size <= 0 or axis_unit is None:
            return None, None
        unit = unit or axis_unit
        if axis_unit != unit:
            if "pixel" in (axis_unit, unit):
                return None, None
            scale *= _PER_UNIT[axis_unit] / _PER_UNIT[unit]
        sizes.append(size * scale)
    return (sizes[0], sizes[1], sizes[2]), None if unit == "pixel" else unit
