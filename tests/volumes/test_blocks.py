# SPDX-License-Identifier: Apache-2.0
"""Blocks of a volume: the voxels of the whole, and no more read than it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from scripts.errors import InputError
from scripts.volumes import reading
from scripts.volumes.formats import tiff
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import Header, VolumeSource, open_volume
from scripts.volumes.slice_cache import SlabCache, SliceCache
from scripts.volumes.volume_block import VolumeBlock

VOXELS = np.random.default_rng(0).integers(0, 2**16, (5, 6, 7), np.uint16)  # (z, y, x)


def _pages(path: Path, **options: Any) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in VOXELS:
            writer.write(page, metadata=None, **options)


def _nifti(path: Path, scale: float = 1, axes: str = "XYZ") -> None:
    image = nib.Nifti1Image(VOXELS.transpose(["ZYX".index(axis) for axis in axes]), np.eye(4))
    image.header.set_slope_inter(scale, 0)  # type: ignore[no-untyped-call]
    nib.save(image, path)


def _folder(path: Path) -> None:
    path.mkdir()
    for number, page in enumerate(VOXELS):
        Image.fromarray(page).save(path / f"{number}.png")


FILES: dict[str, tuple[Callable[[Path], Any], str | None]] = {
    "imagej.tif": (lambda path: tifffile.imwrite(path, VOXELS, imagej=True, metadata={"axes": "ZYX"}), None),
    "pages.tif": (_pages, None),
    "strips.tif": (lambda path: _pages(path, rowsperstrip=2), None),
    "big_endian.tif": (lambda path: tifffile.imwrite(path, VOXELS, byteorder=">"), None),
    "zlib.tif": (lambda path: _pages(path, compression="zlib"), None),
    "zlib.ome.tif": (lambda path: tifffile.imwrite(path, VOXELS, compression="zlib", metadata={"axes": "ZYX"}), None),
    "turned.tif": (lambda path: tifffile.imwrite(path, VOXELS.transpose(1, 0, 2), metadata=None), "YZX"),
    "plain.nii": (_nifti, None),
    "plain.nii.gz": (_nifti, None),
    "scaled.nii": (lambda path: _nifti(path, 0.5), None),
    "yxz.nii": (lambda path: _nifti(path, axes="YXZ"), "YXZ"),
    "zyx.nii.gz": (lambda path: _nifti(path, 0.5, "ZYX"), "ZYX"),
    "folder": (_folder, None),
}
COMPRESSED = ("zlib.tif", "zlib.ome.tif", "plain.nii.gz", "folder")


@pytest.fixture(params=FILES)
def source(request, tmp_path):
    write, axes = FILES[request.param]
    write(tmp_path / request.param)
    with open_volume(tmp_path / request.param, ReadOptions(axes=axes)) as opened:
        yield opened


def test_blocks_are_parts_of_the_volume(source):
    whole = np.stack([source.read(index) for index in range(5)], axis=-1)
    assert whole.shape == source.header.shape == (7, 6, 5)
    for x, y, z in (
        (slice(0, 7), slice(0, 6), range(5)),
        (slice(2, 5), slice(1, 4), [0, 0, 1, 2]),  # over the end of the volume
        (slice(5, 99), slice(None, 2), [4, 1, 4]),
        (slice(3, 4), slice(5, 6), []),
    ):
        block = source.read_block(x, y, z)
        assert block.dtype == source.header.dtype and block.dtype.isnative
        np.testing.assert_array_equal(block, whole[x, y][:, :, list(z)])
        block[:] = 0  # it belongs to the caller: neither the file nor what is kept changes
    np.testing.assert_array_equal(source.read_block(slice(None), slice(None), range(5)), whole)


@pytest.mark.parametrize("index", [-1, 5])
def test_slice_that_is_not_there(source, index):
    with pytest.raises(IndexError, match="slices 0 to 4"):
        source.read_block(slice(0, 2), slice(0, 2), [0, index])


def test_threads_read_the_same_voxels(source):
    whole = np.stack([source.read(index) for index in range(5)], axis=-1)
    places = [(x, y, z) for x in range(6) for y in range(5) for z in range(4)] * 3

    def read(place: tuple[int, int, int]) -> bool:
        x, y, z = place
        block = source.read_block(slice(x, x + 2), slice(y, y + 2), [z, z + 1])
        return np.array_equal(block, whole[x : x + 2, y : y + 2, z : z + 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, places))


@pytest.mark.parametrize("name", COMPRESSED)
def test_tiles_of_one_range_of_z_decode_each_slice_once(tmp_path, monkeypatch, name):
    FILES[name][0](tmp_path / name)
    decoded: list[int] = []

    def cache(decode: Callable[[int], np.ndarray], _: int) -> SliceCache:
        def record(index: int) -> np.ndarray:
            decoded.append(index)
            return decode(index)

        return SliceCache(record, 3 * VOXELS[0].nbytes)

    monkeypatch.setattr(reading, "SliceCache", cache)
    with open_volume(tmp_path / name) as source:
        for first in (0, 1, 2):
            for x in range(0, 7, 2):
                source.read_block(slice(x, x + 2), slice(0, 6), [first, first + 1, first + 2])
    assert decoded == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["imagej.tif", "pages.tif", "strips.tif", "big_endian.tif", "plain.nii", "yxz.nii"])
def test_files_that_need_no_decoding_are_mapped(tmp_path, monkeypatch, name):
    """So that only the part that is asked for is read."""
    write, axes = FILES[name]
    write(tmp_path / name)
    monkeypatch.setattr(reading, "SliceCache", None)
    with open_volume(tmp_path / name, ReadOptions(axes=axes)) as source:
        assert isinstance(source.read(3), np.memmap)


@pytest.mark.parametrize("name", ["turned.tif", "zyx.nii.gz"])
def test_what_is_in_memory_is_not_kept_twice(tmp_path, monkeypatch, name):
    write, axes = FILES[name]
    write(tmp_path / name)
    monkeypatch.setattr(reading, "SliceCache", None)
    with open_volume(tmp_path / name, ReadOptions(axes=axes)) as source:
        assert np.shares_memory(source.read(3), source.read(3))


def test_slices_are_kept_within_the_bytes_given():
    decoded = []

    def decode(index: int) -> np.ndarray:
        decoded.append(index)
        return np.full((10, 10), index, np.uint8)

    cache = SliceCache(decode, 250)
    for index in (0, 1, 0, 2, 0, 1):
        assert cache.keep(index)[0, 0] == index
    assert decoded == [0, 1, 2, 1]  # 2 took the place of 1, which was used longer ago than 0
    assert cache.read(3)[0, 0] == 3 and cache.read(3)[0, 0] == 3
    assert decoded[4:] == [3, 3]  # a pass over the volume keeps nothing
    assert cache.read(0)[0, 0] == 0 and len(decoded) == 6
    cache.clear()
    for index in (0, 1, 0):
        cache.keep(index)
    assert decoded[6:] == [0, 1]  # and the room is free again
    small = SliceCache(decode, 50)
    assert small.keep(4)[0, 0] == small.keep(4)[0, 0] == 4 and decoded[8:] == [4, 4]


def test_two_threads_do_not_decode_one_slice_twice():
    begun, go_on, decoded = threading.Event(), threading.Event(), []

    def decode(index: int) -> np.ndarray:
        decoded.append(index)
        begun.set()
        go_on.wait(10)
        return np.full((2, 2), index)

    cache = SliceCache(decode, 1000)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.keep, 1)
        assert begun.wait(10)
        second = pool.submit(cache.keep, 1)
        go_on.set()
        assert first.result() is second.result()
    assert decoded == [1]


def test_source_without_a_with_block(tmp_path):
    _nifti(tmp_path / "v.nii.gz")
    source = VolumeSource(tmp_path / "v.nii.gz", ReadOptions([6, 2, 2]))
    assert source.read_block(slice(0, 1), slice(0, 1), [0])[0, 0, 0] == VOXELS[0, 0, 0]
    source.close()
    source.close()
    with pytest.raises(InputError, match="v.nii.gz: cannot be read"):
        source.read_block(slice(0, 1), slice(0, 1), [0])


def test_damaged_slice_in_a_block(tmp_path):
    _folder(tmp_path / "f")
    (tmp_path / "f" / "3.png").write_bytes(b"nothing")
    with open_volume(tmp_path / "f") as source:
        source.read_block(slice(0, 2), slice(0, 2), [0, 1, 2, 4])
        for _ in range(2):
            with pytest.raises(InputError, match="3.png: this slice cannot be read"):
                source.read_block(slice(0, 2), slice(0, 2), [2, 3])


def test_damage_of_one_file_is_not_that_of_another(tmp_path, caplog):
    """What tifffile logs in one thread is no error in another, and is logged where nobody reads a volume."""
    with tiff._damage_raised():
        thread = threading.Thread(target=lambda: tifffile.tifffile.logger().error("of another thread"))
        thread.start()
        thread.join()
    assert "of another thread" in caplog.text
    with pytest.raises(OSError, match="lost"), tiff._damage_raised():
        tifffile.tifffile.logger().error("lost")
    assert "lost" not in caplog.text


def test_header_knows_its_voxels(tmp_path):
    _folder(tmp_path / "f")
    header = reading.read_header(tmp_path / "f", ReadOptions([6, 2, 4.5]))
    assert header.voxel_size == (4.5, 2, 6)
    assert header.isotropic_factor == 2
    with pytest.raises(InputError, match="nothing is coarse in Z"):
        Header((7, 6, 5), "uint8", np.eye(4), "micrometer").isotropic_factor


def test_block_lies_where_it_lies_in_the_volume(tmp_path):
    """In a volume that is turned in space, too, and however often it is read."""
    affine = np.array([[0, 2, 0, 5], [-3, 0, 0, 6], [0, 0.5, 8, 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(VOXELS.transpose(2, 1, 0), affine), tmp_path / "v.nii")
    with open_volume(tmp_path / "v.nii") as source:
        block = VolumeBlock(source, slice(2, 6), slice(1, 4), slice(3, 5), {"filename_or_obj": "v.nii"})
        for image in (block.read(), block.read()):
            assert image.shape == (1, 4, 3, 2) and image.meta["filename_or_obj"] == "v.nii"
            np.testing.assert_array_equal(image[0], VOXELS.transpose(2, 1, 0)[2:6, 1:4, 3:5])
            np.testing.assert_allclose(image.affine[:, 3], affine @ [2, 1, 3, 1])
            np.testing.assert_allclose(image.affine[:3, :3], affine[:3, :3])
        np.testing.assert_allclose(source.header.affine, affine)


@pytest.mark.parametrize("most, slabs", [(10**6, [(0, 4), (4, 7)]), (600, [(0, 2), (2, 4), (4, 6), (6, 7)])])
def test_slabs_are_as_thick_as_chunks_unless_they_are_large(monkeypatch, most, slabs):
    monkeypatch.setattr(SlabCache, "_MOST_VOXELS", most)
    voxels, asked = np.random.default_rng(0).random((30, 10, 7)), []

    def read_box(x: slice, y: slice, z: slice) -> np.ndarray:
        asked.append((z.start, z.stop))
        return voxels[x, y, z]

    cache = SlabCache(read_box, (30, 10, 7), 4)
    for index in range(7):
        np.testing.assert_array_equal(cache.read(index), voxels[:, :, index])
    assert asked == slabs
