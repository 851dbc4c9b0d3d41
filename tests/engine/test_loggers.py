"""Loggers of Weights & Biases (offline) and MLflow (a folder): what they need, what they get, how they end."""

import importlib.util
import math
import os

import pytest

from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.loggers import check_loggers
from mmseg_ext.errors import MissingExtraError, TrainingError


def with_logger(path, **hook):
    cfg = load_config(str(path))
    cfg.log_config.hooks.append(hook)
    return cfg


@pytest.mark.parametrize(("hook", "package"), [("WandbLoggerHook", "wandb"), ("MlflowLoggerHook", "mlflow")])
def test_a_missing_package_is_named_before_anything_is_written(tiny_config, tmp_path, monkeypatch, hook, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find_spec(name, *a))
    words = f"{hook} in log_config.hooks needs {package}, which is not installed; pip install {package}"
    with pytest.raises(MissingExtraError, match=words):
        train(with_logger(tiny_config, type=hook), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    check_loggers(load_config(str(tiny_config)))


def test_two_processes_say_it_once_and_end(tiny_config, tmp_path, run_tool):
    hook = "DvcliveLoggerHook"
    if importlib.util.find_spec("dvclive") is not None:
        pytest.skip("dvclive is installed")
    own = tmp_path / "own.py"
    own.write_text(f"_base_ = {str(tiny_config)!r}\nlog_config = dict(hooks=[dict(type={hook!r})])\n")
    done = run_tool("dist_train.sh", own, 2, "--work-dir", tmp_path / "run")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and f"{hook} in log_config.hooks needs dvclive" in errors[0]


def test_mlflow_gets_losses_and_scores(tiny_config, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    cfg = with_logger(tiny_config, type="MlflowLoggerHook", exp_name="mine", log_model=False, by_epoch=False)
    train(cfg, str(tmp_path / "run"))
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in losses) == [1, 2, 3, 4] and all(math.isfinite(p.value) for p in losses)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val/mIoU")] == [2, 4]
    # a run that fails says so
    cfg = with_logger(tiny_config, type="MlflowLoggerHook", exp_name="bad", log_model=False, by_epoch=False)
    cfg.optimizer.lr = 1e30
    with pytest.raises(TrainingError):
        train(cfg, str(tmp_path / "bad"))
    (run,) = client.search_runs([client.get_experiment_by_name("bad").experiment_id])
    assert run.info.status == "KILLED" and mlflow.active_run() is None


def test_wandb_writes_its_offline_run(tiny_config, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    hook = dict(type="WandbLoggerHook", init_kwargs=dict(project="mine", dir=str(tmp_path)), by_epoch=False)
    train(with_logger(tiny_config, **hook), str(tmp_path / "run"))
    assert wandb.run is None
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert any(name.endswith(".wandb") for name in os.listdir(folder))
