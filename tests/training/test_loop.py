"""The loop: exact resumption, interruption, logging, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mistnn.errors import MistError
from mistnn.training import TrainConfig, fit, prepare_run_folder
from mistnn.training import loop as loop_module
from mistnn.training.checkpoint import Progress, read_checkpoint
from tests.training import toy
from tests.training.toy import DESCRIBE, FewToys, Toys, ToyStep, train

STATE = Path("checkpoint") / "state.safetensors"


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(a: Path, b: Path) -> None:
    """Equal bit for bit: model, optimizers, generator; and the same iterations in the log."""
    first, second = load_file(a / STATE), load_file(b / STATE)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert [line["step"] for line in lines(a)] == [line["step"] for line in lines(b)]


def start(out: Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(toy.__file__), str(out), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | python_path())


def python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Waits until a file is not empty."""
    deadline = time.monotonic() + seconds
    while not path.exists() or path.stat().st_size == 0:
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    result, _ = train(out)
    assert (result.steps, result.interrupted) == (40, False)
    return out


@pytest.mark.parametrize(("stops", "workers"), [([1], 0), ([3], 0), ([17], 1), ([39], 0), ([5, 6, 30], 0)])
def test_resume_is_exact(whole: Path, tmp_path: Path, stops: list[int], workers: int) -> None:
    for part, steps in enumerate([*stops, 40]):
        torch.rand(part)  # the state of the generator in between does not matter
        result, _ = train(tmp_path / "run", steps=steps, resume=part > 0, workers=workers)
        assert result.steps == steps
    first, second = load_file(whole / STATE), load_file(tmp_path / "run" / STATE)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_other_random_numbers_would_be_seen(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", dropout=False)
    first, second = load_file(whole / STATE), load_file(tmp_path / "run" / STATE)
    assert not torch.equal(first["model/first.weight"], second["model/first.weight"])


def test_kill_at_any_moment_then_resume_is_exact(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for attempt, delay in enumerate((0.0, 0.23)):
        seen = (out / STATE).stat().st_mtime_ns if attempt else 0
        process = start(out, resume=attempt > 0, wait=0.02, save_every=1)
        deadline = time.monotonic() + 60
        while not (out / STATE).exists() or (out / STATE).stat().st_mtime_ns == seen:  # it trains
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.003)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert all(line["step"] < 40 for line in lines(out))  # there may be none yet on a busy machine
    result, _ = train(out, resume=True, save_every=1)
    assert result.steps == 40
    assert_same_run(whole, out)


def test_kill_before_the_first_checkpoint(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "run", wait=0.02, save_every=0)
    wait_for(tmp_path / "run" / "metrics.jsonl")
    process.kill()
    process.communicate()
    assert not (tmp_path / "run" / STATE).exists()
    train(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


class Death(BaseException):
    """An exception that our code never catches."""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_death_while_a_checkpoint_is_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A kill rarely hits the milliseconds of writing, so here each system call dies in turn."""
    out = tmp_path / "run"
    train(out, steps=5)
    real = getattr(os, call)
    for calls_before_death in range(6):
        left = [calls_before_death]

        def die_later(*arguments: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Death
            real(*arguments)

        with monkeypatch.context() as patch, pytest.raises(Death):
            patch.setattr(os, call, die_later)
            train(out, resume=True)
        read_checkpoint(out / STATE)
    train(out, resume=True)
    first, second = load_file(whole / STATE), load_file(out / STATE)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = start(out, wait=0.05, save_every=0)
    wait_for(out / "metrics.jsonl")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    received = json.loads(output)
    assert received["interrupted"] and 4 <= received["steps"] < 40
    assert received["heavy"] == []  # a single process imports neither accelerate nor tools that it does not use
    train(out, resume=True)
    assert_same_run(whole, out)


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(tmp_path / "run", steps=1)
    assert signal.getsignal(signal.SIGINT) is before


def run_toy(out: Path, step: ToyStep | None = None, **fields: object) -> ToyStep:
    step = ToyStep() if step is None else step
    config = TrainConfig(**({"steps": 6, "batch_size": 2, "log_every": 2, "device": "cpu"} | fields))  # type: ignore[arg-type]
    fit(step, Toys(), config, out, describe=DESCRIBE)
    return step


def test_nan_is_named_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(MistError, match=r"'task' is nan at iteration 9; the last good checkpoint stays") as error:
        run_toy(tmp_path / "run", ToyStep(nan_at=9), steps=20, log_every=20, save_every=4)
    assert "\n" not in str(error.value)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == DESCRIBE
    assert read_checkpoint(tmp_path / "run" / STATE)[0]["iteration"] == 8


def test_weights_that_broke_under_a_finite_loss_are_not_saved(tmp_path: Path) -> None:
    class Breaks(ToyStep):
        def __call__(self, batch, iteration):  # type: ignore[no-untyped-def]
            scalars = super().__call__(batch, iteration)
            if iteration == 4:
                self.model.first.bias.data[0] = torch.inf
            return scalars

    with pytest.raises(MistError, match=r"'first\.bias' is not finite after iteration 4; there was no checkpoint yet"):
        run_toy(tmp_path / "run", Breaks(), steps=5, save_every=0)
    assert not (tmp_path / "run" / STATE).exists()


def test_a_line_of_the_log_holds_means(tmp_path: Path) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    config = TrainConfig(steps=5, batch_size=2, log_every=2, device="cpu")
    result = fit(
        ToyStep(), Toys(), config, tmp_path / "run", describe=DESCRIBE, on_log=lambda t, v: heard.append((t, v))
    )
    written = lines(tmp_path / "run")
    assert [line["step"] for line in written] == [2, 4, 5] == [t for t, _ in heard]
    assert [line["iteration"] for line in written] == [0.5, 2.5, 4.0]
    assert {"task", "seconds", "peak_memory_mib"} <= written[0].keys()
    assert 10 < written[0]["peak_memory_mib"] < 1e5
    assert 0 < written[-1]["seconds"] <= result.seconds


def test_resume_cuts_the_log_back(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out, steps=9)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "task": 1.0}\n{"step": 16, "ta')
    train(out, steps=40, resume=True)
    assert [line["step"] for line in lines(out)] == [4, 8, 9, *range(12, 41, 4)]
    assert lines(out)[3]["iteration"] == 10.0


def test_callbacks_do_not_disturb_training(whole: Path, tmp_path: Path) -> None:
    """They draw random numbers and change the mode: the run stays the same, bit for bit."""
    modes: list[bool] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        modes.append(model.training)
        return {"both": float(torch.rand(()))}

    def save_model(model: nn.Module, out: Path, progress: Progress) -> None:
        model.eval()
        (out / "model.safetensors").write_text(str(float(torch.rand(()))))

    config = TrainConfig(
        steps=40, batch_size=4, seed=5, log_every=4, save_every=3, evaluate_every=15, device="cpu", threads=1
    )
    out = tmp_path / "run"
    result = fit(
        ToyStep(),
        Toys(),
        config,
        out,
        describe=DESCRIBE,
        evaluate=evaluate,
        on_log=lambda t, v: torch.manual_seed(0) and None,
        save_model=save_model,
    )
    first, second = load_file(whole / STATE), load_file(out / STATE)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    evaluations = [line for line in lines(out) if "evaluate/both" in line]
    assert [line["step"] for line in evaluations] == [15, 30, 40]
    assert modes == [False] * 3
    assert result.metrics == {"both": evaluations[-1]["evaluate/both"]}

    again = fit(ToyStep(), Toys(), config, out, describe=DESCRIBE, evaluate=evaluate, resume=True)
    assert (again.steps, again.metrics, len(modes)) == (40, result.metrics, 3)  # nothing is left to do


def test_saving_receives_the_progress_of_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all parts of a resumed run; the peak is the largest of them."""
    received: list[Progress] = []
    for steps, peak in ((2, 300.0), (4, 200.0)):
        monkeypatch.setattr(loop_module, "peak_memory_mib", lambda peak=peak: peak)
        fit(
            ToyStep(wait=0.01),
            Toys(),
            TrainConfig(steps=steps, batch_size=2, save_every=0, device="cpu"),
            tmp_path / "run",
            describe=DESCRIBE | {"experiment": {"train": {"steps": steps}}},
            resume=steps == 4,
            save_model=lambda model, out, progress: received.append(progress),
        )
    assert [(one.iteration, one.peak_memory_mib) for one in received] == [(2, 300.0), (4, 300.0)]
    assert 0.02 <= received[0].seconds and received[0].seconds + 0.02 <= received[1].seconds < 60


def test_an_evaluation_that_was_killed_is_repeated(tmp_path: Path) -> None:
    def killed(model: nn.Module) -> dict[str, float]:
        raise KeyboardInterrupt

    config = TrainConfig(steps=4, batch_size=2, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(ToyStep(), Toys(), config, tmp_path / "run", describe=DESCRIBE, evaluate=killed)
    step = ToyStep()
    result = fit(
        step, Toys(), config, tmp_path / "run", describe=DESCRIBE, evaluate=lambda model: {"both": 0.5}, resume=True
    )
    assert result.metrics == {"both": 0.5}
    assert step.seen_images == []


def test_a_finite_data_set_is_seen_whole_in_each_epoch(tmp_path: Path) -> None:
    step = ToyStep()
    fit(step, FewToys(10), TrainConfig(steps=5, batch_size=4, device="cpu"), tmp_path / "run", describe=DESCRIBE)
    seen = torch.cat(step.seen_images)[:, 0, 0, 0].tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_toy(tmp_path / "run", tensorboard=True)
    assert [path.stat().st_size > 100 for path in (tmp_path / "run" / "tensorboard").iterdir()] == [True]


def test_missing_tensorboard_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MistError, match="pip install tensorboard"):
        run_toy(tmp_path / "run", tensorboard=True)


def test_resume_refuses_another_seed_and_takes_more_steps(tmp_path: Path) -> None:
    run_toy(tmp_path / "run", steps=2)
    with pytest.raises(MistError, match=r"train\.seed was 0 and is now 1"):
        fit(
            ToyStep(),
            Toys(),
            TrainConfig(steps=2, batch_size=2, seed=1),
            tmp_path / "run",
            describe=DESCRIBE,
            resume=True,
        )
    with pytest.raises(MistError, match="already holds iteration 2; give train.steps above 1"):
        fit(ToyStep(), Toys(), TrainConfig(steps=1, batch_size=2), tmp_path / "run", describe=DESCRIBE, resume=True)
    longer = DESCRIBE | {"mistnn": "0.1", "experiment": {"train": {"steps": 3}}}
    result = fit(ToyStep(), Toys(), TrainConfig(steps=3, batch_size=2), tmp_path / "run", describe=longer, resume=True)
    assert result.steps == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("seed", -1),
        ("log_every", 0),
        ("save_every", -1),
        ("workers", -1),
        ("threads", 0),
    ],
)
def test_impossible_settings_are_refused(name: str, value: int) -> None:
    with pytest.raises(MistError, match=rf"train\.{name}={value} must be [01] or more"):
        TrainConfig(**{name: value})
    with pytest.raises(MistError, match=rf"train\.{name}={2**63} must be below"):
        TrainConfig(**{name: 2**63})


@pytest.mark.plain
def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(MistError, match="train.device='tpu' must be auto or cpu or cuda"):
        TrainConfig(device="tpu")  # type: ignore[arg-type]


def test_run_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    with pytest.raises(MistError, match="no run to resume"):
        prepare_run_folder(out, force=False, resume=True)
    prepare_run_folder(out, force=False, resume=False)
    run_toy(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MistError, match="already holds a run"):
        run_toy(out)
    prepare_run_folder(out, force=False, resume=True)
    assert (out / STATE).exists()
    prepare_run_folder(out, force=True, resume=False)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with pytest.raises(MistError, match="can.t write to --out|cannot write here"):
        prepare_run_folder(out / "notes.txt" / "run", force=False, resume=False)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MistError, match="can.t write to --out|cannot write here"):
        prepare_run_folder(tmp_path, force=False, resume=False)
