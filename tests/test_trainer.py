# SPDX-License-Identifier: Apache-2.0
"""The trainer and the evaluator of both trainings: what they log, validate and save, in which order, and what can be
added."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.data import CacheDataset
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
from monai.handlers import MeanSquaredError, PeakSignalToNoiseRatio, ValidationHandler, from_engine
from scripts.cli.failures import input_error
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.phantom import write_sample
from scripts.training.ema import EMA
from scripts.training.evaluator import VolumeEvaluator
from scripts.training.losses import ReconstructionLoss
from scripts.training.output_folder import OutputFolder
from scripts.training.prepare_batch import SequencePrepareBatch
from scripts.training.sequence_inferer import SequenceInferer
from scripts.training.trainer import VolumeTrainer
from scripts.transforms.rand_sequences import RandSequencesd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"


class Toy:
    """A stage III of two epochs of three steps, with a validation after each."""

    def __init__(self, folder: Path, **options: Any) -> None:
        torch.manual_seed(0)
        volume = torch.rand(1, 14, 14, 14)
        dataset = CacheDataset([{"image": volume}], RandSequencesd("image", (14, 14), (2, 3)), progress=False)
        network = AENet(widths=(2, 2, 2, 2))
        self.optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        self.ema = EMA(network, 0.5)
        self.output = OutputFolder(folder, "model.pt", {}, {"seed": 0}, 2)
        common: Any = {
            "device": torch.device("cpu"),
            "dataset": dataset,
            "inferer": SequenceInferer(),
            "prepare_batch": SequencePrepareBatch(),
            "output": self.output,
            "seed": 0,
        }
        psnr = PeakSignalToNoiseRatio(max_val=1.0, output_transform=from_engine(["pred", "label"]))
        self.evaluator = VolumeEvaluator(network=self.ema.network, key_val_metric={"psnr": psnr}, **common)
        self.trainer = VolumeTrainer(
            max_epochs=2,
            epoch_length=3,
            network=network,
            ema=self.ema,
            optimizer=self.optimizer,
            loss_function=ReconstructionLoss(),
            description="toy",
            train_handlers=[ValidationHandler(interval=1, validator=self.evaluator)],
            **common,
            **options,
        )


def test_curves_and_checkpoint_of_a_training(tmp_path):
    toy = Toy(tmp_path)
    there: list[bool] = []
    toy.evaluator.add_event_handler(Events.STARTED, lambda: there.append(toy.output.checkpoint.exists()))
    toy.trainer.run()
    assert there == [False, True]  # an epoch is validated before its checkpoint is saved
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in curves.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    for name in ("psnr", "ssim"):
        assert [event.step for event in curves.Scalars(name)] == [1, 2]
    checkpoint = torch.load(toy.output.checkpoint, weights_only=True)
    assert set(checkpoint) == {
        *("network", "ema", "optimizer", "lr_scheduler"),
        *("resume_must_match", "epoch", "iteration"),
    }
    for name, value in toy.ema.network.state_dict().items():
        assert torch.equal(checkpoint["ema"][name], value)
        if value.is_floating_point() and value.ndim > 1:
            assert not torch.equal(checkpoint["network"][name], value)


def test_learning_rate_falls_along_a_cosine_to_almost_nothing(tmp_path):
    toy = Toy(tmp_path)
    rates: list[float] = []
    toy.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: rates.append(float(toy.optimizer.param_groups[0]["lr"]))
    )
    toy.trainer.run()
    rates.append(float(toy.optimizer.param_groups[0]["lr"]))
    cosine = 1e-6 + (1e-2 - 1e-6) * (1 + torch.cos(torch.linspace(0, torch.pi, 7))) / 2
    assert rates == pytest.approx(cosine.tolist(), rel=1e-3, abs=1e-8)


def test_a_diverged_epoch_is_neither_validated_nor_saved(tmp_path):
    toy = Toy(tmp_path)
    validated: list[int] = []
    toy.evaluator.add_event_handler(Events.STARTED, lambda: validated.append(toy.trainer.state.epoch))

    def diverge(engine: Engine) -> None:
        if engine.state.epoch == 2:
            next(toy.ema.network.parameters()).fill_(float("nan"))  # which the loss does not show

    toy.trainer.add_event_handler(Events.EPOCH_STARTED, diverge)
    with pytest.raises(InputError, match="diverged in epoch 2 of 2 .* of epoch 1, and is kept"):
        toy.trainer.run()
    assert validated == [1]
    assert torch.load(toy.output.checkpoint, weights_only=True)["epoch"] == 1


def test_metric_of_the_training_can_be_added(tmp_path):
    metric = MeanSquaredError(output_transform=from_engine(["pred", "label"]))
    toy = Toy(tmp_path, key_train_metric={"mse": metric})
    toy.trainer.run()
    assert 0 < toy.trainer.state.metrics["mse"] < 1


@pytest.mark.parametrize("config", ["train.yaml", "train_diffusion.yaml"])
def test_monai_finds_the_properties_of_a_training(config, tmp_path, monkeypatch):
    """From any folder, and before the run."""
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path, (32, 32, 17), 4)
    options: dict[str, Any] = {"volume": "sample_truth.tif", "patch_size": [16, 16], "output_dir": "out"}
    options |= {"train_factors": [2, 3]} if config == "train.yaml" else {"factor": 4, "width": 4}
    workflow = ConfigWorkflow(str(CONFIGS / config), workflow_type="train", logging_file=False, **options)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.train_handlers and workflow.val_key_metric and workflow.val_interval


# ------------------------------------------------------------------------------------------- what MONAI's users add


TOY: dict[str, Any] = {
    **{"patch_size": [16, 16], "train_factors": [2, 3], "widths": [2, 2, 2, 2], "num_targets": 1, "val_factor": 2},
    **{"max_epochs": 2, "epoch_length": 2, "batch_size": 2, "val_interval": 1, "device": "cpu"},
}
PAIR = [str(CONFIGS / "train.yaml"), str(CONFIGS / "evaluate.yaml")]


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, (32, 32, 17), 4)
    return str(folder / "sample_truth.tif")


def prepared(config: str | list[str], **options: Any) -> ConfigWorkflow:
    """A workflow of the toy size, as MONAI makes it."""
    files = [str(CONFIGS / config)] if isinstance(config, str) else config
    workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, **{**TOY, **options})
    workflow.initialize()
    return workflow


@pytest.mark.slow
def test_handlers_and_metrics_of_monai_can_be_added(volume, tmp_path, monkeypatch):
    """The best checkpoint of the validation, a metric of the training, the loss in the log."""
    best = {"save_dir": str(tmp_path), "save_dict": {"model": "@network"}, "save_key_metric": True}
    best |= {"_target_": "CheckpointSaver", "key_metric_filename": "best.pt"}
    printed = {"_target_": "StatsHandler", "name": "printed", "tag_name": "loss of a step"}
    printed["output_transform"] = "$monai.handlers.from_engine(['loss'], first=True)"
    metric = {"_target_": "MeanSquaredError", "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}
    handlers = [
        {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": "@val_interval"},
        printed,
    ]
    workflow = prepared(
        "train.yaml",
        volume=volume,
        output_dir=str(tmp_path / "out"),
        **{"train#key_metric": {"mse": metric}, "train#trainer#key_train_metric": "@train#key_metric"},
        **{"train#handlers": handlers, "validate#handlers": [best]},
    )
    assert workflow.check_properties() == []
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("printed"), "info", lines.append)
    workflow.run()
    trainer, evaluator = workflow.trainer, workflow.evaluator
    assert 0 < trainer.state.metrics["mse"] < 1
    losses = [line for line in lines if "loss of a step" in line]
    assert len(losses) == TOY["max_epochs"] * TOY["epoch_length"]
    assert f"{float(trainer.state.output[0]['loss']):.4f}" in losses[-1]
    assert set(torch.load(tmp_path / "best.pt", weights_only=True)) == set(trainer.network.state_dict())
    assert evaluator.state.best_metric == max(evaluator.state.metrics["psnr"], evaluator.state.best_metric)


@pytest.mark.slow
def test_tracking_by_mlflow(volume, tmp_path):
    pytest.importorskip("sqlalchemy", reason="MLflow keeps its records in a database")
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    workflow = ConfigWorkflow(
        str(CONFIGS / "train.yaml"),
        workflow_type="train",
        logging_file=False,
        tracking="mlflow",
        **{**TOY, "volume": volume, "output_dir": str(tmp_path / "out")},
    )
    workflow.initialize()
    workflow.run()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'out' / 'mlruns.db'}")
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.metrics["train_loss"] == pytest.approx(float(workflow.trainer.state.output[0]["loss"]))
    assert {"psnr", "ssim"} <= set(run.data.metrics)


@pytest.mark.slow
def test_evaluate_over_a_training_validates_its_weights(volume, tmp_path):
    options = {"volume": volume, "output_dir": str(tmp_path)}
    first = prepared("train.yaml", **options)
    first.run()
    trained = {name: round(value, 4) for name, value in first.evaluator.state.metrics.items()}
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    pair = prepared(PAIR, **{**options, "seed": 0, "max_epochs": 1, "device": "cpu"})
    assert pair.check_properties() == []
    pair.run()
    for name, value in pair.evaluator.network.state_dict().items():
        assert torch.equal(value, weights[name])
    assert {name: round(value, 4) for name, value in pair.evaluator.state.metrics.items()} == trained
    assert pair.trainer.state.epoch == 0
    assert not (tmp_path / "scores.json").exists()


def test_evaluate_over_a_training_checks_the_options_of_both(volume, tmp_path):
    options = {"volume": volume, "output_dir": str(tmp_path)}
    with pytest.raises(RuntimeError) as error:
        prepared(PAIR, **options, batch_size="many")
    assert "--batch_size many" in str(input_error(error.value))


@pytest.mark.slow
def test_federated_learning_trains_and_evaluates(volume, tmp_path):
    kwargs = {**TOY, "volume": volume, "output_dir": str(tmp_path)}
    client = MonaiAlgo(
        bundle_root=str(CONFIGS.parent),
        config_train_filename="configs/train.yaml",
        config_evaluate_filename=["configs/train.yaml", "configs/evaluate.yaml"],
        train_kwargs=dict(kwargs),
        eval_kwargs=dict(kwargs),
        send_weight_diff=False,
    )
    client.initialize()
    assert client.trainer is not None and client.evaluator is not None
    first = {name: value.clone() for name, value in client.trainer.network.state_dict().items()}
    client.train(ExchangeObject(weights=first))
    weights = client.get_weights().weights
    assert any(not torch.equal(weights[name], value) for name, value in first.items())
    metrics = client.evaluate(ExchangeObject(weights=weights)).metrics
    assert {"psnr", "ssim"} <= set(metrics)
    for name, value in client.evaluator.network.state_dict().items():
        assert torch.equal(value, weights[name])
    client.finalize()


@pytest.mark.parametrize(
    "config, kind, options",
    [
        ("train.yaml", "train", {"train_factors": [2, 3]}),
        ("train_diffusion.yaml", "train", {"factor": 4, "width": 4}),
        ("generate.yaml", "infer", {"factor": 8}),
        ("inference.yaml", "infer", {"factor": 2, "output_dir": "out"}),
    ],
)
def test_usual_keys_have_their_usual_meaning(config, kind, options, volume, tmp_path, monkeypatch):
    """Those of the model zoo's configs, from another folder and before the run."""
    monkeypatch.chdir(tmp_path)
    given = {"device": "cpu", "volume": volume, "output_dir": "out", **options}
    workflow = ConfigWorkflow(str(CONFIGS / config), workflow_type=kind, logging_file=False, **given)
    workflow.initialize()
    assert workflow.check_properties() == []
    parsed = workflow.parser.get_parsed_content
    assert isinstance(parsed("network"), torch.nn.Module) and parsed("device") == torch.device("cpu")
    assert parsed("output_dir") == "out" and Path(parsed("bundle_root")) == CONFIGS.parent
    assert parsed("dataset_dir") in (None, str(Path(volume).parent))
    if kind == "train":
        assert isinstance(parsed("optimizer"), torch.optim.Optimizer) and isinstance(parsed("loss"), torch.nn.Module)
        assert workflow.train_handlers and parsed("ckpt_dir") == "out"
    else:
        assert parsed("handlers") and Path(parsed("ckpt_dir")) == CONFIGS.parent / "models"
        assert Path(parsed("checkpoint")).is_file()
    assert Path(parsed("checkpoint")).parent == Path(parsed("ckpt_dir"))
    assert not Path("out").exists()


@pytest.mark.parametrize("config", sorted(file.name for file in CONFIGS.glob("*.yaml")))
def test_several_processes_are_refused(config, monkeypatch, tmp_path):
    """Each would write the same files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    workflow = ConfigWorkflow(str(CONFIGS / config), workflow_type=None, logging_file=False)
    with pytest.raises(RuntimeError) as error:
        workflow.initialize()
    assert "torchrun started 2 processes" in str(input_error(error.value))
    assert list(tmp_path.iterdir()) == []
