# SPDX-License-Identifier: Apache-2.0
"""OME-Zarr outputs: written shard by shard, gone on with after an interruption, with a pyramid in the right place."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from bundle_run import interrupt, succeed
from inference_run import refusal, run
from scripts import lattice
from scripts.cli.finished import Finished
from scripts.errors import InputError
from scripts.reconstruction import unfinished_store
from scripts.reconstruction.unfinished_store import UnfinishedStore, folder_of
from scripts.volumes.formats.ome_zarr_writer import DEFAULT_LAYOUT, Layout, OmeZarrStore, check_layout

SMALL = {"chunk": [4, 16, 16], "shard": [4, 32, 32]}


def voxels_of(path: Path, level: int = 0) -> np.ndarray:
    """Level of a pyramid (z, y, x), read by zarr-python."""
    return np.asarray(zarr.open_group(str(path), mode="r")[str(level)])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("factor", [2, 2.5, 3.3])
def test_store_is_what_the_file_is(folder, tmp_path, version, factor):
    options: Any = {"volume": str(folder / "volumes" / "a.tif"), "factor": factor}
    run(folder, output=str(tmp_path / "o.zarr"), **options, **SMALL, ome_zarr_version=version)
    run(folder, output=str(tmp_path / "o.tif"), **options)
    found, expected = voxels_of(tmp_path / "o.zarr"), tifffile.imread(tmp_path / "o.tif")
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1  # where blocks meet, as where tiles do
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shard", [(6, 10, 96), (8, 8, 64)])
def test_pyramid_of_voxels_at_hand_is_that_of_the_store(tmp_path, dtype, shard):
    layout = check_layout(chunk=[2, 2, 32], shard=shard)
    shape, voxels = (300, 27, 23), np.random.default_rng(0).integers(0, 99, (300, 27, 23)).astype(dtype)
    store = UnfinishedStore(tmp_path / "o.zarr", shape, np.dtype(dtype), np.eye(4), "pixel", layout)
    store.begin({})
    for box in store.boxes():
        store.write(box, voxels[box.slices])
    store.complete(replace=False)
    plain = OmeZarrStore(tmp_path / "p.zarr", shape, np.dtype(dtype), np.eye(4), "pixel", layout)
    plain.create()
    for level in range(len(plain.shapes)):
        for box in plain.boxes(level):
            plain.reduce(level, box) if level else plain.write(box, voxels[box.slices])
        assert np.array_equal(voxels_of(tmp_path / "o.zarr", level), voxels_of(tmp_path / "p.zarr", level))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", ["zstd", "blosc", "none"])
@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_pyramid_keeps_its_place(tmp_path, dtype, compression, version):
    voxels = np.random.default_rng(0).integers(0, 200, (300, 33, 20)).astype(dtype)
    affine = np.diag([4.0, 5.0, 6.0, 1.0])
    affine[:3, 3] = 10, 20, 30
    layout = check_layout(version, [16, 16, 64], [16, 32, 128], compression)
    store = OmeZarrStore(tmp_path / "s.zarr", voxels.shape, np.dtype(dtype), affine, "nanometer", layout)
    store.create()
    for level in range(len(store.shapes)):
        for box in store.boxes(level):
            store.reduce(level, box) if level else store.write(box, voxels[box.slices])
            assert all(file.is_file() for file in store.files(box, level))
    attributes: Any = dict(zarr.open_group(str(tmp_path / "s.zarr"), mode="r").attrs)
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["nanometer"] * 3
    steps = [each["coordinateTransformations"] for each in multiscale["datasets"]]
    assert [step[0]["scale"] for step in steps] == [[6, 5, 4], [12, 10, 8]]
    assert [step[1]["translation"] for step in steps] == [[30, 20, 10], [33, 22.5, 12]]
    level_0, level_1 = voxels_of(tmp_path / "s.zarr"), voxels_of(tmp_path / "s.zarr", 1)
    assert np.array_equal(level_0, voxels.transpose(2, 1, 0)) and level_1.shape == (10, 17, 150)
    whole = level_0[:, :32].astype(float).reshape(10, 2, 16, 2, 150, 2).mean((1, 3, 5))
    assert np.abs(level_1[:, :16] - whole).max() <= 0.5
    assert np.abs(level_1[:, 16] - level_0[:, 32].astype(float).reshape(10, 2, 150, 2).mean((1, 3))).max() <= 0.5


class Killed(BaseException):
    """What ends a run at once."""


def interrupted_runs(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let a run be killed once it has written ``after`` blocks."""
    write, done = UnfinishedStore.write, [0]

    def counted(self: UnfinishedStore, *args: Any) -> None:
        if done[0] == after:
            raise Killed
        done[0] += 1
        write(self, *args)

    monkeypatch.setattr(UnfinishedStore, "write", counted)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 5])
