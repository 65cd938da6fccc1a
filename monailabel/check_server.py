# SPDX-License-Identifier: Apache-2.0
"""Starts a MONAI Label server with the bundle, has it reconstruct synthetic tissue, checks the answers and stops it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import itk
import numpy as np
import requests
import torch
from monai.data import MetaTensor
from slicer_client import reconstruct
from start_server import MODEL, ROOT

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "bundle"))

from scripts import lattice
from scripts.evaluation.plane_scores import best_baseline, plane_scores
from scripts.phantom import tissue
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.writing import write_volume

PATIENCE = 300  # seconds for the server to start
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
    words += ["--studies", str(folder / "studies"), "--app", str(folder)]
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
    """Wait until the server offers the model with its option."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            models = requests.get(f"{server}/info/", timeout=30).json()["models"]
        except requests.ConnectionError:
            time.sleep(0.5)
            continue
        if "factor" not in models[MODEL]["config"]:
            raise RuntimeError(f"the server offers no option factor: {models[MODEL]['config']}")
        return
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


def check(server: str, folder: Path) -> str:
    """Have a volume reconstructed in the ways that clients use; return a line about it."""
    truth = tissue((96, 96, 8 * FACTOR + 1))
    lowres = truth[:, :, ::FACTOR]
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    meta = {"unit": "millimeter", "dtype": "uint8"}
    volume = str(folder / "volume.nii.gz")
    write_volume(
        MetaTensor(torch.from_numpy(lowres[None].astype(np.float32)), affine=torch.from_numpy(affine), meta=meta),
        volume,
    )

    begin = time.monotonic()
    result = read(
        reconstruct(volume, str(folder / "isotropic.nii.gz"), server=server), "float32", lowres.shape[2], FACTOR
    )
    took = time.monotonic() - begin
    expect("in-plane shape", result.shape[:2], truth.shape[:2])
    expect("original slices", result[:, :, ::FACTOR], lowres.astype(np.float32))
    stored = reconstruct(volume, str(folder / "factor.nrrd"), 2.5, "uint8", server)
    other = read(stored, "uint8", lowres.shape[2], 2.5)
    expect("original slices at x2.5", other[:, :, ::5], lowres[:, :, ::2])
    try:
        reconstruct(volume, str(folder / "wrong.nrrd"), 0.5, server=server)
    except RuntimeError:
        pass
    else:
        raise RuntimeError("the server took a factor of 0.5")

    low = torch.from_numpy(lowres.astype(np.float32))
    images = {mode: axial_interpolate(low, FACTOR, mode).numpy().clip(0, 255) for mode in ("linear", "cubic")}
    scores = {mode: plane_scores(image, truth, FACTOR) for mode, image in images.items()}
    baseline = best_baseline(scores)["psnr"]["xz"]
    psnr = plane_scores(result, truth, FACTOR)["psnr"]["xz"]
    if psnr <= baseline:
        raise RuntimeError(f"PSNR in XZ {psnr:.2f} dB is not above that of interpolation, {baseline:.2f} dB")

    def size(array: np.ndarray) -> str:
        return " x ".join(str(side) for side in array.shape)

    return (
        f"{size(lowres)} -> {size(result)} voxels of {SPACING[0]:g} in {took:.1f} s, PSNR in XZ {psnr:.2f} dB "
        f"(interpolation {baseline:.2f}); factor 2.5 -> {size(other)} uint8"
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the server would outlive this process
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(folder) as server:
            line = check(server, folder)
    print(f"MONAI Label: {line}; server stopped; {time.monotonic() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
