# SPDX-License-Identifier: Apache-2.0
"""Vendors' files through bioio: a reader of a format of our own is installed for it, as those of vendors are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coded import assert_read, assert_refused, coded, read_all, write_in_parts
from scripts.errors import InputError

READER = '''
from pathlib import Path
import numpy as np
import dask.array
import xarray
from bioio_base import dimensions, reader, types
from bioio_base.exceptions import UnsupportedFileFormatError
from bioio_base.reader_metadata import ReaderMetadata as Base


class Reader(reader.Reader):
    """.lif files of NumPy's: an array a scene, "sizes" (z, y, x) and "unit"."""

    @staticmethod
    def _is_supported_image(fs, path, **options):
        return fs.open(path).read(2) == b"PK"

    def __init__(self, image, **options):
        self._path = image
        if not self._is_supported_image(open_fs(), str(image)):
            raise UnsupportedFileFormatError("Reader", str(image))
        self._file = np.load(image)

    @property
    def scenes(self):
        return tuple(name for name in self._file.files if name not in ("sizes", "unit"))

    def _read_delayed(self):
        voxels = self._file[self.current_scene]
        dims = {3: "ZYX", 4: "CZYX", 5: "TCZYX", 2: "YX"}[voxels.ndim]
        names = {"C": [f"c{number}" for number in range(voxels.shape[-4])]} if "C" in dims else {}
        array = dask.array.from_array(voxels, chunks=(*[1] * (voxels.ndim - 2), -1, -1))
        return xarray.DataArray(array, dims=list(dims), coords=names)

    def _read_immediate(self):
        return self._read_delayed().compute()

    @property
    def physical_pixel_sizes(self):
        sizes = [None if np.isnan(size) else float(size) for size in self._file["sizes"]]
        return types.PhysicalPixelSizes(*sizes)

    @property
    def dimension_properties(self):
        name = str(self._file["unit"])
        space = types.DimensionProperty("space", types.ureg.Unit(name) if name else None)
        none = types.DimensionProperty(None, None)
        return types.DimensionProperties(none, none, space, space, space)


def open_fs():
    import fsspec
    return fsspec.filesystem("file")


class ReaderMetadata(Base):
    @staticmethod
    def get_supported_extensions():
        return ["lif"]

    @staticmethod
    def get_reader():
        return Reader
'''


def save(path: Path, sizes: Any = (5, 2, 1), unit: str = "micrometer", **scenes: np.ndarray) -> Path:
    named: Any = scenes or {"scene": coded().transpose(2, 1, 0)}
    arrays: Any = {"sizes": np.array(sizes, float), "unit": unit, **named}
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A reader of .lif files that bioio finds as it finds those that pip installs."""
    pytest.importorskip("bioio")
    site = tmp_path / "site"
    about = site / "bioio_lif-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "bioio_lif.py").write_text(READER)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bioio-lif\nVersion: 1.0\nRequires-Dist: bioio-base\n")
    (about / "entry_points.txt").write_text("[bioio.readers]\nbioio-lif = bioio_lif\n")
    (about / "RECORD").write_text("bioio_lif.py,,\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("bioio_lif", None)


@pytest.mark.usefixtures("installed")
class TestReader:
    @pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float32"])
    def test_voxels(self, tmp_path, dtype):
        path = save(tmp_path / "v.lif", scene=coded(dtype).transpose(2, 1, 0))
        assert_read(path, coded(dtype), (1, 2, 5), "micrometer")

    @pytest.mark.parametrize("unit, scale, ours", [("nanometer", 1, "nanometer"), ("centimeter", 10, "millimeter")])
    def test_units_are_converted(self, tmp_path, unit, scale, ours):
        assert_read(save(tmp_path / "v.lif", unit=unit), coded(), (scale, 2 * scale, 5 * scale), ours)

    def test_channels_and_time_points_one_by_one(self, tmp_path):
        voxels = np.stack([coded() + 1000, coded()]).transpose(0, 3, 2, 1)
        path = save(tmp_path / "c.lif", scene=voxels)
        assert_read(path, coded(), (1, 2, 5), "micrometer", channel=1)
        assert_refused(path, "--channel 0 (c0) or 1 (c1)")
        path = save(tmp_path / "t.lif", scene=voxels[:, None])
        assert_read(path, coded(), (1, 2, 5), "micrometer", time=1)
        assert_refused(path, "--time 0 to 1")
        assert_refused(path, "--time 2", time=2)

    def test_scenes(self, tmp_path):
        voxels = coded().transpose(2, 1, 0)
        path = save(tmp_path / "v.lif", first=voxels + 1000, second=voxels)
        assert_refused(path, "holds 2 scenes", "--dataset: first, second")
        assert_refused(path, "--dataset third", "has first, second", dataset="third")
        for name in ("second", "1"):
            assert_read(path, coded(), (1, 2, 5), "micrometer", dataset=name)

    @pytest.mark.parametrize(
        "fields, words, size",
        [
            ({"unit": ""}, "without a unit", (1, 2, 5)),
            ({"unit": "second"}, "second", (1, 2, 5)),
            ({"sizes": (np.nan,) * 3}, "finds no voxel size", (1, 1, 1)),
            ({"sizes": (np.nan, 2, 1)}, "voxel size ? x 2 x 1 (z, y, x), which is not complete", (1, 1, 1)),
        ],
    )
    def test_doubtful_voxel_size_is_told(self, tmp_path, caplog, fields, words, size):
        assert_read(save(tmp_path / "v.lif", **fields), coded(), size, "pixel")
        assert len(caplog.messages) == 1 and words in caplog.text and "give --spacing" in caplog.text
        caplog.clear()
        read_all(tmp_path / "v.lif", spacing=[3, 2, 1])
        assert caplog.messages == []

    @pytest.mark.parametrize("sizes", [(0, 2, 1), (5, -2, 1), (5, 2, np.inf)])
    def test_sizes_that_are_not_positive(self, tmp_path, sizes):
        assert_refused(save(tmp_path / "v.lif", sizes), "not positive", "--spacing")

    @pytest.mark.parametrize("content", [b"", b"no volume", bytes(5000)])
    def test_another_file_of_that_name(self, tmp_path, content):
        (tmp_path / "v.lif").write_bytes(content)
        assert_refused(tmp_path / "v.lif", "v.lif", "is no .lif file in spite of its name")

    @pytest.mark.parametrize("part", [0.1, 0.7])
    def test_truncated(self, tmp_path, part):
        content = save(tmp_path / "v.lif").read_bytes()
        (tmp_path / "v.lif").write_bytes(content[: int(part * len(content))])
        assert_refused(tmp_path / "v.lif", "v.lif", "cannot be read")

    def test_wrong_rank_and_types(self, tmp_path):
        assert_refused(save(tmp_path / "a.lif", scene=np.ones((5, 6))), "1 slice")
        assert_refused(save(tmp_path / "b.lif", scene=np.ones((3, 4, 5), complex)), "voxels of type complex")

    def test_reader_that_is_not_installed(self, tmp_path):
        (tmp_path / "v.dv").write_bytes(b"any")
        assert_refused(tmp_path / "v.dv", "bioio has no reader of .dv files here: pip install bioio-dv")


def test_without_bioio(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio", None)
    for suffix, package in ((".czi", "bioio-czi"), (".ND2", "bioio-nd2"), (".oib", "bioio-bioformats")):
        (tmp_path / f"v{suffix}").write_bytes(b"any")
        assert_refused(tmp_path / f"v{suffix}", f"pip install bioio {package}")


def test_not_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_in_parts(tmp_path / "v.czi", coded(), np.eye(4), "pixel")
