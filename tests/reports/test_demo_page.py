"""The report page: valid, self-contained, escaped, in the right order."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch

from mistnn.errors import MistError
from mistnn.inference.judged import JudgedScene
from mistnn.records import Detections
from mistnn.reports.demo_page import (
    DemoReport,
    HeatmapHistory,
    PatchView,
    counts_in_words,
    metric_text,
    render_report,
    thinned,
)
from mistnn.reports.page import write_page
from mistnn.viz import Curve

VOID = {"meta", "img", "input", "br", "source", "link", "hr"}
EVIL = "<b>&\"'"


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> names an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def full_report() -> DemoReport:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 24, 24, generator=generator)
    boxes = torch.tensor([[6.0, 6.0, 8.0, 8.0], [18.0, 18.0, 8.0, 8.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.5]), torch.tensor([0, 1]))
    labels = torch.tensor([0, 0])
    frames = tuple((step, torch.rand(24, 24, generator=generator), boxes[:, :2]) for step in range(0, 100, 20))
    history = HeatmapHistory(image, frames)
    return DemoReport(
        title=f"Title {EVIL}",
        summary=f"It learnt {EVIL}.",
        intro=f"First.\n\nSecond {EVIL}.",
        scenes=(
            JudgedScene(image, found, boxes, labels, torch.tensor([True, False])),
            JudgedScene(image, found._replace(labels=labels), boxes, labels, torch.tensor([True, True])),
        ),
        class_names=("<b>", "7"),
        example=image,
        label=counts_in_words(torch.tensor([2, 1]), ("<b>", "7")),
        given=("the image", f"counts {EVIL}"),
        withheld=("where",),
        histories=(history, history),
        patches=(PatchView(image[:, :8, :8], "<b>", True), PatchView(image[:, 8:16, :8], "7", False)),
        curves={"loss": Curve([0, 1, 2], [3.0, 2.0, 1.0], "log", "loss"), EVIL: Curve([0, 1], [0.0, 1.0], "fraction")},
        curve_notes={"loss": f"lower {EVIL}"},
        metrics={"iou50": 0.97125, "both": 0.9, "images": 1200, "seconds": 118.4, "seed": 12345, "odd": None},
        settings={"batch": "32", EVIL: EVIL},
        repeat=f"mist demo --out {EVIL}",
        notes=(f"note {EVIL}",),
    )


@pytest.fixture(scope="module")
def source() -> str:
    return render_report(full_report())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_is_a_complete_document(source, page):
    assert source.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in page.all("meta")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1


def test_needs_nothing_from_outside(source, page):
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source
    assert "@import" not in source
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    pictures = [image["src"] for image in page.all("img")] + [image["srcset"] for image in page.all("source")]
    assert len(pictures) > 15
    for address in pictures:
        assert address is not None
        assert address.startswith("data:image/png;base64,")
        assert base64.b64decode(address.split(",", 1)[1], validate=True).startswith(b"\x89PNG")


def test_every_picture_says_what_it_shows(page):
    assert all(len(image.get("alt") or "") > 8 for image in page.all("img"))


def test_text_is_escaped(source, page):
    text = "".join(page.text)
    assert not page.all("b"), "a class name became a tag"
    assert "<b>" not in source
    for said in (f"Title {EVIL}", f"It learnt {EVIL}.", f"counts {EVIL}", f"note {EVIL}", f"mist demo --out {EVIL}"):
        assert said in text
    assert text.count(EVIL) >= 9
    assert any("<b>" in (image["alt"] or "") for image in page.all("img"))


def test_pictures_come_before_numbers(source, page):
    assert page.headings == [
        "What it finds in images it has never seen",
        "What it learnt from",
        "How it learns where to look",
        "The patches it cut out",
        "The losses over the training",
        "The numbers",
        "How to repeat it",
    ]
    assert source.index("<img") < source.index("<table")


def test_scenes_say_how_they_went(page):
    text = "".join(page.text)
    assert "<b>, 7 · 1 of 2 correct" in text
    assert "<b>, <b> · all correct" in text
    assert "“two\N{NO-BREAK SPACE}<b>s, one\N{NO-BREAK SPACE}7”" in text
    assert {"missed", "right", "wrong"} <= {item.get("class") for item in page.all("li")}


def test_film_reads_without_scripts(source, page):
    frames = [tag for tag in page.all("div") if tag.get("class") == "strip frame"]
    assert [frame["data-step"] for frame in frames] == ["before training", "step 20", "step 40", "step 60", "step 80"]
    # Frames and controls are only hidden under the class that the script sets.
    assert "scrub" not in {name for tag in page.all("div") for name in (tag.get("class") or "").split()}
    assert re.search(r"\.controls \{ display: none", source)


def test_numbers_are_explained(page):
    text = "".join(page.text)
    for shown in ("0.971", "0.900", "1,200", "118", "12345", "–"):
        assert shown in page.text, shown
    assert "share of objects overlapped by a box of their own" in text


def test_empty_parts_leave_no_section():
    bare = Page(render_report(DemoReport(title="t", summary="s")))
    assert bare.headings == []
    assert not bare.all("img")
    assert not bare.all("script")


def test_unlabelled_run_shows_what_it_rebuilt():
    report = full_report()
    image = report.scenes[0].image
    found = Detections(torch.tensor([[6.0, 6.0, 8.0, 8.0]]), torch.tensor([0.9]))
    views = (JudgedScene(image, found, rebuilt=image * 0.5),)
    patches = (PatchView(image[:, :8, :8], rebuilt=image[:, :8, :8]),)
    page = Page(
        render_report(
            replace(report, scenes=views, patches=patches, class_names=(), label="three things of one kind", metrics={})
        )
    )
    text = "".join(page.text)
    assert "The images, reconstructed" in page.headings
    assert "The numbers" not in page.headings
    assert "1 found · not judged" in text
    assert "“three things of one kind”" in text
    assert "found" in {item.get("class") for item in page.all("li")}


def test_written_whole_and_again_the_same(tmp_path, source):
    path = tmp_path / "report.html"
    write_page(render_report(full_report()), path)
    assert path.read_text(encoding="utf-8") == source
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(MistError, match=r"--out .*report.html can't be written .*: give another file"):
        write_page(source, tmp_path / "gone" / "report.html", "--out")


def test_long_histories_stay_small():
    assert thinned(5) == [0, 1, 2, 3, 4]
    kept = thinned(1000)
    assert (kept[0], kept[-1], len(set(kept))) == (0, 999, 16)
    assert max(b - a for a, b in pairwise(kept)) <= 68


def test_histories_must_share_steps():
    report = full_report()
    short = replace(report.histories[0], frames=report.histories[0].frames[:2])
    with pytest.raises(ValueError, match="same steps"):
        replace(report, histories=(report.histories[0], short))
    with pytest.raises(ValueError, match="at least one"):
        replace(report, histories=(replace(short, frames=()),))


@pytest.mark.parametrize(
    ("counts", "words"),
    [([0, 0], "nothing"), ([1, 0], "one 3"), ([2, 1], "two 3s, one 7"), ([13, 12], "13 3s, twelve 7s")],
)
def test_counts_in_words(counts, words):
    assert counts_in_words(torch.tensor(counts), ("3", "7")).replace("\N{NO-BREAK SPACE}", " ") == words


def test_metric_text():
    assert metric_text("both", 1.0) == "1.000"
    assert metric_text("both", float("nan")) == "not a number"
    assert metric_text("count_error", 12.3456) == "12.35"
