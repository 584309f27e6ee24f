"""The rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jaxtyping
import pytest

import mistnn

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mistnn"
PLAIN = os.environ.get("MISTNN_PLAIN") == "1"

# Slow to import, or an extra: a user pays for them when they are used.
LATE = ("accelerate", "matplotlib", "sklearn", "tifffile", "timm", "torchmetrics")

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
# A path (or path::function) and the reason why it is longer.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {
    "src/mistnn/experiments/run.py::train": "all that happens in a run, in its order; each part is a call"
}

# A path of one machine, an address of a package index, a numeric host.
MACHINE = re.compile(
    r"(?<![\w.$}~-])/(?:work|root|home|Users)/"
    r"|--(?:extra-)?index-url|--find-links|--trusted-host"
    r"|https?://(?!127\.0\.0\.1)\d{1,3}(?:\.\d{1,3}){3}"
)
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".cff", ".html", ".csv", ".yml", ".yaml", ""}


def _modules_loaded_by(statement: str, *options: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _files() -> list[Path]:
    """Everything that is, or is about to be, in the repository."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout: no list of the project's files")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def _sources() -> list[Path]:
    return sorted(path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def test_import_is_light_and_silent() -> None:
    loaded = _modules_loaded_by("import mistnn", "-W", "error")
    assert "mistnn" in loaded
    assert not loaded & {*LATE, "torch"}


@pytest.mark.parametrize("module", ["mistnn.records", "mistnn.ops.topk", "mistnn.nn", "mistnn.models.mist"])
def test_lower_layers_are_silent(module: str) -> None:
    """Warnings that third parties raise while being imported themselves aren't ours: ours are attributed to mistnn."""
    loaded = _modules_loaded_by(f"import warnings\nwarnings.filterwarnings('error', module='mistnn')\nimport {module}")
    assert not loaded & {*LATE}


def test_every_module_imports() -> None:
    """Under the shape checks too: a protocol that isn't ``runtime_checkable`` fails only there."""
    broken = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        if name.endswith("__main__"):
            continue  # a program
        try:
            importlib.import_module(name)
        except Exception as error:
            broken[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    assert not broken


def test_public_names_load_late() -> None:
    loaded = _modules_loaded_by("import mistnn\nfor name in mistnn.__all__: getattr(mistnn, name)")
    assert "torch" in loaded
    assert not loaded & {*LATE}


def test_public_api() -> None:
    """A snapshot: a name that goes or comes is a decision, and a line in CHANGELOG.md."""
    assert mistnn.__all__ == [
        "Detections", "MistError", "Model", "Prediction", "Predictor", "Sample", "TrainedNetwork", "__version__",
        "evaluate", "fit", "from_pretrained", "load", "train",
    ]  # fmt: skip
    for name in mistnn.__all__:
        assert getattr(mistnn, name) is not None
        assert name in dir(mistnn)
    with pytest.raises(AttributeError, match="from_pretrained"):
        _ = mistnn.no_such_name


def test_every_package_says_its_role() -> None:
    silent = []
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        init = folder / "__init__.py"
        if not init.is_file() or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            silent.append(str(init.relative_to(ROOT)))
    assert not silent, f"an __init__.py with a docstring that says the layer's role is missing: {silent}"


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}
    assert set(long) == set(LONG_FILES), f"split it, or give its reason in LONG_FILES (and drop stale ones): {long}"


def test_functions_are_short() -> None:
    long = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                # The docstring doesn't count: a long convention is no reason to split a function.
                text = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - (len(text.splitlines()) if text else 0)
                if lines > MAX_FUNCTION_LINES:
                    long.add(f"{path.relative_to(ROOT)}::{node.name}")
    assert long == set(LONG_FUNCTIONS), "split it, or give its reason in LONG_FUNCTIONS (and drop stale ones)"


def test_no_forbidden_calls() -> None:
    """What import rules can't see: pyplot keeps global state, torch.load and numpy's object arrays unpickle."""
    forbidden = re.compile(r"matplotlib\.pyplot|import pyplot|\btorch\.load\(|allow_pickle=True|\.save_state\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if forbidden.search(line) and "weights_only=True" not in line
    ]
    assert not found, "\n".join(found)


def test_machine_pattern() -> None:
    for bad in ("see /" + "home/me/x", "'/" + "root/run'", "pip --index" + "-url x", "http://10" + ".0.0.7/simple"):
        assert MACHINE.search(bad), bad
    for good in ("../shared/data", "src/home/page", "https://example.org/home/", "http://127.0.0.1:7860"):
        assert not MACHINE.search(good), good


def test_no_machine_in_the_repository() -> None:
    found = []
    for path in _files():
        if path.suffix in TEXT and path != Path(__file__).resolve():
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                if MACHINE.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation is not None
    assert mistnn.__version__ == project["version"] == citation.group(1)
    assert f"## [{mistnn.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_are_names_and_versions() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.+!]+", line)] == []
    pinned = {line.partition("==")[0] for line in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in asked}
    assert names <= pinned, f"not pinned: {sorted(names - pinned)}"


@pytest.mark.skipif(PLAIN, reason="the shape checks are off in this call")
def test_shapes_are_checked() -> None:
    """The import hook is on: without it, most shape errors of the suite would pass unseen."""
    records = importlib.import_module("mistnn.records")
    with pytest.raises(jaxtyping.TypeCheckError):
        records.collate(3)


@pytest.mark.plain
def test_plain_call_is_plain() -> None:
    records = importlib.import_module("mistnn.records")
    with pytest.raises(TypeError) as caught:
        records.collate(3)
    assert not isinstance(caught.value, jaxtyping.TypeCheckError)
