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

"""What a result was made with: written next to it, and compared before a run goes on with what another one left."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import monai
import numpy as np
import torch
from scripts.errors import InputError, one_line
from scripts.volumes.json_file import write_json

PROVENANCE = "provenance.json"
"""File of :func:`write_provenance`."""


def bundle_root() -> str:
    """Folder of the bundle, wherever the command was started from."""
    return str(Path(__file__).resolve().parents[1])


def machine() -> str:
    """Kind of machine, for tables: the GPU's name, or the number of CPU threads in use."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def write_provenance(folder: str | Path, resume_must_match: Mapping[str, Any]) -> None:
    """Write ``provenance.json``: the options of a run, its inputs, the machine, and the versions of Python, PyTorch and
    MONAI.

    Args:
        folder: made if missing.
        resume_must_match: what the results depend on, see :func:`resolve`. Inputs are named among the "options", and
            described under "inputs".

    Raises:
        InputError: if the folder cannot be written, or an input cannot be read.
    """
    known = resolve(resume_must_match)
    document = {
        "options": {name: value["name"] if is_identity(value) else value for name, value in known.items()},
        "inputs": {name: value for name, value in known.items() if is_identity(value)},
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
    }
    write_json(Path(folder) / PROVENANCE, document)


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as primitives, as they come back from a file.

    Args:
        values: nested mappings and sequences of primitives. Those that are functions, such as ``partial(identify,
            path)``, stand for what they return: inputs are read only when there is something to compare.
    """
    return {str(name): _plain(value) for name, value in values.items()}


def is_identity(value: Any) -> bool:
    """Whether a value is what :mod:`scripts.volumes.identity` says of an input."""
    return isinstance(value, Mapping) and "digest" in value


class Difference(NamedTuple):
    """In what a run differs from one that left something behind.

    Attributes:
        run: words that go on after "a run", such as "with seed 0, not 1".
        same: what to give to go on, such as "the same options"; empty if there is no way.
    """

    run: str
    same: str


def difference(stored: Mapping[str, Any], resume_must_match: Mapping[str, Any]) -> Difference | None:
    """Compare what a continued run must share with that of an earlier run.

    Args:
        stored: primitives, from a file.
        resume_must_match: as for :func:`resolve`; its order is that of the comparison, so that inputs, which have to be
            read, come last.

    Returns:
        The first difference; None if there is none. What ``stored`` has beside ``resume_must_match`` does not count.

    Raises:
        InputError: if an input cannot be read.
    """
    for name, value in resume_must_match.items():
        mine, found = _plain(value), stored.get(name)
        if is_identity(mine) and found is not None and is_identity(found):
            words = _other_input(found, mine)
            if words:
                return Difference(
                    f"{'on' if name == 'volume' else 'with'} {_another(name)} ({words})", f"the same {name}"
                )
        elif is_identity(mine) and (isinstance(found, str) or name not in stored):
            return Difference(f"of an earlier version, which did not record what the {name} is", "")
        elif is_identity(mine) or is_identity(found):
            missing = f"without {name}" if is_identity(mine) else f"with {name} {found.get('name')}"  # type: ignore[union-attr]
            return Difference(f"{missing}, not {'with it' if is_identity(mine) else 'without it'}", "the same options")
        elif found != mine:
            return Difference(f"with {_first_leaf(name, found, mine)}", "the same options")
    return None


def read_record(path: str | Path, advice: str) -> dict[str, Any]:
    """Read a JSON document that a run keeps for itself.

    Args:
        path: file.
        advice: what to do if it is damaged; ends the message.

    Returns:
        The document; empty if there is no file.

    Raises:
        InputError: if it cannot be read, or is no JSON object.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); {advice}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: damaged (it is no JSON object); {advice}")
    return document


def _plain(value: Any) -> Any:
    if callable(value):
        value = value()
    if isinstance(value, Mapping):
        return resolve(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def _another(name: str) -> str:
    return f"other {name}" if name.endswith("s") else f"another {name}"


def _other_input(stored: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """In what two inputs differ, in words; empty if in nothing but the name."""
    for name, words in (("shape", "of {} voxels, not {}"), ("dtype", "of type {}, not {}")):
        if stored.get(name) != mine.get(name):
            return words.format(_sizes(stored.get(name)), _sizes(mine.get(name)))
    sizes = [(document.get("voxel_size"), document.get("unit")) for document in (stored, mine)]
    if not _close(*(size for size, _ in sizes)) or sizes[0][1] != sizes[1][1]:
        return "of voxels of {} {}, not {} {}".format(*(word for size, unit in sizes for word in (_sizes(size), unit)))
    if stored.get("digest") != mine["digest"]:
        return "its voxels differ" if "shape" in mine else "its content differs"
    return "" if _close(stored.get("affine"), mine.get("affine")) else "its origin or its directions differ"


def _close(stored: Any, mine: Any) -> bool:
    """Whether sizes are the same but for the digits that a header keeps."""
    if stored == mine:
        return True
    try:
        return np.shape(stored) == np.shape(mine) and bool(np.allclose(stored, mine, rtol=1e-5, atol=0))
    except (TypeError, ValueError):
        return False


def _sizes(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(size, (int, float)) for size in value):
        return " x ".join(f"{size:.6g}" for size in value)
    return str(value)


def _first_leaf(name: str, stored: Any, mine: Any, within: str = "") -> str:
    """The innermost name whose values differ, as "name value, not value"."""
    if isinstance(stored, Mapping) and isinstance(mine, Mapping):
        for inner in [*mine, *stored]:
            if stored.get(inner) != mine.get(inner):
                return _first_leaf(inner, stored.get(inner), mine.get(inner), name)
    where = f" ({within})" if within else ""
    return f"{name} {stored}, not {mine}{where}"
