# SPDX-License-Identifier: Apache-2.0
"""Outputs never replace an input, or what somebody else has written."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from scripts.errors import InputError
from scripts.networks.tensor_file import write_tensors
from scripts.transforms.save_volume import SaveVolume
from scripts.volumes.outputs import check_folder, check_output
from scripts.volumes.reading import read_header, read_volume
from scripts.volumes.writing import volume_writer, write_volume
from volume_files import assert_in_one_line, stack, volume


def test_check_output(tmp_path):
    check_output(tmp_path / "new" / "folder" / "v.tif")
    assert os.listdir(tmp_path) == []
    for name in ("v.png", "v", "v.n5"):
        with pytest.raises(InputError) as error:
            check_output(tmp_path / name)
        assert_in_one_line(error, name, "cannot be written", ".ome.tif", ".nii.gz")
    with pytest.raises(InputError) as error:
        check_output(tmp_path)
    assert_in_one_line(error, str(tmp_path), "is a folder", ".tif")
    existing = tmp_path / "v.tif"
    existing.write_text("1")
    with pytest.raises(InputError) as error:
        check_output(existing, False)
    assert_in_one_line(error, "v.tif", "exists", "--overwrite true")
    check_output(existing, True)
    for text in ("false", "true", "maybe"):  # only configs make a switch of it; "false" would be true
        with pytest.raises(InputError, match=f"--overwrite {text}: must be true or false"):
            check_output(existing, text)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"--overwrite {text}: must be true or false"):
            write_volume(volume(), existing, text)  # type: ignore[arg-type]
    assert existing.read_text() == "1"
    with pytest.raises(InputError) as error:
        check_output(existing / "below" / "v.tif")
    assert_in_one_line(error, "v.tif", "is a file and not a folder")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even the superuser cannot write to")
def test_folder_that_cannot_be_written_to():
    with pytest.raises(InputError) as error:
        check_output("/proc/v.tif")
    assert_in_one_line(error, "/proc/v.tif", "cannot be written")
    with pytest.raises(InputError) as error:
        write_volume(volume(), "/proc/new/v.tif")
    assert_in_one_line(error, "/proc/new/v.tif", "cannot be written")


def refuses(path: Path | str, *words: str, inputs: tuple = (), overwrite: bool = True) -> None:
    with pytest.raises(InputError) as error:
        check_output(path, overwrite, inputs)
    assert_in_one_line(error, *words)


@pytest.fixture
def spellings(tmp_path, monkeypatch) -> list[Path]:
    """Names of one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.tif").write_text("raw data")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.tif").symlink_to("in.tif")
    (tmp_path / "link_to_link.tif").symlink_to(tmp_path / "link.tif")
    (tmp_path / "way").symlink_to(".")
    os.link(tmp_path / "in.tif", tmp_path / "hard.tif")
    names = ["in.tif", "./in.tif", "folder/../in.tif", "link.tif", "link_to_link.tif", "way/in.tif", "hard.tif"]
    return [Path(name) for name in names] + [tmp_path / "in.tif", tmp_path / "way" / "way" / "link.tif"]


def test_input_is_never_an_output(spellings):
    for output in spellings:
        for given in spellings:
            refuses(output, str(output), "is the same file as", "never replaces", inputs=(None, given))
    check_output("other.tif", inputs=spellings)
    refuses("in.tif", "is the same file as", inputs=("./in.tif",), overwrite=False)


