// The note on the step that is shown: what is being written is kept from step to step until it is saved. Knows no steps.

const MOST_TRIES = 4; // a note that was lost on its way is sent again

function notedSteps(host, body, { save, textOf }) {
  const drafts = new Map(); // run, turn and step -> what was written and not saved

  const key = (field) => field.dataset.place;

  function state(field, words) {
    field.closest(".ss-noted").querySelector("[role=status]").textContent = words;
  }

  host.addEventListener("input", (event) => {
    const field = event.target instanceof Element ? event.target.closest(".ss-noted textarea") : null;
    if (!field) {
      return;
    }
    if (field.value === field.defaultValue) {
      drafts.delete(key(field));
    } else {
      drafts.set(key(field), field.value);
    }
    state(field, drafts.has(key(field)) ? "not saved yet" : "");
  });
  host.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest(".ss-noted button") : null;
    if (button) {
      saveField(button.closest(".ss-noted").querySelector("textarea"), MOST_TRIES);
    }
  });

  function saveField(field, tries) {
    const [place, text] = [key(field), field.value];
    state(field, "saving");
    const note = JSON.stringify({ step: Number(field.dataset.step), text });
    save(note, (isAnswered) => setTimeout(() => settle(place, text, isAnswered ? 0 : tries - 1))); // once it is shown
  }

  // The board may have been replaced meanwhile, and show another step.
  function settle(place, text, tries) {
    const field = [...body.querySelectorAll(".ss-noted textarea")].find((other) => key(other) === place);
    if (field && tries > 0 && drafts.get(place) === text) {
      saveField(field, tries);
    } else if (field) {
      state(field, drafts.has(place) ? "not saved yet" : "");
    }
  }

  // What is typed here is for nobody else: keys of the page are letters, too.
  host.addEventListener("keydown", (event) => {
    const field = event.target instanceof Element ? event.target.closest(".ss-noted textarea") : null;
    if (field) {
      event.stopPropagation();
    }
    if (field && event.key === "Escape") {
      field.blur();
    }
  });

  // After a board was replaced.
  return () => {
    for (const field of body.querySelectorAll(".ss-noted textarea")) {
      field.defaultValue = textOf();
      const draft = drafts.get(key(field));
      if (draft !== undefined && draft.trim() !== field.defaultValue.trim()) {
        field.value = draft;
        state(field, "not saved yet");
      } else {
        drafts.delete(key(field));
      }
    }
  };
}