def test_interrupted_run_goes_on(folder, tmp_path, monkeypatch, after):
    options = {"volume": str(folder / "volumes" / "a.tif"), **SMALL, "overwrite": False}
    run(folder, output=str(tmp_path / "whole.zarr"), **options)
    with monkeypatch.context() as patched:
        interrupted_runs(patched, after)
        with pytest.raises(BaseException):  # noqa: B017 (MONAI wraps it)
            run(folder, output=str(tmp_path / "o.zarr"), **options)
    assert not (tmp_path / "o.zarr").exists() and folder_of(tmp_path / "o.zarr").is_dir()
    written: list[Any] = []
    write = UnfinishedStore.write

    def recorded(self: UnfinishedStore, box: Any, voxels: Any) -> None:
        written.append(box)
        write(self, box, voxels)

    monkeypatch.setattr(UnfinishedStore, "write", recorded)
    run(folder, output=str(tmp_path / "o.zarr"), **options)
    boxes = lattice.boxes((72, 40, 11), (32, 32, 4))
    assert len(written) == len(boxes) - after
    files = [path.relative_to(tmp_path / "o.zarr") for path in (tmp_path / "o.zarr").rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "o.zarr" / file).read_bytes() == (tmp_path / "whole.zarr" / file).read_bytes()
    assert not folder_of(tmp_path / "o.zarr").exists()


KILLS = 4
"""Moments at which a run is killed, from before the first block is finished on."""


@pytest.mark.slow
def test_killed_at_any_moment(folder, tmp_path):
    """What each kill leaves is gone on with: finished blocks stay as they are, and the end is the same to the byte."""
    options = {
        "volume": folder / "volumes" / "a.tif",
        "weights": folder / "aenet.pt",
        "factor": 2.5,
        "device": "cpu",
        "chunk": "[2,16,16]",
        "shard": "[2,16,16]",
    }
    whole, output = tmp_path / "whole.zarr", tmp_path / "o.zarr"
    succeed("inference.yaml", {**options, "output": whole})
    ledger, blocks = folder_of(output) / "boxes", len(lattice.boxes((72, 40, 11), (16, 16, 2)))
    random = np.random.default_rng(0)

    def finished() -> dict[str, str]:
        entries = {file.name: file.read_text() for file in ledger.glob("0_*.json")} if ledger.is_dir() else {}
        return {name: text for name, text in entries.items() if text}

    for number in range(KILLS):
        before, wanted = finished(), number * (blocks - 40) // KILLS
        earliest, delay = time.monotonic() + random.uniform(0.5, 3), random.uniform(0, 0.02)

        def moment(wanted: int = wanted, earliest: float = earliest, delay: float = delay) -> bool:
            at_work = ledger.is_dir() and len(finished()) >= wanted
            if not at_work or (len(finished()) == wanted and time.monotonic() < earliest):
                return False
            time.sleep(delay)
            return True

        interrupt("inference.yaml", {**options, "output": output}, moment, signal.SIGKILL)
        assert not output.exists() and before.items() <= finished().items()
    done = len(finished())
    result = succeed("inference.yaml", {**options, "output": output})
    assert f"{done} of {blocks} blocks are finished already" in result.output
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (output / name).read_bytes() for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.zarr", "whole.zarr"]


def begun(tmp_path: Path, **changed: Any) -> UnfinishedStore:
    """A store of which every box is finished."""
    layout = check_layout(chunk=[4, 4, 4], shard=[4, 8, 8])
    store = UnfinishedStore(tmp_path / "o.zarr", (16, 8, 8), np.dtype(np.uint8), np.eye(4), "pixel", layout)
    store.begin({"factor": 2, **changed})
    return store


def test_torn_and_foreign_shards_are_made_anew(tmp_path):
    store = begun(tmp_path)
    for box in store.boxes():
        store.write(box, np.full(box.sizes, 7, np.uint8))
    first, second, third, fourth = store.boxes()
    torn = store.store.files(first)[0]
    torn.write_bytes(torn.read_bytes()[:-3])
    changed = store.store.files(second)[0]
    changed.write_bytes(bytes([changed.read_bytes()[0] ^ 1]) + changed.read_bytes()[1:])
    store.store.files(third)[0].unlink()
    assert begun(tmp_path).finished() == {fourth}
    assert not torn.exists() and not changed.exists()


def test_entry_of_another_run_does_not_count(tmp_path):
    store = begun(tmp_path)
    box = store.boxes()[0]
    store.write(box, np.zeros(box.sizes, np.uint8))
    entry = next((store.folder / "boxes").iterdir())
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "run": "another"}))
    assert begun(tmp_path).finished() == set()


def test_store_of_another_run_is_refused(tmp_path):
    begun(tmp_path)
    with pytest.raises(InputError, match=r"factor 2, not 3.*delete that folder, or add --overwrite true"):
        begun(tmp_path, factor=3)
    (folder_of(tmp_path / "o.zarr") / "run.json").write_text("{")
    with pytest.raises(InputError, match="run.json: damaged"):
        begun(tmp_path)


