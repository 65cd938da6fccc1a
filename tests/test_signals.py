# SPDX-License-Identifier: Apache-2.0
"""A signal that asks a run to end leaves nothing half-written, says so in one line, and the same command goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_run import AENET, AENET_TRAINING, PRIOR_NETWORK, PRIOR_TRAINING, Finished, interrupt, side_by_side
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.weights import save_weights
from scripts.phantom import write_sample

pytestmark = pytest.mark.slow

FACTOR = 4
LONG = {"max_epochs": 1000, "epoch_length": 4}  # longer than it takes a signal to arrive
Case = tuple[str, dict[str, Any], Callable[[], bool], signal.Signals]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("signals")
    write_sample(path, (96, 96, 41), FACTOR, seed=1)
    numbers = {"delta": 50 / 255, "steps": 100, "percentiles": [0.1, 99.9], "prior_factor": FACTOR}
    torch.manual_seed(0)
    save_weights(ConditionalNAFNet(**PRIOR_NETWORK, settings=numbers), path / "prior.pt")
    return path


@pytest.fixture(scope="module")
def stopped(folder) -> dict[str, Finished]:
    """What each command says that is stopped at work."""
    volume = {"volume": folder / "sample_lowres.tif", "factor": FACTOR}

    def half_written(name: str) -> bool:
        return (folder / name).is_dir() and any((folder / name).glob("*partial*"))

    training = {**AENET, **AENET_TRAINING, **LONG, "train_factors": "[2,6]", "output_dir": folder / "aenet"}
    restoring = {"weights": folder / "prior.pt", **PRIOR_NETWORK, "output_dir": folder / "pseudo", "num_steps": 50}
    sizes = {"prior": {**PRIOR_TRAINING, **LONG}, "prior_network": PRIOR_NETWORK}
    d2r = {"output": folder / "d2r" / "out.tif", "workdir": folder / "work", "preset": "quick"}
    presets = {f"presets#quick#{name}": numbers for name, numbers in sizes.items()}
    cases: dict[str, Case] = {
        "inference": (
            "inference.yaml",
            {**volume, "output": folder / "out" / "fine.tif", "tile": 32, "halo": 0, "tta": "true"},
            partial(half_written, "out"),
            signal.SIGTERM,
        ),
        "train": (
            "train.yaml",
            {"volume": volume["volume"], **training},
            (folder / "aenet" / "checkpoint.pt").exists,
            signal.SIGUSR1,
        ),
        "generate": (
            "generate.yaml",
            {**volume, **restoring},
            (folder / "pseudo" / "unfinished" / "xz.json").exists,
            signal.SIGHUP,
        ),
        "d2r": (
            "d2r.yaml",
            {**volume, **d2r, **presets},
            (folder / "work" / "prior" / "checkpoint.pt").exists,
            signal.SIGTERM,
        ),
    }
    jobs = [partial(interrupt, *case) for case in cases.values()]
    return dict(zip(cases, side_by_side(jobs)))


@pytest.mark.parametrize(
    "job, number",
    [("inference", signal.SIGTERM), ("train", signal.SIGUSR1), ("generate", signal.SIGHUP), ("d2r", signal.SIGTERM)],
)
def test_signal_ends_a_run_in_one_line(stopped, job, number):
    answer = stopped[job]
    assert answer.status == 128 + number, answer.output
    assert answer.last_line == f"stopped by {number.name}; run the same command again to go on"
    assert "Traceback" not in answer.output and "terminating due to exception" not in answer.output


@pytest.mark.usefixtures("stopped")
def test_nothing_half_written_stays(folder):
    assert not (folder / "out").exists()  # made for the output, and empty
    finished = {file.name for name in ("aenet", "work") for file in (folder / name).rglob("*") if file.is_file()}
    kept = {name for name in finished if not name.startswith("events.out")}
    assert kept == {"checkpoint.pt", "provenance.json", "run.json"}
    assert list(folder.rglob("*partial*")) == []
    assert (
        not (folder / "pseudo" / "pseudo_hr.tif").exists() and (folder / "pseudo" / "unfinished" / "xz.json").exists()
    )
