// Shows a board: its markup, with selection across all drawings of one node. Knows nothing of what is drawn.
// Markup is parsed as XML: a text that was not escaped is an error to be seen, never markup that runs.

const FORBIDDEN = "script, iframe, object, embed, foreignObject, link, img, base, form";

function parsed(markup, type) {
  const document_ = new DOMParser().parseFromString(markup, type);
  if (document_.querySelector("parsererror")) {
    const problem = document.createElement("p");
    problem.textContent = "This part could not be drawn: its markup is not well-formed.";
    return problem;
  }
  for (const element of document_.querySelectorAll(FORBIDDEN)) {
    element.remove();
  }
  return document.importNode(document_.documentElement, true);
}

function inspector(host) {
  const [strip, body] = [host.querySelector(".strip"), host.querySelector(".body")];
  let shown = {};
  let picked = null;
  let hovered = null;
  let byName = new Map();
  let masks = new Map();
  let send = () => {};

  const named = (name) => byName.get(name) ?? [];
  const mark = (name, className, on) => {
    for (const element of name === null ? [] : named(name)) {
      element.classList.toggle(className, on);
    }
  };

  function fillPanel() {
    const panel = body.querySelector(".ss-panel");
    if (!panel) {
      return;
    }
    const name = hovered ?? picked;
    const note = name === null ? undefined : shown.notes[name];
    if (panel.dataset.empty === undefined) {
      panel.dataset.empty = panel.textContent;
    }
    if (note === undefined) {
      panel.textContent = panel.dataset.empty;
    } else {
      panel.replaceChildren(parsed(note, "application/xhtml+xml"));
    }
  }

  function hover(name) {
    if (name !== hovered) {
      mark(hovered, "hovered", false);
      hovered = name;
      mark(hovered, "hovered", true);
      fillPanel();
      crosshair();
    }
  }

  function pick(name) {
    mark(picked, "picked", false);
    picked = name !== null && byName.has(name) ? name : null;
    mark(picked, "picked", true);
    fillPanel();
    crosshair();
  }

  // The attributes of the board's masks, parsed once: they may be megabytes.
  function readMasks() {
    masks = new Map();
    for (const mask of body.querySelectorAll(".ss-mask")) {
      const { size, names, labels, meanings, cells } = mask.dataset;
      masks.set(mask, {
        size: Number(size),
        names: names.split(" "),
        labels: labels.split("\n"),
        meanings: meanings.split("\n"),
        cells: cells === undefined ? null : cells.split(" "),
      });
    }
  }

  // The row and the column of the node at hand, in every mask.
  function crosshair() {
    for (const [mask, { names }] of masks) {
      const at = names.indexOf(hovered ?? picked);
      for (const [selector, axis] of [[".row", "y"], [".column", "x"]]) {
        const band = mask.querySelector(selector);
        band.setAttribute(axis, String(at));
        band.setAttribute("visibility", at < 0 ? "hidden" : "visible");
      }
    }
  }

  // A mask is one path, not one element per cell: which cell is pointed at has to be computed.
  function cellAt(mask, event) {
    const cells = mask.querySelector(".cells").getBoundingClientRect();
    const { size } = masks.get(mask);
    const column = Math.floor(((event.clientX - cells.left) / cells.width) * size);
    const row = Math.floor(((event.clientY - cells.top) / cells.height) * size);
    return row >= 0 && row < size && column >= 0 && column < size ? { row, column } : null;
  }

  function describeCell(mask, cell) {
    const line = mask.parentElement.querySelector(".ss-cell");
    if (!line) {
      return;
    }
    line.dataset.empty ??= line.textContent;
    if (cell === null) {
      line.textContent = line.dataset.empty;
      return;
    }
    const { labels, meanings, cells } = masks.get(mask);
    const meaning = cells === null ? "as row, as column" : meanings[Number(cells[cell.row][cell.column])];
    line.textContent = `${labels[cell.row]} ${meaning} ${labels[cell.column]}`;
  }

  function nodeAt(event) {
    const target = event.target instanceof Element ? event.target : null;
    const mask = target?.closest(".ss-mask");
    for (const other of masks.keys()) {
      if (other !== mask) {
        describeCell(other, null);
      }
    }
    if (mask) {
      const cell = cellAt(mask, event);
      describeCell(mask, cell);
      return cell === null ? null : (masks.get(mask).names[cell.row] || null);
    }
    return target?.closest("[data-node]")?.getAttribute("data-node") ?? null;
  }

  async function copy(button) {
    const text = shown.raw[button.dataset.copy] ?? "";
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser did not allow copying: select the text below";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }

  host.addEventListener("pointermove", (event) => hover(nodeAt(event)));
  host.addEventListener("pointerleave", () => {
    for (const mask of masks.keys()) {
      describeCell(mask, null);
    }
    hover(null);
  });
  host.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("[data-copy]");
    const asked = target?.closest("[data-do]");
    const name = nodeAt(event);
    if (button) {
      copy(button);
    } else if (asked) {
      send("done", asked.getAttribute("data-do"));
    } else if (name !== null) {
      pick(name === picked ? null : name);
      send("picked", picked ?? "");
    }
  });

  function openRaw(details) {
    const text = details.querySelector("pre");
    text.textContent = details.open ? shown.raw[details.dataset.raw] ?? "" : "";
  }

  function replaceBody() {
    const open = new Set([...body.querySelectorAll("details[open]")].map((one) => one.dataset.raw ?? one.className));
    body.replaceChildren(parsed(shown.html, "application/xhtml+xml"));
    readMasks();
    byName = new Map();
    for (const element of body.querySelectorAll("[data-node]")) {
      const name = element.getAttribute("data-node");
      byName.set(name, [...named(name), element]);
    }
    for (const details of body.querySelectorAll("details")) {
      details.open = open.has(details.dataset.raw ?? details.className);
      if (details.dataset.raw !== undefined) {
        details.addEventListener("toggle", () => openRaw(details));
        openRaw(details);
      }
    }
    hovered = null;
  }

  function moveTo(now) {
    for (const bar of strip.querySelectorAll("g.step")) {
      bar.classList.toggle("now", now !== null && Number(bar.dataset.first) <= now && now <= Number(bar.dataset.last));
    }
  }

  return (data, sender) => {
    send = sender;
    const before = shown;
    shown = data;
    if (data.strip !== before.strip) {
      strip.replaceChildren(...(data.strip ? [parsed(data.strip, "image/svg+xml")] : []));
    }
    moveTo(data.now);
    if (data.html !== before.html) {
      replaceBody();
    }
    pick(data.picked);
    // After a choice from a list, the next key is meant for the page.
    const focused = document.activeElement;
    if (focused?.getAttribute("role") === "combobox" && focused.getAttribute("aria-expanded") !== "true") {
      focused.blur();
    }
  };
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const host = parentElement.querySelector(".inspector");
  host.update ??= inspector(host);
  host.update(JSON.parse(new TextDecoder().decode(data)), setTriggerValue);
}
