// The pages of a bundle: loads a turn's boards from its file, and shows the one that the address names.
// Everything lies beside this file; nothing is fetched from elsewhere.

const turns = JSON.parse(document.getElementById("turns").textContent);
const host = document.querySelector(".inspector");
const chooser = document.getElementById("turn");
const update = inspector(host, { ask: heard, isBusy: () => false, isAsked: () => false });
const loaded = new Map(); // turn -> its boards
const waiting = new Map(); // turn -> what to do once it is there
const stops = turns.flatMap(({ turn, stops }) => stops.map((step) => ({ turn, step })));

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// The texts that packing.py took apart: each character names a template, whose numbers come next in its columns.
function textsOf({ templates, numbers, texts }) {
  const columns = numbers.map((lists) => lists.map((list) => list.split(",")));
  const parts = templates.map((template, at) => (columns[at].length ? template.split("\x7f") : [template]));
  const used = templates.map(() => 0);
  return texts.map((text) => {
    let whole = "";
    for (const letter of text) {
      const code = letter.codePointAt(0);
      const at = code - (code < 0xd800 ? 0x20 : 0x820);
      whole += parts[at][0];
      for (let column = 0; column < columns[at].length; column += 1) {
        whole += columns[at][column][used[at]] + parts[at][column + 1];
      }
      used[at] += 1;
    }
    return whole;
  });
}

// What a turn's file calls.
window.bundle = async (turn, text) => {
  const packed = await unpacked(text);
  const texts = textsOf(packed);
  const notes = texts.splice(texts.length - packed.boards.length);
  const boards = packed.boards.map((html, at) => ({ html: html.map((piece) => texts[piece]).join(""), notes: notes[at] }));
  loaded.set(turn, { strip: packed.strip, boards });
  waiting.get(turn)?.();
};

function withTurn(turn, then) {
  if (loaded.has(turn)) {
    then();
    return;
  }
  const isAsked = waiting.has(turn);
  waiting.set(turn, then);
  if (!isAsked) {
    const script = document.createElement("script");
    script.src = `data/${turn}.js`;
    document.head.append(script);
  }
}

function placeInAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (/^\d{1,9}$/.test(asked.get(name) ?? "") ? Number(asked.get(name)) : null);
  const entry = turns.find(({ turn }) => turn === number("turn")) ?? turns.find(({ size }) => size > 0) ?? turns[0];
  const first = asked.has("turn") ? 0 : (entry.stops[0] ?? 0);
  const step = Math.min(number("step") ?? first, Math.max(0, entry.size - 1));
  return { entry, step, node: /^[ab]?\d{1,6}$/.test(asked.get("node") ?? "") ? asked.get("node") : null };
}

function go(turn, step, node) {
  location.hash = new URLSearchParams({ turn, step, ...(node ? { node } : {}) }).toString();
}

function heard(name, value) {
  const { entry, step } = placeInAddress();
  const at = turns.indexOf(entry);
  const [what, which] = value.split(":");
  if (name === "picked") {
    go(entry.turn, step, value);
  } else if (what === "step" || what === "shown") {
    go(entry.turn, Number(which.split(".")[0]));
  } else if (what === "place" && turns.some(({ turn }) => String(turn) === which.split(".")[0])) {
    go(...which.split(".").map(Number));
  } else if (what === "root" && document.roots[Number(which)]) {
    go(...document.roots[Number(which)]);
  } else if (what === "turn" && turns[at + (which === "next" ? 1 : -1)]) {
    const next = turns[at + (which === "next" ? 1 : -1)];
    go(next.turn, which === "next" ? 0 : Math.max(0, next.size - 1));
  }
}

function show() {
  const { entry, step, node } = placeInAddress();
  chooser.value = String(entry.turn);
  withTurn(entry.turn, () => {
    const now = placeInAddress();
    if (now.entry !== entry || now.step !== step) {
      return;
    }
    const { strip, boards } = loaded.get(entry.turn);
    const nothing = '<div xmlns="http://www.w3.org/1999/xhtml">This turn has no steps.</div>';
    const { html, notes } = boards[step] ?? { html: nothing, notes: "{}" };
    const board = { html, notes: JSON.parse(notes) };
    const title = `${entry.turn}/${step} ${document.body.dataset.name}`;
    update({ ...board, raw: {}, strip, turn: entry.turn, scene: entry.turn, now: step, picked: node, title });
  });
}

for (const { turn, name } of turns) {
  chooser.append(new Option(name, String(turn)));
}
chooser.addEventListener("change", () => {
  go(Number(chooser.value), 0);
  chooser.blur();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !"pPnN".includes(event.key)) {
    return;
  }
  const { entry, step } = placeInAddress();
  const here = turns.indexOf(entry) * 1e9 + step;
  const order = ({ turn, step: at }) => turns.findIndex((other) => other.turn === turn) * 1e9 + at;
  const isNext = event.key.toLowerCase() === "n";
  const found = isNext ? stops.find((at) => order(at) > here) : stops.findLast((at) => order(at) < here);
  if (found) {
    go(found.turn, found.step);
  }
});
document.roots = JSON.parse(document.getElementById("roots").textContent);
window.addEventListener("hashchange", show);
show();
