# SPDX-License-Identifier: Apache-2.0
"""Runs configs as a user does, ``python -m monai.bundle run``, and the toy sizes that the tests of them share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import warm_python

BUNDLE = Path(__file__).resolve().parent.parent / "bundle"
PATIENCE = 1200  # seconds; a command that takes longer hangs, even on a busy machine
AT_ONCE = 2  # commands, of one thread each

# The smallest networks that the configs can build, and runs of a few steps.
PRIOR_NETWORK = {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1], "pixel_unshuffle": 2}
PRIOR_TRAINING = {"max_epochs": 2, "epoch_length": 2, "batch_size": 2, "patch_size": [32, 32], "val_interval": 1}
AENET = {"widths": [2, 2, 4, 4], "strides": [2, 1, 2, 2, 1]}
AENET_TRAINING = {
    "max_epochs": 2,
    "epoch_length": 2,
    "batch_size": 2,
    "num_targets": 2,
    "patch_size": [32, 32],
    "val_factor": 4,
    "val_interval": 1,
}


class Finished(NamedTuple):
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything that was printed."""
        return self.stdout + self.stderr

    @property
    def last_line(self) -> str:
        """The last line on stderr."""
        return self.stderr.rstrip("\n").splitlines()[-1] if self.stderr.strip() else ""


class Place(NamedTuple):
    """A working directory and where files named on a command line go: by absolute or by relative paths."""

    cwd: Path
    folder: Path

    def path(self, name: str) -> str:
        """How a file of ``folder`` is named on the command line."""
        return str(self.folder / name) if self.cwd == BUNDLE else os.path.relpath(self.folder / name, self.cwd)


def command(config: str, options: dict[str, Any], cwd: Path = BUNDLE) -> list[str]:
    """The words of a command line: configs by a relative path inside ``bundle/``, by an absolute one elsewhere."""
    file = Path("configs") / config if cwd == BUNDLE else BUNDLE / "configs" / config
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(file)]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


def environment(threads: int = 1) -> dict[str, str]:
    """The environment of a user: nothing but MONAI puts the bundle on the path."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"}


def run_bundle(config: str, options: dict[str, Any], cwd: Path = BUNDLE, threads: int = 1) -> Finished:
    """Run a config to its end."""
    words = command(config, options, cwd)
    if threads == 1:
        status, stdout, stderr = warm_python.Process(words[3:], cwd, environment()).finish(PATIENCE)
        return Finished(status, stdout, stderr)
    result = subprocess.run(words, cwd=cwd, env=environment(threads), capture_output=True, text=True, timeout=PATIENCE)
    return Finished(result.returncode, result.stdout, result.stderr)


def succeed(config: str, options: dict[str, Any], cwd: Path = BUNDLE, threads: int = 1) -> Finished:
    """Run a config to its end, which must be a good one."""
    result = run_bundle(config, options, cwd, threads)
    assert result.status == 0, f"{config} {options}\n{result.output}"
    assert "Traceback" not in result.output, f"{config} {options}\n{result.output}"
    return result


def interrupt(
    config: str, options: dict[str, Any], when: Callable[[], bool], how: signal.Signals, cwd: Path = BUNDLE
) -> Finished:
    """Run a config and send it a signal as soon as ``when()`` holds; it must not have ended before."""
    words = command(config, options, cwd)
    process = warm_python.Process(words[3:], cwd, environment())
    deadline = time.monotonic() + PATIENCE
    # Short, for what is waited for may last a few milliseconds.
    while process.running() and not when() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(how)
    status, stdout, stderr = process.finish(PATIENCE)
    assert status != 0, f"{config} {options} came to its end before it was interrupted\n{stdout}{stderr}"
    return Finished(status, stdout, stderr)


def side_by_side(jobs: Iterable[Callable[[], Any]]) -> list[Any]:
    """Call functions a few at a time; the results come in the order of the functions."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def tiff_stack(path: Path) -> tuple[np.ndarray, tuple[float, float, float], str]:
    """Voxels (x, y, z), voxel size (x, y, z) and unit of an ImageJ stack, read without the bundle."""
    with tifffile.TiffFile(path) as file:
        metadata, tags = file.imagej_metadata or {}, file.pages.first.tags
        x, y = (tags[name].value[1] / tags[name].value[0] for name in ("XResolution", "YResolution"))
        return file.asarray().transpose(2, 1, 0), (x, y, float(metadata.get("spacing", 1))), metadata["unit"]


def left_behind(folders: Sequence[Path]) -> list[Path]:
    """Files of a name that only half-written ones have."""
    return [file for folder in folders if folder.is_dir() for file in folder.rglob("*partial*")]
