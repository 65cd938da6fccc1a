# SPDX-License-Identifier: Apache-2.0
"""What a user sees of a mistake: one line that names it, and no traceback."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from scripts import lattice
from scripts.cli import failures, preparation, words
from scripts.cli.command_check import check_command
from scripts.cli.failures import explain, input_error, show_errors_in_one_line
from scripts.cli.preparation import prepare
from scripts.cli.signals import SIGNALS, Stopped, stop_on_signals
from scripts.cli.words import wants_debug
from scripts.errors import InputError, one_line

BUNDLE = Path(words.__file__).parents[2]

CONFIG = """# A job.
#
#   python -m monai.bundle run --config_file configs/job.yaml
imports:
- $import inspect
- $import sys
- $import torch
# ---- what you choose ----
volume: null # [path, required] of a job
epochs: 10 # [whole number] of it
overwrite: false # [true or false] or not
normalize: true # [true or false] or not
debug: false # [true or false] or not
# ---- the rest follows ----
check: []
inferer:
  _target_: monai.inferers.SlidingWindowInferer
  roi_size: [3, 3]
network:
  _target_: monai.networks.nets.BasicUNet
  features: [8, 8, 8, 8, 8, 8]
anything:
  _target_: builtins.dict
  a: 1
train:
  handlers:
  - _target_: monai.handlers.StatsHandler
initialize:
- ENTRY
- _target_: scripts.cli.preparation.prepare
  config: FILE
  debug: "@debug"
run:
- _target_: monai.transforms.Compose
  transforms: {_target_: scripts.transforms.load_volume.LoadVolumed, keys: volume}
- _target_: monai.engines.SupervisedEvaluator
  device: cpu
  val_data_loader: "$[{'image': None}]"
  network: "$torch.nn.Identity()"
  iteration_update: "$lambda engine, batch: @run#0({'volume': @volume})"
  val_handlers: [{_target_: monai.handlers.StatsHandler, output_transform: "$lambda output: None"}]
- "$@run#1.run()"
"""


@pytest.fixture
def config_file(tmp_path) -> Path:
    path = tmp_path / "bundle" / "configs" / "job.yaml"
    path.parent.mkdir(parents=True)
    entry = yaml.safe_load((BUNDLE / "configs" / "sample.yaml").read_text(encoding="utf-8"))["initialize"][0]
    path.write_text(CONFIG.replace("ENTRY", entry).replace("FILE", str(path)))
    (path.parent.parent / "scripts").symlink_to(BUNDLE / "scripts")
    return path


@pytest.fixture
def command(monkeypatch, config_file):
    """Calls prepare as if a command line had been given; what it changes in the process is put back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(preparation, "_prepared", preparation._prepared)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    record_factory = logging.getLogRecordFactory()

    def call(*arguments: str, debug=False, first=("run", "--volume", "a.tif", "--config_file")) -> None:
        before = [*first, str(config_file)] if first[-1] == "--config_file" else [*first]
        monkeypatch.setattr(sys, "argv", ["/somewhere/monai/bundle/__main__.py", *before, *arguments])
        monkeypatch.setattr(preparation, "_prepared", False)
        prepare(str(config_file), debug=debug)

    with warnings.catch_warnings():
        yield call
    logging.setLogRecordFactory(record_factory)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def refuse(command, *arguments: str, **options) -> str:
    with pytest.raises(InputError) as error:
        command(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--volume", "a.tif", "--epochs", "3"],
        ["--volume=a.tif", "--epochs=-3"],
        ["--epochs", "-3", "--volume", "a-b.tif"],
        ["-volume", "a.tif"],
        ["--overwrite"],
        ["--nooverwrite"],
        ["--meta_file", "metadata.json", "--logging-file", "False", "--init_id", "x", "--workflow_type", "infer"],
        ["--inferer#roi_size", "[4,4]", "--inferer::overlap", "0.5", "--inferer#_disabled_", "true"],
        ["--network#features#0", "16", "--anything#new", "1", "--train#handlers#0#name", "x"],
        ["--inferer", "%other.yaml#inferer", "--inferer#whatever", "1"],
        ["--tracking", "mlflow", "--experiment_name", "x"],
        ["--_meta_#version", "2"],
        ["--volume", "a.tif", "--", "--verbose"],
        ["--run#2", "$print(1)"],
    ],
)
def test_known_options_pass(command, arguments, tmp_path, monkeypatch):
    (tmp_path / "other.yaml").write_text("inferer: 1\n")
    monkeypatch.chdir(tmp_path)
    command(*arguments)


