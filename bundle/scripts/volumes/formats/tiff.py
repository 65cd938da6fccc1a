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

"""TIFF stacks: plain, ImageJ and OME."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile
from scripts.errors import InputError, warn_once
from scripts.volumes.axes import NO_SELECTION, Order, Selection, order_given, order_named
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.tiff_voxel_size import voxel_size
from scripts.volumes.formats.uncompressed import writer_of

NAME = "TIFF"
SUFFIXES: tuple[str, ...] = (".tif", ".tiff", ".ome.tif", ".ome.tiff")

_OME_UNITS = {"nanometer": "nm", "micrometer": "\u00b5m", "millimeter": "mm", "pixel": "pixel"}
_IMAGEJ_UNITS = {"nanometer": "nm", "micrometer": "micron", "millimeter": "mm", "pixel": "pixel"}
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_IMAGEJ_MAX_BYTES = 2**32 - 2**25  # a classic TIFF ends at 4 GiB, page headers included

# of MINISWHITE and PALETTE
_REMARKS = {
    0: "says that its smallest value is white (MINISWHITE); its values are taken as they are, "
    "so that the result looks inverted",
    3: "is an image of colors by number (a palette); the numbers are taken as gray values",
}


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a stack of 2-D pages.

    A plain TIFF has no tag for the distance of slices. Its lateral resolution alone is no voxel size and is left out,
    with a warning.

    Args:
        path: file to read.
        selection: which volume of it to read.

    Yields:
        The stack. Uncompressed slices are memory maps, of which only the part that is used is read. A file that does
        not have Z first, or has its channels in its pages, is read into memory.

    Raises:
        InputError: the selection is not a single-channel volume.
        OSError: it is damaged; a truncated file is found here and not only when its slices are read.
    """
    selection.refuse_dataset(path, "a TIFF file")
    with ExitStack() as opened:
        with _damage_raised():
            tif = opened.enter_context(tifffile.TiffFile(path))
            image = _image(tif, path)
            order = (
                order_named(image.names, image.shape, path, selection, _channels(tif))
                if selection.axes is None
                else order_given(selection, image.full_shape, path)
            )
            shape = image.shape if selection.axes is None else image.full_shape
            affine, unit, doubt = _affine(tif, image, order)
            read, decoded = _slice_reader(tif, image, order, shape, path)
            remark = _REMARKS.get(int(tif.pages.first.photometric))
            if remark is not None and not (tif.is_imagej and int(tif.pages.first.photometric) == 3):
                warn_once(f"{path}: {remark}")

        yield Stack(order.shape, np.dtype(tif.series[0].dtype), affine, unit, read, decoded, doubt)


def read_slice(path: Path) -> np.ndarray:
    """
    Read a TIFF that holds one 2-D image.

    Args:
        path: file to read.

    Returns:
        The pixels in (y, x) order.

    Raises:
        InputError: the file is not one single-channel image.
        OSError: it is damaged.
    """
    with _damage_raised(), tifffile.TiffFile(path) as tif:
        image = _image(tif, path)
        sizes = [size for name, size in zip(image.names, image.shape) if size > 1 or name in "YX"]
        if len(sizes) != 2:
            color = "S" in image.names and image.shape[image.names.index("S")] > 1
            several = "channels" if "C" in image.names else "pages"
            what = "is a color image" if color else f"holds {math.prod(sizes[:-2])} {several}"
            raise InputError(f"{path}: {what}, but each file in a folder must be one 2-D slice in grayscale")
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


open_writer = writer_of(create)


_heard: ContextVar[list[str] | None] = ContextVar("_heard", default=None)


def _listen(record: logging.LogRecord) -> bool:
    """Collect what tifffile logs in the context of :func:`_damage_raised`; what it logs in other threads is logged."""
    errors = _heard.get()
    if errors is not None and record.levelno >= logging.ERROR:
        errors.append(record.getMessage())
    return errors is None


logging.getLogger("tifffile").addFilter(_listen)


@contextmanager
def _damage_raised() -> Iterator[None]:
    """Raise OSError for what tifffile only logs about a damaged file, such as lost pages."""
    errors: list[str] = []
    before = _heard.set(errors)
    try:
        yield
        if errors:
            raise OSError(errors[0])
    except InputError:
        # a volume that has lost pages may look like a 2-D image; the damage is the cause
        if errors:
            raise OSError(errors[0]) from None
        raise
    finally:
        _heard.reset(before)


class _Image(NamedTuple):
    """The one image of a file.

    Attributes:
        names: of its axes as tifffile reports them, most of length 1 left out.
        shape: their sizes.
        full_shape: sizes of all axes.
        pages_of_a_stack: whether each page is a series of its own.
    """

    names: str
    shape: tuple[int, ...]
    full_shape: tuple[int, ...]
    pages_of_a_stack: bool


