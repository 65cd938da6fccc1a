# SPDX-License-Identifier: Apache-2.0
"""How fast each stage is on this machine, beside what the machine can do and beside other ways: ``make speed``.

Every rate goes through the bundle's own configs and inferers, as a user's run does, on noise of the given size (speed
does not depend on the content). Prints a table and writes it, with the sizes, as JSON. Useful operations are those of
the convolutions as three-dimensional ones, without the products with zero that folding the planes adds, and in training
three times those of the forward pass; the bytes that must move are each convolution's input, output and weights, once,
as if everything between two convolutions were free.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts import lattice
from scripts.diffusion.restoration import RestorationInferer
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.networks.aenet import AENet
from scripts.networks.plane_conv import PLANES, PlaneConv, PlaneConvTranspose
from scripts.networks.srunet import SRUNet
from scripts.phantom import tissue
from scripts.provenance import machine
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.reconstruction.predictor import Predictor
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.reading import read_header
from torch import nn

from benchmarks.template import fill

ROOT = Path(__file__).resolve().parents[2]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
AMP = DEVICE.type == "cuda"
MAIN = "reconstruction x8, on the device"


@dataclass(frozen=True)
class Sizes:
    """What is measured: ``side`` and ``slices`` of the coarse volume, batches and patches of training, the preset of
    the whole of D2R."""

    side: int
    slices: int
    repeats: int
    prior_batch: int
    prior_patch: int
    restored: int
    sequences: int
    sequence_patch: int
    preset: str


SIZES = {
    "cuda": Sizes(520, 46, 5, 16, 256, 32, 16, 128, "standard"),
    "cpu": Sizes(256, 6, 2, 2, 128, 1, 4, 96, "quick"),
    "toy": Sizes(64, 14, 1, 1, 32, 1, 1, 32, "quick"),
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
    """Reset the peak memory of the GPU; that of main memory cannot be reset."""
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
    work, moved = cost(trainer.network, lambda: trainer.inferer(*inputs(trainer)))
    marks: list[float] = []

    def mark() -> None:
        synchronize()
        marks.append(time.perf_counter())

    for event in (Events.EPOCH_STARTED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, mark)
    trainer.run()
    step = (marks[-1] - marks[-2]) / steps
    return Row(what, each / step, unit, step, 3 * work, 3 * moved, peak_memory())


def inputs(trainer: Any) -> list[Any]:
    """What the trainer's inferer is called with."""
    batch = next(iter(trainer.data_loader))
    images, _, args, _ = trainer.prepare_batch(batch, DEVICE, False)
    return [images, trainer.network, *args]


def restoration(sizes: Sizes) -> list[Row]:
    """Stage II: one batch of slices of the coarse volume, eight evaluations each."""
    reset_memory()
    num_steps = 8
    network = section("generate.yaml", "network_def").to(DEVICE).eval()
    restore = RestorationInferer(MeanRevertingSDE(), num_steps=num_steps, amp=AMP)
    mu = torch.rand(sizes.restored, 1, sizes.side, lattice.output_size(sizes.slices, 8), device=DEVICE)
    with torch.no_grad():
        work, moved = cost(network, lambda: restore(mu, network))
    took = seconds(lambda: restore(mu, network), sizes.repeats)
    row = Row("stage II, 8 evaluations", mu.numel() / took, "voxel/s restored", took, work, moved, peak_memory())
    return [row, Row("stage II, network", num_steps * sizes.restored / took, "evaluations/s of a slice", took)]


def section(config: str, name: str, **options: Any) -> Any:
    """A section of one of the bundle's configs."""
    parser = ConfigParser(ConfigParser.load_config_file(ROOT / "bundle" / "configs" / config))
    parser.update({"volume": "", **options})
    return parser.get_parsed_content(name)