def test_an_error_is_told_as_what_it_is(tmp_path):
    begun(tmp_path)
    for broken in ("{", '{"factor": 3}'):
        (folder_of(tmp_path / "o.zarr") / "run.json").write_text(broken)
        with pytest.raises(InputError) as told:
            begun(tmp_path)
        assert "cannot be written" not in str(told.value) and "\n" not in str(told.value)

    def unreadable() -> None:
        raise InputError("in.tif: slice 3 is damaged")

    with pytest.raises(InputError, match="^in.tif: slice 3 is damaged$"):
        begun(tmp_path / "other", volume=unreadable)


def test_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    store = begun(tmp_path)
    first, second, *_ = store.boxes()
    store.write(first, np.ones(first.sizes, np.uint8))

    def full(*_: Any) -> None:
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device")

    monkeypatch.setattr(OmeZarrStore, "write", full)
    with pytest.raises(InputError, match=r"o.zarr: cannot be written \(No space left on device\); free some space"):
        store.write(second, np.ones(second.sizes, np.uint8))
    monkeypatch.undo()
    assert begun(tmp_path).finished() == {first}


def test_layout_without_options_is_the_documented_one():
    assert check_layout() == DEFAULT_LAYOUT == Layout("0.5", (64, 64, 64), (256, 1024, 1024), "zstd")


@pytest.mark.slow
def test_blocks_hold_whole_shards(folder, tmp_path):
    options = {"volume": str(folder / "volumes" / "a.tif"), "output": str(tmp_path / "o.zarr"), **SMALL}
    assert "whole shards of [4, 32, 32]" in refusal(folder, **options, block=[4, 32, 48])
    assert "whole chunks of [4, 16, 16]" in refusal(folder, **{**options, "shard": [4, 24, 16]})
    run(folder, **options, block=[8, 64, 32])
    assert (tmp_path / "o.zarr").is_dir()


@pytest.mark.slow
def test_a_store_is_replaced_only_if_that_is_asked_for(folder, tmp_path):
    options = {"volume": str(folder / "volumes" / "a.tif"), "output": str(tmp_path / "o.zarr"), **SMALL}
    run(folder, **options)
    (tmp_path / "o.zarr" / "mark").write_text("")
    assert "exists already" in refusal(folder, **options, overwrite=False)
    assert (tmp_path / "o.zarr" / "mark").exists()
    run(folder, **options)
    assert not (tmp_path / "o.zarr" / "mark").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["o.zarr"]
    (tmp_path / "notes.zarr").mkdir()
    (tmp_path / "notes.zarr" / "diary.txt").write_text("")
    assert "never replaced" in refusal(folder, **{**options, "output": str(tmp_path / "notes.zarr")})
    assert (tmp_path / "notes.zarr" / "diary.txt").exists()


def test_scale_of_the_run_is_kept_and_compared(tmp_path):
    store = begun(tmp_path)
    store.remember({"intensity_low": 1.0})
    store.remember({"intensity_low": 1.0})
    with pytest.raises(InputError, match="intensity_low 1.0, not 2.0"):
        store.remember({"intensity_low": 2.0})


def test_ledger_is_removed_with_the_end(tmp_path):
    store = begun(tmp_path)
    for box in store.boxes():
        store.write(box, np.zeros(box.sizes, np.uint8))
    store.complete(replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["o.zarr"]
    assert unfinished_store.folder_of(tmp_path / "o.zarr").exists() is False


def test_a_store_is_known_as_finished_like_a_file(tmp_path):
    finished = Finished(tmp_path / "run.json")
    store = begun(tmp_path)
    for box in store.boxes():
        store.write(box, np.ones(box.sizes, np.uint8))
    with finished.recording(tmp_path / "o.zarr"):
        store.complete(replace=False)
    assert finished.holds(tmp_path / "o.zarr")
    changed = next(path for path in (tmp_path / "o.zarr" / "0").rglob("*") if path.is_file())
    changed.write_bytes(changed.read_bytes() + b"x")
    assert not finished.holds(tmp_path / "o.zarr")


def test_pyramid_is_made_with_the_volume(tmp_path):
    layout = check_layout(chunk=[16, 16, 64], shard=[16, 32, 128])
    store = UnfinishedStore(tmp_path / "o.zarr", (600, 33, 20), np.dtype(np.uint8), np.eye(4), "pixel", layout)
    store.begin({"factor": 2})
    voxels = np.random.default_rng(0).integers(0, 200, (600, 33, 20)).astype(np.uint8)
    for box in reversed(store.boxes()):
        store.write(box, voxels[box.slices])
    for level in (1, 2):
        assert store.finished(level) == set(store.boxes(level)) and store.boxes(level)
    store.complete(replace=False)
    assert voxels_of(tmp_path / "o.zarr", 2).shape == (5, 9, 150)
