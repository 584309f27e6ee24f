// A key typed on a selected cell of a table replaces its content, as in a spreadsheet.
// Gradio's table starts to edit at that key, but loses it: 12 typed over 5 would become 52.
// When its field appears, Gradio selects what is in it, so that the next key may replace the first one. Therefore all
// characters up to the first other key or click are put into the field here.
(() => {
  let cell = null; // where characters are typed
  let typed = "";
  let waits = false; // for the field of the cell

  const pass = () => {
    const field = cell && cell.querySelector("textarea");
    if (!field) return false;
    field.value = typed;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    waits = false;
    return true;
  };

  const wait = (tries) => {
    if (!waits || pass()) return;
    if (tries > 0) requestAnimationFrame(() => wait(tries - 1));
    else end(); // the cell can't be edited
  };

  const end = () => {
    cell = null;
    waits = false;
  };

  document.addEventListener("pointerdown", end, true);
  document.addEventListener(
    "keydown",
    (event) => {
      const target = event.target.closest("[role=gridcell]");
      const printable = event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey && !event.altKey;
      const begins = target && event.target === target && target !== cell;
      if (waits) pass();
      if (!target || !printable || !(begins || target === cell)) {
        end();
        return;
      }
      event.preventDefault(); // else a browser may add it to the field that appears
      typed = begins ? event.key : typed + event.key;
      cell = target;
      if (begins) {
        waits = true;
        requestAnimationFrame(() => wait(60));
      } else if (!waits) pass();
    },
    true,
  );
})();
