# SPDX-License-Identifier: Apache-2.0
"""How fast large volumes go from file to file, format by format, and where the time goes: ``make files``.

Runs ``inference.yaml`` on tissue from the bundle's phantom, repeated to a large volume, with the shipped weights, and
compares the rate with the network's own, on windows that are on the device already. Writes a table and the numbers as
JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from ignite.engine import Events
from scripts import lattice
from scripts.phantom import tissue
from scripts.provenance import machine
from scripts.reconstruction import outputs
from scripts.transforms import scale_intensity
from scripts.volumes import identity
from scripts.volumes.formats.ome_zarr_writer import OmeZarrStore, check_layout

from benchmarks.machine.speed import DEVICE, ROOT, TYPE, inference_workflow, on_the_device, section
from benchmarks.template import fill

FACTOR = 8
SIZES = {"cuda": (1024, 1024, 513), "cpu": (256, 256, 9), "toy": (96, 96, 5)}
"""Voxels (x, y, slices) of the coarse volume."""
RUNS = 3


class Clock:
    """Seconds by what they went to."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, call: Callable) -> Callable:
        """The same function, whose time counts for ``name``."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            self.start(name)
            try:
                return call(*args, **kwargs)
            finally:
                self.stop(name)

        return measured

    def start(self, name: str) -> None:
        """From here on time counts for ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) - time.perf_counter()

    def stop(self, name: str) -> None:
        """Up to here time counted for ``name``."""
        self.seconds[name] += time.perf_counter()


def write_tissue(folder: Path, shape: tuple[int, int, int]) -> dict[str, Path]:
    """A volume of 8 bits as TIFF and as OME-Zarr of two compressions; noise keeps copies of one part from being alike."""
    x, y, slices = shape
    part = np.asarray(tissue((128, 128, 64), seed=0), np.int16)
    paths = {"TIFF": folder / "coarse.tif"}
    affine = np.diag([4.0, 4.0, 4.0 * FACTOR, 1.0])
    stores = {}
    for compression in ("zstd", "blosc"):
        paths[f"OME-Zarr, {compression}"] = path = folder / f"coarse_{compression}.zarr"
        layout = check_layout(compression=compression, shard=[64, 1024, 1024])
        stores[compression] = OmeZarrStore(path, shape, np.dtype(np.uint8), affine, "nanometer", layout)
        stores[compression].create()
    pages = tifffile.memmap(paths["TIFF"], shape=(slices, y, x), dtype=np.uint8, imagej=True, metadata={"axes": "ZYX"})
    random = np.random.default_rng(0)
    for box in stores["zstd"].boxes(0):
        tiled = np.tile(part, [-(-size // side) for size, side in zip(box.sizes, part.shape, strict=True)])
        voxels = tiled[tuple(slice(size) for size in box.sizes)] + random.integers(-3, 4, box.sizes, np.int16)
        voxels = voxels.clip(0, 255).astype(np.uint8)
        pages[box.slices[::-1]] = voxels.transpose(2, 1, 0)
        for store in stores.values():
            store.write(box, voxels)
    pages.flush()
    return paths


def file_to_file(network: torch.nn.Module, source: Path, target: Path, clock: Clock, **options: Any) -> float:
    """Seconds from the parsed config to the output under its name."""
    workflow = inference_workflow(network, source, target, factor=FACTOR, **options)
    begin = time.perf_counter()
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("evaluator")
    evaluator.add_event_handler(Events.GET_BATCH_STARTED, lambda: clock.start("waiting for the next block"))
    evaluator.add_event_handler(Events.GET_BATCH_COMPLETED, lambda: clock.stop("waiting for the next block"))
    with contextlib.redirect_stdout(io.StringIO()):
        workflow.run()
    return time.perf_counter() - begin


def measure(shape: tuple[int, int, int], folder: Path) -> dict[str, Any]:
    """Rates of each format, and of the network alone."""
    network = section("inference.yaml", "network").to(DEVICE).eval()
    x, y, slices = shape
    voxels = x * y * lattice.output_size(slices, FACTOR)
    side = min(520, x)
    alone = on_the_device(network, torch.rand(1, 1, side, side, 4, device=DEVICE), FACTOR, 2).rate
    paths = write_tissue(folder, shape)
    rows = []
    for name, source in paths.items():
        suffix = ".tif" if name == "TIFF" else ".zarr"
        compression = {} if name == "TIFF" else {"compression": name.split()[-1]}
        runs: list[dict[str, Any]] = []
        for number in range(RUNS + 1):
            _forget(folder)
            clock = Clock()
            with _timed(clock):
                took = file_to_file(network, source, folder / f"fine{suffix}", clock, **compression)
            if number:  # the first one loads libraries
                runs.append({"what": name, "seconds": took, "rate": voxels / took, "parts": clock.seconds})
        rows.append(sorted(runs, key=lambda run: run["seconds"])[RUNS // 2])
    _forget(folder)
    kind = {"machine": machine(), "torch": torch.__version__, "type": str(TYPE)}
    return {**kind, "shape": list(shape), "voxels": voxels, "alone": alone, "rows": rows}


def _forget(folder: Path) -> None:
    """Let the next run begin as in a new process: without an output to replace, and without what is known of a volume."""
    shutil.rmtree(folder / "fine.zarr", ignore_errors=True)
    (folder / "fine.tif").unlink(missing_ok=True)
    for known in (identity._digests, scale_intensity._measured):
        known.clear()


@contextlib.contextmanager
def _timed(clock: Clock) -> Any:
    """Time the parts of a run that the main thread waits for."""
    kept = [
        (owner, name, getattr(owner, name))
        for owner in (outputs.FileOutput, outputs.StoreOutput)
        for name in ("write", "close")
    ]
    words = {"write": "waiting for blocks to be written", "close": "the end of the writing, with the pyramid"}
    for owner, name, method in kept:
        setattr(owner, name, clock.timed(words[name], method))
    try:
        yield
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


def table(result: dict[str, Any]) -> str:
    """What :func:`measure` found, as Markdown."""
    rows = [
        [
            f"{row['what']} to {row['what']}",
            f"{row['rate'] / 1e6:.4g}",
            f"{100 * row['rate'] / result['alone']:.3g} %",
            f"{row['seconds']:.4g}",
            "; ".join(f"{name} {seconds:.3g} s" for name, seconds in row["parts"].items()),
        ]
        for row in result["rows"]
    ]
    return fill(Path(__file__).with_name("files.md.j2"), **{**result, "rows": rows})


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default=DEVICE.type, help="how large; default: what fits this machine")
    parser.add_argument("--folder", type=Path, help="where the volumes are made; default: a temporary folder")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "files.json")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(SIZES[arguments.size], Path(folder))
    arguments.output.write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(f"{table(result)}\nwrote {arguments.output} and the table beside it")


if __name__ == "__main__":
    main()
