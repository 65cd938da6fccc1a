# SPDX-License-Identifier: Apache-2.0
"""What an input is, in what two runs differ, and whether a result is still what a run wrote."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from scripts.cli.finished import Finished, FinishedRun
from scripts.errors import InputError
from scripts.provenance import difference, read_record, resolve
from scripts.volumes.identity import digest_of_file, identify, identify_weights
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.whole_file import write_whole

VOXELS = np.random.default_rng(0).integers(0, 60000, (5, 7, 6), dtype=np.uint16)  # z, y, x


def stack(path: Path, voxels: np.ndarray = VOXELS, spacing: float = 4.0, byteorder: Any = "<") -> Path:
    metadata = {"axes": "ZYX", "spacing": spacing, "unit": "um"}
    tifffile.imwrite(path, voxels, imagej=byteorder == ">", byteorder=byteorder, metadata=metadata, resolution=(1, 1))
    return path


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_a_volume_is_the_same_in_every_format_and_under_every_name(tmp_path):
    (tmp_path / "slices").mkdir()
    for index, plane in enumerate(VOXELS):
        tifffile.imwrite(tmp_path / "slices" / f"{index:03}.tif", plane)
    nib.save(nib.Nifti1Image(VOXELS.transpose(2, 1, 0), np.eye(4)), tmp_path / "v.nii.gz")
    big = stack(tmp_path / "big.tif", byteorder=">")
    little = tmp_path / "little.tif"
    tifffile.imwrite(little, VOXELS)
    files = [big, little, tmp_path / "slices", tmp_path / "v.nii.gz"]
    found: list[Any] = [identify(file, ReadOptions((4, 1, 1))) for file in files]
    assert len({identity["digest"] for identity in found}) == 1
    assert found[0]["shape"] == [6, 7, 5] and found[0]["dtype"] == "uint16" and found[0]["voxel_size"] == [1, 1, 4]
    assert json.loads(json.dumps(found[0])) == found[0]  # primitives
    assert difference({"volume": found[1]}, {"volume": found[2]}) is None
    assert identify(None) is None


def test_every_voxel_counts(tmp_path):
    first: Any = identify(stack(tmp_path / "v.tif"))
    for place in ((0, 0, 0), (2, 3, 4), (4, 6, 5)):
        changed = VOXELS.copy()
        changed[place] ^= 1
        other: Any = identify(stack(tmp_path / "v.tif", changed))
        assert other["digest"] != first["digest"], place  # replaced in place
    moved = np.ascontiguousarray(VOXELS.transpose(0, 2, 1))[:, :6, :6]
    other = identify(stack(tmp_path / "w.tif", moved))
    assert other["digest"] != first["digest"]


def flipped(voxels: np.ndarray) -> np.ndarray:
    return voxels[::-1]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda file: stack(file, flipped(VOXELS)), "another volume (its voxels differ)"),
        (lambda file: stack(file, VOXELS[:4]), "another volume (of 6 x 7 x 5 voxels, not 6 x 7 x 4)"),
        (lambda file: stack(file, VOXELS.astype(np.uint8)), "another volume (of type uint16, not uint8)"),
    ],
)
def test_the_difference_between_two_volumes_is_told(tmp_path, change, words):
    stored = resolve({"volume": partial(identify, stack(tmp_path / "v.tif"), ReadOptions((4, 1, 1)))})
    other: Any = difference(stored, {"volume": partial(identify, change(tmp_path / "v.tif"), ReadOptions((4, 1, 1)))})
    assert other.run == f"on {words}" and other.same == "the same volume"


def test_spacing_counts_however_it_came_about(tmp_path):
    from_header = identify(stack(tmp_path / "v.tif", byteorder=">"))
    stored = {"volume": from_header}
    assert difference(stored, {"volume": identify(tmp_path / "v.tif", ReadOptions((4, 1, 1)))}) is None
    other: Any = difference(stored, {"volume": identify(tmp_path / "v.tif", ReadOptions((5, 1, 1)))})
    assert "of voxels of 1 x 1 x 4 micrometer, not 1 x 1 x 5 micrometer" in other.run


def weights_of(folder: Path, *names: str) -> list[Any]:
    return [identify_weights(folder / name) for name in names]


def test_weights_are_their_content(tmp_path):
    for name, content in (("a.pt", b"one"), ("b.pt", b"one"), ("c.pt", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = weights_of(tmp_path, "a.pt", "b.pt", "c.pt")
    assert difference({"weights": a}, {"weights": b}) is None
    other: Any = difference({"weights": a}, {"weights": c})
    assert other.run == "with other weights (its content differs)"
    assert digest_of_file(tmp_path / "a.pt") == a["digest"] and len(a["digest"]) == 32
    for name, value in (("d.pt", 1.0), ("e.pt", 1.0), ("f.pt", 2.0)):
        torch.save({"weight": torch.full((3,), value)}, tmp_path / name)  # PyTorch writes the name into the file
    d, e, f = (each["digest"] for each in weights_of(tmp_path, "d.pt", "e.pt", "f.pt"))
    assert d == e != f and (tmp_path / "d.pt").read_bytes() != (tmp_path / "e.pt").read_bytes()
    with pytest.raises(InputError, match="none.pt: cannot be read"):
        identify_weights(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "stored, mine, words",
    [
        ({"seed": 0}, {"seed": 1}, "with seed 0, not 1"),
        ({"sizes": [1, 2]}, {"sizes": (1, 2)}, None),
        ({"range": [0.5, 2]}, {"range": np.array([0.5, 2.0])}, None),
        (
            {"stages": {"I": {"epochs": 2, "seed": 0}}},
            {"stages": {"I": {"epochs": 3, "seed": 0}}},
            "with epochs 2, not 3 (I)",
        ),
        ({"stages": {"I": {"epochs": 2}}}, {"stages": {"I": {}}}, "with epochs 2, not None (I)"),
        ({"volume": "in.tif"}, {"volume": {"digest": "x"}}, "of an earlier version"),
        ({}, {"volume": {"digest": "x"}}, "of an earlier version"),
        ({"truth": None}, {"truth": {"digest": "x"}}, "without truth"),
        ({"truth": {"digest": "x", "name": "t.tif"}}, {"truth": None}, "with truth t.tif"),
        ({"volume": {"digest": "x", "shape": "y"}}, {"volume": {"digest": "x", "shape": [1, 2, 3]}}, "another volume"),
        ({"volume": 3}, {"volume": {"digest": "x"}}, "without volume"),
    ],
)
def test_settings_are_compared(stored, mine, words):
    other: Any = difference(stored, mine)
    assert (other is None) if words is None else (words in other.run), other


def test_inputs_are_read_only_when_the_rest_is_the_same():
    def read() -> dict:
        raise AssertionError("read")

    other: Any = difference({"seed": 0}, {"seed": 1, "volume": read})
    assert other.run == "with seed 0, not 1"


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe", b'{"a": 1', b"[" * 100000])
def test_damaged_records_are_one_line(tmp_path, content):
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_record(file, "delete it")
    assert str(caught.value).startswith(f"{file}: damaged (") and str(caught.value).endswith("; delete it")
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_record(tmp_path):
    assert read_record(tmp_path / "none.json", "delete it") == {}
    with pytest.raises(InputError, match="damaged .*; delete it"):
        read_record(tmp_path, "delete it")


# ---- finished results ------------------------------------------------------------------------------------------------


def written(folder: Path, content: bytes = b"result") -> tuple[Finished, Path]:
    finished, result = Finished(folder / "run.json"), folder / "sub" / "a.tif"
    finished.write({"seed": 1})
    with finished.recording(result):
        write_whole(result, lambda partial: partial.write_bytes(content))
    return finished, result


def test_a_result_is_finished_until_it_changes(tmp_path):
    finished, result = written(tmp_path)
    assert finished.holds(result) and json.loads(finished.record.read_text())["seed"] == 1
    os.utime(result, (1, 1))
    assert finished.holds(result)  # read, and the same
    for content in (b"resulT", b"resul", b""):
        result.write_bytes(content)
        assert not finished.holds(result) and finished.knows(result)
    result.unlink()
    assert not finished.holds(result)
    result.write_bytes(b"result")
    assert finished.holds(result)
    assert not finished.knows(tmp_path / "b.tif") and not finished.holds(tmp_path / "b.tif")


def test_a_moved_folder_keeps_its_results(tmp_path):
    _, result = written(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert Finished(tmp_path / "new" / "run.json").holds(tmp_path / "new" / "sub" / "a.tif")


def test_other_files_that_are_written_meanwhile_are_not_recorded(tmp_path):
    finished = Finished(tmp_path / "run.json")
    with finished.recording(tmp_path / "a.tif"):
        write_whole(tmp_path / "b.tif", lambda partial: partial.write_bytes(b"b"))
    assert not finished.knows(tmp_path / "b.tif")
    write_whole(tmp_path / "a.tif", lambda partial: partial.write_bytes(b"a"))
    assert not finished.knows(tmp_path / "a.tif")  # the run is over


def test_a_kill_at_the_move_of_a_result(tmp_path, monkeypatch):
    """Just before it there is no result, just after it the result is known."""
    finished, result = Finished(tmp_path / "run.json"), tmp_path / "a.tif"
    replace = os.replace

    def run(before: bool) -> None:
        def move(source, target):
            if Path(target) != result:
                return replace(source, target)
            if not before:
                replace(source, target)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", move)
        with pytest.raises(KeyboardInterrupt), finished.recording(result):
            write_whole(result, lambda partial: partial.write_bytes(b"result"))
        monkeypatch.setattr(os, "replace", replace)

    run(before=True)
    assert not finished.holds(result)
    run(before=False)
    assert finished.holds(result)


@pytest.mark.parametrize(
    "entry", [3, [], {}, {"size": 6}, {"size": "6", "modified": 1}, {"size": 6, "digest": 5}, None]
)
def test_records_with_wrong_entries_hold_nothing(tmp_path, entry):
    finished, result = written(tmp_path)
    for finished_section in ({"sub/a.tif": entry}, entry):
        finished.write({"finished": finished_section})
        assert not finished.holds(result)


def test_a_finished_run_is_one_with_the_same_settings(tmp_path):
    results = [tmp_path / "a.tif", tmp_path / "b.tif"]

    def run(seed: int) -> FinishedRun:
        return FinishedRun(tmp_path / "finished.json", {"seed": seed}, results)

    def work() -> None:
        for result in results:
            write_whole(result, lambda partial: partial.write_bytes(b"x"))

    assert not run(0).is_done()
    run(0).make(work)
    assert run(0).is_done() and not run(1).is_done()
    run(0).make(lambda: pytest.fail("repeated"), done=True)
    results[1].unlink()
    assert not run(0).is_done()