def test_slice_of_the_input_is_never_an_output(tmp_path):
    slices = tmp_path / "slices"
    slices.mkdir()
    for index, plane in enumerate(stack()):
        tifffile.imwrite(slices / f"{index}.tif", plane)
    (tmp_path / "link").symlink_to("slices")
    os.link(slices / "2.tif", tmp_path / "hard.tif")
    (tmp_path / "to_slice.tif").symlink_to("slices/3.tif")
    for given in (slices, tmp_path / "link"):
        for output in (slices / "1.tif", slices / "new.ome.tif", tmp_path / "link" / "new.tiff"):
            refuses(output, "among the slices", str(given), inputs=(given,))
        for output in (tmp_path / "hard.tif", tmp_path / "to_slice.tif"):
            refuses(output, str(given), "this run reads", inputs=(given,))
        for output in (slices / "new.nii.gz", slices / "below" / "new.tif", tmp_path / "new.tif"):
            check_output(output, inputs=(given,))
    for given in (slices / "*.tif", tmp_path / "link" / "[0-9]*"):  # a pattern in place of the folder
        refuses(slices / "7.tif", "among the slices", str(given), inputs=(given,))
        refuses(tmp_path / "hard.tif", str(given), "this run reads", inputs=(given,))
        check_output(tmp_path / "new.tif", inputs=(given,))
    check_output(slices / "result.tif", inputs=(slices / "[0-9]*.tif",))
    with pytest.raises(InputError, match="among the slices"):
        check_folder(slices, ["comparison.png"], inputs=[slices])


def test_results_of_others_in_a_folder_are_not_replaced(tmp_path):
    """A bundle's own weights, for instance, where its folder is given for a training."""
    job: dict[str, Any] = {"files": ["model.pt", "checkpoint.pt"], "results": ["model.pt"], "unless": "checkpoint.pt"}
    check_folder(tmp_path / "new", **job)
    (tmp_path / "model.pt").write_text("of others")
    with pytest.raises(InputError) as error:
        check_folder(tmp_path, **job)
    assert_in_one_line(error, str(tmp_path / "model.pt"), "exists already", "give another --output_dir")
    check_folder(tmp_path, **job, overwrite=True)
    (tmp_path / "checkpoint.pt").write_text("of this run")
    check_folder(tmp_path, **job)
    with pytest.raises(InputError, match="is the same file as"):
        check_folder(tmp_path, **job, inputs=[tmp_path / "model.pt"])


