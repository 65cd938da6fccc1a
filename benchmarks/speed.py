# SPDX-License-Identifier: Apache-2.0
"""How fast each stage is on this machine, beside what the machine can do: ``make speed``.

Every rate goes through the bundle's own configs and inferers, as a user's run does, on noise of the given size (speed does not depend
on the content). Prints a table and writes it, with the sizes, as JSON. Useful operations are those of the convolutions as three-dimensional
ones, without the products with zero that folding the planes adds; the bytes that must move are each convolution's input, output and
weights, once, as if everything between two convolutions were free.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts import lattice  # noqa: E402
from scripts.inferers import RestorationInferer  # noqa: E402
from scripts.networks.aenet import AENet  # noqa: E402
from scripts.networks.nafnet import ConditionalNAFNet  # noqa: E402
from scripts.networks.plane_conv import PLANES, PlaneConv, PlaneConvTranspose  # noqa: E402
from scripts.reconstruction import AxialInferer  # noqa: E402
from scripts.sde import MeanRevertingSDE  # noqa: E402
from scripts.settings import machine  # noqa: E402
from scripts.transforms.axial_interpolate import axial_interpolate  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
AMP = DEVICE.type == "cuda"


@dataclass(frozen=True)
class Sizes:
    """What is measured; ``side`` and ``slices`` of the coarse volume, batches and patches of training."""

    side: int
    slices: int
    repeats: int
    prior_batch: int
    prior_patch: int
    restored: int
    sequences: int
    sequence_patch: int


SIZES = {
    "cuda": Sizes(520, 46, 5, 16, 256, 32, 16, 128),
    "cpu": Sizes(256, 6, 2, 2, 128, 1, 4, 96),
    "toy": Sizes(64, 14, 1, 1, 32, 1, 1, 32),
}


@dataclass
class Row:
    """One line of the table. ``work`` is useful operations and ``moved`` bytes in ``seconds``."""

    what: str
    rate: float
    unit: str
    seconds: float
    work: float = 0.0
    moved: float = 0.0
    memory: float = 0.0


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of ``call`` after one call to warm up."""
    call()
    synchronize()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def reset_memory() -> None:
    """Begin to count the GPU's peak anew; the peak of main memory cannot be."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """Bytes of the GPU since :func:`reset_memory`; without a GPU, of this process since it began."""
    if DEVICE.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ceilings(toy: bool) -> dict[str, float]:
    """Operations per second of a large matrix product and bytes per second of a large copy, read and written."""
    side = 8192 if DEVICE.type == "cuda" else 256 if toy else 2048
    a, b = (torch.randn(side, side, device=DEVICE, dtype=TYPE) for _ in range(2))
    source = torch.empty(2**31 if DEVICE.type == "cuda" else 2**24 if toy else 2**29, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    return {
        "matrix operations per second": 2.0 * side**3 / seconds(lambda: a @ b, 10),
        "bytes per second": 2.0 * source.numel() / seconds(lambda: target.copy_(source), 10),
    }


def cost(network: nn.Module, call: Callable[[], Any]) -> tuple[float, float]:
    """Useful operations and bytes that must move in the convolutions of ``network`` during ``call``."""
    total = [0.0, 0.0]

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        if isinstance(module, (PlaneConv, PlaneConvTranspose)):
            # pairs of planes that a kernel joins: one of three leaves the window at both ends
            joined = PLANES if weight.shape[2] == 1 else 3 * PLANES - 2
            places = (inputs[0] if isinstance(module, PlaneConvTranspose) else output)[:, :1].numel()
            products = places * joined * weight.numel() / weight.shape[2]
        else:
            products = output[:, :1].numel() * weight.numel()
        total[0] += 2.0 * products
        total[1] += (inputs[0].numel() + output.numel() + weight.numel()) * (2 if AMP else 4)

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)
    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    call()
    for hook in hooks:
        hook.remove()
    return total[0], total[1]


def training(what: str, unit: str, config: str, each: int, options: dict[str, Any], steps: int) -> Row:
    """Rate of a training config's second epoch."""
    reset_memory()
    options = {"max_epochs": 2, "epoch_length": steps, "val_interval": 10, **options}
    workflow = ConfigWorkflow(
        str(ROOT / "bundle" / "configs" / config), workflow_type=None, logging_file=False, **options
    )
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    workflow.parser.get_parsed_content("ema").attach(trainer)
    marks: list[float] = []

    def mark() -> None:
        synchronize()
        marks.append(time.perf_counter())

    for event in (Events.EPOCH_STARTED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, mark)
    trainer.run()
    step = (marks[-1] - marks[-2]) / steps
    return Row(what, each / step, unit, step, memory=peak_memory())


def restoration(sizes: Sizes) -> list[Row]:
    """Stage II: one batch of slices of the coarse volume, eight evaluations each."""
    reset_memory()
    evaluations = 8
    network = ConditionalNAFNet(32, (1, 1, 1, 1), 1, (1, 1, 1, 1)).to(DEVICE).eval()
    restore = RestorationInferer(MeanRevertingSDE(), evaluations=evaluations, amp=AMP)
    mu = torch.rand(sizes.restored, 1, sizes.side, 8 * (sizes.slices - 1) + 1, device=DEVICE)
    with torch.no_grad():
        work, moved = cost(network, lambda: restore(mu, network))
    took = seconds(lambda: restore(mu, network), sizes.repeats)
    row = Row("stage II, 8 evaluations", mu.numel() / took, "voxel/s restored", took, work, moved, peak_memory())
    return [row, Row("stage II, network", evaluations * sizes.restored / took, "evaluations/s of a slice", took)]


