// Saves a chart as SVG or PNG and its numbers as CSV, by buttons in the head of its card; and says what was dragged
// across it, where its axis can be looked at in parts.

function cardOf(host) {
  return host.getRootNode().host?.closest('[class*="st-key-card-"]') ?? host.closest('[class*="st-key-card-"]');
}

function chartOf(host) {
  return cardOf(host)?.querySelector(".js-plotly-plot .svg-container");
}

// A chart is replaced now and then: whoever is about to drag across it is early enough to listen. These tools are
// replaced as well, so the card listens once, and keeps by whom it is told today: ``card.zoomed``.
function hearZoom(host, zoomed) {
  const card = cardOf(host);
  if (!card) {
    return;
  }
  const isHeard = card.zoomed !== undefined;
  card.zoomed = zoomed;
  if (isHeard) {
    return;
  }
  card.addEventListener("pointerdown", (event) => {
    const plot = event.target instanceof Element ? event.target.closest(".js-plotly-plot") : null;
    if (!plot || plot.hearsZoom) {
      return;
    }
    plot.hearsZoom = true;
    plot.on("plotly_relayout", (change) => {
      const ends = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (ends.every((end) => typeof end === "number")) {
        card.zoomed(ends.join(" "));
      } else if (change["xaxis.autorange"]) {
        card.zoomed("");
      }
    });
  }, true);
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
  return (data, send) => {
    shown = data;
    hearZoom(host, (ends) => send("zoomed", ends));
    for (const button of host.children) {
      button.setAttribute("aria-label", `Save ${data.title} as ${button.textContent}`);
    }
  };
}

export default function (component) {
  const host = component.parentElement.querySelector(".chart-tools");
  host.update ??= chartTools(host);
  host.update(JSON.parse(new TextDecoder().decode(component.data)), component.setTriggerValue);
}
