# SPDX-License-Identifier: Apache-2.0
"""TIFF stacks: plain, ImageJ and OME."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from scripts.errors import InputError

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


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None, str | None]:
    """
    Read a stack of 2-D pages.

    A plain TIFF has no tag for the distance of slices, so that its lateral resolution alone is not a voxel size; it is
    then left out, with a warning.

    Args:
        path: file to read.

    Returns:
        The voxels in (x, y, z) order and the dtype of the file; the 4x4 affine, None if the file has no voxel size;
        the unit of the affine, None if the file names none.

    Raises:
        InputError: the file holds something else than one single-channel volume, or it is damaged.
    """
    with _open(path) as tif:
        layout = _layout(tif, path)
        affine, unit = _describe_stack(tif, layout, path)
        array = _read_pages(tif, layout)
    return array.transpose(2, 1, 0), affine, unit


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype, np.ndarray | None, str | None]:
    """
    Read what :func:`read` returns without the pixels; a file that ends too early is found all the same.

    Args:
        path: file to read.

    Returns:
        The sizes (x, y, z), the dtype of the file, the affine and its unit.

    Raises:
        InputError: as :func:`read`.
    """
    with _open(path) as tif:
        layout = _layout(tif, path)
        affine, unit = _describe_stack(tif, layout, path)
        dtype = tif.series[0].dtype
    return layout.shape[::-1], np.dtype(dtype), affine, unit


def read_slice(path: Path) -> np.ndarray:
    """
    Read a TIFF that holds one 2-D image.

    Args:
        path: file to read.

    Returns:
        The pixels in (y, x) order.

    Raises:
        InputError: the file holds something else than one single-channel image, or it is damaged.
    """
    with _open(path) as tif:
        array = _read_pages(tif, _layout(tif, path))
    if array.ndim != 2:
        raise InputError(f"{path}: holds {array.shape[0]} pages, but each file in a folder must be one 2-D slice")
    return array


def write(array: np.ndarray, affine: np.ndarray, unit: str, path: Path) -> None:
    """
    Write a stack with its voxel size, readable by Fiji, napari and :func:`read`.

    OME-TIFF if the name ends in ``.ome.tif(f)``, or if ImageJ's format cannot hold the volume (its dtypes are uint8,
    uint16 and float32, its size stays under 4 GB), otherwise an ImageJ stack.

    Args:
        array: voxels in (x, y, z) order.
        affine: 4x4, of which the voxel size is kept; TIFF has no place for a rotation or an origin.
        unit: unit of the affine: nanometer, micrometer, millimeter or pixel.
        path: file to write.
    """
    pages = np.ascontiguousarray(array.transpose(2, 1, 0))
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    if ome or pages.dtype.name not in _IMAGEJ_DTYPES or pages.nbytes > _IMAGEJ_MAX_BYTES:
        metadata: dict[str, object] = {"axes": "ZYX"}
        for axis, size in zip("XYZ", (x, y, z)):
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = _OME_UNITS[unit]
        tifffile.imwrite(path, pages, ome=True, bigtiff=True, photometric="minisblack", metadata=metadata)
    else:
        tifffile.imwrite(
            path,
            pages,
            imagej=True,
            photometric="minisblack",
            resolution=(1 / x, 1 / y),
            metadata={"axes": "ZYX", "spacing": z, "unit": _IMAGEJ_UNITS[unit]},
        )


@contextmanager
def _open(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF; what tifffile only logs about a damaged file, such as lost pages, becomes an error."""
    errors: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                errors.append(record.getMessage())

    tifffile_logger, collect = logging.getLogger("tifffile"), Collect()
    propagate, tifffile_logger.propagate = tifffile_logger.propagate, False
    tifffile_logger.addHandler(collect)
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
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


def _read_pages(tif: tifffile.TiffFile, layout: _Layout) -> np.ndarray:
    """Return the one image of the file without axes of length 1."""
    array = tif.asarray(key=slice(None)) if layout.pages_of_a_stack else tif.series[0].asarray()
    return array.reshape(layout.shape)


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
