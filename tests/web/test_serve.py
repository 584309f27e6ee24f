"""The server of ``mist serve``: answers, refusals, batches, metrics and its end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.inference import Predictor
from mistnn.models.mist import MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.web.listener import Listener
from tests.data.tiffs import write_tiff

service = pytest.importorskip("mistnn.web.service", reason="the extra serve is not installed")

CONFIG = MistConfig(
    class_names=("cell", "dirt"), k=3, threshold=1e-6,
    heatmap=HeatmapConfig(network="paper", channels=4, blocks=1), encoder=EncoderConfig("small", width=4, code=8),
)  # fmt: skip


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    torch.manual_seed(0)
    model = CONFIG.build()
    monkeypatch.setattr(type(model), "intervals", (0.5, 1.0))
    return Predictor(model)


@contextlib.contextmanager
def running(predictor: Predictor, **settings: Any) -> Iterator[str]:
    """The host and port of a server."""
    listener = Listener("127.0.0.1", 0)
    listener.take(service.build_service(predictor, "model", **settings), timeout_graceful_shutdown=5)
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not listener.server.started:
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield listener.url.removeprefix("http://").rstrip("/")
    finally:
        listener.stop()
        thread.join(30)
        listener.close()


def ask(host: str, path: str, body: Any = None, method: str = "POST", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(host, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def png(width: int = 48, height: int = 40, seed: int = 0, kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def form(content: bytes, name: str = "scene.png", **fields: str) -> tuple[bytes, str]:
    head = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n' for field, text in fields.items()
    ).encode()
    head += f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def test_answers_are_those_of_the_predictor(predictor: Predictor) -> None:
    expected = predictor.predict(Image.open(io.BytesIO(png())))
    assert 0 < len(expected)
    with running(predictor) as host:
        code, answer = ask(host, "/predict", png())
        assert code == 200
        assert ask(host, "/predict", form(png())[0], Content_Type=form(png())[1]) == (200, answer)
        assert (answer["width"], answer["height"], answer["count"]) == (48, 40, len(expected))
        assert answer["counts"] == expected.counts and answer["at_limit"] == expected.at_limit
        assert answer["intervals"] is None and expected.at_limit, "there may be any number more"
        fewer = dataclasses.replace(expected, at_limit=False)
        assert (
            fewer.count_intervals
            and service.answer_of(predictor, fewer, None, "model").intervals == fewer.count_intervals
        )
        assert answer["unlike"] is None and answer["model"] == "model"
        assert [one["class_name"] for one in answer["objects"]] == expected.names
        for one, box, score in zip(answer["objects"], expected.boxes, expected.scores, strict=True):
            assert one["box"] == pytest.approx(box.tolist(), abs=1e-4) and one["score"] == pytest.approx(float(score))
        code, answer = ask(host, "/predict?k=2", png())
        assert code == 200 and len(answer["objects"]) == 2
        assert answer["at_limit"] is None and answer["intervals"] is None
        assert ask(host, "/predict", form(png(), k="2")[0], Content_Type=form(png())[1]) == (200, answer)
        assert answer["notes"] == []
        pages = io.BytesIO()
        Image.open(io.BytesIO(png())).save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (48, 40))])
        assert ask(host, "/predict", pages.getvalue())[1]["notes"] == [
            "the image holds 2 pages: only the first was used"
        ]
        code, answer = ask(host, "/health", method="GET")
        assert code == 200 and answer["status"] == "ok" and answer["classes"] == ["cell", "dirt"]
        schema = ask(host, "/openapi.json", method="GET")[1]
        assert "at_limit" in schema["components"]["schemas"]["Answer"]["properties"]


def test_refusals(predictor: Predictor, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    grey = np.zeros((40, 48), np.uint8)
    write_tiff(tmp_path / "raw", [grey], tags={50706: [1, 4]})
    write_tiff(tmp_path / "preview", [grey], tags={254: [1]})
    caplog.set_level("INFO", "mistnn.serve")
    limits = service.Limits(size=20_000, pixels=9_000)
    broken = png(90, 90)[:3000]
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    raw, kind = form(png(), "a.dng")
    cases: list[tuple[str, Any, dict[str, str], int, str]] = [
        ("/predict", b"", {}, 400, "holds no image"),
        ("/predict", broken, {}, 400, "can't be read"),
        ("/predict", b"no image", {}, 415, "not an image"),
        ("/predict", postscript, {}, 415, "EPS isn't accepted"),
        ("/predict", raw, {"Content_Type": kind}, 415, "raw photographs"),
        ("/predict", png(100, 100), {}, 413, "10,000 pixels, and 9,000"),
        ("/predict", png(150, 150), {}, 413, "20,000 bytes"),
        ("/predict", iter([png(150, 150)]), {}, 413, "20,000 bytes"),  # without a length
        ("/predict", form(png(150, 150))[0], {"Content_Type": kind}, 413, "20,000 bytes"),
        ("/predict", b"--x--\r\n", {"Content_Type": kind}, 400, "holds no file"),
        ("/predict", b"nonsense", {"Content_Type": kind}, 400, ""),
        ("/predict", png(1, 1), {}, 400, "this image"),
        ("/predict?k=0", png(), {}, 400, "at least 1"),
        ("/predict?k=many", png(), {}, 400, "whole number"),
        ("/predict?k=2&k=3", png(), {}, 400, "k is given twice"),
        ("/predict/", png(), {}, 404, ""),
        ("/predict?k=2", form(png(), k="3")[0], {"Content_Type": kind}, 400, "k is given twice"),
        ("/predict?K=2", png(), {}, 400, "'K' is no option"),
        ("/predict", form(png(), k="two")[0], {"Content_Type": kind}, 400, "whole number"),
        ("/predict", form(png(), most="2")[0], {"Content_Type": kind}, 400, "field 'most'"),
        ("/predict", (tmp_path / "raw").read_bytes(), {}, 415, "raw photograph (DNG)"),
        ("/predict", (tmp_path / "preview").read_bytes(), {}, 415, "small copy"),
        ("/predict?k=100000", png(), {}, 400, "this image"),
        ("/predict?k=1_0", png(), {}, 400, "k must be a whole number from 1"),
        ("/predict?k=3.0", png(), {}, 400, "k must be a whole number from 1"),
        ("/other%0Aline", png(), {}, 404, "/predict"),
        ("/health", png(), {}, 405, "POST"),
        ("/predict", png(), {"Host": "example.com"}, 403, "this computer"),
        ("/predict", png(), {"Origin": "http://example.com"}, 403, "this computer"),
        ("/predict", png(), {"Sec_Fetch_Site": "cross-site"}, 403, "this computer"),
    ]
    with running(predictor, limits=limits) as host:
        for path, body, headers, code, words in cases:
            found = ask(host, path, body, **headers)
            assert found[0] == code and list(found[1]) == ["error"], (path, headers, found)
            assert words in found[1]["error"] and "\n" not in found[1]["error"], found
        assert ask(host, "/predict", png())[0] == 200  # it goes on
        text = ask(host, "/metrics", method="GET")[1]
    assert 'mist_requests_total{path="/predict",code="413"} 4' in text
    assert 'mist_requests_total{path="other",code="404"} 2' in text
    lines = [one.getMessage() for one in caplog.records if one.name == "mistnn.serve"]
    assert len(lines) == len(cases) + 2 and not any("\n" in line for line in lines)
    assert re.fullmatch(r"\S+Z 127\.0\.0\.1 POST /predict 200 size=48x40 objects=\d+ batch=1 ms=\d+", lines[-2])


def test_requests_at_once_share_batches(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    gate = threading.Event()
    usual = predictor.predictions

    def slowly(images: Any, k: int | None = None) -> Any:
        sizes.append(len(images))
        gate.wait(30)
        return usual(images, k)

    single = [predictor.predict(Image.open(io.BytesIO(png(seed=seed)))) for seed in range(8)]
    monkeypatch.setattr(predictor, "predictions", slowly)
    limits = service.Limits(waiting=10)
    with running(predictor, limits=limits) as host, concurrent.futures.ThreadPoolExecutor(16) as pool:
        first = pool.submit(ask, host, "/predict", png())
        while not sizes:
            time.sleep(0.01)
        same = [pool.submit(ask, host, "/predict", png(seed=seed)) for seed in range(8)]
        other = pool.submit(ask, host, "/predict", png(60, 50))
        while "mist_waiting 10\n" not in ask(host, "/metrics", method="GET")[1]:
            time.sleep(0.01)
        code, answer = ask(host, "/predict", png())
        assert code == 503 and "try again" in answer["error"]
        gate.set()
        assert first.result()[0] == other.result()[0] == 200
        for seed, one in enumerate(same):
            code, answer = one.result()
            assert code == 200 and answer["count"] == len(single[seed])
            for found, box in zip(answer["objects"], single[seed].boxes.tolist(), strict=True):
                assert found["box"] == pytest.approx(box, abs=1e-3)
        metrics = ask(host, "/metrics", method="GET")[1]
    assert sorted(sizes) == [1, 1, 8]
    assert "mist_batches_total 3\n" in metrics and "mist_images_total 10\n" in metrics
    assert re.search(r"^mist_request_seconds_count \d+$", metrics, re.MULTILINE)


def test_a_failure_is_one_answer_and_the_server_goes_on(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = predictor.predictions

    def fails(images: Any, k: int | None = None) -> Any:
        raise errors.pop() if errors else AssertionError

    errors: list[Exception] = [RuntimeError("out of memory"), ZeroDivisionError("a defect")]
    with running(predictor) as host:
        monkeypatch.setattr(predictor, "predictions", fails)
        code, answer = ask(host, "/predict", png())
        assert code == 500 and answer == {"error": "the server failed; its log says more"}
        code, answer = ask(host, "/predict", png())
        assert code == 400 and "memory" in answer["error"]
        monkeypatch.setattr(predictor, "predictions", usual)
        assert ask(host, "/predict", png())[0] == 200
    assert "a defect" in caplog.text  # with its traceback


def test_mistakes_of_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, words in (
        (["mist-mnist-3", "--port", "70000"], "--port"),
        (["mist-mnist-3", "--host", "no.such.host.invalid"], "--host"),
        (["no-model"], "no-model"),
    ):
        assert main(["serve", *arguments]) == 2
        assert words in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mistnn.web.service", None)
    assert main(["serve", "mist-mnist-3"]) == 2
    assert "mistnn[serve]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_has_answered(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "mistnn", "serve", "mist-mnist-3", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        host = server.stdout.readline().split("http://")[1].partition("/")[0]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, host, "/predict", png(1200, 1200))
            while "mist_waiting 1\n" not in ask(host, "/metrics", method="GET")[1] and not answer.done():
                time.sleep(0.01)
            os.kill(server.pid, number)
            assert answer.result()[0] == 200
        _, log = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in log and "POST /predict 200" in log