def reconstruction(sizes: Sizes) -> list[Row]:
    """Use: the whole volume by the inferer, and back to the CPU; and what else one could run at x8."""
    network = AENet((16, 32, 64, 128)).to(DEVICE).eval()
    volume = torch.rand(1, 1, sizes.side, sizes.side, sizes.slices, device=DEVICE)
    rows = []
    for factor in (4, 8, 6.5):
        reset_memory()
        infer = AxialInferer(factor, amp=AMP, progress=False)
        work, moved = cost(network, lambda: infer(volume, network))
        took = seconds(lambda: infer(volume, network), sizes.repeats)
        voxels = sizes.side**2 * lattice.output_size(sizes.slices, factor)
        rows.append(Row(f"reconstruction x{factor:g}", voxels / took, "voxel/s", took, work, moved, peak_memory()))
    slab = volume[..., :4]
    gap = torch.full((1,), 8.0, device=DEVICE)

    def encode_every_depth() -> None:
        with torch.no_grad():
            for i in range(1, 8):
                network(slab, torch.full((1,), i / 8, device=DEVICE), gap)

    took = seconds(encode_every_depth, sizes.repeats)
    rows.append(
        Row(
            "peer: AENet x8, encoding at every depth, single precision",
            8 * slab[..., 0].numel() / took,
            "voxel/s",
            took,
        )
    )
    took = seconds(lambda: axial_interpolate(volume, 8.0), sizes.repeats)
    voxels = sizes.side**2 * lattice.output_size(sizes.slices, 8)
    rows.append(Row("peer: aligned cubic interpolation x8, as a matrix product", voxels / took, "voxel/s", took))
    return rows


def table(result: dict[str, Any]) -> str:
    """What :func:`measure` found, as Markdown; shares are of the measured ceilings."""
    operations, bytes_ = result["ceilings"].values()
    sizes = result["sizes"]
    lines = [
        f"{result['machine']}, torch {result['torch']}, {result['type'].removeprefix('torch.')}; volume {sizes['side']} x {sizes['side']} x "
        f"{sizes['slices']}; a matrix product runs at {operations / 1e12:.3g} TFLOP/s and a copy at {bytes_ / 1e9:.3g} GB/s.",
        "",
        "| | rate | seconds | share of the matrix rate | share of the bandwidth | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        shares = [
            f"{100 * value / row['seconds'] / ceiling:.1f} %" if value else ""
            for value, ceiling in ((row["work"], operations), (row["moved"], bytes_))
        ]
        memory = f"{row['memory'] / 2**30:.2f} GiB" if row["memory"] else ""
        rate = f"{row['rate']:,.4g} {row['unit']}"
        lines.append(f"| {row['what']} | {rate} | {row['seconds']:.4g} | {shares[0]} | {shares[1]} | {memory} |")
    return "\n".join(lines)


def measure(sizes: Sizes, toy: bool) -> dict[str, Any]:
    """All rows, the ceilings they are compared with, and what they were measured on."""
    torch.manual_seed(0)
    machine_can = ceilings(toy)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0).integers(0, 256, (sizes.slices, sizes.side, sizes.side), dtype=np.uint8)
        # Stage III wants a depth of a patch at least; what it reads has the pseudo-HR volume's size.
        fine = np.repeat(noise, 8, 0)
        for file, array in (("coarse.tif", noise), ("fine.tif", fine)):
            tifffile.imwrite(folder / file, array, metadata={"axes": "ZYX"}, imagej=True)
        steps = 2 if toy else 40 if DEVICE.type == "cuda" else 5
        rows = [
            training(
                "stage I, training",
                "images/s",
                "train_diffusion.yaml",
                sizes.prior_batch,
                {
                    "volume": str(folder / "coarse.tif"),
                    "factor": 8,
                    "output_dir": str(folder / "prior"),
                    "batch_size": sizes.prior_batch,
                    "patch_size": [sizes.prior_patch] * 2,
                },
                steps,
            ),
            *restoration(sizes),
            training(
                "stage III, training",
                "windows/s",
                "train.yaml",
                sizes.sequences,
                {
                    "volume": str(folder / "fine.tif"),
                    "output_dir": str(folder / "aenet"),
                    "batch_size": sizes.sequences,
                    "patch_size": [sizes.sequence_patch] * 2,
                },
                steps,
            ),
            *reconstruction(sizes),
        ]
    return {
        "machine": machine(),
        "torch": torch.__version__,
        "type": str(TYPE),
        "sizes": asdict(sizes),
        "ceilings": machine_can,
        "rows": [asdict(row) for row in rows],
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default=DEVICE.type, help="how large; default: what fits this machine")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "speed.json")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    result = measure(SIZES[arguments.size], arguments.size == "toy")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(table(result) + "\n", encoding="utf-8")
    print(f"{table(result)}\n\nwrote {arguments.output} and the table beside it")


if __name__ == "__main__":
    main()
