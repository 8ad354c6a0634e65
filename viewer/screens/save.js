// Drawings as SVG and tables as CSV, by a button in the head of their card. Files are made here; nothing is sent.

const LOOK = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-family",
  "font-size", "font-weight", "text-anchor", "visibility", "display", "vector-effect", "paint-order", "white-space",
];

function savedDrawing(svg) {
  const copy = svg.cloneNode(true);
  const [of, to] = [[svg, ...svg.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  for (const [at, element] of of.entries()) {
    const look = getComputedStyle(element);
    to[at].setAttribute("style", LOOK.map((name) => `${name}:${look.getPropertyValue(name)}`).join(";"));
  }
  copy.removeAttribute("role");
  copy.querySelector(".heads")?.removeAttribute("transform");
  copy.setAttribute("width", svg.viewBox.baseVal.width);
  copy.setAttribute("height", svg.viewBox.baseVal.height);
  for (const element of copy.querySelectorAll(".branch, .hit")) {
    element.remove();
  }
  return new XMLSerializer().serializeToString(copy);
}

// A cell that begins like a formula is text to a spreadsheet.
function csvCell(text) {
  const plain = text.trim();
  const safe = /^[=+\-@\t\r]/.test(plain) && Number.isNaN(Number(plain)) ? `'${plain}` : plain;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function savedTable(table) {
  const whole = (cell) => cell.querySelector("[data-exact]")?.dataset.exact ?? cell.textContent;
  const lines = [...table.rows].map((row) => [...row.cells].map((cell) => csvCell(whole(cell))).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

function saveAs(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function saveButtons(body, place) {
  for (const card of body.querySelectorAll("section.ss-box")) {
    const head = card.querySelector(".ss-heading");
    const drawing = card.querySelector("svg.ss-tree, svg.ss-mask, svg.ss-ribbon, svg.ss-history, svg.ss-margin");
    const table = card.querySelector(".ss-every table") ?? card.querySelector("table");
    if (!head || (!drawing && !table)) {
      continue;
    }
    const kind = drawing ? "SVG" : "CSV";
    const button = document.createElement("button");
    const title = head.querySelector("h2").textContent;
    button.type = "button";
    button.className = "ss-save";
    button.textContent = kind;
    button.setAttribute("aria-label", `Save ${title} as ${kind}`);
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      const name = `${place()} ${title}`.replaceAll(/[^\w.-]+/g, "-").toLowerCase();
      if (drawing) {
        saveAs(`${name}.svg`, savedDrawing(drawing), "image/svg+xml");
      } else {
        saveAs(`${name}.csv`, savedTable(table), "text/csv");
      }
    });
    head.append(button);
  }
}
