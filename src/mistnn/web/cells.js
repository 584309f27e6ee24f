// A key typed on a selected cell of a table replaces its content, as in a spreadsheet.
// Gradio's table starts to edit at that key, but loses it: 12 typed over 5 would become 52.
(() => {
  let cell = null;
  let typed = "";

  const pass = () => {
    const field = cell && cell.querySelector("textarea");
    if (!field) return false;
    field.value = typed;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    cell = null;
    return true;
  };

  const wait = (tries) => {
    if (cell && !pass() && tries > 0) requestAnimationFrame(() => wait(tries - 1));
    else if (cell) cell = null; // the cell can't be edited
  };

  document.addEventListener(
    "keydown",
    (event) => {
      const target = event.target.closest("[role=gridcell]");
      if (cell) pass();
      const printable = event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey && !event.altKey;
      if (!target || event.target !== target || !printable) return;
      event.preventDefault(); // else a browser may add it to the field that appears
      typed = cell === target ? typed + event.key : event.key;
      if (cell !== target) requestAnimationFrame(() => wait(60));
      cell = target;
    },
    true,
  );
})();
