// The grid of a sweep: one setting across, another down, and all clips in one clock.
const MOST_ACROSS = 24, MOST_DOWN = 40, DRIFT_SECONDS = 0.12;
const NOTHING = "";
const table = byId("table"), clock = byId("clock");
const axes = { across: NOTHING, down: NOTHING };
let ticking = 0, started = 0;
const sweepShown = () => !byId("sweep").hidden;

/** Settings that make an axis: of several values, fewer than there are clips. */
function axisKeys() {
  return varying.filter((key) => { const number = valuesOf(key).size; return number > 1 && number <= Math.max(MOST_DOWN, clips.length / 2); });
}
function chooseAxes() {
  const keys = axisKeys(), bySize = keys.filter((key) => key !== "prompt").sort((a, b) => valuesOf(a).size - valuesOf(b).size);
  axes.across = bySize[0] ?? keys[0] ?? NOTHING;
  axes.down = keys.includes("prompt") ? "prompt" : bySize[1] ?? NOTHING;
  if (axes.down === axes.across) axes.down = NOTHING;
  for (const id of ["across", "down"]) {
    byId(id).replaceChildren(...[NOTHING, ...keys].map((key) => element("option", { value: key, textContent: key ? labelOf(key) : "nothing" })));
    byId(id).value = axes[id];
  }
}

function drawSweep() {
  if (!sweepShown()) return;
  const across = axisValues(axes.across, MOST_ACROSS), down = axisValues(axes.down, MOST_DOWN);
  const cells = new Map();
  for (const clip of chosen) {
    const key = cellKey(axes.across ? textOf(clip, axes.across) ?? "" : "", axes.down ? textOf(clip, axes.down) ?? "" : "");
    cells.set(key, [...(cells.get(key) ?? []), clip]);
  }
  for (const screen of table.querySelectorAll(".screen")) {
    near.unobserve(screen);
    release(screen);
  };
  const head = element("tr", {}, element("td"), ...across.shown.map((text) => headOf("col", axes.across, text)));
  const rows = down.shown.map((text) =>
    element("tr", {}, headOf("row", axes.down, text), ...across.shown.map((other) => cellOf(cells.get(cellKey(other, text)) ?? []))));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  for (const screen of table.querySelectorAll(".screen")) near.observe(screen);
  noteSweep(across, down);
}
const cellKey = (across, down) => JSON.stringify([across, down]);
function axisValues(key, most) {
  const all = key ? [...valuesOf(key, chosen).keys()].sort(compareTexts) : [""];
  return { shown: all.slice(0, most), number: all.length };
}
function headOf(scope, key, text) {
  const name = key === "prompt" ? "" : `${labelOf(key)} `;
  return element("th", { scope }, element("div", { textContent: key ? `${name}${text === "" ? "none" : shown(key, text)}` : "" }));
}
function cellOf(found) {
  if (!found.length) return element("td");
  const [clip] = found, screen = element("div", { className: "screen" });
  screen.dataset.name = clip.name;
  const [width, height] = sizeOf(clip);
  screen.style.aspectRatio = `${width} / ${height}`;
  if (clip.error) screen.append(reason(clip));
  const open = element("button", { type: "button", className: "open", ariaLabel: clean(`${clip.name}: ${promptOf(clip)}`), title: clean(clip.name) });
  const more = found.length > 1 ? [element("span", { className: "more", textContent: `1 of ${found.length}` })] : [];
  return element("td", {}, element("div", { className: "cell" }, screen, open, ...more));
}
function noteSweep(across, down) {
  const notes = [];
  if (across.number > MOST_ACROSS) notes.push(`The first ${MOST_ACROSS} of ${across.number} columns.`);
  if (down.number > MOST_DOWN) notes.push(`The first ${MOST_DOWN} of ${down.number} rows.`);
  if (table.querySelector(".more")) notes.push("Some cells stand for several clips and show the first: filter to see the others.");
  if (!axes.across && !axes.down) notes.push("The clips differ in no setting that several of them share.");
  byId("sweep-note").textContent = notes.join(" ");
  byId("sweep-note").hidden = !notes.length;
}

// Videos exist where the window is.
const near = new IntersectionObserver((entries) => {
  for (const { target: screen, isIntersecting } of entries) {
    const clip = clipOf.get(screen.dataset.name);
    if (isIntersecting && clip.url && !screen.querySelector("video")) screen.append(videoOf(clip, "auto"));
    else if (!isIntersecting) release(screen);
  }
}, { rootMargin: "200px" });

// The clock: seconds since the start, of which each clip takes the rest of its own length.
const videosOfSweep = () => [...table.querySelectorAll("video")].filter((video) => video.duration > 0);
const longest = () => Math.max(...videosOfSweep().map((video) => video.duration), 0.1);
function tick(now) {
  const seconds = ((now - started) / 1000) % longest();
  clock.value = seconds / longest();
  for (const video of videosOfSweep()) {
    const own = seconds % video.duration, apart = Math.abs(video.currentTime - own);
    if (video.seeking) continue; // else it would never show a frame
    if (Math.min(apart, video.duration - apart) > DRIFT_SECONDS) video.currentTime = own;
    if (video.paused) video.play().catch(() => {});
  }
  ticking = requestAnimationFrame(tick);
}
function runClock(on) {
  cancelAnimationFrame(ticking);
  byId("clock-play").setAttribute("aria-pressed", String(on));
  byId("clock-play").textContent = on ? "Pause" : "Play";
  if (!on) return videosOfSweep().forEach((video) => video.pause());
  started = performance.now() - clock.value * longest() * 1000;
  ticking = requestAnimationFrame(tick);
}
function setView(view) {
  byId("sweep").hidden = view !== "sweep";
  cards.hidden = view === "sweep";
  byId("size-label").hidden = byId("play-all").hidden = view === "sweep";
  for (const one of ["cards", "sweep"]) byId(`as-${one}`).setAttribute("aria-pressed", String(one === view));
  if (view === "sweep") {
    drawSweep();
    runClock(!calm.matches);
  } else {
    runClock(false);
    layOut();
  }
}

for (const id of ["across", "down"]) byId(id).addEventListener("change", () => { axes[id] = byId(id).value; drawSweep(); });
byId("clock-play").addEventListener("click", () => runClock(byId("clock-play").getAttribute("aria-pressed") !== "true"));
clock.addEventListener("input", () => {
  runClock(false);
  for (const video of videosOfSweep()) video.currentTime = Math.min(clock.value * longest(), video.duration - 0.001);
});
table.addEventListener("click", (event) => {
  const clip = clipOf.get(event.target.closest(".cell")?.querySelector(".screen").dataset.name);
  if (clip) openClip(clip);
});
byId("as-cards").addEventListener("click", () => setView("cards"));
byId("as-sweep").addEventListener("click", () => setView("sweep"));
