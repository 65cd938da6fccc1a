# SPDX-License-Identifier: Apache-2.0
"""TIFF stacks: plain, ImageJ and OME."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from scripts.errors import InputError
from scripts.io import units
from scripts.io.axes import Order, order_given, order_named
from scripts.io.stack import Stack
from scripts.warn_once import warn_once

SUFFIXES = (".tif", ".tiff")

_OME_UNITS = {"nanometer": "nm", "micrometer": "\u00b5m", "millimeter": "mm", "pixel": "pixel"}
_IMAGEJ_UNITS = {"nanometer": "nm", "micrometer": "micron", "millimeter": "mm", "pixel": "pixel"}
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_IMAGEJ_MAX_BYTES = 2**32 - 2**25  # a classic TIFF ends at 4 GB; some of it goes to the page headers

# of MINISWHITE and PALETTE
_REMARKS = {
    0: "says that its smallest value is white (MINISWHITE); its values are taken as they are, so that the result looks inverted",
    3: "is an image of colors by number (a palette); the numbers are taken as grey values",
}
_PER_INCH, _PER_CENTIMETER = 2, 3
_PRINTED = 0.02  # millimeters: pixels of a resolution per inch that are larger were meant for a printer


@contextmanager
def open_stack(path: Path, axes: str | None = None) -> Iterator[Stack]:
    """
    Open a stack of 2-D pages.

    A plain TIFF has no tag for the distance of slices, so that its lateral resolution alone is not a voxel size; it is
    then left out, with a warning.

    Args:
        path: file to read.
        axes: what the user says that the axes are, see :func:`scripts.io.axes.check_axes`.

    Yields:
        The stack. The slices of a contiguous file are memory maps, of which only what is looked at is read. A file whose pages are no
        slices, for Z is not its first axis, is read into memory.

    Raises:
        InputError: the file holds something else than one single-channel volume.
        OSError: it is damaged; one that ends too early is found here, not only where its slices are read.
    """
    with ExitStack() as opened:
        with _damage_raised():
            tif = opened.enter_context(tifffile.TiffFile(path))
            image = _image(tif, path)
            order = (
                order_named(image.names, image.shape, path)
                if axes is None
                else order_given(axes, image.full_shape, path)
            )
            affine, unit = _grid(tif, image, order, path)
            read_slice_of = _slice_reader(tif, image, order, path)
            remark = _REMARKS.get(int(tif.pages.first.photometric))
            if remark is not None and not (tif.is_imagej and int(tif.pages.first.photometric) == 3):
                warn_once(f"{path}: {remark}")

        def read(index: int) -> np.ndarray:
            with _damage_raised():
                return read_slice_of(index)

        yield Stack(order.shape, np.dtype(tif.series[0].dtype), affine, unit, read)


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
        image = _image(tif, path)
        sizes = [size for name, size in zip(image.names, image.shape) if size > 1 or name in "YX"]
        if len(sizes) != 2:
            color = "S" in image.names and image.shape[image.names.index("S")] > 1
            what = "is a colour image" if color else f"holds {math.prod(sizes[:-2])} pages"
            raise InputError(f"{path}: {what}, but each file in a folder must be one 2-D slice in greyscale")
        return tif.series[0].asarray().reshape(sizes)


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


class _Image(NamedTuple):
    """The one image of a file.

    Attributes:
        names: of its axes, without most of length 1.
        shape: their sizes.
        full_shape: with all axes of length 1.
        pages_of_a_stack: whether each page is a series of its own.
    """

    names: str
    shape: tuple[int, ...]
    full_shape: tuple[int, ...]
    pages_of_a_stack: bool


def _image(tif: tifffile.TiffFile, path: Path) -> _Image:
    """Return how the file is stored, or raise when it ends too early or holds something else than one image."""
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
    if None in series[0].pages:
        raise OSError("pages are missing")
    if pages_of_a_stack:
        shape = (len(series), *series[0].shape)
        return _Image("IYX", shape, shape, True)
    shape = tuple(series[0].get_shape(squeeze=False))
    if series[0].get_axes(squeeze=False).endswith("S") and shape[-1] == 1:  # what nobody counts as an axis
        shape = shape[:-1]
    return _Image(series[0].axes, series[0].shape, shape, False)


def _slice_reader(tif: tifffile.TiffFile, image: _Image, order: Order, path: Path) -> Callable[[int], np.ndarray]:
    """Return what reads one slice (x, y)."""
    series = tif.series[0]
    _, height, width = order.sizes
    if order.letters[0] == "Z":  # its pages are its slices
        begin = None if image.pages_of_a_stack else series.dataoffset
        turn = np.transpose if order.letters == "ZYX" else np.asarray
        if begin is not None:  # one block of the file, as ImageJ writes, even where only its first page has a header
            dtype = np.dtype(tif.byteorder + np.dtype(series.dtype).char)
            size = height * width * dtype.itemsize
            # mapped anew for each slice: what stays mapped counts as memory of the process
            return lambda index: turn(np.memmap(path, dtype, "r", begin + index * size, (height, width)))
        pages: Any = [s.pages[0] for s in tif.series] if image.pages_of_a_stack else series.pages
        if len(pages) == order.sizes[0]:
            return lambda index: turn(pages[index].asarray().reshape(height, width))
    # several slices in one compressed page, or across the pages: there is no part to read
    stored = np.stack([s.asarray() for s in tif.series]) if image.pages_of_a_stack else series.asarray()
    voxels = stored.reshape(order.sizes).transpose(order.to_xyz)
    return lambda index: voxels[:, :, index]


def _grid(tif: tifffile.TiffFile, image: _Image, order: Order, path: Path) -> tuple[np.ndarray | None, str | None]:
    """Return the affine of a stack, None if it has no voxel size, and its unit, None if that is unknown or pixel."""
    sizes, unit = _ome_voxel_size(tif.ome_metadata or "", path) if tif.is_ome else _tagged_voxel_size(tif, path)
    if sizes is None:
        return None, None
    named = [name for name, size in zip(image.names, image.shape) if size > 1 or name in "ZYX"]
    if named[-2:] != ["Y", "X"]:
        warn_once(f"{path}: has a voxel size, but its pages are no XY slices, so that it is not used; give --spacing")
        return None, None
    of_axis = dict(
        zip(order.letters, sizes[::-1])
    )  # the first axis has the distance of the pages, the last that of their columns
    return np.diag([*(of_axis[axis] for axis in "XYZ"), 1.0]), unit


def _tagged_voxel_size(tif: tifffile.TiffFile, path: Path) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the voxel size (x, y, z) of an ImageJ or plain file, None if there is none, and its unit, None if unknown or pixel."""
    # shaped_metadata is what tifffile itself writes into plain files; it knows the same words as ImageJ
    metadata = tif.imagej_metadata or (tif.shaped_metadata or ({},))[0]
    tags = tif.pages.first.tags
    lateral = [_resolution(tags.get(name)) for name in ("XResolution", "YResolution")]
    if tif.is_imagej or "spacing" in metadata:
        unit = str(metadata.get("unit", ""))
        if units.length(unit) == units.length("inch") and "spacing" not in metadata:
            return None, None  # dots per inch of a printer, which ImageJ carries along
        # ImageJ leaves out a spacing of 1, and units of Y and Z that are that of X
        sizes = [size or 1.0 for size in lateral] + [abs(_number(metadata.get("spacing", 1.0)))]
        return _in_one_unit(sizes, [unit, str(metadata.get("yunit", unit)), str(metadata.get("zunit", unit))], path)
    tag = tags.get("ResolutionUnit")
    per = 0 if tag is None else int(tag.value)
    if all(lateral) and (per == _PER_CENTIMETER or (per == _PER_INCH and 25.4 * (lateral[0] or 1) < _PRINTED)):
        _warn_of_no_distance(path)
    return None, None


