// The window in which a tree is looked at: its size, what of it is in sight, and the way to the node at hand. Knows the
// markup of trees, and nothing else.

function treeWindow(host, body) {
  // The way from the root to the node at hand, and the edges to its children: in a large tree they run far.
  function light(hovered) {
    for (const element of body.querySelectorAll(".lit")) {
      element.classList.remove("lit");
    }
    for (const tree of hovered === null ? [] : body.querySelectorAll("svg.ss-tree")) {
      const node = (name) => tree.querySelector(`[data-level][data-node="${CSS.escape(name)}"]`);
      const lit = [...tree.querySelectorAll(`[data-parent="${CSS.escape(hovered)}"]`)];
      for (let at = node(hovered); at && !lit.includes(at); at = node(at.dataset.parent)) {
        lit.push(at);
      }
      for (const element of lit) {
        element.classList.add("lit");
        tree.querySelector(`[data-edge="${CSS.escape(element.dataset.node)}"]`)?.classList.add("lit");
      }
    }
  }

  // How large trees are drawn: a factor, or "fit"; the same from step to step.
  let zoom = 1;
  let isSized = false;

  const trees = () => body.querySelectorAll(".ss-tools + .ss-scroll > svg.ss-tree");

  // Measured once the new drawing has been painted: to measure before would make the reader wait.
  function measure() {
    for (const tree of trees()) {
      const frame = tree.parentElement;
      tree.classList.toggle("far", (tree.getScreenCTM()?.a ?? 1) < 0.55);
      const isTall = frame.scrollHeight > frame.clientHeight + 1;
      frame.classList.toggle("moves", isTall || frame.scrollWidth > frame.clientWidth + 1);
    }
  }

  function sizeTrees() {
    for (const tree of zoom === 1 && !isSized ? [] : trees()) {
      const { width, height } = tree.viewBox.baseVal;
      const fit = Math.min(tree.parentElement.clientWidth / width, (window.innerHeight * 0.78 - 4) / height, 1.15);
      tree.style.width = zoom === 1 ? "" : `${width * (zoom === "fit" ? fit : zoom)}px`;
      tree.style.maxWidth = zoom === 1 ? tree.dataset.most : "none";
      tree.style.minWidth = zoom === 1 ? "" : "0";
    }
    isSized = zoom !== 1;
    if (isSized) {
      measure();
    } else {
      requestAnimationFrame(() => setTimeout(measure, 0));
    }
  }

  function zoomBy(step) {
    const tree = body.querySelector("svg.ss-tree");
    const now = zoom === "fit" ? (tree?.getScreenCTM()?.a ?? 1) : zoom;
    const factor = step === "in" ? now * 1.25 : now / 1.25;
    zoom = { fit: "fit", whole: 1 }[step] ?? Math.min(4, Math.max(0.1, factor));
    sizeTrees();
  }

  function keepHeads(frame) {
    const tree = frame.querySelector("svg.ss-tree");
    const scale = tree?.getScreenCTM()?.a;
    if (scale) {
      tree.querySelector(".heads").setAttribute("transform", `translate(0 ${frame.scrollTop / scale})`);
    }
  }

  host.addEventListener("scroll", (event) => keepHeads(event.target), { capture: true, passive: true });
  host.addEventListener(
    "wheel",
    (event) => {
      if ((event.ctrlKey || event.metaKey) && event.target.closest(".ss-tools + .ss-scroll")) {
        event.preventDefault();
        zoomBy(event.deltaY < 0 ? "in" : "out");
      }
    },
    { passive: false },
  );
  // Dragging moves the window; a drag is no click.
  let drag = null;
  host.addEventListener("pointerdown", (event) => {
    const frame = event.target.closest?.(".ss-scroll.moves");
    if (frame && event.button === 0 && event.pointerType === "mouse") {
      const { scrollLeft: left, scrollTop: top } = frame;
      drag = { frame, x: event.clientX, y: event.clientY, left, top, far: false };
    }
  });
  host.addEventListener("pointermove", (event) => {
    if (drag === null || !(event.buttons & 1)) {
      drag = null;
      return;
    }
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.far ||= Math.abs(x) + Math.abs(y) > 5;
    if (drag.far) {
      drag.frame.classList.add("moving");
      drag.frame.scrollTo(drag.left - x, drag.top - y);
    }
  });
  host.addEventListener(
    "click",
    (event) => {
      if (drag?.far) {
        event.stopPropagation();
      }
      drag?.frame.classList.remove("moving");
      drag = null;
    },
    { capture: true },
  );
  window.addEventListener("resize", () => host.isConnected && sizeTrees());

  return { light, sizeTrees, zoomBy };
}
