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

"""Folders of arrays in chunks, as in zarr, N5 and precomputed, on this machine or behind a URL: their JSON files, their
content, and which array to read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scripts.errors import InputError, one_line
from scripts.volumes.axes import Selection
from scripts.volumes.formats import slice_folder

_URL = re.compile(r"(gs|s3|https?):/+(?=[^/])")
_MOST_FOLDERS = 10000  # that are looked through for arrays; a store has a handful
_MOST_LISTED = 12


class Node(NamedTuple):
    """
    A folder of a store.

    Attributes:
        shape: of an array; None for a group.
        attributes: content of its JSON file other than the layout of the array.
        levels: paths of the levels of a pyramid in a group, the finest one first.
        layout: of the array, for :func:`scripts.volumes.formats.chunked_array.open_array`.
    """

    shape: tuple[int, ...] | None
    attributes: dict[str, Any]
    levels: tuple[str, ...] = ()
    layout: dict[str, Any] | None = None


def url_of(folder: Path) -> str | None:
    """Return the URL that a path stands for, None for one of this machine. ``Path`` makes one slash of two."""
    found = _URL.match(str(folder))
    return f"{found[1]}://{str(folder)[found.end():]}" if found else None


def kvstore_of(folder: Path) -> Any:
    """Return a folder as tensorstore names it."""
    return f"{url_of(folder)}/" if url_of(folder) else {"driver": "file", "path": f"{folder.absolute()}/"}


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """
    Return the content of a JSON file, None if there is none of this name.

    Raises:
        InputError: it may not be read, or holds no JSON object.
    """
    file = folder / name
    content: Any
    try:
        if url_of(folder):
            import tensorstore  # takes half a second, and TIFF does without it

            found = tensorstore.KvStore.open(kvstore_of(folder)).result().read(name).result()
            content = found.value if found.state == "value" else None
        else:
            content = file.read_bytes()
        if content is None:
            return None
        value = json.loads(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise InputError(f"{file}: may not be read; change its permissions") from None
    except ValueError as error:
        if url_of(folder) and not isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
            raise InputError(f"{url_of(file)}: cannot be read ({short(error)})") from error
        raise InputError(
            f"{file}: is no valid JSON, which says how the array is stored ({one_line(error)}); copy it again"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{file}: holds no JSON object, which would say how the array is stored; copy it again")
    return value


def has_file(folder: Path, name: str) -> bool:
    """Whether there is a file of this name."""
    return read_json(folder, name) is not None if url_of(folder) else (folder / name).exists()


def parts_of(folder: Path, names: Iterable[str], above: int = 1) -> tuple[Path, ...]:
    """
    Return the files and folders by which a change of an array is noticed, see
    :class:`scripts.volumes.formats.base.Stack`; nothing behind a URL, where a volume is taken to stay as it is.

    Args:
        folder: of its chunks.
        names: of the files with metadata.
        above: how many folders above it may describe it.
    """
    if url_of(folder):
        return ()
    return folder, *(each / name for each in (folder, *folder.parents[:above]) for name in names)


def has_slices(folder: Path) -> bool:
    """Whether a folder of this machine holds the images of a stack."""
    if url_of(folder):
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(slice_folder.SUFFIXES) for entry in entries)


def within(folder: Path, suffix: str) -> bool:
    """Whether the name of a folder, or of one above it, has this suffix."""
    return any(each.name.lower().endswith(suffix) for each in (folder, *folder.parents))


def find_array(
    path: Path, selection: Selection, node_at: Callable[[Path], Node | None], kind: str
) -> tuple[Path, Node]:
    """
    Return the selected array.

    Args:
        path: the store, or a folder in it.
        selection: its dataset is the path of an array or of a group from there, or the number of a level.
        node_at: returns what a folder is, None if it is not part of a store.
        kind: of the store, for the errors.

    Returns:
        Its folder and its node. Without a dataset it is the array at the path, the finest level of the pyramid there,
        or the only volume under it.

    Raises:
        InputError: there is no such array, or the choice is ambiguous.
    """
    node = node_at(path)
    if selection.dataset is not None:
        if node is not None and node.shape is not None:
            selection.refuse_dataset(path, f"one array of {kind}")
        return _named(path, node, selection.dataset, node_at, kind)
    return _only(path, node, node_at, kind, path)


def _named(
    path: Path, node: Node | None, dataset: str, node_at: Callable[[Path], Node | None], kind: str
) -> tuple[Path, Node]:
    """The array that a dataset names: by its path, or as the number of a level."""
    inside = dataset.strip("/")
    if inside and ".." not in Path(inside).parts:
        found = node_at(path / inside)
        there = found is not None or (path / inside).is_dir()  # a group needs no file of its own
        if there and _volumes(path / inside, found, node_at):
            return _only(path / inside, found, node_at, kind, path)
    volumes = _volumes(path, node, node_at)
    pyramids = [each for each in volumes if each[1].levels]
    if dataset.isdecimal() and len(pyramids) == 1:
        group, pyramid = pyramids[0]
        if int(dataset) < len(pyramid.levels):
            return _level(group, pyramid, int(dataset), node_at)
        raise InputError(f"--dataset {dataset}: {group} has {len(pyramid.levels)} levels, numbered from 0")
    names = _listed(path, volumes)
    raise InputError(f"--dataset {dataset}: there is no such array in {path}; " + (names or "there is no array at all"))


def _only(
    folder: Path, node: Node | None, node_at: Callable[[Path], Node | None], kind: str, path: Path
) -> tuple[Path, Node]:
    """The array that a folder is, or the only volume under it."""
    if node is not None and node.shape is not None:
        return folder, node
    volumes = _volumes(folder, node, node_at)
    if not volumes:
        raise InputError(f"{folder}: holds no array of {kind}; give the folder that does")
    deep = [each for each in volumes if each[1].shape is None or len(each[1].shape) > 2]
    if len(deep or volumes) > 1:
        raise InputError(f"{folder}: holds {len(deep or volumes)} arrays; {_listed(path, deep or volumes)}")
    found, what = (deep or volumes)[0]
    return (found, what) if what.shape is not None else _level(found, what, 0, node_at)


def _level(group: Path, pyramid: Node, number: int, node_at: Callable[[Path], Node | None]) -> tuple[Path, Node]:
    folder = group / pyramid.levels[number]
    level = node_at(folder)
    if level is None or level.shape is None:
        raise InputError(f"{group}: names {pyramid.levels[number]} as level {number}, but there is no such array")
    return folder, level


def _volumes(folder: Path, node: Node | None, node_at: Callable[[Path], Node | None]) -> list[tuple[Path, Node]]:
    """The arrays and the pyramids under a folder, in the order of their names."""
    found: list[tuple[Path, Node]] = []
    pending, seen = [(folder, node)], 0
    while pending and seen < _MOST_FOLDERS:
        place, what = pending.pop()
        seen += 1
        if what is not None and (what.shape is not None or what.levels):
            found.append((place, what))
        else:
            pending.extend((each, node_at(each)) for each in _folders(place))
    if pending:
        raise InputError(f"{folder}: has more than {_MOST_FOLDERS} folders; name the array with --dataset")
    return sorted(found)


def _folders(folder: Path) -> Iterator[Path]:
    if url_of(folder):  # what is behind a URL is not listed: of a large store that takes hours, and http cannot
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir():
                yield folder / entry.name


def _listed(path: Path, volumes: list[tuple[Path, Node]]) -> str:
    """The values of ``--dataset`` that name these volumes."""
    names = [str(each.relative_to(path)) for each, _ in volumes]
    if names == ["."]:
        return f"its levels are --dataset {', '.join(volumes[0][1].levels)}"
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"choose one with --dataset: {', '.join(names[:_MOST_LISTED])}{more}" if names else ""


def short(error: BaseException) -> str:
    """Return a message of tensorstore without the place in its code and the specification it got."""
    text = re.sub(r"\s*\[\w[\w ]*=.*", "", one_line(error))
    text = re.sub(r'^([A-Z_]{4,}: )?(Error opening "\w+" driver: )?', "", text)
    text = re.sub(r'^Error reading [^"]*"[^"]*"(/[^:]*)?: ', "", text)
    text = re.sub(r"Error parsing value at position \d+: ", "", text)
    return re.sub(r'Error parsing object member "(\w+|@type)": ', r"\1: ", text).removeprefix("metadata: ")
