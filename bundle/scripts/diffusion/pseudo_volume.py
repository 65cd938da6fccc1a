# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Stage II: the XZ and YZ slices of a volume restored and averaged into a pseudo-HR volume."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from scripts.diffusion.restoration import RestorationInferer
from scripts.diffusion.room import check_restoration_memory, restored_shape, slices_at_once
from scripts.diffusion.slice_store import SliceStore, read_checksums, read_slices
from scripts.diffusion.strips import StripDataset, strip_of
from scripts.errors import InputError, memory_shortage
from scripts.networks.finite import finite_output
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.batches import check_volumes, with_grid_of
from tqdm import tqdm


class PseudoVolumeInferer(Inferer):
    """Stage II for a volume (paper Eq. 4 and 5): restores all XZ and all YZ slices and averages the two.

    Finished slices are kept in ``progress_dir``, so that an interrupted run goes on where it stopped. They stay there
    until :meth:`forget` is called, which is when the result is safe.

    Args:
        restore: restores a batch of interpolated images.
        prior_factor: k, how many times finer Z becomes; 1 returns the volume as it is and needs no prior.
        batch_size: slices per batch.
        progress_dir: folder for finished slices.
        resume_must_match: what the slices depend on, see :func:`scripts.provenance.resolve`; a run with something else is
            refused.
    """

    def __init__(
        self,
        restore: RestorationInferer,
        prior_factor: float,
        batch_size: int,
        progress_dir: str | Path,
        resume_must_match: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.restore = restore
        self.prior_factor = float(prior_factor)
        self.batch_size = batch_size
        self.progress_dir = Path(progress_dir)
        self.resume_must_match = resume_must_match or {}

    def __call__(self, inputs: torch.Tensor, network: Callable) -> torch.Tensor:  # type: ignore[override]
        """(1, 1, X, Y, K) in [0, 1] -> (1, 2, X, Y, Z): the pseudo-HR volume and |XZ - YZ|, on the CPU.

        Of a strip (:class:`scripts.diffusion.strips.StripDataset`) it is that strip; all slices of the volume have been
        restored before, by :meth:`restore_slices`.

        Raises:
            InputError: memory does not suffice, finished slices have no room, or those of another run are there.
        """
        check_volumes(inputs, one=True)
        volume, rows = inputs[0, 0], strip_of(inputs)
        if self.prior_factor == 1:
            result = torch.stack([volume, torch.zeros_like(volume)])[None].cpu()
            return with_grid_of(result, inputs, 1.0)
        if rows is None:
            check_restoration_memory(volume.shape, self.prior_factor, whole=True)
            # Plain tensors from here on: one batch of slices at a time is on the device.
            voxels, rows = torch.Tensor.as_subclass(volume, torch.Tensor), slice(0, volume.shape[1])
            self.restore_slices(volume.shape, lambda x, y, z: voxels[x, y, z], network, inputs.device)
        across = slice(0, volume.shape[0])
        xz = np.moveaxis(read_slices(self.progress_dir, "xz", rows, across), 0, 1)
        yz = read_slices(self.progress_dir, "yz", across, rows)
        result = torch.empty((1, 2, *xz.shape))
        for i in range(len(xz)):  # row by row: two float copies of the volume are enough
            a, b = torch.from_numpy(xz[i].astype(np.float32)), torch.from_numpy(yz[i].astype(np.float32))
            result[0, 0, i] = (a + b) / 2
            result[0, 1, i] = (a - b).abs()
        return with_grid_of(result, inputs, self.prior_factor)

    def restore_slices(
        self,
        shape: Sequence[int],
        read: Callable[[slice, slice, slice], torch.Tensor],
        network: Callable,
        device: torch.device,
    ) -> None:
        """Restore those slices of a volume that are not finished.

        Args:
            shape: (X, Y, K) of the volume.
            read: returns its voxels (X, Y, K) in [0, 1] of ranges along x, y and z.
            network: the prior.
            device: that computes.

        Raises:
            InputError: finished slices have no room, those of another run are there, or what the prior gives is not
                finite.
        """
        if self.prior_factor == 1:
            return
        x, y, z = restored_shape(shape, self.prior_factor)
        width, height, depth = (slice(0, size) for size in shape)
        with self._store("xz", (y, x, z)) as of_xz, self._store("yz", (x, y, z)) as of_yz:
            total = len(of_xz.checksums) + len(of_yz.checksums)
            initial = total - len(of_xz.missing()) - len(of_yz.missing())
            with tqdm(total=total, initial=initial, desc="restoring XZ and YZ slices", unit="batch") as progress:
                for part in _parts(of_xz, shape[2]):
                    planes = read(width, part, depth).movedim(1, 0)
                    self._restore_planes(planes, part, of_xz, 0, network, device, progress)
                for part in _parts(of_yz, shape[2]):
                    self._restore_planes(read(part, height, depth), part, of_yz, 1, network, device, progress)

    def check_progress(self) -> None:
        """Check, before anything is written, that finished slices that are there belong to this run.

        Raises:
            InputError: they do not, or their record is damaged.
        """
        for name in ("xz", "yz"):
            read_checksums(self.progress_dir / f"{name}.json", self.resume_must_match)

    def restored_before(self, shape: tuple[int, int]) -> dict[str, int]:
        """How many slices of each orientation are there already, of a volume of shape (x, y).

        Raises:
            InputError: as :meth:`check_progress`.
        """
        done = {}
        for name, planes in (("xz", shape[1]), ("yz", shape[0])):
            checksums = read_checksums(self.progress_dir / f"{name}.json", self.resume_must_match)
            done[name] = min(planes, self.batch_size * sum(checksum is not None for checksum in checksums))
        return done

    def forget(self) -> None:
        """Remove the finished slices, once what was made of them is safe."""
        shutil.rmtree(self.progress_dir, ignore_errors=True)

    def _store(self, name: str, shape: tuple[int, int, int]) -> SliceStore:
        return SliceStore(self.progress_dir, name, shape, self.batch_size, self.resume_must_match)

    def _restore_planes(
        self,
        planes: torch.Tensor,
        part: slice,
        store: SliceStore,
        orientation: int,
        network: Callable,
        device: torch.device,
        progress: tqdm,
    ) -> None:
        """Restore those of the planes (N, W, K), which are a part of all, that the store lacks; ``orientation`` is 0
        or 1.
        """
        waiting: tuple[int, torch.Tensor] | None = None  # a batch that the GPU works on while the one before is written

        def keep() -> None:
            nonlocal waiting
            if waiting is not None:
                (start, restored), waiting = waiting, None
                finite_output(restored, f"{'XZ' if orientation == 0 else 'YZ'} slices from {start} on")()
                store.keep(start, restored.cpu().numpy())
                progress.update()

        try:
            for start in (each for each in store.missing() if part.start <= each < part.stop):
                low = planes[start - part.start :][: self.batch_size].to(device)
                mu = axial_interpolate(low, self.prior_factor)[:, None]
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
        except (RuntimeError, MemoryError) as error:
            if memory_shortage(error) is None:
                raise
            smaller = "give a smaller one" if self.batch_size > 1 else "cut the volume in X, Y or Z"
            raise InputError(
                f"--batch_size {self.batch_size}: the memory does not suffice for {len(mu)} slices at once: {smaller}"
            ) from error


def _parts(store: SliceStore, slices: int) -> Iterator[slice]:
    """The parts of the planes of a volume that are read one after the other: those of which the store lacks some.

    Args:
        store: of the restored planes.
        slices: K, of the volume.
    """
    planes, across, _ = store.shape
    step = slices_at_once(across * slices, store.batch_size)
    for begin in range(0, planes, step):
        if any(begin <= start < begin + step for start in store.missing()):
            yield slice(begin, min(begin + step, planes))


class RestoreSlices:
    """Restores the slices of a volume before the evaluator of stage II averages its strips.

    Args:
        dataset: of the strips.
        inferer: stage II.
    """

    def __init__(self, dataset: StripDataset, inferer: PseudoVolumeInferer) -> None:
        self.dataset = dataset
        self.inferer = inferer

    def attach(self, engine: Engine) -> None:
        """Register with the MONAI evaluator of stage II."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        self.inferer.restore_slices(self.dataset.shape, self.dataset.read, engine.network, engine.state.device)
