# SPDX-License-Identifier: Apache-2.0
"""
Every option of every config arrives where it should, and nowhere else.

``wiring.yaml`` says where. A config is evaluated twice with stand-ins, with the value of the table and without it; what
the components are given differs in the places of the table and in no other. After a change of a config a failing test
prints the entry as it is now: see whether it is what was meant, and put it in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from scripts.cli.config_files import config_folder
from scripts.cli.option_help import read_help
from stand_ins import PLUMBING, Recording, load, names_of, record

TABLE: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "wiring.yaml").read_text(encoding="utf-8"))
CONFIGS = sorted(file.name for file in config_folder().glob("*.yaml") if "run" in load(file))
ABSENT = "-"  # where a component is not made


class Case(NamedTuple):
    """An entry of the table.

    Attributes:
        config: file name.
        kind: "options", "sections", further entries of a config, or "results", what a component says of the files that it
            finds.
        name: of the option, or of what is called.
        entry: "value"; "given", options on either side; and what changes, see :func:`expected`.
    """

    config: str
    kind: str
    name: str
    entry: dict[str, Any]


def cases() -> Iterator[Any]:
    for config, table in TABLE.items():
        for kind in ("options", "sections", "results"):
            for name, entries in table.get(kind, {}).items():
                for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                    yield pytest.param(Case(config, kind, name, entry), id=f"{config}-{name}-{number}")


def evaluated(monkeypatch: pytest.MonkeyPatch, case: Case, changed: bool) -> Recording:
    """What the components of a config are given by ``run`` and ``check``."""
    options = TABLE[case.config]["given"] | case.entry.get("given", {})
    results: dict[str, Any] = {}
    if changed:
        (results if case.kind == "results" else options)[case.name] = case.entry["value"]
    return recorded(monkeypatch, case.config, options, results)


def recorded(
    monkeypatch: pytest.MonkeyPatch, config: str, options: Mapping[str, Any], results: Mapping[str, Any]
) -> Recording:
    file = config_folder() / config
    return record(file, monkeypatch, options, [name for name in ("run", "check") if name in load(file)], results)


def difference(before: Recording, after: Recording) -> dict[str, Any]:
    """Place -> what stands there now, where it changed; a component that is not made any more is ``ABSENT``."""
    gone = [name for name in before.made if name not in after.made and not name.startswith(PLUMBING)]
    found: dict[str, Any] = dict.fromkeys(gone, ABSENT)
    for place, value in after.places.items():
        if place not in before.places or repr(before.places[place]) != repr(value):
            found[place] = value
    for place in before.places:
        if place not in after.places and not any(place.startswith(f"{name}.") for name in gone):
            found[place] = ABSENT
    return found


def expected(case: Case) -> dict[str, Any]:
    """
    The changes that the table tells of.

    In it "reaches" lists the places where the value stands afterwards, "changes" gives those where something else does,
    and "gone" names components that are not made any more. A place may begin with one of the config's "groups", which
    stands for several.
    """
    groups: Mapping[str, list[str]] = TABLE[case.config].get("groups", {})
    found = {place: case.entry["value"] for place in case.entry.get("reaches", [])}
    found |= case.entry.get("changes", {}) | dict.fromkeys(case.entry.get("gone", []), ABSENT)
    for place in list(found):
        group, _, rest = place.partition(".")
        if group in groups:
            value = found.pop(place)
            found |= {f"{one}.{rest}": value for one in groups[group]}
    return found


def as_entry(changes: Mapping[str, Any], value: Any) -> str:
    """Changes as the table has them, without groups."""
    reaches = [place for place, each in changes.items() if each == value and type(each) is type(value)]
    entry = {
        "value": value,
        "reaches": reaches,
        "changes": {place: each for place, each in changes.items() if place not in reaches and each != ABSENT},
        "gone": [place for place, each in changes.items() if each == ABSENT],
    }
    kept = {name: part for name, part in entry.items() if name == "value" or part}
    return str(yaml.safe_dump(kept, sort_keys=False, width=110, default_flow_style=None))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_table_has_every_option(config):
    there = TABLE.get(config, {}).get("options", {})
    options = read_help(config_folder() / config).options
    assert list(there) == [option.name for option in options]
    for option in options:
        default = yaml.safe_load(option.default)
        entries = there[option.name] if isinstance(there[option.name], list) else [there[option.name]]
        assert any(entry["value"] != default for entry in entries), option.name


@pytest.mark.parametrize("case", cases())
def test_an_option_arrives_where_it_should(case, monkeypatch):
    found = difference(evaluated(monkeypatch, case, False), evaluated(monkeypatch, case, True))
    assert found == expected(case), f"\n{case.name} now has\n{as_entry(found, case.entry['value'])}"


def joins(found: Recording) -> dict[str, Any]:
    """Places where a component is given another, or something of it."""
    made = re.compile(f"<({'|'.join(map(re.escape, found.made))})[.>]")
    return {place: value for place, value in found.places.items() if made.search(str(value))}


@pytest.mark.parametrize("config", CONFIGS)
def test_components_are_joined_as_they_should_be(config, monkeypatch):
    found = joins(recorded(monkeypatch, config, TABLE[config]["given"], {}))
    assert found == TABLE[config].get("joins", {}), yaml.safe_dump(found, sort_keys=False, width=110)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_run_takes_its_steps_in_order(config, monkeypatch):
    """What refuses a run comes before what takes long or writes."""
    file, given = config_folder() / config, TABLE[config]["given"]
    made = dict.fromkeys(record(file, monkeypatch, given, ["run"], {}).made)
    assert [name for name in made if name in TABLE[config]["steps"]] == TABLE[config]["steps"]


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.startswith("train")])
def test_validation_is_on_what_is_held_out_of_training(config, monkeypatch):
    places = recorded(monkeypatch, config, TABLE[config]["given"], {}).places
    train, validation = (
        {place.removeprefix(name): value for place, value in places.items() if place.startswith(name)}
        for name in ("HoldOutd (train)", "HoldOutd (validate)")
    )
    assert (train.pop(".part"), validation.pop(".part")) == ("train", "validation")
    assert train == validation


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_in_a_config_is_left_lying(config, monkeypatch):
    """Each component is made by ``run`` or ``check``, at least where an option of the table asks for it."""
    names = {name for name in names_of(load(config_folder() / config).config).values() if name not in PLUMBING}
    for param in cases():
        (case,) = param.values
        if case.config == config and names:
            names -= set(evaluated(monkeypatch, case, True).made)
    assert not names
