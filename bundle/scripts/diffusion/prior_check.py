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

"""Whether a prior restores XY slices better than interpolation does: by slices of the volume itself."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.metrics import PSNRMetric
from scripts import lattice
from scripts.diffusion.pseudo_volume import PseudoVolumeInferer
from scripts.diffusion.restoration import RestorationInferer
from scripts.diffusion.strips import PatchReader, StripDataset
from scripts.errors import InputError
from scripts.transforms.hold_out import HoldOut
from scripts.transforms.rand_slice_patches import RandSlicePatches
from scripts.volumes.json_file import write_json

logger = logging.getLogger(__name__)

_SIDE = 128  # voxels, of a patch
_SHARE = 0.02  # of the voxels that stage II restores
_FEWEST, _MOST = 2, 16  # patches
# Restorations of a patch, averaged as stage II averages its two: a single one is up to 0.7 dB worse, and would be
# called no better than interpolation where stage II is.
_DRAWS = 2


class Comparison(NamedTuple):
    """PSNR in dB of the same degraded patches, restored by the prior and by the aligned interpolations.

    Attributes:
        prior: mean of two restorations, which is what stage II takes.
        linear, cubic: of the interpolations.
    """

    prior: float
    linear: float
    cubic: float

    def warning(self) -> str | None:
        """What a user should know and do, in one line, or None where the prior is the best."""
        name, best = max((("linear", self.linear), ("cubic", self.cubic)), key=lambda pair: pair[1])
        if self.prior > best or best == math.inf:  # NaN is not; slices without structure leave nothing to compare
            return None
        return (
            f"the prior restores this volume's XY slices no better than {name} interpolation ({self.prior:.2f} dB "
            "against "
            f"{best:.2f} dB), so the diffusion is not likely to help here: train it longer (train_diffusion.yaml "
            "--max_epochs, d2r.yaml "
            "with a larger --preset), or leave it out (--prior_factor 1)"
        )


def compare_with_interpolation(
    volume: torch.Tensor | PatchReader,
    network: Callable,
    restore: RestorationInferer,
    factor: float,
    prior_factor: float | None = None,
    degradation: str = "sampling",
    batch_size: int = 1,
) -> Comparison:
    """Degrade patches of the XY slices that stage I holds out, restore them, and compare with the sharp ones.

    Args:
        volume: (1, X, Y, K) in [0, 1], on the device of the network; or what reads patches of it.
        network: the prior.
        restore: as in stage II.
        factor: how many times Z is coarser than XY.
        prior_factor: k of stage II, the whole factor by default.
        degradation: how Z became coarse, see ``axial_decimate``.
        batch_size: patches at once.

    Raises:
        InputError: if XY is too narrow for two slices.
    """
    k = factor if prior_factor is None else prior_factor
    x, y, slices = volume.shape[-3:]
    voxels = 2 * x * y * lattice.output_size(slices, k)
    number = min(max(round(_SHARE * voxels / min(_SIDE, x, y) ** 2), _FEWEST), _MOST)
    cut = RandSlicePatches((_SIDE, _SIDE), factor, prior_factor, number, degradation, with_linear=True)
    cut.set_random_state(0)
    items = cut(HoldOut("validation", "z")(volume))
    image, mu, linear = (torch.stack([item[key] for item in items]) for key in ("image", "mu", "linear"))
    restored = torch.zeros_like(mu)
    for start in range(0, len(mu), batch_size):
        part = slice(start, start + batch_size)
        for draw in range(_DRAWS):
            restored[part] += restore(mu[part], network, _DRAWS * start + draw) / _DRAWS
    return Comparison(*(_psnr(result, image) for result in (restored, linear, mu)))


def _psnr(result: torch.Tensor, truth: torch.Tensor) -> float:
    """Of all patches together: one without structure, which any method restores perfectly, has no PSNR of its own."""
    metric = PSNRMetric(max_val=1.0)
    metric(result.flatten()[None, None], truth.flatten()[None, None])
    return float(torch.as_tensor(metric.aggregate()))


class PriorCheck:
    """Compares the prior with interpolation before stage II begins; a warning says if it is no better.

    Args:
        path: JSON file of the numbers and the warning.
        dataset: of the volume, of which patches are read.
        inferer: stage II.
        factor: how many times Z is coarser than XY.
        degradation: how Z became coarse.
    """

    def __init__(
        self,
        path: str | Path,
        dataset: StripDataset,
        inferer: PseudoVolumeInferer,
        factor: float,
        degradation: str = "sampling",
    ) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.inferer = inferer
        self.factor = factor
        self.degradation = degradation

    def attach(self, engine: Engine) -> None:
        """Register with the MONAI evaluator of stage II."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        self.path.unlink(missing_ok=True)  # of another prior
        if self.inferer.prior_factor == 1:
            return
        volume = PatchReader(self.dataset.read, self.dataset.shape, torch.device(engine.state.device))
        try:
            found = compare_with_interpolation(
                volume,
                engine.network,
                self.inferer.restore,
                self.factor,
                self.inferer.prior_factor,
                self.degradation,
                self.inferer.batch_size,
            )
        except InputError as error:
            logger.info(f"the prior is not compared with interpolation: {error}")
            return
        warning = found.warning()
        write_json(self.path, {"psnr": found._asdict(), "better_than_interpolation": not warning, "warning": warning})
        if warning is not None:
            logger.warning(warning)
        else:
            best = max(found.linear, found.cubic)
            logger.info(f"the prior restores XY slices {found.prior - best:.2f} dB better than interpolation")


def repeat_warning(path: str | Path) -> None:
    """Log the warning that a :class:`PriorCheck` left in ``path``, if there is one: a long run has scrolled it away."""
    path = Path(path)
    if not path.is_file():
        return
    try:
        warning = json.loads(path.read_text(encoding="utf-8"))["warning"]
    except (ValueError, KeyError, TypeError):
        logger.warning(f"{path}: damaged, so what it said of the prior is lost; nothing else depends on it")
        return
    if warning:
        logger.warning(warning)


class InterpolationScores:
    """PSNR of both interpolations beside that of the prior, among the metrics of stage I's validation.

    Stands before the handlers that show the metrics.
    """

    def __init__(self) -> None:
        self.metrics = {name: PSNRMetric(max_val=1.0) for name in ("linear", "cubic")}

    def attach(self, engine: Engine) -> None:
        """Register with the MONAI evaluator of stage I."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.tell)

    def begin(self, engine: Engine) -> None:
        """Forget what was added."""
        for metric in self.metrics.values():
            metric.reset()

    def add(self, engine: Engine) -> None:
        """Take in a batch with items "image", "mu" (cubic) and "linear"."""
        image, cubic, linear = (_plain(images) for images in from_engine(["image", "mu", "linear"])(engine.state.batch))
        self.metrics["linear"](linear, image)
        self.metrics["cubic"](cubic, image)

    def tell(self, engine: Engine) -> None:
        """Put the means among the engine's metrics, as ``psnr_linear`` and ``psnr_cubic``."""
        for name, metric in self.metrics.items():
            value = float(torch.as_tensor(metric.aggregate()))
            if math.isfinite(value):
                engine.state.metrics[f"psnr_{name}"] = value


def _plain(images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.Tensor.as_subclass(image, torch.Tensor) for image in images]
