"use strict";
const part = (id) => document.getElementById(id);
let state = null, place = 0, busy = false;

async function ask(path, content) {
  const options = content === undefined ? {} :
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

const inputs = () => [...part("fields").querySelectorAll("input")];

function build() {
  for (const name of state.classes) {
    const label = document.createElement("label"), text = document.createElement("span");
    const input = document.createElement("input");
    text.textContent = name;
    Object.assign(input, { inputMode: "numeric", maxLength: 6 });
    input.addEventListener("focus", () => input.select());
    input.addEventListener("input", () => {
      input.value = input.value.replace(/[^0-9]/g, "");
      input.classList.remove("guess");
    });
    label.append(text, input);
    part("fields").append(label);
  }
}

function show(index) {
  place = Math.max(0, Math.min(index, state.images.length - 1));
  const image = state.images[place], known = image.counts || image.guess;
  part("name").textContent = image.name;
  part("image").src = "image/" + place;
  part("image").alt = image.name;
  inputs().forEach((input, at) => {
    input.value = known ? known[at] : "";
    input.placeholder = "0";
    input.classList.toggle("guess", !image.counts && !!image.guess);
  });
  part("hint").textContent = image.counts ? "Saved." : image.guess ? "Counts of the model: correct them, then save." :
    "Not counted yet. An empty class counts 0.";
  const done = state.images.filter((one) => one.counts).length, all = state.images.length;
  part("progress").textContent = `Image ${place + 1} of ${all}; ${done} counted` + (done === all ? ": all done." : "");
  part("bar").max = all;
  part("bar").value = done;
  const first = inputs()[0];
  first.focus();
  first.select();
  if (place + 1 < all) new Image().src = "image/" + (place + 1);
}

async function act(work) {
  if (busy) return;
  busy = true;
  part("message").textContent = "";
  try {
    await work();
  } catch (error) {
    part("message").textContent = error instanceof TypeError ? "The server has stopped: start mist label again." :
      error.message;
  } finally {
    busy = false;
  }
}

const save = () => act(async () => {
  const counts = inputs().map((input) => Number(input.value || 0));
  await ask("count", { name: state.images[place].name, counts, before: state.images[place].counts });
  state.images[place].counts = counts;
  const rest = state.images.findIndex((one, index) => index > place && !one.counts);
  const open = rest >= 0 ? rest : state.images.findIndex((one) => !one.counts);
  show(open >= 0 ? open : place);
});

const undo = () => act(async () => {
  const { name } = await ask("undo", {});
  if (name === null) throw new Error("There is nothing to undo.");
  state = await ask("state");
  show(state.images.findIndex((one) => one.name === name));
});

function zoom() {
  const full = part("image").parentElement.classList.toggle("full");
  part("zoom").setAttribute("aria-pressed", String(full));
}

function move(step) {
  const all = inputs(), at = all.indexOf(document.activeElement);
  all[(Math.max(at, 0) + step + all.length) % all.length].focus();
}

const keys = {
  ArrowLeft: () => show(place - 1), ArrowRight: () => show(place + 1),
  ArrowUp: () => move(-1), ArrowDown: () => move(1), u: undo, z: zoom,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !state) return;
  const way = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (way) {
    event.preventDefault();
    way();
  } else if (/^[0-9]$/.test(event.key) && !inputs().includes(document.activeElement)) {
    inputs()[0].focus();
  }
});
part("counts").addEventListener("submit", (event) => { event.preventDefault(); if (state) save(); });
part("undo").addEventListener("click", undo);
part("previous").addEventListener("click", () => show(place - 1));
part("next").addEventListener("click", () => show(place + 1));
part("zoom").addEventListener("click", zoom);
part("image").addEventListener("error", () => {
  part("message").textContent = "This image can't be shown.";
});

act(async () => {
  state = await ask("state");
  build();
  show(0);
  part("message").textContent = state.notes.join(" ");
});
