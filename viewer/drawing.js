// Shows an SVG string and reports clicks on elements that carry data-pick. Knows nothing of what is drawn.
// The string is parsed as XML, not as HTML: a mistake in it is an error to be seen, never markup that runs.
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const host = parentElement.querySelector(".drawing");
  const parsed = new DOMParser().parseFromString(data.svg, "image/svg+xml");
  if (parsed.querySelector("parsererror") || parsed.documentElement.localName !== "svg") {
    host.textContent = "This drawing could not be read.";
    return;
  }
  for (const script of parsed.querySelectorAll("script, foreignObject")) {
    script.remove();
  }
  host.replaceChildren(document.importNode(parsed.documentElement, true));
  host.onclick = (event) => {
    const picked = event.target.closest("[data-pick]");
    if (picked) {
      setTriggerValue("pick", picked.getAttribute("data-pick"));
    }
  };
}
