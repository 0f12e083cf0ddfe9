// Tables of class "sorts" sort by a click on a header, and filter if they are long.
// Without scripts they are plain tables.
"use strict";
const LONG = 8;

const FIGURE = /^[-+]?[\d,]*\.?\d+(e[-+]?\d+)?(?=\s*[x%]?$)/i;
const NONE = ["", "–"];

function valueOf(cell) {
  const figure = cell.textContent.trim().match(FIGURE);
  return figure ? Number(figure[0].replaceAll(",", "")) : null;
}

function sortRows(table, header, column) {
  const all = [...table.tBodies[0].rows];
  const rows = all.filter((row) => !row.classList.contains("total"));
  const cell = (row) => row.cells[column];
  const none = (row) => NONE.includes(cell(row).textContent.trim());
  const some = rows.filter((row) => !none(row));
  const numeric = some.every((row) => valueOf(cell(row)) !== null);
  const order = numeric
    ? (a, b) => valueOf(cell(a)) - valueOf(cell(b))
    : (a, b) => cell(a).textContent.localeCompare(cell(b).textContent, "en", { numeric: true });
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  some.sort(down ? (a, b) => order(b, a) : order);
  table.tBodies[0].append(...some, ...rows.filter(none), ...all.filter((row) => !rows.includes(row)));
}

function filterRows(table, words, told) {
  const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("total"));
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  told.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
}

for (const table of document.querySelectorAll("table.sorts")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortRows(table, header, column));
    header.append(button);
  });
  if (table.tBodies[0].rows.length < LONG) continue;
  const filter = document.createElement("p");
  const label = document.createElement("label");
  const box = document.createElement("input");
  const told = document.createElement("output");
  filter.className = "filter";
  box.type = "search";
  label.append("Rows with ", box);
  filter.append(label, " ", told);
  box.addEventListener("input", () =>
    filterRows(table, box.value.toLowerCase().split(/\s+/).filter(Boolean), told));
  table.parentElement.before(filter);
}
