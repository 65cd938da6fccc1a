# SPDX-License-Identifier: Apache-2.0
"""What MONAI's stock SupervisedTrainer needs to train stages I and III: batches, steps, averages, seeds, progress."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines import PrepareBatch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from scripts.errors import InputError, one_line
from scripts.io.tensors import check_zip, write_tensors
from scripts.networks.finite import first_not_finite
from scripts.sde import MeanRevertingSDE
from scripts.settings import difference, resolve

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


class TrainingStep:
    """A step of MONAI's ``SupervisedTrainer`` (its ``iteration_update``) which on CUDA is recorded once and then replayed.

    A step is a thousand small operations, and launching them one by one takes longer than computing them. After a few ordinary
    steps one is recorded as a CUDA graph, from the batch on the device to the optimizer's update; what it reads and writes stays in place. So
    batches must keep their shapes, and nothing in the step may wait for the GPU or depend on values. The optimizer must be
    ``capturable``, with its learning rate in a tensor, which a schedule changes in place.

    Output: {"loss": scalar on the device}. Reading it waits for the GPU.

    Args:
        largest_gradient: norm to which larger gradients are scaled down. One batch in some hundred has a gradient ten times that of the
            others; in long runs such a step can throw a network off for good.
        ordinary: steps before the recording, in which the libraries choose and load what they need.
    """

    def __init__(self, largest_gradient: float = math.inf, ordinary: int = 3) -> None:
        self.largest_gradient = largest_gradient
        self.ordinary = ordinary
        self.done = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: dict[str, torch.Tensor] = {}
        self.loss = torch.zeros(())

    def __call__(self, engine: Any, batchdata: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Make a step with a batch; ``engine`` has the network, the optimizer, the loss and so on."""
        device = torch.device(engine.state.device)
        batch = {key: _tensor(value, device, engine.non_blocking) for key, value in batchdata.items()}
        if self.done == 0:
            engine.network.train()
        if device.type != "cuda":
            self.loss = self._step(engine, batch)
        elif self.done < self.ordinary:
            self._beside(device, lambda: self._step(engine, batch))
        else:
            if self.graph is None:
                self._record(engine, batch)
            for key, value in self.batch.items():
                value.copy_(batch[key])
            assert self.graph is not None
            self.graph.replay()
        self.done += 1
        return {"loss": self.loss}

    def _step(self, engine: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        inputs, targets, *rest = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        args, kwargs = rest or ((), {})
        engine.optimizer.zero_grad()
        loss = engine.loss_function(engine.inferer(inputs, engine.network, *args, **kwargs), targets).mean()
        loss.backward()
        if math.isfinite(self.largest_gradient):
            nn.utils.clip_grad_norm_(engine.network.parameters(), self.largest_gradient)
        engine.optimizer.step()
        return loss.detach()

    def _beside(self, device: torch.device, step: Callable[[], torch.Tensor]) -> None:
        """Work on a stream of its own, as before a recording one must."""
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self.loss = step()
        torch.cuda.current_stream(device).wait_stream(stream)

    def _record(self, engine: Any, batch: Mapping[str, torch.Tensor]) -> None:
        self.batch = {key: value.clone() for key, value in batch.items()}
        self.graph = torch.cuda.CUDAGraph()
        engine.optimizer.zero_grad()  # so that the gradients come to lie in the graph's memory
        with torch.cuda.graph(self.graph):
            self.loss = self._step(engine, self.batch)


class WeightAverage:
    """Exponential moving average of a network's weights, updated after each step in a few operations.

    Ignite's EMAHandler makes two operations for each of several hundred tensors, which takes longer than a step.

    Args:
        network: whose weights are averaged.
        momentum: share of the new weights in each update.

    Attributes:
        network: a copy with the averaged weights, in evaluation mode.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._pairs = list(self.network.parameters()), list(network.parameters())
        self._update = get_ema_multi_avg_fn(1 - momentum)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def update(self, engine: Engine) -> None:
        """Take in the weights of the network."""
        averages, current = self._pairs
        self._update(averages, current, 0)


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
        interval: steps between readings of the loss, each of which waits for the GPU.
    """

    def __init__(self, description: str, interval: int = 1) -> None:
        self.description = description
        self.interval = interval
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
        if state.iteration % self.interval == 0:
            self.bar.set_postfix(loss=f"{_loss_of(engine):.4f}", refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        """Leave the finished bar standing."""
        if self.bar is not None:
            self.bar.close()


def _loss_of(engine: Engine) -> float:
    """Loss of the last step, for which a GPU is waited for."""
    output: Any = engine.state.output  # a list where the trainer decollates
    return float((output[0] if isinstance(output, list) else output)["loss"])


class StopDiverged:
    """Ends a training whose loss or state is not finite any more, before anything of it is validated or kept.

    Stands before the handlers that validate and that write the checkpoint, which so stays the last good one.

    Args:
        objects: as of :class:`Resume`.
        checkpoint: file of :class:`Resume`, for the message.
        interval: steps between readings of the loss, each of which waits for the GPU. The state is looked at after each epoch.
    """

    def __init__(self, objects: Mapping[str, Any], checkpoint: str | Path, interval: int = 1) -> None:
        self.objects = dict(objects)
        self.checkpoint = Path(checkpoint)
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_state)

    def check_loss(self, engine: Engine) -> None:
        """Raise InputError where it is time to read the loss and it is NaN or infinite."""
        if engine.state.iteration % self.interval == 0 and not math.isfinite(_loss_of(engine)):
            raise _diverged(engine, self.checkpoint, "loss")

    def check_state(self, engine: Engine) -> None:
        """Raise InputError where a number of the networks, the averages or the optimizer is NaN or infinite."""
        wrong = first_not_finite({name: target.state_dict() for name, target in self.objects.items()})
        if wrong is not None:
            raise _diverged(engine, self.checkpoint, wrong)


def _diverged(engine: Engine, checkpoint: Path, what: str) -> InputError:
    kept = "no epoch was finished before, so there is no checkpoint"
    if checkpoint.is_file():
        kept = f"{checkpoint} is the last good checkpoint, of epoch {engine.state.epoch - 1}, and is kept"
    return InputError(
        f"the training diverged in epoch {engine.state.epoch} of {engine.state.max_epochs} ({what} is NaN or infinite); {kept}; "
        "begin anew with a lower --learning_rate and another --output_dir"
    )


class ValidationPictures:
    """Writes planes of the first item of a validation to TensorBoard, each under its name and all with the same grey levels.

    MONAI's TensorBoardImageHandler names them input_0, input_1 and output, and stretches each to its own range.

    Args:
        summary_writer: of TensorBoard.
        planes: name -> function that takes the item, {"image", "label", "pred"}, and returns a plane (H, W) in [0, 1].
    """

    def __init__(self, summary_writer: Any, planes: Mapping[str, Callable[[Mapping[str, torch.Tensor]], Any]]) -> None:
        self.summary_writer = summary_writer
        self.planes = dict(planes)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for name, plane in self.planes.items():
            picture = torch.as_tensor(plane(output[0])).detach().float().cpu().clamp(0, 1)
            self.summary_writer.add_image(name, picture.T, engine.state.epoch, dataformats="HW")  # its rows go down


class Resume:
    """Writes the whole state of a run after each epoch, and goes on from it when the run is started again.

    A state that is not finite is never written, nor taken up.

    Args:
        path: checkpoint file; replaced in one step, so that a kill at any moment leaves a whole one.
        objects: name -> object with ``state_dict`` and ``load_state_dict`` (networks, optimizer, schedule, EMA).
        settings: what a run must share with the one it continues, see :func:`scripts.settings.resolve`.
        device: where the state belongs.
    """

    def __init__(
        self,
        path: str | Path,
        objects: Mapping[str, Any],
        settings: Mapping[str, Any],
        device: str | torch.device = "cpu",
    ) -> None:
        self.path = Path(path)
        self.device = device
        self.objects = dict(objects)
        self.settings = dict(settings)
        self._known: dict[str, Any] | None = None  # the settings, once inputs have been read for them

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Take up the run in ``path``, if there is one.

        Raises:
            InputError: if it was made with other settings or on other inputs, is longer than this one, or the file is damaged.
        """
        self._known = resolve(self.settings)
        checkpoint = read_checkpoint(self.path, self._known, engine.state.max_epochs, self.objects, self.device)
        if checkpoint is None:
            return
        wrong = first_not_finite({name: checkpoint[name] for name in self.objects})
        if wrong is not None:  # written by a version that did not look
            raise InputError(
                f"{self.path}: {wrong} is NaN or infinite: the training diverged; delete it to begin this stage anew"
            )
        for name, target in self.objects.items():
            try:
                target.load_state_dict(checkpoint[name])
                _check_state(target, checkpoint[name])
            except Exception as error:  # each kind of object has its own
                raise _damaged(self.path, f"its {name} does not fit: {one_line(error)}") from error
        engine.state.epoch = checkpoint["epoch"]
        engine.state.iteration = checkpoint["iteration"]
        logger.info(f"going on after epoch {engine.state.epoch} of {engine.state.max_epochs} ({self.path})")

    def save(self, engine: Engine) -> None:
        """Write the state to ``path``.

        Raises:
            InputError: if a number of it is NaN or infinite; what is there is kept.
        """
        if self._known is None:
            self._known = resolve(self.settings)
        checkpoint = {name: target.state_dict() for name, target in self.objects.items()}
        wrong = first_not_finite(checkpoint)
        if wrong is not None:
            raise _diverged(engine, self.path, wrong)
        checkpoint.update(settings=self._known, epoch=engine.state.epoch, iteration=engine.state.iteration)
        write_tensors(self.path, checkpoint)


def check_checkpoint(path: str | Path, settings: Mapping[str, Any], max_epochs: int) -> None:
    """Check, before anything is written, that a run can go on from the checkpoint of another one, if there is one.

    Args:
        path, settings, max_epochs: as in :func:`read_checkpoint`.

    Raises:
        InputError: if it cannot.
    """
    read_checkpoint(path, settings, max_epochs)


def read_checkpoint(
    path: str | Path,
    settings: Mapping[str, Any],
    max_epochs: int | None = None,
    objects: Iterable[str] = (),
    device: str | torch.device = "cpu",
) -> dict[str, Any] | None:
    """Read a checkpoint, if there is one, and check that it is whole and belongs to a run.

    Args:
        path: file.
        settings: of the run, see :func:`scripts.settings.resolve`.
        max_epochs: of the run.
        objects: names of states that it must hold.
        device: where the state belongs.

    Returns:
        States by name, "settings", "epoch" and "iteration"; None if there is no such file.

    Raises:
        InputError: if it is damaged, was made with other settings or on other inputs, or has more epochs than the run.
    """
    path = Path(path)
    if not path.exists():
        return None
    if not path.is_file():
        raise _damaged(path, "it is no file")
    try:
        check_zip(path)
    except Exception as error:  # zipfile raises a dozen types for damaged names, offsets and sizes
        raise _damaged(path, one_line(error)) from error
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises a dozen types for files that are not its own
        raise _damaged(path, "it cannot be read") from error
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    for name in ("settings", *objects):
        if not isinstance(checkpoint.get(name), Mapping):
            raise _damaged(path, f"it has no {name}")
    for name in ("epoch", "iteration"):
        if type(checkpoint.get(name)) is not int or checkpoint[name] < 0:
            raise _damaged(path, f"it has no {name}")
    other = difference(checkpoint["settings"], settings)
    if other is not None:
        same = f"give {other.same}, or another output folder" if other.same else "give another output folder"
        raise InputError(f"{path} belongs to a run {other.run}: {same} to begin anew")
    if max_epochs is not None and checkpoint["epoch"] > max_epochs:
        raise InputError(
            f"{path} belongs to a run with {checkpoint['epoch']} epochs, more than --max_epochs {max_epochs}: "
            "give as many or more, or another output folder to begin anew"
        )
    return checkpoint


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: damaged checkpoint; delete it to begin this stage anew ({what})")


def _check_state(target: Any, stored: Mapping[str, Any]) -> None:
    """Find what ``load_state_dict`` takes in silence: names that are missing, and states of an optimizer of other shapes."""
    missing = set(target.state_dict()) - set(stored)
    if missing:
        raise ValueError(f"it has no {min(missing)}")
    if isinstance(target, torch.optim.Optimizer):
        states = {
            parameter: target.state.get(parameter, {}) for group in target.param_groups for parameter in group["params"]
        }
        if len({frozenset(state) for state in states.values() if state}) > 1:
            raise ValueError("a part of its state is missing")
        for parameter, state in states.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError(f"{name} has the shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
