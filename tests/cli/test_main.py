from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import mistnn
from mistnn.cli import main as main_module
from mistnn.cli.main import COMMANDS, main
from mistnn.cli.parsing import Folder, Model, options_of, parse, places_of_words, renamed, takes
from mistnn.errors import MistError
from tests.cli.runs import only_line

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(f"mist {name}" in text for name in COMMANDS)
    assert max(map(len, text.splitlines())) <= 120


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mist {mistnn.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([name, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"usage: mist {name}")
    assert captured.err == ""
    assert "``" not in captured.out
    assert "default: None" not in captured.out.partition("model options")[0]


def test_help_shows_the_docs_of_nested_fields(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["train", "mist-mnist-3", "--help"]) == 0
    text = capsys.readouterr().out
    assert "gradient steps on the keypoints" in text
    assert "number of residual blocks" in text
    assert "--resume" in text and "--data-root" in text


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys; from mistnn.cli.main import main; main(['--help']); main(['--version']); "
        "sys.exit(bool({'torch', 'tyro', 'rich', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(mistnn.__file__).parents[1])}


def test_the_package_can_be_run() -> None:
    command = [sys.executable, "-m", "mistnn", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout == f"mist {mistnn.__version__}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """A scheduler may start a command without streams."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m mistnn completion bash {closed}', sys.executable],
        capture_output=True,
        text=True,
        env=_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == "2>&-")


def test_closed_pipe_is_quiet() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mistnn", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["presets"], ["presets", "--help"], ["tran"]], ids=" ".join)
def test_full_output_is_one_line(arguments: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mistnn", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=_environment(),
        )
    only_line(done.stderr, "'tran'" if arguments == ["tran"] else "No space left on device")
    assert done.returncode == 2


LONG = "x" * 300
DEEP = "/".join(["x"] * 3000)


@pytest.mark.parametrize("path", [LONG, DEEP], ids=["long name", "long path"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "PATH", "y", "--out", "z"],
        ["predict", "mist-mnist-3", "PATH", "--out", "z"],
        ["predict", "mist-mnist-3", ".", "--out", "PATH"],
        ["evaluate", "PATH"],
        ["evaluate", "mist-mnist-3", "--json", "PATH"],
        ["evaluate", "mist-mnist-3", "--record", "PATH"],
        ["evaluate", "mist-mnist-3", "--data-root", "PATH"],
        ["train", "demo", "--out", "PATH"],
        ["train", "--resume", "PATH"],
        ["train", "demo", "--start-from", "PATH", "--out", "z"],
        ["train", "mist-mnist-3", "--data-root", "PATH", "--out", "z"],
        ["tune", "PATH", "--out", "z"],
        ["figure", "fig5", "--model", "PATH"],
        ["results", "--ledger", "PATH"],
        ["results", "--ledger", ".", "--out", "PATH"],
    ],
    ids=" ".join,
)
def test_long_paths_are_one_line(
    arguments: list[str], path: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("a.png")
    assert main([argument.replace("PATH", path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    only_line(captured.err, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_other_errors_of_the_system_are_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are defects of ours."""

    def fail(arguments: list[str]) -> int:
        raise FileNotFoundError(2, "No such file or directory", "asset.css")

    monkeypatch.setattr(main_module, "_run", fail)
    with pytest.raises(FileNotFoundError):
        main(["demo"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tran"], ["'tran'", "did you mean train"]),
        (["xyz"], ["'xyz'", "demo", "predict"]),
        (["presets", "--al"], ["'--al'", "--help"]),
        (["demo", "--sed", "3"], ["'--sed'", "--seed"]),
        (["demo", "more"], ["'more'"]),
        (["demo", "--out"], ["missing value", "--out"]),
        (["demo", "--seed", "x"], ["--seed", "'x'", "whole number"]),
        (["demo", "--steps", "x"], ["--steps", "'x'", "whole number"]),
        (["demo", "--seed", "-1"], ["--seed=-1", "0 or more"]),
        (["demo", "--steps", "0"], ["--steps=0", "1 or more"]),
        (["evaluate"], ["MODEL must be given"]),
        (["evaluate", "x", "--split", "train"], ["--split", "'train'", "'validation'"]),
        (["evaluate", "x", "--images", "0"], ["--images=0", "1 or more"]),
        (["evaluate", "no-such-model"], ["'no-such-model'", "shipped models"]),
        (["predict", "x", "y"], ["--out must be given"]),
        (["predict", "no-such-model", "y", "--out", "z"], ["'no-such-model'"]),
        (["figure", "fig9"], ["'fig9'", "fig8"]),
        (["figure", "fig5", "--model", "no-such-model"], ["'no-such-model'"]),
        (["figure", "fig5", "--seed", "-2"], ["--seed=-2"]),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: list[str], capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    only_line(captured.err, *words)
    assert not list(tmp_path.iterdir())


def test_a_message_of_several_lines_becomes_one(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise MistError("first\nsecond: fix it")

    monkeypatch.setattr(main_module, "_run", fail)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "mist: first second: fix it\n"


def test_interrupt(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "_run", interrupt)
    assert main(["demo"]) == 130
    only_line(capsys.readouterr().err, "interrupted")


def test_presets(capsys: Captured) -> None:
    from mistnn.presets import PRESETS

    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["preset", "steps"]
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == list(PRESETS)
    name, steps, images = lines[1].split()[:3]
    train = PRESETS[name].experiment.train
    assert (steps, images) == (f"{train.steps:,}", str(train.batch_size))


def test_demo(capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Path, int, int | None, bool, str]] = []
    begun = time.monotonic()

    def run_demo(
        out: Path, seed: int, steps: int | None, force: bool, start: float, task: str, device: str
    ) -> dict[str, float]:
        assert begun <= start <= time.monotonic()
        calls.append((out, seed, steps, force, task))
        return {"iou50": 0.5, "seconds": 3.0} | ({"both": 0.9125} if task == "classify" else {"iou50": 0.75})

    stand_in = ModuleType("mistnn.reports.demo")
    monkeypatch.setattr(stand_in, "run_demo", run_demo, raising=False)
    monkeypatch.setattr(stand_in, "STORIES", {"classify": None, "discover": None}, raising=False)
    monkeypatch.setitem(sys.modules, "mistnn.reports.demo", stand_in)
    assert main(["demo"]) == 0
    assert main(["demo", "--out", str(tmp_path / "d"), "--seed", "3", "--steps", "5", "--force"]) == 0
    assert calls == [(Path("demo"), 0, None, False, "classify"), (tmp_path / "d", 3, 5, True, "classify")]
    text = capsys.readouterr().out
    assert (
        "91.2% of the objects in test images detected and classified" in text
        and str(tmp_path / "d" / "report.html") in text
    )
    assert main(["demo", "--task", "discover"]) == 0
    assert calls[-1] == (Path("demo-discover"), 0, None, False, "discover")
    assert "75.0% of the objects in test images detected" in capsys.readouterr().out
    assert main(["demo", "--task", "read"]) == 2 and len(calls) == 3


@dataclass(frozen=True)
class Inner:
    flag: bool = False
    some_number: int | None = None
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    model: Model
    folder: Folder
    share: float = 0.5


@dataclass(frozen=True)
class Nested:
    inner: Inner
    folder: Folder


NESTED = Nested(Inner(), Path())
OPTIONS = {
    "--inner.flag": True, "--inner.no-flag": True, "--inner.some-number": False, "--inner.numbers": False,
    "--folder": False,
}  # fmt: skip


def test_options_and_words() -> None:
    assert options_of(Nested, NESTED) == OPTIONS
    assert options_of(Outer) == {"--folder": False, "--share": False}
    assert options_of(Inner) == {name.replace("inner.", ""): OPTIONS[name] for name in OPTIONS if "inner" in name}
    given = ["a", "--inner.flag", "b", "--inner.some_number", "c", "--folder=1", "d", "--unknown", "e"]
    assert [given[place] for place in places_of_words(given, OPTIONS)] == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("m --folder f --share x", "error parsing --share: 'x' is not a number; see `mist x --help`"),
        ("m --folder", "missing value for argument '--folder'"),
        ("", "^MODEL and --folder must be given; see `mist x --help`$"),
        ("m", "^--folder must be given; see `mist x --help`$"),
        ("--folder f", "^MODEL must be given; see `mist x --help`$"),
        ("m --folder f n", "^unexpected argument 'n'"),
        ("m --folder f --shore 3", "^unknown option '--shore': did you mean --share"),
        ("m --folder f --xyzzy 3", "^unknown option '--xyzzy': `mist x --help` lists the options"),
    ],
)
def test_messages_of_the_parser(given: str, message: str) -> None:
    with pytest.raises(MistError, match=message):
        parse(Outer, given.split(), "mist x", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--inner.some-number x", "error parsing --inner.some-number: 'x' is not a whole number; see"),
        ("--inner.some-number=1.5", "'1.5' is not a whole number"),
        ("--inner.numbers 1 x", r"--inner.numbers: .*\['1', 'x'\]"),
        ("--flag", "^unknown option '--flag': did you mean --inner.flag"),
    ],
)
def test_messages_about_nested_options(given: str, message: str) -> None:
    with pytest.raises(MistError, match=message):
        parse(Nested, given.split(), "mist x", "", NESTED)


def test_numbers_are_read() -> None:
    given = "--inner.some-number 3 --inner.numbers 1 2 --folder f".split()
    assert parse(Nested, given, "mist x", "", NESTED) == Nested(Inner(False, 3, (1, 2)), Path("f"))
    before = Nested(Inner(some_number=3), Path())
    assert parse(Nested, ["--inner.some-number=None", "--inner.flag"], "mist x", "", before).inner == Inner(True)
    assert parse(Outer, ["m", "--folder", "f", "--share", "1e-3"], "mist x", "") == Outer("m", Path("f"), 1e-3)


def test_option_names() -> None:
    assert takes(["--a.b_c=3"], "--a.b-c")
    assert takes(["x", "--b"], "--a", "--b") and not takes([], "--a")
    assert not takes(["a.b-c", "--a.b-cd"], "--a.b-c")
    assert renamed(["--data_root=x", "--data-root", "y", "z"], "--data-root", "--data.root") == [
        "--data.root=x",
        "--data.root",
        "y",
        "z",
    ]


def test_parse_names_the_unknown_before_anything_runs() -> None:
    from mistnn.cli.demo import Demo

    with pytest.raises(MistError, match="did you mean --force"):
        parse(Demo, ["--forse"], "mist demo", "")
