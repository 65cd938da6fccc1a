# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: saved after each epoch, and gone on from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from scripts.errors import InputError, one_line
from scripts.networks.finite import first_not_finite
from scripts.networks.tensor_file import check_zip, write_tensors
from scripts.provenance import difference, resolve
from scripts.training.handlers import _diverged

logger = logging.getLogger(__name__)


class Resume:
    """Writes the whole state of a run after each epoch, and goes on from it when the run is started again.

    A state that is not finite is never written, nor taken up.

    Args:
        path: checkpoint file; replaced in one step, so that a kill at any moment leaves a whole one.
        objects: name -> object with ``state_dict`` and ``load_state_dict`` (networks, optimizer, schedule, EMA).
        settings: what a run must share with the one it continues, see :func:`scripts.provenance.resolve`.
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
        settings: of the run, see :func:`scripts.provenance.resolve`.
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
