// Saves a chart as SVG or PNG and its numbers as CSV, by buttons in the head of its card.

function chartOf(host) {
  const card = host.getRootNode().host?.closest('[class*="st-key-card-"]') ?? host.closest('[class*="st-key-card-"]');
  return card?.querySelector(".js-plotly-plot .svg-container");
}

// The layers that a chart is drawn in, as one drawing.
function savedChart(chart) {
  const layers = [...chart.querySelectorAll(":scope > svg.main-svg")];
  const { width, height } = layers[0].getBoundingClientRect();
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("width", width);
  drawing.setAttribute("height", height);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.append(...layers.map((layer) => styledCopy(layer)));
  return { text: new XMLSerializer().serializeToString(drawing), width, height };
}

function chartTools(host) {
  let shown = {};
  const save = {
    SVG: (chart) => saveAs(`${shown.name}.svg`, savedChart(chart).text, "image/svg+xml"),
    PNG: (chart) => savePicture(`${shown.name}.png`, savedChart(chart), host),
    CSV: () => saveAs(`${shown.name}.csv`, shown.csv, "text/csv"),
  };
  for (const [kind, write] of Object.entries(save)) {
    const button = saveButton(kind);
    button.addEventListener("click", () => {
      const chart = chartOf(host);
      if (chart || kind === "CSV") {
        write(chart);
      }
    });
    host.append(button);
  }
  return (data) => {
    shown = data;
    for (const button of host.children) {
      button.setAttribute("aria-label", `Save ${data.title} as ${button.textContent}`);
    }
  };
}

export default function (component) {
  const host = component.parentElement.querySelector(".chart-tools");
  host.update ??= chartTools(host);
  host.update(JSON.parse(new TextDecoder().decode(component.data)));
}
