# SPDX-License-Identifier: Apache-2.0
"""Stages one after the other: what is done is not repeated, and nothing is taken for done that is not."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from scripts.cli.pipeline import check_workdir, claim_workdir, is_done, run_stages
from scripts.errors import InputError

CONFIG = """
# ---- what you choose ----
value: 0 # [whole number] anything
output_dir: null # [path] of the result
# ---- the rest follows ----
run:
  - _target_: scripts.provenance.write_provenance
    folder: "@output_dir"
    resume_must_match: {value: "@value"}
"""
SETTINGS = {"factor": 4.0, "seed": 0, "volume": lambda: {"digest": "x", "name": "in.tif", "shape": [1, 2, 3]}}


@pytest.fixture
def work(tmp_path) -> Path:
    (tmp_path / "write.yaml").write_text(CONFIG)
    return tmp_path / "W"


def make_stages(work: Path, value: int = 1, **last: Any) -> list[dict[str, Any]]:
    names = ("first", "second")
    stages = [
        {
            "title": f"the {name}",
            "config": "write.yaml",
            "skip": False,
            "result": str(work / name / "provenance.json"),
            "options": {"value": value, "output_dir": str(work / name)},
        }
        for name in names
    ]
    stages[-1].update(last)
    return stages


def run(work: Path, **last: Any) -> list[str]:
    stages = make_stages(work, **last)
    claim_workdir(work, SETTINGS, stages)
    return list(run_stages(work.parent, stages, work))


@pytest.mark.slow
def test_what_is_done_is_not_repeated(work):
    assert run(work) == ["the first", "the second"]
    assert run(work) == []
    (work / "first" / "provenance.json").unlink()  # to save room, say
    assert run(work) == ["the first"]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", '{\n  "value": 2\n}\n'])
def test_a_result_that_was_changed_is_named(work, content):
    run(work)
    result = work / "first" / "provenance.json"
    result.write_text(content)
    with pytest.raises(InputError) as caught:
        run(work)
    assert str(caught.value) == f"{result}: is no longer the file that this run wrote; delete it to have it made anew"
    result.unlink()
    assert run(work) == ["the first"]


@pytest.mark.slow
def test_a_result_of_another_origin_is_not_taken_up(work):
    (work / "second").mkdir(parents=True)
    result, guard = work / "second" / "provenance.json", work / "second" / "guard"
    result.write_text("whose?")
    with pytest.raises(InputError, match="second/provenance.json: was not written by this run"):
        run(work)
    assert result.read_text() == "whose?"
    guard.touch()
    assert run(work, guard=str(guard)) == ["the second"]  # which finds out by itself


@pytest.mark.slow
def test_a_stage_that_is_told_to_makes_its_result_anew(work):
    run(work)
    assert run(work, overwrite=True) == ["the second"]


@pytest.mark.slow
def test_the_last_result_is_known(work):
    assert not is_done(work, work / "second" / "provenance.json")
    run(work)
    assert is_done(work, work / "second" / "provenance.json")
    assert not is_done(work, work / "second" / "provenance.json", overwrite=True)
    assert not is_done(work, work / "other.tif")


@pytest.mark.slow
def test_a_stage_that_found_itself_done_is_recorded_at_its_end(work, monkeypatch):
    monkeypatch.setattr("scripts.cli.finished.told_before_move", lambda tell: nullcontext())
    assert run(work) == ["the first", "the second"]
    monkeypatch.undo()
    assert run(work) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": 1}, "with seed 0, not 1"),
        ({"volume": lambda: {"digest": "y", "shape": [1, 2, 3]}}, "on another volume (its voxels differ)"),
    ],
)
def test_another_run_is_refused(work, change, words):
    run(work)
    with pytest.raises(InputError) as caught:
        check_workdir(work, SETTINGS | change, make_stages(work))
    assert str(caught.value).startswith(f"--workdir {work} holds a run {words}: give another --workdir, or the same ")
    with pytest.raises(InputError, match=r"holds a run with value 1, not 2 \(the first\)"):
        check_workdir(work, SETTINGS, make_stages(work, value=2))
    check_workdir(work, SETTINGS, make_stages(Path("elsewhere")))  # places do not count


def test_a_folder_of_an_earlier_version_is_refused(work):
    work.mkdir()
    (work / "run.json").write_text(json.dumps({"factor": 4.0, "seed": 0, "volume": "in.tif"}))
    with pytest.raises(InputError, match="holds a run of an earlier version, .*: give another --workdir$"):
        claim_workdir(work, SETTINGS, make_stages(work))


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "no JSON", "[]", "7", '"text"', "null"])
def test_a_damaged_record_is_named(work, content):
    run(work)
    (work / "run.json").write_text(content)
    for attempt in (lambda: run(work), lambda: is_done(work, work / "second" / "provenance.json")):
        with pytest.raises(InputError, match="run.json: damaged .*; delete it, or give another --workdir"):
            attempt()


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [{}, {"factor": [], "seed": {}}, {"factor": 4.0, "seed": 0, "volume": {"digest": 7}}]
)
def test_a_record_that_lacks_what_it_needs_is_refused(work, content):
    run(work)
    (work / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="holds a run"):
        run(work)
