# SPDX-License-Identifier: Apache-2.0
"""How the training stages apply their networks: noise, restoration of slices, pseudo-HR volume, training sequences."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer
from tqdm import tqdm

from scripts import lattice, memory
from scripts.errors import InputError
from scripts.io.slice_store import SliceStore, read_checksums
from scripts.networks.finite import finite_output
from scripts.samplers import SAMPLERS, all_states, skipped_states
from scripts.sde import MeanRevertingSDE
from scripts.transforms.axial_interpolate import axial_interpolate


def autocast(tensor: torch.Tensor, amp: bool) -> AbstractContextManager:
    """Mixed precision on the device of ``tensor`` where ``amp`` is true."""
    # bfloat16 keeps single precision's range: no loss scaling, and the same code on CPU and CUDA.
    return torch.autocast(tensor.device.type, torch.bfloat16, enabled=amp)


MARGIN = 4
"""Voxels beyond an image, at the least, that are restored with it and cut off."""


class NoiseInferer(Inferer):
    """Stage I training: predicted noise of ``inputs`` (B, 2, H, W) at states t (B,).

    Args:
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable, t: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        with autocast(inputs, self.amp):
            return network(inputs, t).float()


class RestorationInferer(Inferer):
    """Stage II for images: samples the prior from interpolated images.

    Images are continued beyond their edges, and what the prior makes of that is cut off. A convolution pads with zeros, which are no
    part of an image: only a long training learns what to make of them, and the sampler amplifies its errors there. What a network
    appends by itself to reach a size that it can halve repeats the noise of the last row, which it has not learned either: here the
    continuation has noise of its own, and is as long as the network needs.

    Args:
        sde: the one the prior was trained with.
        sampler: "posterior" or "reverse_sde" (the paper's).
        evaluations: network evaluations; "reverse_sde" skips no state and needs all of them (100).
        stochastic: add noise along the way. Off, "posterior" is deterministic but for the start.
        seed: of the noise.
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(
        self,
        sde: MeanRevertingSDE,
        sampler: str = "posterior",
        evaluations: int = 8,
        stochastic: bool = False,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            raise InputError(f"--sampler {sampler}: there is none of that name; choose {' or '.join(SAMPLERS)}")
        if sampler == "reverse_sde" and evaluations != sde.steps:
            raise InputError(
                f"--evaluations {evaluations}: reverse_sde cannot skip states, give {sde.steps} or leave it out"
            )
        self.sde = sde
        self.sampler = SAMPLERS[sampler]
        self.states = all_states(sde) if sampler == "reverse_sde" else skipped_states(sde, evaluations)
        self.stochastic = stochastic
        self.seed = seed
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable, draw: int = 0) -> torch.Tensor:  # type: ignore[override]
        """``inputs``: mu (B, 1, H, W) in [0, 1] -> restored images of the same shape. ``draw`` numbers the noise."""
        generator = torch.Generator("cpu").manual_seed(self.seed * 1_000_003 + draw)

        def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            with autocast(x, self.amp):
                return network(x, t)

        height, width = inputs.shape[-2:]
        top, bottom, left, right = margins(height, width, getattr(network, "multiple", 1))
        with torch.no_grad():
            mu = F.pad(inputs, (left, right, top, bottom), mode="replicate")
            restored = self.sampler(self.sde, predict, mu, self.states, generator, self.stochastic)
        return restored[..., top : top + height, left : left + width]


def margins(height: int, width: int, multiple: int = 1) -> tuple[int, int, int, int]:
    """Voxels that an image is continued by at its top, bottom, left and right, so that both sides become multiples.

    The columns are where Z is. Recorded slices lie ``upsampling`` columns apart, beginning with the first of an image that the network
    was trained on: it knows them by their place among the squares of pixels that it halves the image by. So the continuation
    on the left is a whole number of those squares long.

    Args:
        height, width: of the image.
        multiple: side of the squares, ``ConditionalNAFNet.multiple``.
    """
    rows = lattice.padded_size(height + 2 * MARGIN, multiple) - height
    left = lattice.padded_size(MARGIN, multiple)
    right = lattice.padded_size(left + width + MARGIN, multiple) - left - width
    return rows // 2, rows - rows // 2, left, right


class PseudoVolumeInferer(Inferer):
    """Stage II for a volume (paper Eq. 4 and 5): restores all XZ and all YZ slices and averages the two.

    Finished slices are kept in ``progress_dir``, so that an interrupted run goes on where it stopped. They stay there until
    :meth:`forget` is called, which is when the result is safe.

    Args:
        restore: restores a batch of interpolated images.
        upsampling: k, how many times finer Z becomes; 1 returns the volume as it is and needs no prior.
        batch_size: slices per batch.
        progress_dir: folder for finished slices.
        settings: what the slices depend on, see :func:`scripts.settings.resolve`; a run with others is refused.
    """

    def __init__(
        self,
        restore: RestorationInferer,
        upsampling: float,
        batch_size: int,
        progress_dir: str | Path,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.restore = restore
        self.upsampling = float(upsampling)
        self.batch_size = batch_size
        self.progress_dir = Path(progress_dir)
        self.settings = settings or {}

    def __call__(self, inputs: torch.Tensor, network: Callable) -> torch.Tensor:  # type: ignore[override]
        """(1, 1, X, Y, K) in [0, 1] -> (1, 2, X, Y, Z): the pseudo-HR volume and |XZ - YZ|, on the CPU.

        Raises:
            InputError: the memory does not suffice, there is no room for finished slices, or those of another run are there.
        """
        check_volumes(inputs, one=True)
        volume = inputs[0, 0]
        if self.upsampling == 1:
            result = torch.stack([volume, torch.zeros_like(volume)])[None].cpu()
            return with_grid_of(result, inputs, 1.0)
        x, y, slices = volume.shape
        size = (x, y, lattice.output_size(slices, self.upsampling))
        check_memory(2 * math.prod(size), self.upsampling)
        # Plain tensors from here on: one batch of slices at a time is on the device.
        volume = torch.Tensor.as_subclass(volume, torch.Tensor)
        with self._store("xz", (y, x, size[2])) as of_xz, self._store("yz", size) as of_yz:
            total = len(of_xz.checksums) + len(of_yz.checksums)
            initial = total - len(of_xz.missing()) - len(of_yz.missing())
            with tqdm(total=total, initial=initial, desc="restoring XZ and YZ slices", unit="batch") as progress:
                self._restore_planes(volume.movedim(1, 0), of_xz, 0, network, inputs.device, progress)
                self._restore_planes(volume, of_yz, 1, network, inputs.device, progress)
            xz, yz = np.moveaxis(of_xz.read(), 0, 1), of_yz.read()
        result = torch.empty((1, 2, *size))
        for i in range(x):  # row by row: two float copies of the volume are enough
            a, b = torch.from_numpy(xz[i].astype(np.float32)), torch.from_numpy(yz[i].astype(np.float32))
            result[0, 0, i] = (a + b) / 2
            result[0, 1, i] = (a - b).abs()
        return with_grid_of(result, inputs, self.upsampling)

    def check_progress(self) -> None:
        """Check, before anything is written, that finished slices that are there belong to this run.

        Raises:
            InputError: they do not, or their record is damaged.
        """
        for name in ("xz", "yz"):
            read_checksums(self.progress_dir / f"{name}.json", self.settings)

    def restored_before(self, shape: tuple[int, int]) -> dict[str, int]:
        """How many slices of each orientation are there already, of a volume of shape (x, y).

        Raises:
            InputError: as :meth:`check_progress`.
        """
        done = {}
        for name, planes in (("xz", shape[1]), ("yz", shape[0])):
            checksums = read_checksums(self.progress_dir / f"{name}.json", self.settings)
            done[name] = min(planes, self.batch_size * sum(checksum is not None for checksum in checksums))
        return done

    def forget(self) -> None:
        """Remove the finished slices, once what was made of them is safe."""
        shutil.rmtree(self.progress_dir, ignore_errors=True)

    def _store(self, name: str, shape: tuple[int, int, int]) -> SliceStore:
        return SliceStore(self.progress_dir, name, shape, self.batch_size, self.settings)

    def _restore_planes(
        self,
        planes: torch.Tensor,
        store: SliceStore,
        orientation: int,
        network: Callable,
        device: torch.device,
        progress: tqdm,
    ) -> None:
        """Restore those of the planes (N, W, K) that the store lacks; ``orientation`` is 0 or 1."""
        waiting: tuple[int, torch.Tensor] | None = None  # a batch that the GPU works on while the one before is written

        def keep() -> None:
            nonlocal waiting
            if waiting is not None:
                (start, restored), waiting = waiting, None
                finite_output(restored, f"{'XZ' if orientation == 0 else 'YZ'} slices from {start} on")()
                store.keep(start, restored.cpu().numpy())
                progress.update()

        try:
            for start in store.missing():
                low = planes[start : start + self.batch_size].to(device)
                mu = axial_interpolate(low, self.upsampling)[:, None]
                draw = 2 * start + orientation  # the two orientations never share their noise
                restored = self._restore(mu, network, draw)[:, 0].half()
                keep()
                waiting = start, restored
                if device.type != "cuda":  # there it is finished, and a kill shall not take it away
                    keep()
        finally:  # when the run is interrupted as well
            keep()

    def _restore(self, mu: torch.Tensor, network: Callable, draw: int) -> torch.Tensor:
        try:
            return self.restore(mu, network, draw)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):  # of a GPU; of a CPU
                smaller = "give a smaller one" if self.batch_size > 1 else "cut the volume in X, Y or Z"
                raise InputError(
                    f"--batch_size {self.batch_size}: the memory does not suffice for {len(mu)} slices at once: {smaller}"
                ) from error
            raise


class SequenceInferer(Inferer):
    """Stage III training: encodes each slab once and decodes all its depths.

    Args:
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Any, depth: torch.Tensor, gap: torch.Tensor
    ) -> torch.Tensor:
        """Slabs (B, 1, H, W, 4), depth (B, D), gap (B,) -> slices (B, D, H, W)."""
        with autocast(inputs, self.amp):
            features = network.encode(inputs)
            slices = network.decode(features, depth.flatten(), gap.repeat_interleave(depth.shape[1]))
        return slices.float().view(*depth.shape, *slices.shape[-2:])


