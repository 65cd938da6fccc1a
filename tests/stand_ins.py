# SPDX-License-Identifier: Apache-2.0
"""
A config evaluated with stand-ins in place of everything that it names by ``_target_``: nothing is read, trained or
written, and what each component would have been given is known.
"""

from __future__ import annotations

import inspect
import pydoc
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import monai.data
import monai.engines
import monai.handlers
import monai.transforms
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from scripts.cli.option_help import read_help
from scripts.cli.option_types import OptionType
from scripts.cli.pipeline import choose_preset, merge
from scripts.volumes.factor import factor_of
from scripts.volumes.header import Header

HEADER = Header((64, 64, 9), "uint8", np.diag([10.0, 10.0, 50.0, 1.0]), "nanometer")
TRAINED = {"percentiles": [0.3, 99.3], "train_factors": [3, 9], "delta": 0.2, "timesteps": 90}
RESULTS: dict[str, Callable[..., Any]] = {  # what expressions of a config go on with; the rest gives stand-ins
    "bundle_root": lambda: "/bundle",
    "choose_preset": choose_preset,
    "factor_of": factor_of,
    "merge": merge,
    "prior_factor_of": lambda prior, weights, factor, prior_factor=None: 1 if prior is None else prior_factor or factor,
    "read_header": lambda **_: HEADER,
    "trained_settings": lambda network: {} if network is None else TRAINED,
    "is_done": lambda **_: False,
    "FinishedRun.is_done": lambda: False,
}
PLUMBING = ("bundle_root", "choose_preset", "merge")  # what they are given is seen in what they give
_ROOMS = (
    monai.transforms,
    monai.data,
    monai.engines,
    monai.handlers,
)  # where a config finds what it names without a dot


class StandIn:
    """Takes the place of a component, its methods and what they give; every call of it is recorded."""

    def __init__(self, name: str, record: Recording, real: Any = None) -> None:
        self._name, self._record, self._real = name, record, real

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}", self._record)

    def __deepcopy__(self, memo: Any) -> StandIn:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._real is not None:
            inspect.signature(self._real).bind(*args, **kwargs)  # TypeError where one is missing or unknown
        self._record.keep(self._name, {**{str(number): value for number, value in enumerate(args)}, **kwargs})
        short = self._name.split(" ")[0]
        if short in self._record.results:
            return self._record.results[short](*args, **kwargs)
        return StandIn(self._name, self._record)


class Recording:
    """
    What the components of a config are given, by place.

    A place is ``Component.argument``, or ``Component.argument.key`` where it is a mapping. Of several components of
    one name each is told by the part of its id in which they differ, ``HoldOutd (train)``, or by its number. A list of
    stages, as ``d2r.yaml`` has, is found under the configs of the stages: ``train (2).seed``.

    Attributes:
        places: place -> value. An object is ``<its name>``.
        made: names of components, in the order in which they are made or called.
        results: what calls return that do not return another stand-in.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.places: dict[str, Any] = {}
        self.made: list[str] = []
        self.results = {**RESULTS, **{name: _giving(value) for name, value in results.items()}}

    def keep(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Take in a call."""
        self.made.append(name)
        if not name.startswith(PLUMBING):
            self._flatten(name, arguments)

    def _flatten(self, place: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                self._flatten(f"{place}.{key}", each)
        elif isinstance(value, Sequence) and value and all(_is_stage(each) for each in value):
            self.places[place] = "<stages>"
            for name, stage in zip(_numbered([Path(stage["config"]).stem for stage in value]), value, strict=True):
                rest = {key: each for key, each in stage.items() if key not in ("options", "config", "title")}
                self._flatten(name, {**stage["options"], **{f"({key})": each for key, each in rest.items()}})
        else:
            self.places[place] = self._plain(value)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, partial) and isinstance(value.func, StandIn):  # _mode_: callable
            self.keep(value.func._name, value.keywords)
            return f"<{value.func._name}>"
        if isinstance(value, StandIn):
            return f"<{value._name}>"
        if isinstance(value, Compose):
            return [self._plain(each) for each in value.transforms]
        if isinstance(value, (torch.device, Path)):
            return str(value)
        if isinstance(value, (list, tuple)) and not isinstance(value, Header):
            return [self._plain(each) for each in value]
        if isinstance(value, Mapping):
            return {key: self._plain(each) for key, each in value.items()}
        return value if isinstance(value, (bool, int, float, str, type(None))) else f"<{type(value).__name__}>"


