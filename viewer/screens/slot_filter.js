// Shows of the slots' table only those of a state, or with a text in their token. Knows the markup of that table, and
// nothing else.

function slotFilter(host, body) {
  const asked = { text: "", state: "" }; // the same from step to step

  function filter() {
    for (const form of body.querySelectorAll(".ss-filter")) {
      const [field, choice] = [form.querySelector("input"), form.querySelector("select")];
      const state = [...choice.options].some((option) => option.value === asked.state) ? asked.state : "";
      [field.value, choice.value] = [asked.text, state];
      const rows = [...form.parentElement.querySelectorAll("tr[data-state]")];
      const wanted = asked.text.trim().toLowerCase();
      for (const row of rows) {
        const hasState = state === "" || row.dataset.state.split(" ").includes(state);
        row.hidden = !(hasState && row.querySelector(".ss-token").textContent.toLowerCase().includes(wanted));
        row.setAttribute("tabindex", "-1");
      }
      const shown = rows.filter((row) => !row.hidden);
      shown[0]?.setAttribute("tabindex", "0");
      form.querySelector("[role=status]").textContent =
        shown.length === rows.length ? "" : `${shown.length} of ${rows.length} slots`;
    }
  }

  for (const kind of ["input", "change"]) {
    host.addEventListener(kind, (event) => {
      const form = event.target instanceof Element ? event.target.closest(".ss-filter") : null;
      if (form) {
        asked.text = form.querySelector("input").value;
        asked.state = form.querySelector("select").value;
        filter();
      }
    });
  }

  // After a board was replaced.
  return filter;
}
