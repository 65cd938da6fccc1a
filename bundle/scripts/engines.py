# SPDX-License-Identifier: Apache-2.0
"""What MONAI's stock SupervisedTrainer needs to train stages I and III: batches, seeds, progress."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines import Evaluator, PrepareBatch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from scripts.errors import InputError
from scripts.io.whole_file import write_whole
from scripts.sde import MeanRevertingSDE

logger = logging.getLogger(__name__)


class NoisePrepareBatch(PrepareBatch):
    """Stage I training batch: draws a state t and noise for each image.

    Takes items "image" (x0) and "mu", (B, 1, H, W) in [0, 1]. Returns the network's input [x_t - mu, mu] (B, 2, H, W), the target
    of ``losses.ReverseStepLoss`` and t (B,), uniform in 1..T.
    """

    def __init__(self, sde: MeanRevertingSDE) -> None:
        self.sde = sde

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[torch.Tensor], dict]:
        x0, mu = (_tensor(batchdata[key], device, non_blocking) for key in ("image", "mu"))
        t = torch.randint(1, self.sde.steps + 1, (x0.shape[0],), device=x0.device)
        x = self.sde.state(x0, mu, t, torch.randn_like(x0))
        of_state, gain = self.sde.reverse_drift(t)
        bridge = self.sde.bridge(t, t - 1)
        target = {
            "mean": x + of_state * (x - mu),
            "gain": gain,
            "optimum": mu + bridge.from_state * (x - mu) + bridge.from_clean * (x0 - mu),
        }
        return torch.cat([x - mu, mu], 1), target, (t,), {}


class RestorationPrepareBatch(PrepareBatch):
    """Stage I validation batch: the interpolated images are the input, the sharp ones the target."""

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _tensor(batchdata["mu"], device, non_blocking), _tensor(batchdata["image"], device, non_blocking)


class SequencePrepareBatch(PrepareBatch):
    """Stage III batch: slabs (B, 1, H, W, 4), targets (B, D, H, W), depths (B, D), gaps (B,)."""

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor], dict]:
        slab, label, depth, gap = (
            _tensor(batchdata[key], device, non_blocking) for key in ("image", "label", "depth", "gap")
        )
        return slab, label, (depth, gap), {}


def _tensor(value: torch.Tensor, device: str | torch.device | None, non_blocking: bool) -> torch.Tensor:
    # Plain tensors: MetaTensor's bookkeeping costs more than a small training step.
    return torch.Tensor.as_subclass(value, torch.Tensor).to(device, non_blocking=non_blocking)


class SeedEachEpoch:
    """Seeds torch and the random transforms from the epoch number, so that a resumed run is the run it continues.

    Args:
        seed: of the run.
        dataset: whose random transforms are seeded.
        vary: false gives every epoch the same draws, as validation wants.
    """

    def __init__(self, seed: int, dataset: Any, vary: bool = True) -> None:
        self.seed = seed
        self.dataset = dataset
        self.vary = vary

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer or evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + (1000 * engine.state.epoch if self.vary else 0)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)


class RunProgress:
    """Progress bar over the whole run with the loss and the time left.

    Args:
        description: shown before the bar.
    """

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def update(self, engine: Engine) -> None:
        """Count one step."""
        state = engine.state
        if self.bar is None:  # made late: a resumed run knows its place only after it has started
            total = (state.max_epochs or 0) * (state.epoch_length or 0)
            self.bar = tqdm(total=total, initial=state.iteration - 1, desc=self.description, unit="step")
        output: Any = state.output  # a list where the trainer decollates
        output = output[0] if isinstance(output, list) else output
        self.bar.set_postfix(loss=f"{output['loss']:.4f}", refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        """Leave the finished bar standing."""
        if self.bar is not None:
            self.bar.close()


class PlateauSchedule:
    """Steps a ReduceLROnPlateau with the key metric after each validation.

    MONAI's LrScheduleHandler would step after each epoch, also where nothing was validated.

    Args:
        lr_scheduler: to step.
        evaluator: whose key metric counts.
        interval: epochs between validations.
    """

    def __init__(self, lr_scheduler: ReduceLROnPlateau, evaluator: Evaluator, interval: int) -> None:
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer, after its ValidationHandler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    def __call__(self, engine: Engine) -> None:
        self.lr_scheduler.step(self.evaluator.state.metrics[self.evaluator.state.key_metric_name])


class Resume:
    """Writes the whole state of a run after each epoch, and goes on from it when the run is started again.

    Args:
        path: checkpoint file; replaced in one step, so that a kill at any moment leaves a whole one.
        objects: name -> object with ``state_dict`` and ``load_state_dict`` (networks, optimizer, schedule, EMA).
        settings: what a run must share with the one it continues; primitives only.
    """

    def __init__(self, path: str | Path, objects: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        self.settings = dict(settings)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Take up the run in ``path``, if there is one.

        Raises:
            InputError: if it was made with other settings, or the file is damaged.
        """
        if not self.path.is_file():
            return
        try:
            checkpoint = torch.load(self.path, map_location="cpu", weights_only=True)
            stored = checkpoint["settings"]
        except Exception as error:  # torch raises a dozen types for files that are not its own
            raise InputError(f"{self.path}: damaged checkpoint; delete it to begin this stage anew") from error
        for name, value in self.settings.items():
            if stored.get(name) != value:
                raise InputError(
                    f"{self.path} belongs to a run with {name} {stored.get(name)}, not {value}: "
                    "give the same options, or another output folder to begin anew"
                )
        for name, target in self.objects.items():
            target.load_state_dict(checkpoint[name])
        engine.state.epoch = checkpoint["epoch"]
        engine.state.iteration = checkpoint["iteration"]
        logger.info(f"going on after epoch {engine.state.epoch} of {engine.state.max_epochs} ({self.path})")

    def save(self, engine: Engine) -> None:
        """Write the state to ``path``."""
        checkpoint = {name: target.state_dict() for name, target in self.objects.items()}
        checkpoint.update(settings=self.settings, epoch=engine.state.epoch, iteration=engine.state.iteration)
        write_whole(self.path, lambda partial: torch.save(checkpoint, partial))