def check_volumes(inputs: torch.Tensor, one: bool = False) -> None:
    """Raise InputError unless ``inputs`` are volumes (B, C, X, Y, Z) of floats, of two slices or more; with ``one``, a single one (1, 1, X, Y, Z)."""
    if not isinstance(inputs, torch.Tensor):
        raise InputError(f"a tensor of volumes (B, C, X, Y, Z) is needed, not a {type(inputs).__name__}")
    shape = tuple(inputs.shape)
    if len(shape) != 5:
        missing = ", ".join(["None"] * (5 - len(shape)))
        advice = f": give a single volume as volume[{missing}]" if len(shape) in (3, 4) else ""
        raise InputError(f"volumes have the shape (B, C, X, Y, Z), not {shape}{advice}")
    if not inputs.is_floating_point():
        raise InputError(
            f"volumes are floats scaled to [0, 1], not {inputs.dtype}: scale them first, with ScalePercentiles for instance"
        )
    if 0 in shape or shape[-1] < 2:
        raise InputError(
            f"volumes (B, C, X, Y, Z) need voxels and at least 2 slices along Z, the last axis, but these are {shape}"
        )
    if one and shape[:2] != (1, 1):
        raise InputError(
            f"one volume of one channel (1, 1, X, Y, Z) is restored at a time, not {shape}: give each on its own"
        )


def check_memory(voxels: int, factor: float) -> None:
    """Raise InputError where a volume of single-precision ``voxels`` and its copy for the file exceed the free memory."""
    memory.check_memory(
        2 * 4 * voxels, f"--factor {factor:g}: the output would need", "give a lower --factor, or cut the volume"
    )


def with_grid_of(result: torch.Tensor, inputs: torch.Tensor, factor: float) -> torch.Tensor:
    """Give ``result`` the meta data of ``inputs`` with the axial voxel divided by ``factor``."""
    if not isinstance(inputs, MetaTensor):
        return result
    refined = MetaTensor(result).copy_meta_from(inputs)
    affine = torch.as_tensor(lattice.refined_affine(inputs.affine.cpu().numpy(), factor))
    refined.affine = affine
    return refined