def reconstruction(sizes: Sizes, folder: Path) -> list[Row]:
    """Use, and what else one could run at x8.

    Args:
        sizes: of the volume.
        folder: that has it as ``coarse.tif``.
    """
    network = section("inference.yaml", "network_def").to(DEVICE).eval()
    volume = torch.rand(1, 1, sizes.side, sizes.side, sizes.slices, device=DEVICE)
    window, rows = volume[..., :4], []
    for factor in (4, 8, 6.5):
        rows += [
            on_the_device(network, window, factor, sizes.repeats),
            memory_to_memory(network, volume, factor, sizes.repeats),
        ]
    rows.append(file_to_file(network, folder, sizes))
    factors = torch.full((1,), 8.0, device=DEVICE)

    def encode_every_depth() -> None:
        with torch.no_grad():
            for i in range(1, 8):
                network(window, torch.full((1,), i / 8, device=DEVICE), factors)

    took = seconds(encode_every_depth, sizes.repeats)
    voxels = 8 * window[..., 0].numel()
    rows.append(Row("peer: AENet x8, encoding at every depth, eager fp32", voxels / took, "voxel/s", took))
    srunet = SRUNet(factor=8).to(DEVICE).eval()
    stack = volume[..., : 4 * sizes.repeats]
    with torch.no_grad():
        took = seconds(lambda: srunet.stack(stack), sizes.repeats)
    rows.append(Row("peer: SRUNet x8, eager fp32", 8 * stack.numel() / took, "voxel/s", took))
    took = seconds(lambda: axial_interpolate(volume, 8.0), sizes.repeats)
    voxels = sizes.side**2 * lattice.output_size(sizes.slices, 8)
    rows.append(Row("peer: aligned cubic interpolation x8, as a matrix product", voxels / took, "voxel/s", took))
    return rows


def on_the_device(network: AENet, window: torch.Tensor, factor: float, repeats: int) -> Row:
    """Windows made to slices, both on the device: what a large volume comes close to."""
    reset_memory()
    predict = Predictor(network, factor, DEVICE, 16, AMP)
    relative_depths = torch.tensor(
        [place.relative_depth for place in lattice.positions(2, factor) if 0 < place.relative_depth < 1], device=DEVICE
    )
    windows = window[0].expand(predict.windows, -1, -1, -1).contiguous()
    at = relative_depths.expand(predict.windows, -1).contiguous()
    took = seconds(lambda: predict(windows, at), 4 * repeats)
    with torch.no_grad():
        factors = torch.full_like(relative_depths, factor)
        work, moved = cost(network, lambda: network.decode(network.encode(window), relative_depths, factors))
    voxels = predict.windows * factor * window[..., 0].numel()
    what = f"reconstruction x{factor:g}, on the device"
    return Row(what, voxels / took, "voxel/s", took, predict.windows * work, predict.windows * moved, peak_memory())


def memory_to_memory(network: AENet, volume: torch.Tensor, factor: float, repeats: int) -> Row:
    """The whole volume by the inferer in single precision, its preparations included."""
    infer = AxialInferer(factor, amp=AMP)
    took = seconds(lambda: infer(volume, network), repeats)
    voxels = volume[..., 0].numel() * lattice.output_size(volume.shape[-1], factor)
    return Row(f"reconstruction x{factor:g}, memory to memory", voxels / took, "voxel/s", took)


def inference_workflow(network: nn.Module, source: Path, target: Path, **options: Any) -> ConfigWorkflow:
    """A reconstruction from file to file, as inference.yaml does it, still to be initialized."""
    return ConfigWorkflow(
        config_file=str(ROOT / "bundle" / "configs" / "inference.yaml"),
        workflow_type="infer",
        logging_file=False,
        network_def=network,
        network=network,
        device=DEVICE,
        amp=AMP,
        volume=str(source),
        output=str(target),
        overwrite=True,
        **options,
    )


def file_to_file(network: AENet, folder: Path, sizes: Sizes) -> Row:
    """An 8-bit TIFF to another."""
    output = folder / "result.tif"
    trained = {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}
    workflow = inference_workflow(network, folder / "coarse.tif", output, factor=8, trained=trained)
    workflow.initialize()

    def reconstruct() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            workflow.run()

    took = seconds(reconstruct, sizes.repeats)
    return Row("reconstruction x8, file to file", math.prod(read_header(output).shape) / took, "voxel/s", took)


