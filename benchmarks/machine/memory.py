# SPDX-License-Identifier: Apache-2.0
"""How much memory a reconstruction takes, and that it does not grow with the volume: ``make memory``.

Runs the command of ``inference.yaml`` on a volume of noise and on one 16 times larger, with the same tile, from TIFF to
TIFF and from OME-Zarr to OME-Zarr, and takes the largest resident set that the system saw of each process. Prints a
table and writes it and the numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.template import fill

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundle"


@dataclass(frozen=True)
class Sizes:
    """What is measured: ``side`` and ``slices`` of the smaller volume, how many times more slices the larger one has, whose
    sides are doubled, and ``widths`` of a network that is not the shipped one."""

    side: int
    slices: int
    deeper: int
    factor: float
    dtype: str
    tile: int
    halo: int
    shard: list[int]
    widths: list[int] | None = None


SIZES = {
    "cuda": Sizes(1024, 65, 4, 8, "uint8", 512, 64, [128, 512, 512]),
    "cpu": Sizes(512, 17, 4, 8, "uint8", 256, 64, [64, 256, 256], [2, 2, 4, 4]),
    "toy": Sizes(128, 8, 2, 12, "float32", 128, 32, [64, 64, 64], [2, 2, 4, 4]),
}


def write_noise(path: Path, side: int, slices: int, dtype: str) -> None:
    """A volume of noise, written slice by slice: what this process takes would count for those that it starts."""
    pages = (np.random.default_rng(i).integers(0, 256, (side, side)).astype(dtype) for i in range(slices))
    tifffile.imwrite(path, pages, shape=(slices, side, side), dtype=dtype, imagej=True, metadata={"axes": "ZYX"})


def run(options: dict[str, Any]) -> tuple[float, float]:
    """Reconstruct; returns seconds and the peak of the process's memory in bytes."""
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with tempfile.TemporaryFile() as printed:
        begin = time.perf_counter()
        process = subprocess.Popen(words, cwd=BUNDLE, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise SystemExit(printed.read().decode())
    return seconds, 1024.0 * usage.ru_maxrss


def measure(sizes: Sizes) -> dict[str, Any]:
    """Both volumes, and what they were measured on."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options: dict[str, Any] = {"factor": sizes.factor, "tile": sizes.tile, "halo": sizes.halo}
        if sizes.widths is not None:
            options.update(weights=folder / "model.pt")
            _save_untrained(sizes.widths, folder / "model.pt")
        for sides, depths in ((1, 1), (2, sizes.deeper)):
            side, slices = sides * sizes.side, depths * sizes.slices
            write_noise(folder / "in.tif", side, slices, sizes.dtype)
            _copy(folder / "in.tif", folder / "in.zarr")
            for name, source, target in (("TIFF", "in.tif", "out.ome.tif"), ("OME-Zarr", "in.zarr", "out.zarr")):
                files = {"volume": folder / source, "output": folder / target, "overwrite": "true"}
                if target.endswith(".zarr"):
                    files["shard"] = str(sizes.shard).replace(" ", "")
                seconds, peak = run({**options, **files})
                output = [side, side, int((slices - 1) * sizes.factor) + 1]
                rows.append(
                    {
                        "format": name,
                        "volume": [side, side, slices],
                        "output": output,
                        "output_bytes": math.prod(output) * np.dtype(sizes.dtype).itemsize,
                        "peak_bytes": peak,
                        "seconds": seconds,
                    }
                )
    rows.sort(key=lambda row: row["format"], reverse=True)
    # only now: torch is large
    import torch
    from scripts.provenance import machine

    return {"machine": machine(), "torch": torch.__version__, "sizes": asdict(sizes), "rows": rows}


def _save_untrained(widths: list[int], path: Path) -> None:
    """Weights of an untrained AENet of these widths, made by another process, for torch is large."""
    code = (
        "import sys; from scripts.networks.aenet import AENet; from scripts.networks.weights import save_weights; "
        f"save_weights(AENet({widths}, settings={{'percentiles': [0.1, 99.9], 'train_factors': [2, 12]}}), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=BUNDLE, check=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a volume to a store, by another process likewise."""
    code = (
        "import sys; from scripts.volumes.reading import open_volume; from scripts.volumes.writing import volume_writer\n"
        "with open_volume(sys.argv[1]) as source:\n"
        "    header = source.header\n"
        "    with volume_writer(sys.argv[2], header.shape, header.dtype, header.affine, header.unit, True) as writer:\n"
        "        for index in range(header.shape[2]):\n"
        "            writer.write(source.read(index)[:, :, None], 0, 0, index)"
    )
    subprocess.run([sys.executable, "-c", code, str(source), str(target)], cwd=BUNDLE, check=True)


def table(result: dict[str, Any]) -> str:
    """What :func:`measure` found, as Markdown."""
    return fill(Path(__file__).with_name("memory.md.j2"), **result)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="cpu", help="how large; cuda is for machines with a GPU")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "memory.json")
    arguments = parser.parse_args()
    result = measure(SIZES[arguments.size])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(f"{table(result)}\nwrote {arguments.output} and the table beside it")


if __name__ == "__main__":
    main()