@pytest.mark.parametrize(
    "arguments, typed, nearest",
    [
        (["--epoch", "1"], "--epoch", "--epochs"),
        (["--epoch=1"], "--epoch", "--epochs"),
        (["-epoch", "1"], "--epoch", "--epochs"),
        (["--volume", "a.tif", "--volum", "b.tif"], "--volum", "--volume"),
        (["--over-write", "true"], "--over_write", "--overwrite"),
        (["--overwrit"], "--overwrit", "--overwrite"),
        (["--configfile", "x.yaml"], "--configfile", "--config_file"),
        (["--inferer#roi_sizee", "3"], "--inferer#roi_sizee", "--inferer#roi_size"),
        (["--inferer::overlapp", "3"], "--inferer::overlapp", "--inferer::overlap"),
        (["--train#handler", "3"], "--train#handler", "--train#handlers"),
        (["--train#handlers#0#nam", "x"], "--train#handlers#0#nam", "--train#handlers#0#name"),
    ],
)
def test_mistyped_option_names_the_nearest(command, config_file, arguments, typed, nearest):
    message = refuse(command, *arguments)
    assert message.startswith(f"unknown option {typed}: did you mean {nearest}? ")
    assert str(config_file) in message


def test_option_near_to_nothing(command, config_file):
    message = refuse(command, "--xyzzy", "1")
    assert message == f"unknown option --xyzzy: (the options are the top-level names in {config_file})"
    assert "did you mean" not in refuse(command, "--network#features#9", "1")
    assert "6 entries" in refuse(command, "--network#features#9", "1")
    assert "6 entries" in refuse(command, "--network#features#a", "1")


def test_switch_that_begins_with_no(command):
    # Fire reads it as "not rmalize"
    assert "--normalize has no value" in refuse(command, "--normalize")


def test_several_config_files_and_args_file(command, tmp_path, config_file):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("steps: 3\ninferer#extra: 1\n")
    for files in (f"['{config_file}','{overlay}']", f"{config_file},{overlay}"):
        command("--config_file", files, "--steps", "4", "--volume", "a", "--inferer#extra", "2", first=("run",))
    assert "--steps" in refuse(command, "--step", "4", "--config_file", files, first=("run",))
    arguments = tmp_path / "arguments.yaml"
    arguments.write_text(f"config_file: {config_file}\nepochs: 4\nvolume: a.tif\n")
    command("--args_file", str(arguments), "--epochs", "1", first=("run",))
    arguments.write_text(f"config_file: {config_file}\nepoch: 4\n")
    assert "--epochs" in refuse(command, "--args_file", str(arguments), first=("run",))


def test_config_file_by_position(command, config_file):
    assert "--epochs" in refuse(command, "run", "x", "y", "m.json", str(config_file), "--epoch", "1", first=("run",))


def test_only_the_first_workflow_of_the_command_line_is_checked(command, config_file, monkeypatch):
    with pytest.raises(InputError):
        command("--epoch", "1")
    prepare("job.yaml")  # of a config that the first one runs
    monkeypatch.setattr(preparation, "_prepared", False)
    for argv in (["pytest", "run", "--epoch", "1"], ["/x/monai/bundle/__main__.py", "ckpt_export", "--epoch", "1"]):
        monkeypatch.setattr(sys, "argv", argv)
        prepare("job.yaml")


def test_workflow_started_from_python(config_file):
    hook = sys.excepthook
    workflow = ConfigWorkflow(str(config_file), logging_file=False, volume="none.tif", unknown=1)
    workflow.initialize()
    with pytest.raises(RuntimeError) as error:
        workflow.run()
    assert "none.tif: no such file" in str(input_error(error.value))
    assert sys.excepthook is hook


