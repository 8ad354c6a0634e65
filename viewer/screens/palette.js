// A palette of everything that can be clicked on the page, found by typing, and the way to a step by its number. What it
// does is done by the page's own buttons, so it can do nothing that a click could not.

const MOST_COMMANDS = 12; // that are listed at once
const PLACE = /^(?:(\d{1,9})[\s/.,:]+)?(\d{1,9})$/; // a step, or a turn and a step

function palette({ host, dialog, hasStep, goToStep, ask }) {
  const field = dialog.querySelector("input");
  const list = dialog.querySelector("[role=listbox]");
  let commands = [];
  let shownCommands = [];
  let chosen = 0;
  let timer = 0;

  const words = (element) => (element.getAttribute("aria-label") ?? element.innerText ?? "").replaceAll(/\s+/g, " ").trim();
  const canBeSeen = (element) => element.getClientRects().length > 0 && !element.disabled;

  function pages() {
    const buttons = [...document.querySelectorAll('.st-key-header [data-testid="stButtonGroup"] button')];
    return buttons.map((button) => ({ label: `Page: ${words(button)}`, run: () => button.click() }));
  }

  function buttons() {
    const controls = [...document.querySelectorAll(".st-key-controls button")];
    const own = [...host.querySelectorAll("button")].filter((button) => !dialog.contains(button));
    const named = [...controls, ...own].filter(canBeSeen).map((button) => ({
      label: button.closest("li") ? words(button.closest("li")) : words(button),
      run: () => button.click(),
    }));
    return named.filter(({ label }) => label !== "");
  }

  function places(text) {
    const parts = PLACE.exec(text);
    if (!parts || !hasStep()) {
      return [];
    }
    const [turn, step] = [parts[1], Number(parts[2])];
    if (turn === undefined) {
      return [{ label: `Go to step ${step}`, run: () => goToStep(step) }];
    }
    return [{ label: `Go to turn ${Number(turn)}, step ${step}`, run: () => ask(`place:${Number(turn)}.${step}`) }];
  }

  function fill() {
    const text = field.value.trim();
    const parts = text.toLowerCase().split(/\s+/);
    const fitting = commands.filter(({ label }) => parts.every((part) => label.toLowerCase().includes(part)));
    shownCommands = [...places(text), ...fitting].slice(0, MOST_COMMANDS);
    chosen = 0;
    list.replaceChildren(
      ...shownCommands.map(({ label }, at) => {
        const option = document.createElement("div");
        option.id = `ss-command-${at}`;
        option.setAttribute("role", "option");
        option.textContent = label;
        option.addEventListener("click", () => run(at));
        return option;
      }),
    );
    mark();
  }

  function mark() {
    for (const [at, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", String(at === chosen));
    }
    list.children[chosen]?.scrollIntoView({ block: "nearest" });
    if (list.children.length) {
      field.setAttribute("aria-activedescendant", `ss-command-${chosen}`);
    } else {
      field.removeAttribute("aria-activedescendant");
    }
  }

  function run(at) {
    const command = shownCommands[at];
    close();
    command?.run();
  }

  function open() {
    const labels = new Set();
    commands = [...pages(), ...buttons()].filter(({ label }) => !labels.has(label) && labels.add(label));
    clearTimeout(timer);
    dialog.hidden = false;
    field.value = "";
    fill();
    field.focus();
  }

  function close() {
    dialog.hidden = true;
    field.blur();
  }

  field.addEventListener("input", fill);
  // Later, so that a click on a command is heard first.
  field.addEventListener("blur", () => {
    clearTimeout(timer);
    timer = setTimeout(close, 150);
  });
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in moves) {
      event.preventDefault();
      chosen = (chosen + moves[event.key] + shownCommands.length) % Math.max(1, shownCommands.length);
      mark();
    } else if (event.key === "Enter") {
      run(chosen);
    } else if (event.key === "Escape") {
      close();
    }
  });

  function press(event) {
    if (!host.isConnected) {
      document.removeEventListener("keydown", press, true);
    } else if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      event.stopPropagation();
      (dialog.hidden ? open : close)();
    }
  }
  document.addEventListener("keydown", press, true);
}
