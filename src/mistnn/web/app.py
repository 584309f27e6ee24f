"""The page of ``mist app``, made of Gradio's components: images and counts, training, counting.

Each handler answers with one line if something can't be done, and the page stays as it was: Gradio's own errors would
cover every component that the handler fills. Errors that nobody foresaw go to a log, not to the page.
"""

from __future__ import annotations

import contextlib
import functools
import html
import io
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mistnn.data.images import open_image
from mistnn.errors import MistError
from mistnn.inference.pictures import displayed, overlay_names
from mistnn.viz.curves import Curve, draw_curves
from mistnn.viz.saving import figure_to_png
from mistnn.web.trainings import Progress
from mistnn.web.workshop import Results, Workshop

TITLE = "mistnn"
IMAGE_BUTTONS: Any = ["fullscreen", "download"]
"""Of pictures: not Gradio's default, which has one that sends the picture to another computer."""
TICK = 2.0
"""Seconds between two looks at a running training."""
MOST_PICTURES = 60
"""Pictures of a prediction that are shown; the others are in the folder of the results."""
SHOWN = 30.0
"""Seconds that an error is shown; it can be closed before."""
BROWSERS_READ = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")
LAST = "the last one"
EMPTY = "Drop images above, or copy them into the folder, and press *Read the folder again*."
ABOUT = """# Count and find objects in your photographs
Give the **number of objects** in some images. Nobody has to draw a box. Everything stays on this computer."""
_STATES = {
    "none": "No model yet",
    "running": "Training",
    "stopped": "Stopped",
    "failed": "Failed",
    "trained": "Trained",
}


