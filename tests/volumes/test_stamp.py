# SPDX-License-Identifier: Apache-2.0
"""A volume that is changed while the process runs has another fingerprint, wherever in it the change is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chunked_files import coded, scale_of, write_group, write_n5, write_precomputed, write_zarr
from scripts.volumes import paths
from scripts.volumes.identity import identify
from scripts.volumes.reading import VolumeSource


def fingerprint(path: Path) -> tuple:
    with VolumeSource(path) as source:
        return source.fingerprint


def changed_in_place(file: Path) -> None:
    """As a program does that writes over a file without a new one."""
    before = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def replaced(file: Path) -> None:
    """As a program does that writes a file beside it first."""
    beside = file.with_name("beside")
    beside.write_bytes(file.read_bytes())
    beside.rename(file)


def zarr_2(path: Path) -> tuple[Path, Path]:
    write_zarr(write_group(path, {}) / "a" / "s0", chunk_key_encoding={"name": "v2", "separator": "/"})
    return path / "a" / "s0" / "1" / "1" / "1", path / "a" / "s0" / ".zarray"


def zarr_3(path: Path) -> tuple[Path, Path]:
    write_zarr(write_group(path, {}, 3) / "0", version=3)
    return path / "0" / "c" / "1" / "1" / "1", path / "0" / "zarr.json"


def flat_zarr(path: Path) -> tuple[Path, Path]:
    write_zarr(path)
    return path / "1.1.1", path / ".zarray"


def n5(path: Path) -> tuple[Path, Path]:
    write_n5(path / "volumes" / "raw")
    return path / "volumes" / "raw" / "1" / "1" / "1", path / "volumes" / "raw" / "attributes.json"


def precomputed(path: Path) -> tuple[Path, Path]:
    write_precomputed(path, [scale_of()])
    return sorted((path / "4_4_40").iterdir())[3], path / "info"


def detached(path: Path) -> tuple[Path, Path]:
    path = path / "v.mhd"
    path.parent.mkdir()
    coded().tofile(path.with_suffix(".raw"))
    header = ["NDims = 3", "DimSize = 7 6 5", "ElementType = MET_USHORT", "ElementDataFile = v.raw"]
    path.write_text("\n".join(header) + "\n")
    return path.with_suffix(".raw"), path


@pytest.mark.parametrize("change", [changed_in_place, replaced])
@pytest.mark.parametrize("make", [zarr_2, zarr_3, flat_zarr, n5, precomputed, detached])
def test_change_inside_is_seen(tmp_path, make: Callable[[Path], tuple[Path, Path]], change):
    path = tmp_path / ("v.n5" if make is n5 else "v" if make in (precomputed, detached) else "v.zarr")
    chunk, metadata = make(path)
    path = metadata if make is detached else path
    known = [fingerprint(path)]
    assert fingerprint(path) == known[0]
    for file in (chunk, metadata):
        change(file)
        known.append(fingerprint(path))
    assert len(set(known)) == 3


def test_digest_of_a_store_is_not_that_of_before(tmp_path):
    write_zarr(tmp_path / "v.zarr" / "0")
    before = identify(tmp_path / "v.zarr")
    write_zarr(tmp_path / "other.zarr", np.zeros_like(coded()))
    (tmp_path / "other.zarr" / "0.0.0").rename(tmp_path / "v.zarr" / "0" / "0.0.0")
    after = identify(tmp_path / "v.zarr")
    assert before is not None and after is not None and before["digest"] != after["digest"]


def test_large_array_is_not_walked_through(tmp_path, monkeypatch):
    """Of many files the upper folders are looked at, which change where a chunk is replaced."""
    write_zarr(tmp_path / "v.zarr", chunks=(1, 2, 2), chunk_key_encoding={"name": "v2", "separator": "/"})
    monkeypatch.setattr(paths, "_MOST_STAMPED", 25)
    files = list((tmp_path / "v.zarr").rglob("*"))
    before = fingerprint(tmp_path / "v.zarr")
    assert len(before[-1]) < len(files) and len(files) > 50
    replaced(tmp_path / "v.zarr" / "4" / "1" / "0")
    assert fingerprint(tmp_path / "v.zarr") != before
