// The keys of a page: from step to step, through a tree that has the focus, and what plays a turn. Knows no markup but
// that of the strip and of trees.

const PACES_MS = [3600, 1800, 900, 450, 225, 110]; // how long a step stands while steps are played
const FIRST_PACE = 2;
const [LOOK_MS, MOST_LOOKS] = [50, 100]; // how often a field that was asked for is looked for

function pageKeys({ host, strip, walk, zoomBy, toggle, moveTo, help, hasStep, ask, isBusy, letGo, isForDrawing }) {
  function isTyping() {
    const fields = "input, textarea, select, [contenteditable], [role=combobox], [role=listbox]";
    return focusedElement()?.matches(fields) ?? false;
  }

  function focusedNode() {
    const focused = focusedElement();
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
      if (branch.classList.contains("open") === (event.key === "-") && (!event.repeat || !isBusy())) {
        ask(branch.dataset.do);
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

  function find(event) {
    event.preventDefault();
    if (!focusField()) {
      ask("find");
      focusOnceThere(MOST_LOOKS);
    }
  }

  function focusField() {
    const field = document.querySelector('input[aria-label="Find"], input[aria-label="Filter"]');
    field?.focus();
    return field !== null;
  }

  // The page of the field is still to come: what is typed next is meant for it.
  function focusOnceThere(looks) {
    setTimeout(() => looks > 0 && !focusField() && focusOnceThere(looks - 1), LOOK_MS);
  }

  function press(event) {
    if (!host.isConnected) {
      document.removeEventListener("keydown", press);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping() || pressInTree(event) || isForDrawing(event)) {
      return;
    }
    if (["Shift", "CapsLock", "AltGraph"].includes(event.key)) {
      return; // held for the key that follows
    }
    const size = { "+": "in", "-": "out", 0: "fit" }[event.key];
    if (event.key === "Escape") {
      help.hidden = true;
      focusedNode()?.blur();
      host.getRootNode().activeElement?.blur();
      letGo();
    } else if (size !== undefined) {
      zoomBy(size);
    } else if (event.key === "?") {
      help.hidden = !help.hidden;
    } else if (event.key === "/") {
      find(event);
    } else if (event.key === " " && hasStep() && !event.target.closest?.("button, summary, a")) {
      event.preventDefault();
      play(!playing);
    } else if (playing && (event.key === "<" || event.key === ">")) {
      pace = Math.min(PACES_MS.length - 1, Math.max(0, pace + (event.key === ">" ? 1 : -1)));
      play(true);
    } else {
      play(false);
      move(event);
    }
  }

  function move(event) {
    const bars = [...strip.querySelectorAll("g.step")];
    if (!hasStep() || !bars.length) {
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
        ask(`turn:${to < 0 ? "previous" : "next"}`);
      }
    } else if (turn !== undefined) {
      event.preventDefault();
      if (!event.repeat || !isBusy()) {
        ask(`turn:${turn}`);
      }
    }
  }
  document.addEventListener("keydown", press);

  // Step after step to the end of the turn, until a key is pressed.
  let playing = 0;
  let pace = FIRST_PACE;
  const pill = document.createElement("div");
  pill.className = "playing";
  pill.setAttribute("role", "status");
  pill.hidden = true;
  host.append(pill);

  function play(on) {
    clearInterval(playing);
    playing = on ? setInterval(playStep, PACES_MS[pace]) : 0;
    pill.hidden = !on;
    const perSecond = Number((1000 / PACES_MS[pace]).toPrecision(2));
    pill.textContent = on ? `Playing ${perSecond} steps per second: < slower, > faster, Space stops` : "";
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
}
