// The slider below a tree that folds what is unlikely. Knows the markup of that slider, and nothing else.

const SETTLED_MS = 250; // after which a slider that keys move is taken to have arrived

function foldSlider(host, body, ask) {
  let timer = 0;
  let card = null; // whose slider was moved last: its place is taken by another one once the tree is drawn anew

  const sliderAt = (event) => (event.target instanceof Element ? event.target.closest(".ss-below input") : null);

  function say(slider) {
    const words = slider.dataset.words.split("|")[Number(slider.value)];
    slider.setAttribute("aria-valuetext", words);
    slider.closest(".ss-below").querySelector("output").textContent = words;
  }

  host.addEventListener("input", (event) => {
    const slider = sliderAt(event);
    if (slider) {
      say(slider);
    }
  });
  host.addEventListener("change", (event) => {
    const slider = sliderAt(event);
    if (slider) {
      card = slider.closest("section").className;
      clearTimeout(timer);
      timer = setTimeout(() => ask(`below:${slider.value}`), SETTLED_MS);
    }
  });

  // After a board was replaced.
  return () => {
    for (const slider of body.querySelectorAll(".ss-below input")) {
      say(slider);
    }
    if (card !== null && document.activeElement === document.body) {
      [...body.querySelectorAll("section")].find((one) => one.className === card)?.querySelector(".ss-below input")?.focus();
    }
    card = null;
  };
}
