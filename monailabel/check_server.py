# SPDX-License-Identifier: Apache-2.0
"""Starts a MONAI Label server with the bundle, checks what it answers, a line each, and stops it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import itk
import numpy as np
import requests
import torch
from monai.data import MetaTensor
from slicer_client import reconstruct
from start_server import ROOT

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "bundle"))

from scripts import lattice
from scripts.evaluation.plane_scores import best_baseline, plane_scores
from scripts.phantom import tissue
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.writing import write_volume

PATIENCE = 300  # seconds for the server to start, and for a batch
MODEL = "d2r"
FACTOR = 8
SPACING = (0.01, 0.01, 0.08)  # of the volume sent
ORIGIN = (1.0, -2.0, 3.0)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Address of a server of this machine alone, which is stopped at the end whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(ROOT / "monailabel" / "start_server.py"), "--port", str(port)]
    words += ["--studies", str(folder / "studies"), "--app", str(folder / "app")]
    log = folder / "server.log"
    with open(log, "wb") as sink:
        process = subprocess.Popen(words, cwd=folder, stdout=sink, stderr=subprocess.STDOUT)
        try:
            server = f"http://127.0.0.1:{port}"
            wait_for(server, process)
            yield server
        except Exception:
            sink.flush()
            print(log.read_text(errors="replace")[-6000:], file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(server: str, process: subprocess.Popen) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            requests.get(f"{server}/info/", timeout=30).raise_for_status()
            return
        except requests.ConnectionError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start within {PATIENCE} s")


def expect(what: str, found: object, expected: object) -> None:
    """Raise RuntimeError unless what came back is what was to be expected."""
    if not np.array_equal(np.asarray(found), np.asarray(expected)) and not (
        np.asarray(found).dtype.kind == "f" and np.allclose(np.asarray(found), np.asarray(expected), rtol=1e-5)
    ):
        raise RuntimeError(f"{what}: {found}, expected {expected}")


def read(path: str, dtype: str, slices: int, factor: float) -> np.ndarray:
    """Voxels (x, y, z) of a result, whose type and grid are checked."""
    image = itk.imread(path)
    array = itk.array_from_image(image).transpose(2, 1, 0)
    expect("voxel type", array.dtype.name, dtype)
    expect("slices", array.shape[2], lattice.output_size(slices, factor))
    expect("voxel size", list(image.GetSpacing()), [SPACING[0], SPACING[1], SPACING[2] / factor])
    # NIfTI is written for right, anterior, superior; ITK speaks of left, posterior, superior
    expect("first voxel", list(image.GetOrigin()), [-ORIGIN[0], -ORIGIN[1], ORIGIN[2]])
    return array


def write_sample(voxels: np.ndarray, volume: Path) -> None:
    """Write a volume, which is not at the origin."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    meta = {"unit": "millimeter", "dtype": voxels.dtype.name}
    array = torch.from_numpy(voxels[None].astype(np.float32))
    write_volume(MetaTensor(array, affine=torch.from_numpy(affine), meta=meta), str(volume))


def shape(array: np.ndarray) -> str:
    """As text."""
    return " x ".join(str(side) for side in array.shape)


def check_offer(server: str) -> str:
    """What the server says of the model."""
    info = requests.get(f"{server}/info/", timeout=30).json()
    model = info["models"][MODEL]
    expect("models", list(info["models"]), [MODEL])
    expect("type", model["type"], "others")
    expect("labels", [*model["labels"], *info["labels"]], [])
    offered = {name: value for name, value in model["config"].items() if name != "device"}
    if offered != {"factor": None, "input_slices": ["copy", "predict"]}:
        raise RuntimeError(f"options: {offered}")
    return f"model {MODEL} of type {model['type']}, without labels, with the options {' and '.join(offered)}"


def check_reconstruction(server: str, volume: Path, truth: np.ndarray) -> str:
    """The way of ``slicer_client.py``, as fine as XY."""
    lowres, result_file = truth[:, :, ::FACTOR], volume.with_name("isotropic.nii.gz")
    begin = time.monotonic()
    result = read(reconstruct(str(volume), str(result_file), server=server), "float32", lowres.shape[2], FACTOR)
    took = time.monotonic() - begin
    expect("in-plane shape", result.shape[:2], truth.shape[:2])
    expect("original slices", result[:, :, ::FACTOR], lowres.astype(np.float32))
    low = torch.from_numpy(lowres.astype(np.float32))
    images = {mode: axial_interpolate(low, FACTOR, mode).numpy().clip(0, 255) for mode in ("linear", "cubic")}
    scores = {mode: plane_scores(image, truth, FACTOR) for mode, image in images.items()}
    baseline = best_baseline(scores)["psnr"]["xz"]
    psnr = plane_scores(result, truth, FACTOR)["psnr"]["xz"]
    if psnr <= baseline:
        raise RuntimeError(f"PSNR in XZ {psnr:.2f} dB is not above that of interpolation, {baseline:.2f} dB")
    return (
        f"{shape(lowres)} -> {shape(result)} voxels of {SPACING[0]:g} in {took:.1f} s, PSNR in XZ {psnr:.2f} dB "
        f"(interpolation {baseline:.2f})"
    )


