// Colours the nodes of trees by a number that is known of each. Knows the markup of trees, and nothing else.

const MOST_ENTROPY = 4; // nats at which a node has its full colour
const MOST_DOUBLINGS = 4; // between the drafter's probability and the teacher's, likewise
const SHADE_WORDS = {
  d: "pale: 0; full: 1",
  t: "pale: 0; full: 1",
  r: "orange: the drafter was surer; blue: the teacher is; full: 16 times",
  e: `pale: 0, the teacher is certain; full: ${MOST_ENTROPY} nats or more`,
};

function treeShades(host, body) {
  let by = ""; // the same from step to step

  function share(node) {
    const [draft, teacher, entropy] = ["d", "t", "e"].map((name) => Number(node.dataset[name] ?? NaN));
    return {
      d: draft,
      t: teacher,
      r: Math.log2(teacher / draft) / MOST_DOUBLINGS,
      e: entropy / MOST_ENTROPY,
    }[by];
  }

  // After a board was replaced, or another number was chosen.
  function shade() {
    for (const tree of body.querySelectorAll("svg.ss-tree")) {
      tree.classList.toggle("shaded", by !== "");
      for (const node of tree.querySelectorAll(".node")) {
        const amount = by === "" ? NaN : share(node);
        const isKnown = !Number.isNaN(amount);
        node.style.setProperty("--ss-share", isKnown ? Math.min(1, Math.abs(amount)).toFixed(3) : "0");
        node.classList.toggle("less", isKnown && by === "r" && amount < 0);
        node.classList.toggle("more", isKnown && by === "r" && amount > 0);
      }
    }
    for (const choice of body.querySelectorAll(".ss-shades")) {
      const select = choice.querySelector("select");
      select.value = [...select.options].some((option) => option.value === by) ? by : "";
      choice.querySelector("span").textContent = SHADE_WORDS[by] ?? "";
    }
  }

  host.addEventListener("change", (event) => {
    const select = event.target instanceof Element ? event.target.closest(".ss-shades select") : null;
    if (select) {
      by = select.value;
      shade();
      select.blur(); // the next key is meant for the page
    }
  });

  // Letters choose from the list; they are no keys of the page meanwhile.
  host.addEventListener("keydown", (event) => {
    if (event.target instanceof Element && event.target.closest(".ss-shades select")) {
      event.stopPropagation();
    }
  });

  return () => {
    if (by !== "" || body.querySelector(".shaded")) {
      shade();
    }
  };
}