def agreement(sizes: Sizes) -> dict[str, float]:
    """Difference in gray levels of an 8-bit reconstruction x8 with the shipped weights, as the inferer makes it here,
    from eager fp32."""
    coarse = tissue((sizes.side, sizes.side, 33), seed=0)[..., ::8]
    network = section("inference.yaml", "network").eval()
    windows = torch.from_numpy(coarse.astype(np.float32)).to(DEVICE)[None, None] / 255
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        exact = AxialInferer(8.0, amp=AMP)(windows, network)[0, 0]
        worst, total, count = 0.0, 0.0, 0
        factors = torch.full((1,), 8.0, device=DEVICE)
        for i in range(coarse.shape[-1] - 1):
            window = windows[..., lattice.window(i, coarse.shape[-1])]
            for j in range(1, 8):
                plain = network(window, torch.full((1,), j / 8, device=DEVICE), factors)[0, 0].cpu()
                gray = [(255 * values).round().clamp(0, 255) for values in (plain, exact[..., 8 * i + j])]
                difference = (gray[0] - gray[1]).abs()
                worst = max(worst, float(difference.max()))
                total, count = total + float(difference.sum()), count + difference.numel()
    torch.backends.cudnn.allow_tf32 = allowed
    return {"mean": total / count, "largest": worst}


