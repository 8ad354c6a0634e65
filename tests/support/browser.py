"""A real browser for tests: where it is, how it is started, and what a page holds."""

from __future__ import annotations

import shutil

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WAIT = 30_000  # milliseconds

#: What the page holds, shadow trees included: elements that load or run, attributes that run, and the text.
LOOK = """
() => {
  const found = { forbidden: [], attributes: [], text: "" };
  const walk = (root) => {
    for (const element of root.querySelectorAll("*")) {
      const name = element.tagName.toLowerCase();
      if (["script", "iframe", "object", "embed", "img", "image", "base", "form", "foreignobject"].includes(name)) {
        found.forbidden.push(element.outerHTML.slice(0, 200));
      }
      for (const { name: attribute, value } of element.attributes) {
        if (attribute.startsWith("on") || /^\\s*javascript:/i.test(value)) {
          found.attributes.push(`${name} ${attribute}=${value}`);
        }
      }
      if (element.shadowRoot) {
        walk(element.shadowRoot);
      }
    }
    for (const child of root.children) {
      found.text += child.tagName === "STYLE" ? "" : child.textContent;
    }
  };
  walk(document.querySelector("[data-testid=stMain]"));
  return found;
}
"""
