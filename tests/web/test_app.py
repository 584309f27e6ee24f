"""The page of ``mist app`` in a browser, and what it serves."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.web.app_server import FOREIGN, serving
from mistnn.web.workshop import Workshop
from tests.web.browser import chromium
from tests.web.squares import draw

pytest.importorskip("gradio", reason="the extra web is not installed")


@contextlib.contextmanager
def running(shop: Workshop) -> Iterator[str]:
    """The address of a page that is being served."""
    with serving(shop, 0) as (server, address):
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        end = time.monotonic() + 60
        while not server.server.started:
            assert time.monotonic() < end
            time.sleep(0.05)
        try:
            yield address
        finally:
            server.stop()
            thread.join(30)


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    host = address.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request(
        "GET", path, headers={"Host": host, **{name.replace("_", "-"): one for name, one in headers.items()}}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_it_serves_this_computer_only_and_no_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden")
    shop = Workshop(tmp_path / "mine", tmp_path / "results")
    draw(shop.images.root / "0.png", 3, 0)
    with running(shop) as address:
        status, page, headers = ask(address, "/")
        assert status == 200 and b"<script" in page
        assert not FOREIGN.search(page) and b"//cdnjs" not in page and b"fonts.googleapis" not in page
        assert "default-src 'self'" in headers["content-security-policy"]
        for wrong in ({"Host": "example.com"}, {"Origin": "http://example.com"}, {"Sec_Fetch_Site": "cross-site"}):
            assert ask(address, "/", **wrong)[0] == 403, wrong
        for path in (secret, shop.images.root / "0.png", Path("/etc/passwd"), shop.out / ".." / "secret.txt"):
            status, body, _ = ask(address, f"/gradio_api/file={path}")
            assert status in (403, 404) and b"hidden" not in body and b"root:" not in body, (path, status)
        with pytest.raises(MistError, match="--port"), serving(shop, int(address.rstrip("/").rpartition(":")[2])):
            pass


def test_a_used_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["app", str(tmp_path / "file"), "--no-open"]) == 2
    assert "mist:" in capsys.readouterr().err


def test_without_its_extra_nothing_is_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", str(tmp_path / "new"), "--no-open"]) == 2
    assert "pip install 'mistnn[web]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_error_is_one_line_and_leaves_the_page(tmp_path: Path) -> None:
    from mistnn.web.app import _literal, _plainly

    def fails(error: Exception) -> None:
        raise error

    handler = _plainly(tmp_path / "app.log", fails)
    with pytest.warns(UserWarning, match=r"^no &lt;b&gt;class&lt;/b&gt;$"):
        assert handler(MistError("no <b>class</b>")) == gr_skip()
    assert not (tmp_path / "app.log").exists()
    with pytest.warns(UserWarning, match=r"should not happen \(ZeroDivisionError\)"):
        assert handler(ZeroDivisionError("secret")) == gr_skip()
    assert "secret" in (tmp_path / "app.log").read_text()
    assert _literal("*a*_1.png <b>") == r"\*a\*\_1\.png \<b\>"


def gr_skip() -> Any:
    import gradio

    return gradio.skip()


@pytest.mark.slow
def test_from_an_empty_page_to_a_table(tmp_path: Path) -> None:
    """Uploads, counts, a training with a reload, wrong input, a prediction, and the downloaded table."""
    playwright, browser_path = chromium()
    images = [draw(tmp_path / "up" / f"{index:02d}.png", 1 + index % 4, index) for index in range(14)]
    table = tmp_path / "up" / "counts.csv"
    table.write_text("file,cells\n" + "".join(f"{index:02d}.png,{1 + index % 4}\n" for index in range(12)))
    images[13] = draw(tmp_path / "up" / "13.jpg", 2, 13)
    wrong = tmp_path / "up" / "wrong.csv"
    wrong.write_text("foo,bar\n1,2\n")
    broken = tmp_path / "up" / "broken.png"
    broken.write_bytes(b"no image")
    shop = Workshop(tmp_path / "mine", tmp_path / "results")
    with running(shop) as address, playwright() as runner:
        browser = runner.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1200})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_text("Drop images above").wait_for(timeout=60_000)
        page.get_by_role("tab", name="2 Train").click()
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_text("no image has a count yet").wait_for()
        page.get_by_text("No model yet").wait_for()  # the error covers nothing
        page.get_by_label("Steps").fill("-5")
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_text("-5 steps: give a whole number").wait_for()
        page.get_by_role("tab", name="1 Images").click()
        page.locator("input[type=file]").first.set_input_files([wrong])
        page.get_by_text("no counts were read: add the images first").wait_for()
        page.locator("input[type=file]").first.set_input_files([*images, broken, wrong, table])
        page.get_by_text("14 images added").wait_for(timeout=60_000)
        for said in ("broken.png was not added", "no counts were read: wrong.csv, row 1", "counts of 12 images read"):
            assert page.get_by_text(said).count() == 1, said
        page.get_by_text("03.png").last.click()
        page.locator("img").first.wait_for()
        _shot(page, "images")
        page.get_by_role("tab", name="2 Train").click()
        page.get_by_label("Steps").fill("40")
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_text("Training").first.wait_for()
        page.reload()
        page.get_by_role("tab", name="2 Train").click()
        page.get_by_text("Trained").first.wait_for(timeout=600_000)
        _shot(page, "train")
        page.get_by_role("tab", name="3 Count").click()
        page.get_by_role("button", name="Count", exact=True).click()
        link = page.locator("a[download='counts.csv']")
        link.wait_for(timeout=120_000)
        assert page.locator("a[download='predicted.html']").count() == 1
        page.locator("[role=gridcell]:visible").get_by_text("13.jpg").click()
        page.locator("img[src*='13.jpg']:visible").first.wait_for()
        page.wait_for_timeout(2000)  # the picture must not take the keyboard away from the table
        for key in ("ArrowRight", "7", "Enter"):
            page.keyboard.press(key)
        page.get_by_role("button", name="Save the corrected counts").click()
        page.get_by_text("1 image saved").wait_for()
        with page.expect_download() as download:
            link.click()
        text = Path(str(download.value.path())).read_text()
        _shot(page, "count")
        browser.close()
    counted = (shop.images.root / "counts.csv").read_text().splitlines()
    assert "13.jpg,cells,7" in counted and not any(row.startswith("12.png") for row in counted)
    assert text.startswith("file,class,count") and "12.png,cells," in text
    assert all(url.startswith((address, "data:", "blob:")) for url in asked), asked
    assert not (shop.out / "app.log").exists()


@pytest.mark.slow
def test_a_thousand_images_by_keyboard_with_readable_colours(tmp_path: Path) -> None:
    playwright, browser_path = chromium()
    for index in range(1000):
        draw(tmp_path / "mine" / f"{index:04d}.png", 1 + index % 4, index)
    shop = Workshop(tmp_path / "mine", tmp_path / "results")
    contrast = (Path(__file__).parent / "contrast.js").read_text("utf-8")
    pale: list[str] = []
    with running(shop) as address, playwright() as runner:
        browser = runner.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("dark", "light"):
            page = browser.new_page(viewport={"width": 1300, "height": 1200}, color_scheme=scheme)
            page.goto(address)
            page.get_by_text("0003.png").last.wait_for(timeout=60_000)
            for tab in ("2 Train", "3 Count", "1 Images"):
                page.get_by_role("tab", name=tab).click()
                page.wait_for_timeout(500)  # colours fade in
                pale += page.evaluate(contrast)
                _shot(page, f"{scheme}-{tab[0]}")
        focus = "() => document.activeElement.textContent.trim()"
        page.reload()
        page.get_by_text("0003.png").last.wait_for(timeout=60_000)
        for _ in range(20):
            page.keyboard.press("Tab")
            assert page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth") != "0px"
            if page.evaluate(focus) == "0000.png":
                break
        started = time.monotonic()
        for key in ("ArrowDown", "ArrowRight", "7", "Enter", "ArrowDown", "1", "5", "Enter"):
            page.keyboard.press(key)
        page.get_by_text("2 of 1000 images have counts").wait_for(timeout=60_000)
        assert time.monotonic() - started < 20
        for key in ("ArrowUp", "1", "2", "Enter"):  # replaces the 7
            page.keyboard.press(key)
        until(lambda: shop.images.labels is not None and shop.images.labels.counts.get("0001.png") == (12,))
        for number in range(100, 120):  # typed faster than the field appears
            page.locator("[role=gridcell]:visible").get_by_text("0003.png").click()
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(100)
            page.keyboard.type(str(number))
            page.wait_for_timeout(100)
            page.keyboard.press("Enter")
            until(
                lambda wanted=(number,): (
                    shop.images.labels is not None and shop.images.labels.counts.get("0003.png") == wanted
                )
            )
        browser.close()
    assert (shop.images.root / "counts.csv").read_text("utf-8").splitlines()[1:] == [
        "0001.png,object,12",
        "0002.png,object,15",
        "0003.png,object,119",
    ]
    assert not pale


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _shot(page: Any, name: str) -> None:
    if folder := os.environ.get("MIST_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"app-{name}.png"), full_page=True)