def check_options(server: str, volume: Path, lowres: np.ndarray) -> str:
    """Another factor, another voxel type, and predicted input slices."""

    def stored(name: str, **options: Any) -> np.ndarray:
        file = reconstruct(str(volume), str(volume.with_name(name)), 2.5, "uint8", server, **options)
        return read(file, "uint8", lowres.shape[2], 2.5)

    copied, predicted = stored("copied.nrrd"), stored("predicted.nrrd", input_slices="predict")
    expect("original slices at x2.5", copied[:, :, ::5], lowres[:, :, ::2])
    if np.array_equal(predicted[:, :, ::5], copied[:, :, ::5]):
        raise RuntimeError("input_slices predict gives copies")
    return f"factor 2.5 -> {shape(copied)} uint8, copied; input_slices predict -> other input slices"


def check_refusals(server: str, volume: Path) -> str:
    """What cannot be done is answered with the reason, and never with "Internal Server Error"."""
    damaged = volume.with_name("damaged.nii.gz")
    damaged.write_bytes(volume.read_bytes()[: volume.stat().st_size // 2])
    bright = volume.with_name("bright.nii.gz")
    write_sample(np.arange(512, dtype=np.uint16).reshape(16, 16, 2), bright)
    told = []

    def refused(reason: str, params: str = "{}", status: int = 400, file: Path | None = volume, **more: str) -> None:
        model, query = more.pop("model", MODEL), {"output": "image", **more}
        files = {"file": (file.name, file.read_bytes())} if file else None
        tell(reason, status, f"/infer/{model}", params=query, data={"params": params}, files=files)

    def tell(reason: str, status: int, path: str, **request: Any) -> None:
        answer = requests.post(f"{server}{path}", timeout=PATIENCE, **request)
        if answer.status_code != status or reason not in answer.json()["detail"]:
            raise RuntimeError(f"{path} {request}: {answer.status_code} {answer.text}, expected {status} {reason}")
        told.append(f"  {path.split('/')[1]}: {status} {answer.json()['detail']}")

    wrong = {
        '{"factor": "abc"}': "factor abc: give a number above 1",
        '{"factor": -1}': "factor -1: give a number above 1",
        '{"input_slices": "x"}': "input_slices x: there is none of that name; choose copy or predict",
        '{"factr": 8}': "factr: there is no such parameter; there are factor",
        '{"kept_slices": "original"}': "kept_slices is now input_slices",
        '{"device": "cuda:99"}': "device cuda:99:",
        '{"result_dtype": "float8"}': "result_dtype float8:",
        '{"factor": 8': "params: are no JSON",
        "[8]": "params [8]: give a JSON object",
    }
    for params, reason in wrong.items():
        refused(reason, params)
        tell(reason, 400, f"/batch/infer/{MODEL}", data=params)
    refused("is no field of the query", factor="8")
    refused("no volume", file=None)
    refused("image nothing: the server has none", status=404, file=None, image="nothing")
    refused("there is no such model; there is d2r", status=404, model="d3r")
    refused("the volume: cannot be read", file=damaged)
    refused("result_dtype uint8: does not hold the values", '{"result_dtype": "uint8", "factor": 2}', file=bright)
    return "\n".join([f"{len(told)}, each with its reason", *told])


def check_batch(server: str, volume: Path, slices: int) -> str:
    """A batch over the server's folder, which another process works on; then one with a damaged volume."""
    studies = volume.with_name("studies")

    def batch(**params: Any) -> dict:
        requests.post(f"{server}/batch/infer/{MODEL}", json=params or None, timeout=30).raise_for_status()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            task = requests.get(f"{server}/batch/infer", timeout=30).json()
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(0.5)
        raise RuntimeError(f"the batch did not end within {PATIENCE} s")

    result = studies / "labels" / "original" / volume.name
    task = batch()
    expect("\n".join(["batch", *task["details"]]), task["status"], "DONE")
    read(str(result), "float32", slices, FACTOR)
    result.unlink()
    (studies / "a_damaged.nii.gz").write_bytes(volume.with_name("damaged.nii.gz").read_bytes())
    task = batch(factor=2)
    expect("\n".join(["batch with a damaged volume", *task["details"]]), task["status"], "ERROR")
    read(str(result), "float32", slices, 2)
    reason = next((line for line in task["details"] if line.startswith("fastapi.") and "a_damaged: " in line), None)
    if reason is None:
        raise RuntimeError("\n".join(["a batch with a damaged volume does not name it", *task["details"]]))
    return f"{volume.name} reconstructed; beside a damaged one, too, with the reason: {reason}"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the server would outlive this process
    begin = time.monotonic()
    truth = tissue((64, 64, 4 * FACTOR + 1))
    part = truth[:32, :32, : 2 * FACTOR + 1 : FACTOR]  # where a score would say nothing
    with tempfile.TemporaryDirectory() as name:
        volume, small = Path(name) / "volume.nii.gz", Path(name) / "small.nii.gz"
        write_sample(truth[:, :, ::FACTOR], volume)
        write_sample(part, small)
        (Path(name) / "studies").mkdir()
        shutil.copy(small, Path(name) / "studies")
        with serving(Path(name)) as server:
            checks: dict[str, Callable[[], str]] = {
                "offer": lambda: check_offer(server),
                "reconstruction": lambda: check_reconstruction(server, volume, truth),
                "options": lambda: check_options(server, small, part),
                "refusals": lambda: check_refusals(server, small),
                "batch": lambda: check_batch(server, small, part.shape[2]),
            }
            for check, run in checks.items():
                print(f"{check}: {run()}", flush=True)
    print(f"MONAI Label: all right; server stopped; {time.monotonic() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