def test_required_option(command, config_file, tmp_path):
    alone = ("run", "--config_file")
    assert refuse(command, first=alone) == "--volume is missing: add --volume and its value to the command"
    assert refuse(command, "check", first=alone).startswith("--volume is missing: ")
    assert refuse(command, "--volume", first=alone) == "--volume has no value: give a path"
    for given in (["--volume", "None"], ["help"]):  # a file may have that name
        command(*given, first=alone)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("volume: a.tif\n")
    command("--config_file", f"['{config_file}','{overlay}']", first=("run",))


def test_what_monai_would_answer_with_a_traceback(config_file, tmp_path):
    def says(*words: str) -> str:
        with pytest.raises(InputError) as error:
            check_command(words)
        assert "\n" not in str(error.value)
        return str(error.value)

    good = ("--config_file", str(config_file), "--volume", "a.tif")
    check_command(good)
    assert says("--config_file", "none.yaml") == "--config_file none.yaml: no such file"
    assert "none.yaml: no such file" in says("--config_file", f"['{config_file}','none.yaml']")
    assert "none.yaml: no such file" in says(*good, "--inferer", "%none.yaml#inferer")
    assert says("chek", *good).startswith("nothing to run is called chek: ")
    assert "--inferer" in says(*good, "--infrer#overlap", "0.5")
    broken = tmp_path / "broken.yaml"
    broken.write_text("epochs: 1\nvolume: [1, 2\n")
    assert f"{broken}: cannot be parsed: line 3: " in says("--config_file", f"{config_file},{broken}")


def test_run_ids_are_no_options(command):
    for name in ("check", "help"):
        assert f"write the word {name} after run" in refuse(command, f"--{name}")


def test_debug_is_read_from_the_words():
    assert wants_debug(["--volume", "a.tif", "--debug", "true"]) and wants_debug(["--debug"])
    assert not wants_debug(["--volume", "a.tif", "--debug", "false"]) and not wants_debug([])


# -------------------------------------------------------------------------------------------------------- errors


def hook_output(error: BaseException, capsys) -> str:
    sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def chained() -> RuntimeError:
    try:
        try:
            try:
                raise OSError("deep inside")
            except OSError as error:
                raise InputError("a.tif: damaged;\ncopy it again") from error
        except InputError as error:
            raise RuntimeError("applying transform <object>") from error
    except RuntimeError as error:
        return error


def test_hook(command, capsys):
    command()
    assert hook_output(chained(), capsys) == "error: a.tif: damaged; copy it again\n"
    assert hook_output(KeyboardInterrupt(), capsys) == "\ninterrupted; run the same command again to go on\n"
    try:
        raise KeyError("a bug")
    except KeyError as error:
        assert hook_output(error, capsys).startswith("error: a fault of the program: KeyError: 'a bug' (")
    # an InputError that was dealt with does not hide what came later
    try:
        try:
            raise InputError("no prior")
        except InputError:
            raise KeyError("a bug") from None
    except KeyError as error:
        assert hook_output(error, capsys).startswith("error: a fault of the program: KeyError: 'a bug' (")


def test_fault_of_the_program_names_the_line_and_what_to_report():
    try:
        try:
            fail_inside_the_bundle()
        except ValueError as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        line = explain(error)
    assert line.startswith("a fault of the program: ValueError: could not convert string to float")
    assert "(scripts/lattice.py, line " in line and line.endswith("with --debug true and report what that prints")