def record(
    file: Path, monkeypatch: Any, options: Mapping[str, Any], run_ids: Sequence[str], results: Mapping[str, Any]
) -> Recording:
    """
    Evaluate some sections of a config with stand-ins.

    Args:
        file: of the config.
        monkeypatch: pytest's.
        options: overrides by name.
        run_ids: the sections.
        results: what a component, or a method, is to return: name -> value.
    """
    found = Recording(results)
    found.results["loading"] = lambda **_: [StandIn("loading", found)]  # a list, to which others are added
    parser = load(file)
    for name, stand_in in names_of(parser.config).items():
        target = parser[f"{name}#_target_"]
        parser[f"{name}#_target_"] = StandIn(stand_in, found, _located(target))
    types = _types(file)
    for name, value in options.items():
        kind = types.get(name)
        if kind is not None and value is not None and kind.kind == "device":
            value = torch.device(value)  # whether or not this machine has it
        elif kind is not None and value is not None:
            value = kind.check(name, value)
        parser[name] = value
    with monkeypatch.context() as patch:
        for name in ("tensor", "manual_seed"):
            patch.setattr(torch, name, StandIn(name, found))
        for number, entry in enumerate(parser["initialize"]):
            if isinstance(entry, Mapping):
                parser.get_parsed_content(f"initialize#{number}")
        for run_id in run_ids:
            parser.get_parsed_content(run_id)
    return found


def load(file: Path) -> ConfigParser:
    """A parser of a config, in which nothing is evaluated yet."""
    parser = ConfigParser(deepcopy(_read(file)))
    parser.resolve_macro_and_relative_ids()
    return parser


@cache
def _read(file: Path) -> dict[str, Any]:
    return ConfigParser.load_config_file(file)


@cache
def _types(file: Path) -> dict[str, OptionType | None]:
    return {option.name: option.type for option in read_help(file).options}


def names_of(config: Any) -> dict[str, str]:
    """Id of each component of a config -> its name in a :class:`Recording`."""
    ids = defaultdict(list)
    for path, target in _components(config):
        ids[target.split(".")[-1]].append(path)
    names = {}
    for target, paths in ids.items():
        told = _told_apart(paths)
        for path, by in zip(paths, told, strict=True):
            names["#".join(path)] = target if len(paths) == 1 else f"{target} ({by})"
    return names


def _told_apart(paths: Sequence[Sequence[str]]) -> list[str]:
    for parts in zip(*paths, strict=False):  # ids of different length
        if len(set(parts)) == len(paths) and not any(part.isdigit() for part in parts):
            return list(parts)
    return [str(number) for number in range(1, len(paths) + 1)]


def _components(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(config, Mapping) and "_target_" in config:
        yield path, config["_target_"]
    inner: Any = ()
    if isinstance(config, Mapping):
        inner = config.items()
    elif isinstance(config, list):
        inner = enumerate(config)
    for name, item in inner:
        yield from _components(item, (*path, str(name)))


def _located(target: str) -> Any:
    """The class or function that a config names."""
    if "." in target:
        found = pydoc.locate(target)
    else:
        found = next((getattr(room, target) for room in _ROOMS if hasattr(room, target)), None)
    assert found is not None, f"there is no {target}"
    return found


def _is_stage(value: Any) -> bool:
    return isinstance(value, Mapping) and {"config", "options", "result"} <= set(value)


def _numbered(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _giving(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value
