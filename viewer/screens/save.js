// Drawings as SVG or PNG and tables as CSV, by buttons in the head of their card. Files are made here; nothing is sent.

const LOOK = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-family",
  "font-size", "font-weight", "text-anchor", "visibility", "display", "vector-effect", "paint-order", "white-space",
];

// The drawing as it is seen: a file has no style sheet.
function styledCopy(svg) {
  const copy = svg.cloneNode(true);
  const [of, to] = [[svg, ...svg.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  for (const [at, element] of of.entries()) {
    const look = getComputedStyle(element);
    to[at].setAttribute("style", LOOK.map((name) => `${name}:${look.getPropertyValue(name)}`).join(";"));
  }
  return copy;
}

function savedDrawing(svg) {
  const copy = styledCopy(svg);
  const { width, height } = svg.viewBox.baseVal;
  copy.removeAttribute("role");
  copy.querySelector(".heads")?.removeAttribute("transform");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  for (const element of copy.querySelectorAll(".branch, .hit")) {
    element.remove();
  }
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

// A cell that begins like a formula is text to a spreadsheet.
function csvCell(text) {
  const plain = text.trim();
  const safe = /^[=+\-@\t\r]/.test(plain) && Number.isNaN(Number(plain)) ? `'${plain}` : plain;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function savedTable(table) {
  const whole = (cell) => cell.querySelector("[data-exact]")?.dataset.exact ?? cell.textContent;
  const rows = [...table.rows].filter((row) => !row.hidden);
  const lines = rows.map((row) => [...row.cells].map((cell) => csvCell(whole(cell))).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

function saveAs(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const SCALE = 2; // pixels of a picture per pixel of its drawing
const MOST_PIXELS = 8192; // along a side; browsers draw no larger pictures

// As a picture, on the paper that the drawing stands on.
async function savePicture(name, { text, width, height }, on) {
  const image = new Image();
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  image.src = url;
  try {
    await image.decode();
  } finally {
    URL.revokeObjectURL(url);
  }
  const scale = Math.min(SCALE, MOST_PIXELS / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.ceil(width * scale), Math.ceil(height * scale)];
  const brush = canvas.getContext("2d");
  brush.fillStyle = getComputedStyle(on).getPropertyValue("--ss-paper");
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((picture) => saveAs(name, picture), "image/png");
}

function saveButton(kind) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "ss-save";
  button.textContent = kind;
  return button;
}

// Drawings that stand in a card of their own.
const DRAWINGS = ["tree", "mask", "ribbon", "history", "margin", "sweep", "phases"].map((name) => `svg.ss-${name}`).join();

function saveButtons(body, place) {
  for (const card of body.querySelectorAll("section.ss-box")) {
    const head = card.querySelector(".ss-heading");
    const drawing = card.querySelector(DRAWINGS);
    const table = card.querySelector(".ss-every table") ?? card.querySelector("table");
    if (!head || (!drawing && !table)) {
      continue;
    }
    const title = head.querySelector("h2").textContent;
    const buttons = document.createElement("div");
    buttons.className = "ss-saves";
    for (const kind of drawing ? ["SVG", "PNG"] : ["CSV"]) {
      const button = saveButton(kind);
      button.setAttribute("aria-label", `Save ${title} as ${kind}`);
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        const name = `${place()} ${title}`.replaceAll(/[^\w.-]+/g, "-").toLowerCase();
        if (kind === "SVG") {
          saveAs(`${name}.svg`, savedDrawing(drawing).text, "image/svg+xml");
        } else if (kind === "PNG") {
          savePicture(`${name}.png`, savedDrawing(drawing), card);
        } else {
          saveAs(`${name}.csv`, savedTable(table), "text/csv");
        }
      });
      buttons.append(button);
    }
    head.append(buttons);
  }
}