def fail_inside_the_bundle() -> None:
    lattice.voxel_size("no affine")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error, says",
    [
        (MemoryError(), ("the memory of this machine does not suffice: ", "--tile")),
        (MemoryError("Unable to allocate 7 GiB for an array"), ("does not suffice (Unable to allocate 7 GiB", "cut")),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            ("does not suffice",),
        ),
        (
            RuntimeError("Storage size calculation overflowed with sizes=[9]"),
            ("memory of this machine does not suffice",),
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of"),
            ("the memory of the GPU does not suffice (Tried to allocate 20.00 GiB): ", "--device cpu"),
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a.tif"), ("a.tif: the disk is full", "make room")),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ("the disk is full (Disk quota exceeded)",)),
        (OSError(errno.EROFS, "Read-only file system", b"a.tif"), ("a.tif: cannot be read or written (Read-only",)),
        (PermissionError(errno.EACCES, "Permission denied", "x"), ("x: cannot be read or written", "permissions")),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), ("is the disk full?",)),
    ],
)
def test_short_of_memory_or_disk(error, says):
    try:
        raise RuntimeError("applying transform") from error
    except RuntimeError as raised:
        line = explain(raised)
    assert "\n" not in line and "fault of the program" not in line
    for part in says:
        assert part in line


@pytest.mark.usefixtures("command")
def test_exception_of_a_thread_is_said_once(capsys):
    show_errors_in_one_line()
    full = OSError(errno.ENOSPC, "No space left on device", "events.out")

    def write() -> None:
        raise full

    def run_thread() -> None:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    run_thread()
    assert capsys.readouterr().err == ""
    failures._say_the_unsaid()  # what Python does at the end of a run that knows nothing of it
    assert capsys.readouterr().err.startswith("warning: events.out: the disk is full")
    run_thread()
    assert hook_output(full, capsys).startswith("error: events.out: the disk is full")
    failures._say_the_unsaid()
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------- signals


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_the_run_as_interruption_does(number, capsys):
    show_errors_in_one_line()
    stop_on_signals()
    cleared = []
    with pytest.raises(Stopped) as stopped:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            for again in SIGNALS:  # must not break into this
                os.kill(os.getpid(), again)
            cleared.append(True)
    assert cleared and isinstance(stopped.value, KeyboardInterrupt)
    with pytest.raises(SystemExit) as ended:
        hook_output(stopped.value, capsys)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"\nstopped by {number.name}; run the same command again to go on\n"


@pytest.mark.usefixtures("command")
def test_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    stop_on_signals()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_python_code_keeps_its_signals(config_file):
    workflow = ConfigWorkflow(str(config_file), logging_file=False, volume="none.tif")
    workflow.initialize()
    with pytest.raises(RuntimeError):
        workflow.run()
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in SIGNALS)


@pytest.mark.parametrize("debug", [True, "true"])
def test_debug_leaves_everything(command, debug):
    hook = sys.excepthook
    command(debug=debug)
    assert sys.excepthook is hook
    with pytest.raises(InputError):
        command("--epoch", "1", debug=debug)


@pytest.mark.usefixtures("command")
def test_logs_about_an_exception_are_dropped(caplog):
    show_errors_in_one_line()
    log = logging.getLogger("ignite.engine.engine.Trainer")
    log.error("before")
    for error in (chained(), KeyboardInterrupt(), KeyError("a bug")):
        with pytest.raises(type(error)):
            try:
                raise error
            finally:
                log.error("Engine run is terminating due to exception")
    log.error("after")
    assert [record.getMessage() for record in caplog.records] == ["before", "after"]


def test_one_line():
    assert one_line(ValueError("first\nsecond")) == "first"
    assert one_line(EOFError()) == "EOFError"


# ------------------------------------------------------------------------------------------------- as a user runs


def run_bundle(config_file: Path, *arguments: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config_file), *arguments]
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=config_file.parent.parent.parent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--volume", "none.tif"], "error: none.tif: no such file or folder"),
        (["--volum", "none.tif"], "error: unknown option --volum: did you mean --volume? "),
    ],
)
def test_command_ends_in_one_line(config_file, arguments, expected):
    result = run_bundle(config_file, *arguments)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert "terminating due to exception" not in result.stdout + result.stderr
    assert "Transform input info" not in result.stdout + result.stderr
    assert result.stderr.splitlines()[-1].startswith(expected)


@pytest.mark.slow
def test_debug_shows_the_traceback(config_file):
    result = run_bundle(config_file, "--volume", "none.tif", "--debug", "true")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "InputError: none.tif" in result.stderr
