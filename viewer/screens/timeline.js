// Gestures and keys of a timeline: they move its window at once, and ask the page to draw it anew.

function timeline(host, { ask, isBusy }) {
  let moved = false; // whether the pointer has moved since it went down: then a click is the end of a move
  let gesture = null; // the window that a gesture has led to, until the page is asked for it
  let timer = null;

  const REQUESTS = {
    "+": "zoom:in",
    "=": "zoom:in",
    "-": "zoom:out",
    0: "zoom:whole",
    ",": "pan:left",
    ".": "pan:right",
    ArrowLeft: "token:previous",
    ArrowRight: "token:next",
    Home: "token:first",
    End: "token:last",
    p: "refill:previous",
    n: "refill:next",
    "[": "turn:previous",
    PageUp: "turn:previous",
    "]": "turn:next",
    PageDown: "turn:next",
  };

  const drawing = () => host.querySelector(".ss-card-flow .ss-flow");
  const numbers = (words) => {
    const [start, end] = words.split("-").map(Number);
    return { start, end };
  };

  // Which time lies under the pointer, by a drawing's own window; microseconds.
  function timeAt(svg, window_, event) {
    const lane = svg.querySelector(".lane").getBoundingClientRect();
    return window_.start + ((event.clientX - lane.left) / lane.width) * (window_.end - window_.start);
  }

  // Shows another window until the page has drawn it: the drawing reaches beyond its ends.
  function preview(svg, wanted) {
    const whole = numbers(svg.dataset.whole);
    const shown = numbers(svg.dataset.window);
    const length = Math.max(20, Math.min(wanted.end - wanted.start, whole.end - whole.start));
    const start = Math.max(whole.start, Math.min(wanted.start, whole.end - length));
    gesture = { start, end: start + length };
    const plot = svg.querySelector(".plot");
    const [width, height] = [Number(plot.getAttribute("width")), Number(plot.getAttribute("height"))];
    const scale = width / (shown.end - shown.start);
    plot.classList.add("moving");
    plot.setAttribute("viewBox", `${(start - shown.start) * scale} 0 ${length * scale} ${height}`);
  }

  function askForWindow() {
    if (gesture !== null) {
      ask("done", `window:${Math.floor(gesture.start)}-${Math.ceil(gesture.end)}`);
      gesture = null;
    }
  }

  host.addEventListener(
    "wheel",
    (event) => {
      const svg = event.target.closest?.(".ss-card-flow .ss-flow");
      if (!svg || !(event.ctrlKey || event.shiftKey || event.metaKey)) {
        return;
      }
      event.preventDefault();
      const from = gesture ?? numbers(svg.dataset.window);
      const length = from.end - from.start;
      if (event.shiftKey) {
        const shift = (Math.sign(event.deltaY || event.deltaX) * length) / 8;
        preview(svg, { start: from.start + shift, end: from.end + shift });
      } else {
        const factor = event.deltaY < 0 ? 0.8 : 1.25;
        const at = timeAt(svg, from, event);
        const start = at - (at - from.start) * factor;
        preview(svg, { start, end: start + length * factor });
      }
      clearTimeout(timer);
      timer = setTimeout(askForWindow, 180);
    },
    { passive: false },
  );

  host.addEventListener("pointerdown", (event) => {
    moved = false;
    const svg = event.target.closest?.(".ss-card-flow .ss-flow");
    if (!svg || event.button !== 0) {
      return;
    }
    const from = numbers(svg.dataset.window);
    const [x, width] = [event.clientX, svg.querySelector(".lane").getBoundingClientRect().width];
    const move = (later) => {
      const shift = ((x - later.clientX) / width) * (from.end - from.start);
      moved ||= Math.abs(later.clientX - x) > 4;
      if (moved) {
        preview(svg, { start: from.start + shift, end: from.end + shift });
      }
    };
    const up = () => {
      document.removeEventListener("pointermove", move);
      document.removeEventListener("pointerup", up);
      askForWindow();
    };
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", up);
  });

  // In the overview a click centres the window; after a move no click counts.
  host.addEventListener(
    "click",
    (event) => {
      const overview = event.target.closest?.(".ss-flow-whole .ss-flow");
      if (moved) {
        event.stopPropagation();
      } else if (overview && drawing()) {
        event.stopPropagation();
        const at = timeAt(overview, numbers(overview.dataset.window), event);
        const { start, end } = numbers(drawing().dataset.window);
        preview(drawing(), { start: at - (end - start) / 2, end: at + (end - start) / 2 });
        askForWindow();
      }
    },
    true,
  );

  function press(event) {
    if (!host.isConnected) {
      document.removeEventListener("keydown", press);
      return;
    }
    const target = event.composedPath()[0];
    const isTyping = target.matches?.("input, textarea, select, [contenteditable], [role=combobox], [role=listbox]");
    if (!drawing() || isTyping || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const request = REQUESTS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (event.key === "Enter" && !target.matches?.("button, [data-do]")) {
      host.querySelector(".ss-card-life [data-do]")?.click();
    } else if (request !== undefined) {
      event.preventDefault();
      if (!event.repeat || !isBusy()) {
        ask("done", request);
      }
    }
  }
  document.addEventListener("keydown", press);
}