def end_to_end(volume: Path, workdir: Path, preset: str) -> list[Row]:
    """The whole of D2R in one command from a cold start, and how long each stage of it took; its log stays in
    ``workdir``."""
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    options = {
        "volume": volume.resolve(),
        "output": workdir / "result.tif",
        "workdir": workdir / "work",
        "preset": preset,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/d2r.yaml", "--factor", "8"]
    path = workdir / "d2r.log"
    start = time.perf_counter()
    with path.open("w", encoding="utf-8") as log:
        subprocess.run([*command, *words], cwd=ROOT / "bundle", stdout=log, stderr=log, check=True)
    took = time.perf_counter() - start
    voxels = math.prod(read_header(workdir / "result.tif").shape)
    whole = Row(f"d2r.yaml --preset {preset}, cold start to written volume", voxels / took, "voxel/s", took)
    return [whole, *parts(path.read_text(encoding="utf-8"), voxels)]


def parts(log: str, voxels: int) -> list[Row]:
    """How long each stage took by the log of ``d2r.yaml``, and the steps of training in it.

    Args:
        log: with the progress bars; their clock shows whole seconds, so one more is counted.
        voxels: of the result.
    """
    rows = [
        Row(f"of that: {title}", voxels / float(seconds), "voxel/s", float(seconds))
        for seconds, title in re.findall(r"took ([0-9.]+) s: (.*)", log)
    ]
    bars = re.findall(r"(stage I+, [^:\r\n]*): 100%[^\r\n]* (\d+)/\2 \[(\d+):(\d+)<", log)
    clocks = {name: (int(steps), 60 * int(minutes) + int(seconds) + 1) for name, steps, minutes, seconds in bars}
    return rows + [
        Row(f"steps of {name}, validated and saved", steps / clock, "steps/s", clock)
        for name, (steps, clock) in clocks.items()
    ]


def table(result: dict[str, Any]) -> str:
    """What :func:`measure` found, as Markdown; shares are of the measured ceilings."""
    operations, bytes_ = result["ceilings"].values()
    rates = {row["what"]: row["rate"] for row in result["rows"]}
    networks = [name for name in rates if name.startswith("peer: ") and name.endswith("fp32")]
    return fill(
        Path(__file__).with_name("speed.md.j2"),
        machine=result["machine"],
        torch=result["torch"],
        type=result["type"].removeprefix("torch."),
        sizes=result["sizes"],
        operations=operations,
        bytes=bytes_,
        rows=[_cells(row, operations, bytes_) for row in result["rows"]],
        ratios=[f"{rates[MAIN] / rates[name]:.1f} times {name.removeprefix('peer: ')}" for name in networks],
        gray=result["gray levels from eager fp32"],
    )


def _cells(row: dict[str, Any], operations: float, bytes_: float) -> list[str]:
    """One row of the table; what was not measured is left empty."""
    shares = [
        f"{100 * value / row['seconds'] / ceiling:.1f} %" if value else ""
        for value, ceiling in ((row["work"], operations), (row["moved"], bytes_))
    ]
    work = f"{row['work'] / 1e12:.3g} TFLOP" if row["work"] else ""
    memory = f"{row['memory'] / 2**30:.2f} GiB" if row["memory"] else ""
    return [row["what"], f"{row['rate']:,.4g} {row['unit']}", f"{row['seconds']:.4g}", work, *shares, memory]


def measure(
    sizes: Sizes, toy: bool, volume: Path | None, workdir: Path, before: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows, the ceilings they are compared with, and what they were measured on: again and again, with more rows each
    time.

    Args:
        sizes: of what is measured.
        toy: whether it only matters that it runs.
        volume: coarse volume to run the whole of D2R on as well.
        workdir: of that run.
        before: what an earlier run on the same kind of machine has yielded last; its groups of rows are not measured
            again.
    """
    torch.manual_seed(0)
    place = {"machine": machine(), "torch": torch.__version__, "type": str(TYPE), "sizes": asdict(sizes)}
    result: dict[str, Any] = before
    if any(before.get(name) != value for name, value in place.items()):
        result = {**place, "ceilings": ceilings(toy), "groups": [], "rows": []}
    steps = 2 if toy else 60 if DEVICE.type == "cuda" else 5
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        noise = np.random.default_rng(0).integers(0, 256, (sizes.slices, sizes.side, sizes.side), dtype=np.uint8)
        # Stage III wants a depth of a patch at least; what it reads has the pseudo-HR volume's size.
        for file, array in (("coarse.tif", noise), ("fine.tif", np.repeat(noise, 8, 0))):
            tifffile.imwrite(folder / file, array, metadata={"axes": "ZYX"}, imagej=True)

        def stage_one(side: int) -> list[Row]:
            options: dict[str, Any] = {
                "volume": str(folder / "coarse.tif"),
                "factor": 8,
                "batch_size": sizes.prior_batch,
            }
            options.update(output_dir=str(folder / f"prior{side}"), patch_size=[side, side])
            what = f"stage I, training at {sizes.prior_batch} x {side} x {side}"
            return [training(what, "images/s", "train_diffusion.yaml", sizes.prior_batch, options, steps)]

        def stage_three(network: str, **own: int) -> list[Row]:
            side = sizes.sequence_patch
            options: dict[str, Any] = {
                "volume": str(folder / "fine.tif"),
                "batch_size": sizes.sequences,
                "architecture": network,
                **own,
            }
            options.update(output_dir=str(folder / network), patch_size=[side, side])
            what = f"stage III, training {network} at {sizes.sequences} x {side} x {side}"
            return [training(what, "windows/s", "train.yaml", sizes.sequences, options, steps)]

        groups: dict[str, Callable[[], list[Row]]] = {
            "reconstruction": lambda: reconstruction(sizes, folder),
            "stage I": lambda: stage_one(sizes.prior_patch),
            "stage I of the presets": lambda: stage_one(sizes.prior_patch * 3 // 4),
            "stage II": lambda: restoration(sizes),
            "stage III": lambda: stage_three("aenet"),
            "stage III of SRUNet": lambda: stage_three("srunet", factor=8, num_targets=7),
        }
        if volume is not None:
            groups["d2r"] = lambda: end_to_end(volume, workdir, sizes.preset)
        for name, group in groups.items():
            if name not in result["groups"]:
                result["rows"] += [asdict(row) for row in group()]
                result["groups"].append(name)
            if "gray levels from eager fp32" not in result:
                result["gray levels from eager fp32"] = agreement(sizes)
            yield result


def main() -> None:
    """Measure and write the result after each group of rows; a run that was cut short is continued by the next."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default=DEVICE.type, help="how large; default: what fits this machine")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "speed.json")
    parser.add_argument("--volume", type=Path, help="a volume coarse in Z, to time the whole of d2r.yaml on at x8 too")
    parser.add_argument(
        "--workdir", type=Path, default=ROOT / "runs" / "speed", help="of that run, which starts from scratch"
    )
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    toy, workdir = arguments.size == "toy", arguments.workdir.resolve()
    for result in measure(SIZES[arguments.size], toy, arguments.volume, workdir, before):
        arguments.output.write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
        arguments.output.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(f"{table(result)}\nwrote {arguments.output} and the table beside it")


if __name__ == "__main__":
    main()
