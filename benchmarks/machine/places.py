# SPDX-License-Identifier: Apache-2.0
"""How fast the trainings are by where they keep the voxels: on the device, in memory, or on disk.

Trains stages I and III on a volume of noise, a second and a third epoch of each with each ``--keep_in``, in turns. Prints
a table and writes it and the numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from scripts.provenance import machine
from scripts.training.keep_volume import PLACES

from benchmarks.machine.speed import ROOT, synchronize
from benchmarks.template import fill

SIZES: dict[str, tuple[tuple[int, int, int], int, dict[str, Any], dict[str, Any]]] = {
    "cuda": ((640, 640, 640), 100, {}, {}),
    "cpu": (
        (512, 512, 512),
        8,
        {"width": 8, "batch_size": 16},
        {"widths": [4, 8, 16, 32], "strides": [2, 1, 2, 2, 1], "batch_size": 16},
    ),
    "toy": ((96, 96, 96), 2, {"width": 4, "patch_size": [64, 64]}, {"widths": [2, 2, 4, 4], "patch_size": [64, 64]}),
}
"""Voxels (x, y, z) of the volume, steps of an epoch, options of stage I and of stage III."""

TURNS = 3


def seconds_of_a_step(config: str, options: dict[str, Any], steps: int) -> tuple[float, float]:
    """Seconds of a step and of the processor for it, in the second epoch of a training."""
    options = {**options, "max_epochs": 2, "epoch_length": steps, "val_interval": 10}
    file = str(ROOT / "bundle" / "configs" / config)
    workflow = ConfigWorkflow(file, workflow_type=None, logging_file=False, **options)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    workflow.parser.get_parsed_content("train#dataset").read()
    marks: list[tuple[float, float]] = []

    def mark() -> None:
        synchronize()
        marks.append((time.perf_counter(), time.process_time()))

    for event in (Events.EPOCH_STARTED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, mark)
    trainer.run()
    wall, processor = ((end - begin) / steps for begin, end in zip(*marks[-2:]))
    return wall, processor


def measure(size: str) -> dict[str, Any]:
    """Both trainings from each place."""
    shape, steps, of_prior, of_network = SIZES[size]
    rows = []
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        volume, generator = Path(name) / "in.tif", np.random.default_rng(0)
        pages = (generator.integers(0, 256, shape[1::-1], dtype=np.uint8) for _ in range(shape[2]))
        tifffile.imwrite(volume, pages, shape=shape[::-1], dtype=np.uint8, bigtiff=True, metadata={"axes": "ZYX"})
        stages = {
            "stage I": ("train_diffusion.yaml", {"factor": 8, **of_prior}),
            "stage III": ("train.yaml", of_network),
        }
        for stage, (config, options) in stages.items():
            found: dict[str, list[tuple[float, float]]] = {place: [] for place in PLACES}
            for turn in range(TURNS):
                for place, times in found.items():
                    own = {"volume": str(volume), "keep_in": place, "output_dir": f"{name}/{stage}{turn}{place}"}
                    times.append(seconds_of_a_step(config, {**options, **own}, steps))
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
            for place, times in found.items():
                wall, processor = (statistics.median(each) for each in zip(*times))
                rows.append({"stage": stage, "place": place, "seconds": wall, "processor_seconds": processor})
    return {"machine": machine(), "torch": torch.__version__, "shape": list(shape), "rows": rows}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "places.json")
    arguments = parser.parse_args()
    result = measure(arguments.size)
    table = fill(Path(__file__).with_name("places.md.j2"), **result)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(table, encoding="utf-8")
    print(f"{table}\nwrote {arguments.output} and the table beside it")


if __name__ == "__main__":
    main()
