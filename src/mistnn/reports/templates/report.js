// Turns the stack of heat-map frames into one frame with a scrub bar. Without scripts the stack stays as it is.
(function () {
  "use strict";
  const box = document.querySelector("[data-film]");
  if (!box) return;
  const frames = Array.from(box.querySelectorAll(".frame"));
  const bar = box.querySelector("input");
  const button = box.querySelector("button");
  const label = box.querySelector("output");
  let timer = 0;
  function show(index) {
    frames.forEach((frame, place) => frame.classList.toggle("shown", place === index));
    bar.value = String(index);
    label.textContent = frames[index].dataset.step;
    bar.setAttribute("aria-valuetext", frames[index].dataset.step);
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  }
  bar.max = String(frames.length - 1);
  bar.addEventListener("input", () => { stop(); show(Number(bar.value)); });
  button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    let index = Number(bar.value) >= frames.length - 1 ? 0 : Number(bar.value);
    show(index);
    button.textContent = "Pause";
    timer = setInterval(() => {
      index += 1;
      show(index);
      if (index >= frames.length - 1) stop();
    }, 450);
  });
  box.classList.add("scrub");
  show(frames.length - 1);
})();
