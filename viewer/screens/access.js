// Drawings and tables by keyboard, with roles and names for those who cannot see them: the overview is a slider, a mask
// is walked cell by cell, a table row by row. Knows nothing of steps.

function focusedElement() {
  let focused = document.activeElement;
  while (focused?.shadowRoot?.activeElement) {
    focused = focused.shadowRoot.activeElement;
  }
  return focused;
}

// Rows that keys walk: those of nodes, and those that lead somewhere and hold no button that does.
const WALKED = "tr[data-node], tr[data-do]:not(:has(button, a))";

function keyboardAccess({ body, strip, hover, toggle, masks, describeCell }) {
  // Of a new board, before it is shown.
  function prepare(board) {
    board.querySelector(".ss-panel")?.setAttribute("aria-live", "polite");
    for (const mask of board.querySelectorAll(".ss-mask")) {
      mask.setAttribute("tabindex", "0");
      mask.setAttribute("role", "application");
      mask.setAttribute("aria-label", `${mask.getAttribute("aria-label")}; arrows move from cell to cell`);
      mask.parentElement.querySelector(".ss-cell")?.setAttribute("role", "status");
      mask.addEventListener("blur", () => describeCell(mask, null));
    }
    for (const head of board.querySelectorAll(".ss-card-slots th, .ss-card-nodes th, .ss-card-differences th, .ss-card-fields th")) {
      head.setAttribute("tabindex", "0");
      head.setAttribute("aria-sort", "none");
      head.addEventListener("click", () => sortBy(head));
    }
    for (const table of board.querySelectorAll("table")) {
      for (const [at, row] of [...table.querySelectorAll(WALKED)].entries()) {
        row.setAttribute("tabindex", at === 0 ? "0" : "-1");
        row.addEventListener("focus", () => hover(row.getAttribute("data-node"), row));
        row.addEventListener("blur", () => hover(null));
      }
    }
  }

  // The overview: arrows change the step wherever the focus is, so a slider need only say where it stands.
  function announce(bars, now) {
    const svg = strip.querySelector("svg");
    const bar = bars.find((other) => Number(other.dataset.first) <= now && now <= Number(other.dataset.last));
    if (!svg || !bar) {
      return;
    }
    const state = {
      role: "slider",
      tabindex: "0",
      "aria-valuemin": "0",
      "aria-valuemax": bars[bars.length - 1].dataset.last,
      "aria-valuenow": String(now),
      "aria-valuetext": bar.querySelector("title")?.textContent ?? `step ${now}`,
    };
    for (const [name, value] of Object.entries(state)) {
      svg.setAttribute(name, value);
    }
  }

  // By the column of a head: numbers as numbers, what is empty last; a second time in the other direction.
  function sortBy(head) {
    const falls = head.getAttribute("aria-sort") === "ascending";
    const column = [...head.parentElement.children].indexOf(head);
    for (const other of head.parentElement.children) {
      other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const rows = head.closest("table").tBodies[0];
    const key = (row) => row.cells[column].textContent.replace(/^✗ ?/, "").trim();
    const isLess = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") {
        return (x === "") - (y === "");
      }
      const order = Number.isNaN(Number(x)) || Number.isNaN(Number(y)) ? x.localeCompare(y) : Number(x) - Number(y);
      return falls ? -order : order;
    };
    rows.append(...[...rows.rows].sort(isLess));
  }

  const cells = new WeakMap(); // mask -> the cell that keys have led to
  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  function pressInMask(mask, event) {
    const { size, names } = masks().get(mask);
    const [down, right] = MOVES[event.key];
    const from = cells.get(mask);
    const kept = (number) => Math.min(size - 1, Math.max(0, number));
    const cell = from ? { row: kept(from.row + down), column: kept(from.column + right) } : { row: 0, column: 0 };
    cells.set(mask, cell);
    hover(names[cell.row] || null);
    mask.querySelector(".column").setAttribute("x", String(cell.column));
    describeCell(mask, cell);
  }

  // Whether the key was meant for what has the focus.
  function press(event) {
    const at = focusedElement();
    const mask = at?.matches?.(".ss-mask") && body.contains(at) && masks().has(at);
    const row = at?.matches?.(WALKED) && body.contains(at);
    if (event.key === "Enter" && at?.matches?.("th[aria-sort]") && body.contains(at)) {
      sortBy(at);
      return true;
    }
    const vertical = MOVES[event.key]?.[0];
    if (mask && event.key in MOVES) {
      pressInMask(at, event);
    } else if (row && vertical) {
      const shown = [...at.parentElement.children].filter((other) => other.matches(WALKED) && !other.hidden);
      const to = shown[shown.indexOf(at) + vertical];
      if (to) {
        at.setAttribute("tabindex", "-1");
        to.setAttribute("tabindex", "0");
        to.focus();
      }
    } else if (row && at.hasAttribute("data-node") && (event.key === "Enter" || event.key === " ")) {
      toggle(at.getAttribute("data-node"));
    } else {
      return false;
    }
    event.preventDefault();
    return true;
  }

  return { prepare, announce, press };
}