def _image(tif: tifffile.TiffFile, path: Path) -> _Image:
    """Return the one image of a file; raise where the file is truncated or holds something else."""
    file_size = tif.filehandle.size
    for page in tif.pages:
        for offset, count in zip(page.dataoffsets, page.databytecounts):
            if offset + count > file_size:
                raise OSError(f"ends at byte {file_size}, but its pixels go on to {offset + count}")
    series = tif.series
    if not series:
        raise OSError("holds no image")
    # tifffile reads pages that were written one by one as a 2-D series each
    pages_of_a_stack = len(series) > 1 and len({(s.shape, s.dtype) for s in series}) == 1 and series[0].axes == "YX"
    if len(series) > 1 and not pages_of_a_stack:
        sizes = " and ".join(" x ".join(map(str, s.shape)) for s in series[:2])
        raise InputError(f"{path}: holds {len(series)} images ({sizes} ...); save the one to use as a file of its own")
    if None in series[0].pages:
        raise OSError("pages are missing")
    if (tif.is_imagej or tif.is_ome) and len(series) == 1 and len(tif.pages) > max(1, len(series[0].pages)):
        warn_once(
            f"{path}: holds {len(tif.pages)} pages, but its header names {len(series[0].pages)}; the others are not "
            "read; if they belong to the volume, save it anew"
        )
    if pages_of_a_stack:
        shape = (len(series), *series[0].shape)
        return _Image("IYX", shape, shape, True)
    axes, full = _unsqueezed(series[0])
    if axes.endswith("S") and full[-1] == 1:  # what nobody counts as an axis
        axes, full = axes[:-1], full[:-1]
    # As tifffile does, axes of length 1 count where the file itself names them.
    named = [(name, size) for name, size in zip(axes, full) if size > 1 or name in "YX" or series[0].kind == "shaped"]
    return _Image("".join(name for name, _ in named), tuple(size for _, size in named), full, False)


def _unsqueezed(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Names and lengths of the axes, those of length 1 too; from tifffile 2026.4 on a series has no others."""
    if hasattr(series, "get_shape"):
        return series.get_axes(squeeze=False), tuple(series.get_shape(squeeze=False))
    return series.axes, tuple(series.shape)


def _channels(tif: tifffile.TiffFile) -> list[str]:
    """Names of the channels of the first image of an OME-TIFF, empty where one has none."""
    if not tif.is_ome:
        return []
    pixels = ElementTree.fromstring(tif.ome_metadata or "").find("./{*}Image/{*}Pixels")
    return [] if pixels is None else [each.get("Name", "") for each in pixels.findall("./{*}Channel")]


def _slice_reader(
    tif: tifffile.TiffFile, image: _Image, order: Order, shape: tuple[int, ...], path: Path
) -> tuple[Callable[[int], np.ndarray], bool]:
    """Return the function that reads one slice (x, y), and whether it decodes the slice.

    ``shape`` is that of the axes that ``order`` speaks of.
    """
    series = tif.series[0]
    _, height, width = order.sizes
    numbers = _pages_of_slices(order, shape)
    if numbers is not None:  # its pages are its slices
        turn = np.transpose if order.letters == "ZYX" else np.asarray
        every: Any = [s.pages[0] for s in tif.series] if image.pages_of_a_stack else series.pages
        pages = [every[number] for number in numbers] if len(every) == math.prod(shape[:-2]) else []
        dtype = np.dtype(tif.byteorder + np.dtype(series.dtype).char)
        size = height * width * dtype.itemsize
        begins: list[int] | None = None
        if not image.pages_of_a_stack and series.dataoffset is not None:
            # one block of the file, as ImageJ writes, even where only its first page has a header
            begins = [series.dataoffset + number * size for number in numbers]
        elif len(pages) == order.sizes[0] and all(_is_mapped(page, tif) for page in pages):
            begins = [page.dataoffsets[0] for page in pages]
        if begins is not None:
            # mapped for each slice anew, since mapped pages count as memory of the process
            return lambda index: turn(np.memmap(path, dtype, "r", begins[index], (height, width))), False
        if len(pages) == order.sizes[0]:

            def decode(index: int) -> np.ndarray:
                with _damage_raised():
                    return turn(pages[index].asarray().reshape(height, width))

            return decode, True
    # several slices in one compressed page, or slices across the pages: no slice can be read alone
    stored = np.stack([s.asarray() for s in tif.series]) if image.pages_of_a_stack else series.asarray()
    chosen = stored.reshape(shape)[order.box(len(shape), slice(None), slice(None), slice(None))]
    voxels = chosen.transpose(order.to_xyz)
    return lambda index: voxels[:, :, index], False


def _pages_of_slices(order: Order, shape: tuple[int, ...]) -> list[int] | None:
    """Numbers of the pages that are the slices in their order; None where a page is none."""
    if order.letters[0] != "Z" or any(place >= len(shape) - 2 for place in (order.places[0], *dict(order.picks))):
        return None
    pages = np.arange(math.prod(shape[:-2])).reshape(shape[:-2])
    here = order.box(len(shape), slice(None), slice(None), slice(None))[:-2]
    return pages[here].tolist()


def _is_mapped(page: Any, tif: tifffile.TiffFile) -> bool:
    """Whether the pixels of a page are stored uncompressed and contiguously."""
    ends = [begin + count for begin, count in zip(page.dataoffsets, page.databytecounts)]
    return page.parent is tif and page.is_final and list(page.dataoffsets[1:]) == ends[:-1]


def _affine(tif: tifffile.TiffFile, image: _Image, order: Order) -> tuple[np.ndarray | None, str | None, str | None]:
    """Return the affine of a stack or None, its unit or None, and what is doubtful about them or None."""
    sizes, unit, doubt = voxel_size(tif)
    if sizes is None:
        return None, None, doubt
    named = [name for name, size in zip(image.names, image.shape) if size > 1 or name in "ZYX"]
    if named[-2:] != ["Y", "X"]:
        return None, None, "has a voxel size, but its pages are no XY slices, so that it is not used"
    # the first axis has the distance of the pages, the last that of their columns
    of_axis = dict(zip(order.letters, sizes[::-1]))
    return np.diag([*(of_axis[axis] for axis in "XYZ"), 1.0]), unit, doubt
