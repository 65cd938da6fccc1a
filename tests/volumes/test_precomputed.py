# SPDX-License-Identifier: Apache-2.0
"""Neuroglancer's precomputed volumes, written by hand from the specification: voxels, places, and what is refused."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chunked_files import assert_coded, coded, scale_of, voxel_size, write_json, write_n5, write_precomputed, write_zarr
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import VolumeSource
from volume_files import assert_in_one_line, expect_refusal

SCALES = [scale_of("4_4_40"), scale_of("8_8_40", (10, 20, 30), resolution=[8, 8, 40])]
BLOCK = ("4-7_0-3_2-4", "(1, 0, 1, 0)")  # name of a file and address of a chunk


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "uint32"])
@pytest.mark.parametrize("begin", [(0, 0, 0), (10, 20, 30), (-3, 5, -1000)])
def test_voxels(tmp_path, dtype, begin):
    """The volume begins at voxel_offset, its slices at 0."""
    assert_coded(write_precomputed(tmp_path / "v", [scale_of(begin=begin)], dtype))
    x, y, z = begin
    assert voxel_size(tmp_path / "v") == ((4, 4, 40), (4 * x, 4 * y, 40 * z), "nanometer")
    with VolumeSource(tmp_path / "v") as source:
        assert (source.header.dtype, source.chunk) == (dtype, (4, 3, 2))


def test_scales(tmp_path):
    """By number or by key; the first one is taken."""
    path = write_precomputed(tmp_path / "v", SCALES)
    for dataset in (None, "0", "4_4_40"):
        assert voxel_size(path, dataset=dataset) == ((4, 4, 40), (0, 0, 0), "nanometer")
    for dataset in ("1", "8_8_40"):
        assert voxel_size(path, dataset=dataset) == ((8, 8, 40), (80, 160, 1200), "nanometer")
        assert_coded(path, dataset=dataset)


def test_channels(tmp_path):
    path = write_precomputed(tmp_path / "v", channels=3)
    assert_coded(path, channel=0)
    with VolumeSource(path, ReadOptions(channel=2)) as source:
        assert source.read(0)[0, 0] == 2
    expect_refusal(path, "3 channels", "--channel 0 to 2")


def test_compressed_segmentation_and_shards(tmp_path):
    """As tensorstore writes them: what is made by hand above is not compressed."""
    import tensorstore

    for name, dtype, scale in (
        ("c", "uint32", {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}),
        ("s", "uint16", {"sharding": SHARDS}),
        ("p", "uint16", {"encoding": "png"}),
    ):
        layout = {"size": [7, 6, 5], "resolution": [4, 4, 40], "encoding": "raw", "chunk_size": [4, 3, 2], **scale}
        store = tensorstore.open(
            {
                "driver": "neuroglancer_precomputed",
                "kvstore": {"driver": "file", "path": f"{tmp_path / name}/"},
                "multiscale_metadata": {"data_type": dtype, "num_channels": 1, "type": "image"},
                "scale_metadata": layout,
            },
            create=True,
        ).result()
        store[..., 0] = coded(dtype).transpose(2, 1, 0)
        assert_coded(tmp_path / name)


SHARDS = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "identity",
    "minishard_bits": 1,
    "preshift_bits": 1,
    "shard_bits": 1,
    "data_encoding": "gzip",
    "minishard_index_encoding": "gzip",
}


def test_absent_chunks_are_counted(tmp_path, caplog):
    path = write_precomputed(tmp_path / "v")
    (path / "4_4_40" / BLOCK[0]).unlink()
    truth = coded()
    truth[2:4, :3, 4:] = 0
    with caplog.at_level(logging.WARNING), VolumeSource(path) as source:
        np.testing.assert_array_equal(source.read(2), truth[2].T)
    assert f"chunk {BLOCK[1]} of scale 4_4_40" in caplog.text
    assert "1 of its 12 chunks are absent, and read as the fill value 0" in caplog.text


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda _: b"", lambda content: content + b"1"])
def test_damaged_chunk_is_named(tmp_path, damage):
    path = write_precomputed(tmp_path / "v")
    file = path / "4_4_40" / BLOCK[0]
    file.write_bytes(damage(file.read_bytes()))
    expect_refusal(path, f"chunk {BLOCK[1]}", str(file), "copy it again")


def test_files_that_a_server_would_unpack(tmp_path):
    """cloud-volume writes them so; they are not taken for absent."""
    path = write_precomputed(tmp_path / "v")
    for file in (path / "4_4_40").iterdir():
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    expect_refusal(path, "ends in .gz", "unpack")


def change(path: Path, **changes: Any) -> None:
    """Change the scale, or what stands beside it."""
    info = json.loads((path / "info").read_text())
    for key, value in changes.items():
        (info if key in info else info["scales"][0])[key] = value
    write_json(path / "info", info)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"size": [7, 0, 5]}, "has the size 7 x 0 x 5"),
        ({"size": [7, 6, -5]}, "has the size 7 x 6 x -5"),
        ({"size": [7, 6]}, "not three whole numbers"),
        ({"size": None}, "has the size None"),
        ({"size": [7, 6, 1]}, "1 slice"),
        ({"voxel_offset": "0"}, "has the voxel_offset 0"),
        ({"resolution": [4, 0, 40]}, "not positive (4 x 0 x 40 in resolution"),
        ({"resolution": [4, -4, 40]}, "not positive (4 x -4 x 40 in resolution"),
        ({"resolution": [4, float("nan"), 40]}, "NaN"),
        ({"encoding": "imaginary"}, "encoding imaginary, which is not read here"),
        ({"encoding": None}, "encoding None"),
        ({"chunk_sizes": [[4, 3]]}, "cannot be opened"),
        ({"chunk_sizes": [[4, 3, 0]]}, "cannot be opened"),
        ({"key": 5}, "cannot be opened"),
        ({"data_type": "decimal"}, "decimal"),
        ({"num_channels": 0}, "cannot be opened"),
        ({"scales": []}, "no list of scales"),
        ({"scales": None}, "no list of scales"),
        ({"sharding": {"@type": "imaginary"}}, "cannot be opened"),
    ],
)
def test_wrong_info(tmp_path, changes, words):
    path = write_precomputed(tmp_path / "v")
    change(path, **changes)
    expect_refusal(path, str(path), words)


@pytest.mark.parametrize("content", [b'{"scales": [', b"", b"\xff\xfe", b"[1]"])
def test_broken_json(tmp_path, content):
    path = write_precomputed(tmp_path / "v")
    (path / "info").write_bytes(content)
    expect_refusal(path, str(path / "info"), "JSON", "copy it again")


@pytest.mark.parametrize("dataset", ["2", "16_16_40", "-1", "../v"])
def test_scale_that_does_not_exist(tmp_path, dataset):
    with pytest.raises(InputError) as error:
        VolumeSource(write_precomputed(tmp_path / "v", SCALES), ReadOptions(dataset=dataset))
    assert_in_one_line(error, f"--dataset {dataset}: ", str(tmp_path / "v"), "4_4_40, 8_8_40")


def test_resolution_that_is_missing(tmp_path):
    path = write_precomputed(tmp_path / "v")
    change(path, resolution=None)
    expect_refusal(path, "resolution")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_volume_that_may_not_be_read(tmp_path):
    path = write_precomputed(tmp_path / "v")
    (path / "4_4_40" / BLOCK[0]).chmod(0)
    expect_refusal(path, f"chunk {BLOCK[1]}", "change its permissions")
    (path / "info").chmod(0)
    expect_refusal(path, "info: may not be read")


@pytest.fixture()
def server(tmp_path):
    """The URL of a server of the files in the folder of the test."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """The requests are not printed."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.mark.slow
def test_volumes_behind_a_url(tmp_path, server):
    write_precomputed(tmp_path / "v", [scale_of(begin=(10, 20, 30))])
    write_zarr(tmp_path / "v.zarr" / "raw", attributes={"voxel_size": [40, 4, 4], "units": "nm"})
    write_n5(tmp_path / "v.n5" / "em" / "s0", {"pixelResolution": {"dimensions": [4, 4, 40], "unit": "nm"}})
    for url, how in (("v", {}), ("v.zarr/raw", {}), ("v.zarr", {"dataset": "raw"}), ("v.n5/em", {"dataset": "0"})):
        assert_coded(f"{server}/{url}", **how)
        assert voxel_size(f"{server}/{url}", **how)[0] == (4, 4, 40)
    expect_refusal(f"{server}/none", f"{server}/none", "no volume of a format")