def _resolution(tag: tifffile.TiffTag | None) -> float | None:
    """Return the pixel size of a resolution tag, a fraction of pixels per unit."""
    if tag is None:
        return None
    pixels, per = tag.value
    return per / pixels if pixels > 0 and per > 0 else None


def _ome_voxel_size(xml: str, path: Path) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the voxel size (x, y, z) of an OME-XML header in the unit of x, None if there is none, and that unit."""
    pixels = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", xml)).find(".//{*}Pixels")
    attributes = {} if pixels is None else pixels.attrib
    written = [attributes.get(f"PhysicalSize{axis}") for axis in "XYZ"]
    if not any(written):
        return None, None
    if written[2] is None and all(written[:2]):
        _warn_of_no_distance(path)
        return None, None
    sizes = [_number(size) for size in written]
    if not all(0 < size < math.inf for size in sizes):
        shown = ", ".join(f"PhysicalSize{axis} {size}" for axis, size in zip("XYZ", written))
        warn_once(f"{path}: its voxel size ({shown}) is not three positive numbers and is not used; give --spacing")
        return None, None
    return _in_one_unit(sizes, [attributes.get(f"PhysicalSize{axis}Unit", "\u00b5m") for axis in "XYZ"], path)


def _in_one_unit(
    sizes: Sequence[float], names: Sequence[str], path: Path
) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return sizes (x, y, z) in the unit of x; with an unknown unit the numbers stay, for their ratio is right in any."""
    lengths = [units.length(name) for name in names]
    shown = " x ".join(f"{size:g}" for size in sizes)
    if None in lengths or len({length.unit == "pixel" for length in lengths if length is not None}) > 1:
        named = " and ".join(dict.fromkeys(f'"{name}"' for name in names))
        if len(set(names)) > 1:
            warn_once(
                f"{path}: its voxel size {shown} has the units {named}, which cannot be converted into each other, and is not used; "
                "give --spacing"
            )
            return None, None
        warn_once(
            f"{path}: its unit of length, {named}, is not known; the voxel size {shown} is taken without a unit; to have one, give "
            "--spacing in micrometer"
        )
        return (sizes[0], sizes[1], sizes[2]), None
    known = [length for length in lengths if length is not None]
    unit = known[0].unit
    if unit == "pixel":
        return (None if all(size == 1 for size in sizes) else (sizes[0], sizes[1], sizes[2])), None
    x, y, z = (
        size * length.scale * (units.MILLIMETERS[length.unit] / units.MILLIMETERS[unit] if length.unit != unit else 1)
        for size, length in zip(sizes, known)
    )
    return (x, y, z), unit


def _warn_of_no_distance(path: Path) -> None:
    warn_once(f"{path}: has a lateral voxel size but no distance of slices, neither is used; give --spacing")


def _number(text: Any) -> float:
    """Return a number of a header, NaN where it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
