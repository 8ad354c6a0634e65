// The note on the step that is shown: what is being written is kept from step to step until it is saved. Knows no steps.

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
      const field = button.closest(".ss-noted").querySelector("textarea");
      state(field, "saving");
      setTimeout(() => field.isConnected && state(field, drafts.has(key(field)) ? "not saved yet" : ""), 3000);
      save(JSON.stringify({ step: Number(field.dataset.step), text: field.value }));
    }
  });

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