class _Page:
    """The components and what they do."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        with gr.Blocks(title=TITLE, analytics_enabled=False) as self.blocks:
            gr.Markdown(ABOUT)
            with gr.Tab("1  Images and counts"):
                self._images()
            with gr.Tab("2  Train"):
                self._training()
            with gr.Tab("3  Count") as self.third:
                self._counting()
            self._connect()

    def _images(self) -> None:
        gr.Markdown(f"Folder: `{self.workshop.images.root}`")
        self.upload = gr.File(
            label="Drop images here, and a table of counts if you have one (csv, tsv, xlsx)", file_count="multiple"
        )
        with gr.Row():
            self.classes = gr.Textbox(label="What you count, with commas between several kinds", scale=3)
            self.name = gr.Button("Use these names", scale=1)
            self.again = gr.Button("Read the folder again", scale=1)
        self.said = gr.Markdown()
        self.seen = gr.State([])  # the rows that this tab shows: only those that it changes are saved
        with gr.Row(equal_height=False):
            self.table = gr.Dataframe(
                label="Counts: type them in; leave a row empty if you don't know", interactive=True, max_height=520
            )
            self.image = gr.Image(
                label="Click a row to see its image", interactive=False, height=520, buttons=IMAGE_BUTTONS
            )
        self.inspect = gr.Button("Inspect the folder")
        self.inspection = gr.Textbox(
            label="Inspection: sizes, counts and suspicious rows",
            max_lines=30,
            interactive=False,
            elem_classes=["columns"],
        )
        self.sheet = gr.Image(
            label="Some of the images", show_label=False, interactive=False, visible=False, buttons=IMAGE_BUTTONS
        )

    def _training(self) -> None:
        with gr.Row():
            self.train = gr.Button("Train", variant="primary")
            self.stop = gr.Button("Stop")
            self.resume = gr.Button("Go on")
        with gr.Row():
            self.steps = gr.Number(label="Steps (0: chosen by the images)", value=0)
            self.from_last = gr.Checkbox(label="Start from the last model (after new or corrected counts)")
        self.status = gr.Markdown()
        self.curve = gr.Image(label="Progress", interactive=False, height=260, buttons=IMAGE_BUTTONS)
        gr.Markdown("What it finds in validation images so far")
        self.watched = _gallery("Validation images")
        self.timer = gr.Timer(TICK, active=True)

    def _counting(self) -> None:
        with gr.Row():
            self.which = gr.Radio(
                ["images without counts", "all images"], value="images without counts", label="Count the objects in"
            )
            self.model = gr.Dropdown([LAST], value=LAST, label="Model")
            self.count = gr.Button("Count", variant="primary")
        self.notes = gr.Markdown()
        self.counted = gr.State([])  # the rows as they were found: only corrected ones are saved
        with gr.Row(equal_height=False):
            label = "Counts: click a row to see its image, correct wrong ones"
            self.found = gr.Dataframe(label=label, interactive=True, max_height=520)
            self.picture = gr.Image(
                label="Click a row to see what was found", interactive=False, height=520, buttons=IMAGE_BUTTONS
            )
        with gr.Row():
            self.agreed = gr.Checkbox(
                label="I have checked the other rows too: save them as well, where an image has no count yet"
            )
            self.correct = gr.Button("Save the corrected counts: the next training learns from them")
        self.pictures = _gallery("What was found")
        self.files = gr.File(label="Tables, boxes as COCO JSON, and a page to keep", interactive=False)

    def _connect(self) -> None:
        guard = functools.partial(_plainly, self.workshop.out / "app.log")
        folder = [self.classes, self.table, self.said, self.seen]
        run = [self.status, self.curve, self.watched]
        results = [self.found, self.counted, self.pictures, self.files, self.notes]
        self.blocks.load(guard(self.show_folder), None, folder)
        self.blocks.load(guard(self.show_run), None, run)
        self.blocks.load(guard(self.show_results), None, results)
        self.upload.upload(guard(self.add), self.upload, [*folder, self.upload])
        self.name.click(guard(self.name_classes), self.classes, folder)
        self.again.click(guard(self.read_again), None, folder)
        # "once" would lose a change that is made while the one before it is saved.
        self.table.input(guard(self.save), [self.table, self.seen], [self.said, self.seen], trigger_mode="always_last")
        self.table.select(guard(self.show_image), self.table, self.image)
        self.inspect.click(guard(self.inspect_folder), None, [self.inspection, self.sheet])
        self.train.click(guard(self.start), [self.steps, self.from_last], run)
        self.stop.click(guard(self.end), None, run)
        self.resume.click(guard(self.go_on), None, run)
        self.timer.tick(guard(self.tick), None, run, show_progress="hidden")
        self.third.select(guard(self.show_models), self.model, self.model)
        self.count.click(guard(self.predict), [self.which, self.model], results)
        # Not in the gallery: it would take the keyboard away from the table.
        self.found.select(guard(self.show_found), self.found, self.picture, show_progress="hidden")
        self.correct.click(guard(self.keep), [self.found, self.counted, self.agreed], [*folder, self.notes])

    # Images and counts

    def show_folder(self, said: Sequence[str] = ()) -> tuple[Any, ...]:
        """The classes, the table and what to say: without lines of its own, how many images have counts."""
        shop = self.workshop
        rows, names = shop.images.rows(), list(shop.images.class_names)
        known = 0 if shop.images.labels is None else len(shop.images.labels.counts)
        notes = [] if shop.images.labels is None else shop.images.labels.notes
        lines = said or ([f"{known} of {len(rows)} images have counts"] if rows else [])
        told = _lines((*lines, *notes)) or EMPTY
        return ", ".join(names), _table(["file", *names], rows), told, rows

    def add(self, files: Sequence[str] | None) -> tuple[Any, ...]:
        """Takes uploaded files over, and empties the place for them: else they would be added again with the next."""
        try:
            notes = self.workshop.images.add([Path(one) for one in files or ()])
        except MistError as error:
            notes = [str(error)]
        return (*self.show_folder(notes), None)

    def name_classes(self, names: str) -> tuple[Any, ...]:
        """Names the classes."""
        self.workshop.images.name_classes(names)
        return self.show_folder()

    def read_again(self) -> tuple[Any, ...]:
        """Reads the folder again."""
        self.workshop.images.reload()
        return self.show_folder()

    def save(self, table: Any, seen: list[list[Any]]) -> tuple[str, list[list[Any]]]:
        """Saves the rows that were changed, after each change: another tab may have changed others."""
        rows = _rows(table)
        return _literal(self.workshop.images.save_rows(rows, seen)), rows

    def show_image(self, table: Any, event: gr.SelectData) -> Image.Image:
        """The image of the row that was clicked."""
        return self.workshop.images.picture(_clicked(table, event))

    def inspect_folder(self, progress: Any = gr.Progress()) -> tuple[str, Any]:  # noqa: B008
        """What ``mist inspect`` says."""
        lines, sheet = self.workshop.inspection(lambda done, total: progress((done, total)))
        return "\n".join(lines), gr.update(value=str(sheet), visible=True)

    # Training

    def show_run(self) -> tuple[Any, ...]:
        """Status, curve and pictures."""
        found, pictures = self.workshop.training.progress(), self.workshop.training.watch()
        status = "\n\n".join(filter(None, (_status(found), _literal(self.workshop.training.trouble))))
        return status, _curve(found), pictures

    def tick(self) -> tuple[Any, ...]:
        """The same, every few seconds; nothing changes while nothing runs."""
        if not self.workshop.training.news():
            return gr.skip(), gr.skip(), gr.skip()
        return self.show_run()

    def start(self, steps: float | None, from_last: bool) -> tuple[Any, ...]:
        """Starts a training."""
        if steps and (steps < 0 or steps != int(steps)):  # not by the component: its errors cover the page
            raise MistError(f"{steps:g} steps: give a whole number, or 0")
        self.workshop.train(int(steps) if steps else None, bool(from_last))
        return self.show_run()

    def end(self) -> tuple[Any, ...]:
        """Stops it."""
        self.workshop.training.stop()
        return self.show_run()

    def go_on(self) -> tuple[Any, ...]:
        """Continues it."""
        self.workshop.training.go_on()
        return self.show_run()

    # Counting

    def show_results(self, found: Results | None = None) -> tuple[Any, ...]:
        """Table, pictures, files and notes of the last prediction."""
        found = self.workshop.results() if found is None else found
        pictures = [(_shown(path), name) for path, name in found.pictures[:MOST_PICTURES]]
        notes = list(found.notes)
        if len(found.pictures) > MOST_PICTURES:
            notes.append(f"{MOST_PICTURES} of {len(found.pictures)} pictures are shown below; click a row for its own")
        files = [str(path) for path in found.files]
        return _table(found.header, found.rows), found.rows, pictures, files, _lines(notes)

    def show_models(self, chosen: str) -> Any:
        """The models to choose from."""
        training = self.workshop.training
        choices = [(LAST, LAST), *((training.describe(one), one.name) for one in training.all_usable())]
        return gr.Dropdown(choices, value=chosen if chosen in {name for _, name in choices} else LAST)

    def show_found(self, table: Any, event: gr.SelectData) -> Any:
        """The image of the row that was clicked, with what was found."""
        found = self.workshop.results()
        name = overlay_names([row[0] for row in found.rows]).get(_clicked(table, event))
        path = next((path for path, picture in found.pictures if picture == name), None)
        return gr.skip() if path is None else _shown(path)

    def predict(self, which: str, model: str, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Counts."""
        everything, name = which == "all images", "" if model == LAST else model
        return self.show_results(
            self.workshop.predict(everything, lambda done, total: progress((done, total)), model_name=name)
        )

    def keep(self, table: Any, counted: list[list[Any]], agreed: bool) -> tuple[Any, ...]:
        """Takes corrected counts of the prediction over, and the others if the user has checked them."""
        said = self.workshop.correct(_rows(table), counted, bool(agreed))
        return (*self.show_folder(), f"{_literal(said)}. Train again, from the last model, to learn from them.")