@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_link_is_followed(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / name, tmp_path / "elsewhere" / f"real_{name}"
    link.symlink_to(target)
    check_output(link)
    SaveVolume(link)(volume())
    assert link.is_symlink() and np.array_equal(read_volume(target), read_volume(link))
    refuses(link, "exists already", overwrite=False)
    SaveVolume(link, overwrite=True)(volume("uint16"))
    assert link.is_symlink() and read_volume(target).meta["dtype"] == "uint16"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", name] and os.listdir(target.parent) == [target.name]


def test_links_that_cannot_be_outputs(tmp_path):
    (tmp_path / "a.tif").symlink_to("b.tif")
    (tmp_path / "b.tif").symlink_to("a.tif")
    (tmp_path / "c.tif").symlink_to("c.nii.gz")
    (tmp_path / "d.tif").symlink_to(tmp_path)
    (tmp_path / "e.tif").symlink_to("e.tiff")
    refuses(tmp_path / "a.tif", "a.tif: cannot be written", "circle")
    refuses(tmp_path / "c.tif", "c.tif: points to", "another format")
    refuses(tmp_path / "d.tif", "d.tif: is a folder")
    check_output(tmp_path / "e.tif")


def test_special_files_cannot_be_outputs(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.tif"))
        (tmp_path / "device.tif").symlink_to("/dev/null")
        for name, kind in (("pipe.tif", "a named pipe"), ("socket.tif", "a socket"), ("device.tif", "a device")):
            refuses(tmp_path / name, f"{name}: is {kind}", "give the name of a file")
            with pytest.raises(InputError, match=kind):
                write_volume(volume(), tmp_path / name)
            with pytest.raises(InputError, match=kind):
                write_tensors(tmp_path / name, {})


@pytest.mark.parametrize("name", ["a" * 252 + ".tif", "\u00e9" * 126 + ".tif", "a" * 5000 + ".nii"])
def test_names_that_are_too_long(tmp_path, name):
    refuses(tmp_path / name, "File name too long", "shorter name")
    with pytest.raises(InputError, match="File name too long"):
        write_volume(volume(), tmp_path / name)
    refuses(tmp_path / "null\0byte.tif", "cannot be written", "null")


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".ome.tif", ".ome.tiff", ".nii", ".nii.gz"])
@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u5c42"])
def test_longest_names_of_every_format(tmp_path, suffix, letter):
    name = letter * ((255 - len(suffix)) // len(letter.encode())) + suffix
    check_output(tmp_path / name)
    write_volume(volume(), tmp_path / name)
    assert os.listdir(tmp_path) == [name] and np.array_equal(read_volume(tmp_path / name)[0], volume()[0])


@pytest.mark.parametrize("name", ["v.tif", "v.ome.tif", "v.nii", "v.nii.gz"])
@pytest.mark.parametrize("links", [True, False])
def test_what_appears_is_left_alone(tmp_path, monkeypatch, name, links):
    def no_links(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    free = [tmp_path / f"v_{number}{name[1:]}" for number in (1, 2)]
    for expected in free:
        with pytest.raises(InputError) as error:
            with volume_writer(tmp_path / name, (7, 6, 5), "uint8", np.eye(4), "pixel") as writer:
                writer.write(stack().transpose(2, 1, 0))
                (tmp_path / name).write_text("of somebody else")
        assert_in_one_line(error, f"{name}: appeared", "left alone", str(expected))
        assert (tmp_path / name).read_text() == "of somebody else"
        assert np.array_equal(read_volume(expected)[0], stack().transpose(2, 1, 0))
        (tmp_path / name).unlink()
    with volume_writer(tmp_path / name, (7, 6, 5), "uint8", np.eye(4), "pixel", overwrite=True) as writer:
        (tmp_path / name).write_text("of somebody else")
    assert read_header(tmp_path / name).shape == (7, 6, 5)
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("letter", ["a", "\u00e9"])
def test_what_is_kept_beside_a_long_name_has_as_much_of_it_as_fits(tmp_path, letter):
    path = tmp_path / (letter * (251 // len(letter.encode())) + ".tif")
    with pytest.raises(InputError, match="appeared"):
        with volume_writer(path, (7, 6, 5), "uint8", np.eye(4), "pixel"):
            path.write_text("of somebody else")
    (kept,) = (other for other in tmp_path.iterdir() if other != path)
    assert read_header(kept).shape == (7, 6, 5)
    assert kept.name == letter * (249 // len(letter.encode())) + "_1.tif"


@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_folder_that_appears_does_not_lose_the_result(tmp_path, name):
    with pytest.raises(InputError, match="appeared"):
        with volume_writer(tmp_path / name, (7, 6, 5), "uint8", np.eye(4), "pixel", overwrite=True):
            (tmp_path / name).mkdir()
    assert read_header(tmp_path / name.replace("v", "v_1")).shape == (7, 6, 5)


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", ["v.tif", "v.nii.gz"])
def test_error_of_the_system_names_its_reason(tmp_path, monkeypatch, reason, name):
    def fail(*_: object) -> int:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", fail)
        with pytest.raises(InputError) as error:
            write_volume(volume(), tmp_path / name)
        assert_in_one_line(error, f"{name}: cannot be written ({os.strerror(reason)})")
    assert os.listdir(tmp_path) == []
    write_volume(volume(), tmp_path / name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_weights_on_a_full_disk(tmp_path, monkeypatch):
    """torch itself ends in an assertion of its own there."""
    path = tmp_path / "model.pt"
    write_tensors(path, {"a": torch.zeros(3)})
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["scripts.volumes.whole_file"], "partial_name", lambda *_: "full")
        (tmp_path / "full").symlink_to("/dev/full")
        with pytest.raises(InputError, match="model.pt: cannot be written .No space left on device.; free some space"):
            write_tensors(path, {"a": torch.ones(3)})
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.zeros(3)) and os.listdir(tmp_path) == [
        "model.pt"
    ]
