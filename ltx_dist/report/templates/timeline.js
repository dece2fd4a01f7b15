// The timeline: zoom, and what each bar is, for the hand and for the keys.
const MOST_ZOOM = 400;
if (timeline && byId("chart")) startTimeline(byId("chart"), byId("scroll"), byId("tip"));

function startTimeline(canvas, scroll, tip) {
  const lanes = timeline.lanes.map(([, , bars]) => bars), seconds = Math.max(timeline.seconds, 1e-6);
  let zoom = 1, picked = null, paints = null, asked = 0, isSeen = false;
  byId("timeline").hidden = false;
  canvas.style.height = `${lanes.length * LANE + AXIS}px`;

  const viewNow = () => ({ width: scroll.clientWidth, scale: (scroll.clientWidth * zoom) / seconds, left: scroll.scrollLeft / ((scroll.clientWidth * zoom) / seconds) });
  function redraw() {
    cancelAnimationFrame(asked);
    if (!isSeen) return; // ten thousand clips take a while to draw, far below the first of them
    asked = requestAnimationFrame(() => drawTimeline(canvas, lanes, viewNow(), (paints ??= paintsOf()), picked?.bar));
  }
  function zoomTo(value, at = scroll.clientWidth / 2) {
    const centre = (scroll.scrollLeft + at) / zoom;
    zoom = Math.min(Math.max(value, 1), MOST_ZOOM);
    byId("extent").style.width = `${100 * zoom}%`;
    scroll.scrollLeft = centre * zoom - at;
    redraw();
  }

  /** The bar under a point: the shortest, where one lies over another. */
  function barAt(event) {
    const box = canvas.getBoundingClientRect(), view = viewNow(), index = Math.floor((event.clientY - box.top) / LANE);
    const at = view.left + (event.clientX - box.left) / view.scale, near = 2 / view.scale;
    const found = (lanes[index] ?? []).filter((bar) => bar[START] - near <= at && at <= bar[START] + bar[SECONDS] + near);
    return found.length ? { lane: index, bar: found.reduce((a, b) => (b[SECONDS] < a[SECONDS] ? b : a)) } : null;
  }
  function pick(found) {
    if (found?.bar === picked?.bar) return;
    picked = found;
    canvas.style.cursor = found ? "pointer" : "";
    tip.hidden = !found;
    if (found) tell(found);
    redraw();
  }
  function tell({ lane, bar }) {
    tip.textContent = barInWords(lane, bar);
    const box = canvas.getBoundingClientRect(), view = viewNow();
    const x = box.left + Math.max(0, (bar[START] - view.left) * view.scale), y = box.top + lane * LANE;
    tip.style.left = `${Math.max(12, Math.min(x, innerWidth - tip.offsetWidth - 12))}px`;
    tip.style.top = `${y > tip.offsetHeight + 16 ? y - tip.offsetHeight - 2 : y + LANE}px`;
  }
  function open({ bar }) {
    const clip = clipOf.get(timeline.names[bar[CLIPS][0]]);
    if (clip) openClip(clip);
  }

  /** The next bar of the lane, or the nearest one of a lane above or below. */
  function walk(across, down) {
    const lane = Math.min(Math.max((picked?.lane ?? 0) + down, 0), lanes.length - 1);
    const bars = lanes[lane], from = picked?.bar[START] ?? 0;
    if (!bars.length) return;
    const near = bars.reduce((a, b) => (Math.abs(b[START] - from) < Math.abs(a[START] - from) ? b : a));
    const bar = picked && across ? bars[bars.indexOf(picked.bar) + across] ?? picked.bar : near;
    show(bar);
    pick({ lane, bar });
  }
  function show(bar) {
    const view = viewNow(), x = bar[START] * view.scale;
    if (x < scroll.scrollLeft || x > scroll.scrollLeft + view.width - 40) scroll.scrollLeft = x - view.width / 3;
  }

  canvas.addEventListener("pointermove", (event) => pick(barAt(event)));
  canvas.addEventListener("pointerleave", () => pick(null));
  canvas.addEventListener("blur", () => pick(null));
  canvas.addEventListener("click", (event) => { const found = barAt(event); if (found) open(found); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (event.key === "Enter" && picked) open(picked);
    if (!step) return;
    event.preventDefault();
    walk(...step);
  });
  byId("zoom-in").addEventListener("click", () => zoomTo(zoom * 1.6));
  byId("zoom-out").addEventListener("click", () => zoomTo(zoom / 1.6));
  byId("zoom-fit").addEventListener("click", () => zoomTo(1));
  scroll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoomTo(zoom * 1.0015 ** -event.deltaY, event.clientX - scroll.getBoundingClientRect().left);
  }, { passive: false });
  scroll.addEventListener("scroll", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paints = null; redraw(); });
  new ResizeObserver(redraw).observe(scroll);
  new IntersectionObserver(([{ isIntersecting }]) => { isSeen = isIntersecting; redraw(); }, { rootMargin: "300px" }).observe(scroll);
}

function barInWords(lane, bar) {
  const [first, ...others] = bar[CLIPS].map((clip) => timeline.names[clip]);
  const parts = [`${data.stages[bar[STAGE]]} ${brief(bar[SECONDS])}`];
  if (others.length) parts.push(`in one pass with ${others.join(", ")}`);
  if (bar[LOAD] >= 0.005) parts.push(`after loading weights for ${brief(bar[LOAD])}`);
  parts.push(`from ${brief(bar[START])} on ${timeline.lanes[lane][0]}`);
  if (bar[ERROR]) parts.push(bar[ERROR]);
  return clean(`${first}\n${parts.join(" · ")}`);
}