def build_page(workshop: Workshop) -> gr.Blocks:
    """The page."""
    return _Page(workshop).blocks


def _plainly(log: Path, handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are one line on the page, which stays; unforeseen ones are written to a log."""

    @functools.wraps(handler)
    def guarded(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except MistError as error:
            return _warned(str(error))
        except Exception as error:  # whatever it is, the page stays
            with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:  # the disk may be full
                traceback.print_exc(file=file)
            return _warned(f"this should not happen ({type(error).__name__}); {log} says more")

    return guarded


def _warned(text: str) -> Any:
    """Shows one line for a while, and changes nothing else."""
    gr.Warning(html.escape(text), duration=SHOWN, title="Not done")
    return gr.skip()


def _lines(texts: Iterable[str]) -> str:
    """Markdown with each text on a line of its own."""
    return "\n\n".join(map(_literal, texts))


def _literal(text: str) -> str:
    """Markdown that shows a text as it is: names of files and classes may hold any character."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def _gallery(label: str) -> gr.Gallery:
    """Pictures side by side; the label, which would cover a part of them, is for screen readers."""
    return gr.Gallery(
        label=label, show_label=False, columns=2, height=520, object_fit="contain", buttons=["fullscreen", "download"]
    )


def _shown(path: Path) -> str | Image.Image:
    """A picture for a browser: a file as it is, or decoded if browsers do not read its format."""
    return str(path) if path.suffix.lower() in BROWSERS_READ else displayed(open_image(path))


def _table(header: list[str], rows: list[list[Any]]) -> Any:
    shown = rows or [[""] * len(header)]
    return gr.Dataframe(value={"headers": header, "data": shown}, headers=header, static_columns=[0])


def _rows(table: Any) -> list[list[Any]]:
    """The rows of a table, as Gradio gives it (a data frame), without empty ones."""
    return [row for row in table.values.tolist() if str(row[0]).strip()]


def _clicked(table: Any, event: gr.SelectData) -> str:
    """The first cell of the row that was clicked."""
    row = event.index[0] if isinstance(event.index, list | tuple) else event.index
    return str(event.row_value[0] if event.row_value else _rows(table)[row][0])


def _status(found: Progress) -> str:
    name = f" ({found.model})" if found.model else ""
    error = f". Error of a count in the validation images: {found.checked[-1][1]:.2f}" if found.checked else ""
    error += f"; guessing the mean errs by {found.guess:.2f}" if found.checked and found.guess is not None else ""
    said = _literal(found.message.rstrip(".").removeprefix("mist: "))
    return f"**{_STATES[found.state]}**{name}: {said}{error}"


def _curve(found: Progress) -> Image.Image | None:
    """The loss and the errors so far; ``None`` before the second one."""
    curves = {found.loss: found.losses, "error of a count, validation images": found.checked}
    long = {name: one for name, one in curves.items() if len(one) > 1}
    if not long:
        return None
    drawn = {name: Curve([step for step, _ in one], [error for _, error in one]) for name, one in long.items()}
    return Image.open(io.BytesIO(figure_to_png(draw_curves(drawn, columns=2))))
