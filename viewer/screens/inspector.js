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
  return document.adoptNode(document_.documentElement);
}

// What a title says is said beside the pointer at once; as a label it is still there for those who cannot see.
function labelTitles(root) {
  for (const title of root.querySelectorAll("svg [data-node] > title")) {
    title.parentElement.setAttribute("role", "img"); // a label needs one
    title.parentElement.setAttribute("aria-label", title.textContent);
    title.remove();
  }
}

// `ask(name, value, settled)` asks the page for something, `isBusy` says whether an answer is still to come, and `isAsked`
// whether one is that was asked for by that name.
function inspector(host, { ask, isBusy, isAsked }) {
  const [strip, body] = [host.querySelector(".strip"), host.querySelector(".body")];
  const pop = host.querySelector(".pop");
  const live = host.querySelector(".live");
  const { light, sizeTrees, zoomBy } = treeWindow(host, body);
  const keepDrafts = notedSteps(host, body, {
    save: (note, settled) => ask("noted", note, settled),
    textOf: () => shown.raw.note ?? "",
  });
  const shadeTrees = treeShades(host, body);
  const keepFolds = foldSlider(host, body, (request) => ask("done", request));
  const filterSlots = slotFilter(host, body);
  const access = keyboardAccess({
    body,
    strip,
    hover: (name, element) => pointAt(name, element),
    toggle: (name) => toggle(name),
    masks: () => masks,
    describeCell: (mask, cell) => describeCell(mask, cell),
  });
  let shown = {};
  let picked = null;
  let hovered = null;
  let byName = new Map();
  let masks = new Map();
  let savedFile = null;

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

  // What the keyboard is at: what is known of it stands beside it, as it does beside the pointer.
  function pointAt(name, element) {
    hover(name);
    const box = element?.getBoundingClientRect();
    showPop(box ? { clientX: box.left + Math.min(box.width / 3, 240), clientY: box.bottom - 8 } : null);
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
    ask("picked", picked ?? "");
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
    const text = button.dataset.copy === "address" ? location.href : (shown.raw[button.dataset.copy] ?? "");
    const words = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser did not allow copying: select the text below";
    }
    setTimeout(() => (button.textContent = words), 1500);
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
        ask("done", asked.getAttribute("data-do"));
      }
    } else if (name !== null) {
      toggle(name);
    }
  });

  // What can be clicked and is no button can be pressed as well; with Space too, unless it is a link.
  host.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const pressed = event.key === "Enter" || (event.key === " " && target?.matches(":not([role=link])"));
    const isHeld = event.repeat && isBusy();
    if (pressed && target?.matches(isHeld ? "[data-do]" : "[data-do]:not(button)")) {
      event.preventDefault(); // nor does the page scroll
      event.stopPropagation();
      if (!isHeld) {
        ask("done", target.getAttribute("data-do"));
      }
    }
  });

  function openRaw(details) {
    const text = details.querySelector("pre");
    text.textContent = details.open ? shown.raw[details.dataset.raw] ?? "" : "";
  }

  // By what a fold is known on the next board: its title, without the remark beside it, and without the counts in it.
  const nameOf = (details) =>
    details.dataset.raw ?? (details.querySelector("summary").firstChild?.textContent ?? "").replaceAll(/\d[\d,]*/g, "");

  // A board's elements with all that does not hang on what is shown: made before they are asked for, where there is time.
  function built(html) {
    const root = parsed(html, "application/xhtml+xml");
    labelTitles(root);
    for (const tree of root.querySelectorAll("svg.ss-tree")) {
      tree.setAttribute("role", "tree");
      for (const [at, node] of [...tree.querySelectorAll("[data-level]")].entries()) {
        node.setAttribute("role", "treeitem");
        node.setAttribute("aria-level", node.dataset.level);
        node.setAttribute("tabindex", at === 0 ? "0" : "-1");
        const branch = node.querySelector(".branch");
        if (branch) {
          node.setAttribute("aria-expanded", String(branch.classList.contains("open")));
        }
        node.addEventListener("focus", () => pointAt(node.getAttribute("data-node"), node));
        node.addEventListener("blur", () => showPop(null));
      }
      tree.dataset.most = tree.style.maxWidth;
    }
    access.prepare(root);
    saveButtons(root, () => document.title.split(" · ")[0]);
    return root;
  }

  function replaceBody() {
    const known = new Map([...body.querySelectorAll("details")].map((one) => [nameOf(one), one.open]));
    body.replaceChildren(walk.takeElements(shown.now) ?? built(shown.html));
    readMasks();
    byName = new Map();
    for (const element of body.querySelectorAll("[data-node]")) {
      const name = element.getAttribute("data-node");
      byName.set(name, [...named(name), element]);
    }
    for (const details of body.querySelectorAll("details")) {
      details.open = known.get(nameOf(details)) ?? details.open;
      if (details.dataset.raw !== undefined) {
        details.addEventListener("toggle", () => openRaw(details));
        openRaw(details);
      }
    }
    sizeTrees();
    shadeTrees();
    keepDrafts();
    filterSlots();
    keepFolds();
    hovered = null;
    pop.hidden = true;
    delete pop.dataset.name;
  }

  const walk = walker({
    build: (board) => built(board.html),
    isAlive: () => host.isConnected,
    ask: (request, settled) => ask("done", request, settled),
    last: () => Number(strip.querySelector("g.step:last-of-type")?.dataset.last ?? 0),
    show: (step, board) => {
      shown = { ...shown, ...board, now: step };
      replaceBody();
      moveTo(step);
      pick(null);
    },
  });

  function moveTo(now) {
    const bars = [...strip.querySelectorAll("g.step")];
    access.announce(bars, now);
    for (const bar of bars) {
      bar.classList.toggle("now", now !== null && Number(bar.dataset.first) <= now && now <= Number(bar.dataset.last));
    }
  }

  const goTo = (step) => {
    const last = Number(strip.querySelector("g.step:last-of-type")?.dataset.last ?? 0);
    const to = Math.min(step, last);
    moveTo(to);
    walk.aimAt(to);
  };
  palette({
    host,
    dialog: host.querySelector(".palette"),
    hasStep: () => shown.now !== null,
    goToStep: goTo,
    ask: (request) => ask("done", request),
  });
  pageKeys({
    host,
    strip,
    walk,
    zoomBy,
    toggle,
    moveTo,
    help: host.querySelector(".keys"),
    hasStep: () => shown.now !== null,
    ask: (request) => ask("done", request),
    isBusy,
    letGo: () => picked !== null && toggle(picked),
    isForDrawing: (event) => access.press(event),
  });

  // A page that was drawn anew goes on to where keys had led on the one before it.
  host.led = walk.led;
  host.goOn = ({ turn, step }) => {
    if (step !== null && step !== walk.from() && turn === shown.turn) {
      goTo(step);
    }
  };

  return (data) => {
    if (data.file && data.file.number !== savedFile) {
      savedFile = data.file.number; // what is drawn again is not saved again
      saveAs(data.file.name, data.file.text, data.file.type);
    }
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
    pick(isAsked("picked") ? picked : data.picked); // what was selected since is newer than the answer
    // After a choice from a list, the next key is meant for the page.
    const focused = document.activeElement;
    if (focused?.getAttribute("role") === "combobox" && focused.getAttribute("aria-expanded") !== "true") {
      focused.blur();
    }
  };
}

let latest = null; // the component that was made last: another replaces it where the connection was lost

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const host = parentElement.querySelector(".inspector");
  const shown = JSON.parse(new TextDecoder().decode(data));
  const led = latest !== null && latest !== host ? latest.led() : null;
  latest = host;
  if (host.line === undefined) {
    host.line = requestLine(() => host.isConnected);
    host.update = inspector(host, host.line);
    timeline(host, host.line);
  }
  host.line.take(shown.answered, setTriggerValue);
  host.update(shown);
  if (led !== null) {
    host.goOn(led);
  }
}
