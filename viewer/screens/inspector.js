// Shows a board: its markup, with selection across all drawings of one node. Knows nothing of what is drawn.
// Markup is parsed as XML: a text that was not escaped is an error to be seen, never markup that runs.

const STEP_MS = 900; // how long a step stands while steps are played
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
  const pop = host.querySelector(".pop");
  const keys = host.querySelector(".keys");
  const live = host.querySelector(".live");
  const { light, sizeTrees, zoomBy } = treeWindow(host, body);
  const access = keyboardAccess({
    body,
    strip,
    hover: (name) => hover(name),
    toggle: (name) => toggle(name),
    masks: () => masks,
    describeCell: (mask, cell) => describeCell(mask, cell),
  });
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
    panel.hint ??= panel.firstElementChild; // what stands there until a node is pointed at
    const name = hovered ?? picked;
    const note = shown.notes[name ?? panel.dataset.first];
    const children = note === undefined ? [] : [parsed(note, "application/xhtml+xml")];
    panel.replaceChildren(...children, ...(name === null || !children.length ? [panel.hint] : []));
  }

  // Beside the pointer, what is known of the node there, where the panel that says it is out of sight.
  function showPop(event) {
    const note = hovered === null ? undefined : shown.notes[hovered];
    const panel = body.querySelector(".ss-panel")?.getBoundingClientRect();
    const inSight = panel && panel.top >= 0 && panel.top + 120 < window.innerHeight;
    pop.hidden = note === undefined || inSight || !event;
    if (pop.hidden) {
      return;
    }
    if (pop.dataset.name !== hovered) {
      pop.dataset.name = hovered;
      pop.replaceChildren(parsed(note, "application/xhtml+xml"));
    }
    const [width, height] = [pop.offsetWidth, pop.offsetHeight];
    const left = event.clientX + 18 + width > window.innerWidth ? event.clientX - width - 18 : event.clientX + 18;
    const top = Math.max(8, Math.min(event.clientY + 14, window.innerHeight - height - 8));
    pop.style.transform = `translate(${Math.max(8, left)}px, ${top}px)`;
  }

  function hover(name) {
    if (name !== hovered) {
      mark(hovered, "hovered", false);
      hovered = name;
      mark(hovered, "hovered", true);
      light(hovered);
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

  function toggle(name) {
    pick(name === picked ? null : name);
    send("picked", picked ?? "");
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

  host.addEventListener("pointermove", (event) => {
    hover(nodeAt(event));
    showPop(event);
  });
  host.addEventListener("pointerleave", () => {
    for (const mask of masks.keys()) {
      describeCell(mask, null);
    }
    hover(null);
    showPop(null);
  });
  host.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("[data-copy]");
    const asked = target?.closest("[data-do]");
    const sized = target?.closest("[data-zoom]");
    const name = nodeAt(event);
    if (button) {
      copy(button);
    } else if (sized) {
      zoomBy(sized.dataset.zoom);
    } else if (asked) {
      const step = /^step:(\d+)$/.exec(asked.getAttribute("data-do"));
      if (step && shown.now !== null && asked.closest(".strip")) {
        moveTo(Number(step[1]));
        walk.aimAt(Number(step[1]));
      } else {
        send("done", asked.getAttribute("data-do"));
      }
    } else if (name !== null) {
      toggle(name);
    }
  });

  // What can be clicked and is no button can be pressed as well.
  host.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (event.key === "Enter" && target?.matches("[data-do]:not(button)")) {
      send("done", target.getAttribute("data-do"));
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
    // What a title says is said beside the pointer at once; as a label it is still there for those who cannot see.
    for (const title of body.querySelectorAll("svg [data-node] > title")) {
      title.parentElement.setAttribute("role", "img"); // a label needs one
      title.parentElement.setAttribute("aria-label", title.textContent);
      title.remove();
    }
    for (const tree of body.querySelectorAll("svg.ss-tree")) {
      tree.setAttribute("role", "tree");
      for (const [at, node] of [...tree.querySelectorAll("[data-level]")].entries()) {
        node.setAttribute("role", "treeitem");
        node.setAttribute("aria-level", node.dataset.level);
        node.setAttribute("tabindex", at === 0 ? "0" : "-1");
        const branch = node.querySelector(".branch");
        if (branch) {
          node.setAttribute("aria-expanded", String(branch.classList.contains("open")));
        }
        node.addEventListener("focus", () => hover(node.getAttribute("data-node")));
      }
      tree.dataset.most = tree.style.maxWidth;
    }
    sizeTrees();
    access.prepare();
    saveButtons(body, () => document.title.split(" · ")[0]);
    hovered = null;
    pop.hidden = true;
    delete pop.dataset.name;
  }

  const walk = walker({
    ask: (request) => send("done", request),
    last: () => Number(strip.querySelector("g.step:last-of-type")?.dataset.last ?? 0),
    show: (step, board) => {
      shown = { ...shown, ...board, now: step };
      replaceBody();
      moveTo(step);
      pick(null);
    },
  });

  function isTyping() {
    let focused = document.activeElement;
    while (focused?.shadowRoot?.activeElement) {
      focused = focused.shadowRoot.activeElement;
    }
    return focused?.matches("input, textarea, select, [contenteditable], [role=combobox], [role=listbox]") ?? false;
  }

  function focusedNode() {
    let focused = document.activeElement;
    while (focused?.shadowRoot?.activeElement) {
      focused = focused.shadowRoot.activeElement;
    }
    return focused?.matches("[role=treeitem]") && host.contains(focused) ? focused : null;
  }

  // In a tree that has the focus, arrows lead to parent, first child and the nodes above and below. Whether the key
  // was meant for the tree.
  function pressInTree(event) {
    const node = focusedNode();
    if (!node) {
      return false;
    }
    const nodes = [...node.closest("svg").querySelectorAll("[role=treeitem]")];
    const top = (other) => other.getBoundingClientRect().top;
    const below = nodes.filter((other) => other.dataset.level === node.dataset.level).sort((a, b) => top(a) - top(b));
    const at = below.indexOf(node);
    const named = (name) => nodes.find((other) => other.getAttribute("data-node") === name);
    const to = {
      ArrowLeft: named(node.dataset.parent),
      ArrowRight: nodes.find((other) => other.dataset.parent === node.getAttribute("data-node")),
      ArrowUp: below[at - 1],
      ArrowDown: below[at + 1],
    };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      toggle(node.getAttribute("data-node"));
      return true;
    }
    const branch = node.querySelector(".branch");
    if (branch && (event.key === "+" || event.key === "-")) {
      if (branch.classList.contains("open") === (event.key === "-")) {
        send("done", branch.dataset.do);
      }
      return true;
    }
    if (!(event.key in to)) {
      return false;
    }
    event.preventDefault();
    if (to[event.key]) {
      node.setAttribute("tabindex", "-1");
      to[event.key].setAttribute("tabindex", "0");
      to[event.key].focus();
    }
    return true;
  }

  function press(event) {
    if (!host.isConnected) {
      document.removeEventListener("keydown", press);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping() || pressInTree(event) || access.press(event)) {
      return;
    }
    if (event.key === "Escape") {
      keys.hidden = true;
      focusedNode()?.blur();
      host.getRootNode().activeElement?.blur();
      if (picked !== null) {
        pick(null);
        send("picked", "");
      }
      return;
    }
    const size = { "+": "in", "-": "out", 0: "fit" }[event.key];
    if (size !== undefined) {
      zoomBy(size);
      return;
    }
    if (event.key === "?") {
      keys.hidden = !keys.hidden;
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      const field = document.querySelector('input[aria-label="Find"], input[aria-label="Filter"]');
      if (field) {
        field.focus();
      } else {
        send("done", "find");
      }
      return;
    }
    if (event.key === " " && shown.now !== null && !event.target.closest?.("button, summary, a")) {
      event.preventDefault();
      play(!playing);
      return;
    }
    play(false);
    const bars = [...strip.querySelectorAll("g.step")];
    if (shown.now === null || !bars.length) {
      return;
    }
    const last = Number(bars[bars.length - 1].dataset.last);
    const from = walk.from();
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    const turn = { PageDown: "next", "]": "next", PageUp: "previous", "[": "previous" }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      if (to >= 0 && to <= last) {
        moveTo(to);
        walk.aimAt(to);
      } else if (!event.repeat && !walk.isWaiting()) {
        send("done", `turn:${to < 0 ? "previous" : "next"}`);
      }
    } else if (turn !== undefined) {
      event.preventDefault();
      send("done", `turn:${turn}`);
    }
  }
  document.addEventListener("keydown", press);

  // Step after step to the end of the turn, until a key is pressed.
  let playing = 0;

  function play(on) {
    clearInterval(playing);
    playing = on ? setInterval(playStep, STEP_MS) : 0;
  }

  function playStep() {
    const last = Number(strip.querySelector("g.step:last-of-type")?.dataset.last ?? 0);
    if (!host.isConnected || walk.from() === null || walk.from() >= last) {
      play(false);
    } else if (!walk.isWaiting()) {
      const next = walk.from() + 1;
      moveTo(next);
      walk.aimAt(next);
    }
  }

  function moveTo(now) {
    const bars = [...strip.querySelectorAll("g.step")];
    access.announce(bars, now);
    for (const bar of bars) {
      bar.classList.toggle("now", now !== null && Number(bar.dataset.first) <= now && now <= Number(bar.dataset.last));
    }
  }

  return (data, sender) => {
    send = sender;
    const before = shown;
    data.strip ??= before.strip;
    if (data.strip !== before.strip) {
      strip.replaceChildren(...(data.strip ? [parsed(data.strip, "image/svg+xml")] : []));
    }
    if (!walk.take(data)) {
      shown.strip = data.strip;
      return;
    }
    shown = data;
    moveTo(walk.from());
    document.title = data.title;
    if (live.textContent !== data.title) {
      live.textContent = data.title; // read aloud where somebody listens
    }
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
  host.gestures ??= timeline(host);
  host.gestures(setTriggerValue);
  host.update(JSON.parse(new TextDecoder().decode(data)), setTriggerValue);
}
