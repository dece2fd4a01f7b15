"use strict";
const byId = (id) => document.getElementById(id);
const clips = [...document.querySelectorAll(".clip")];
const cardOf = new Map(clips.map((clip) => [clip.dataset.name, clip]));
const textOf = new Map(clips.map((clip) => [clip, (clip.dataset.name + " " + (clip.querySelector(".prompt")?.textContent ?? "")).toLowerCase()]));

// Clips: which are shown, and in which order.
function filter() {
  const words = byId("search").value.toLowerCase().split(/\s+/);
  const failedOnly = byId("failed-only")?.checked;
  let shown = 0;
  for (const clip of clips) {
    const fits = words.every((word) => textOf.get(clip).includes(word)) && !(failedOnly && clip.classList.contains("done"));
    clip.hidden = !fits;
    shown += fits;
  }
  byId("count").textContent = shown === clips.length ? shown : `${shown} of ${clips.length}`;
  byId("none").hidden = shown > 0 || clips.length === 0;
}
function sort() {
  const key = byId("sort").value, sign = key === "seconds" ? -1 : 1;
  clips.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.position - b.dataset.position);
  byId("grid").append(...clips);
}
byId("search").addEventListener("input", filter);
byId("failed-only")?.addEventListener("change", filter);
byId("sort").addEventListener("change", sort);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    byId("search").focus();
  }
});

// Videos: only those near the window hold a file; browsers allow but few players at a time.
const playAll = byId("play-all");
const wanted = () => playAll.getAttribute("aria-pressed") === "true";
const start = (video) => video.play().catch(() => {}); // refused or gone from view: it stays paused
function show({ target: video, isIntersecting }) {
  if (isIntersecting && !video.hasAttribute("src")) {
    video.preload = "auto";
    video.src = `${video.dataset.src}#t=0.001`; // without a time, phones show no picture before it plays
    if (wanted()) start(video);
  } else if (!isIntersecting && video.hasAttribute("src")) {
    video.pause();
    video.removeAttribute("src");
    video.load();
  }
}
const watcher = new IntersectionObserver((entries) => entries.forEach(show), { rootMargin: "300px" });
for (const video of document.querySelectorAll("video")) {
  const screen = video.parentElement;
  screen.querySelector(".play").addEventListener("click", () => {
    video.controls = true;
    video.muted = !("sound" in video.dataset); // asked for by a click, so it may be heard; "Play all" stays silent
    start(video);
    video.focus();
  });
  video.addEventListener("playing", () => screen.classList.add("playing"));
  video.addEventListener("pause", () => screen.classList.toggle("playing", video.controls));
  video.addEventListener("emptied", () => { video.controls = false; video.muted = true; screen.classList.remove("playing"); });
  watcher.observe(video);
}
playAll.addEventListener("click", () => {
  playAll.setAttribute("aria-pressed", String(!wanted()));
  playAll.textContent = wanted() ? "Pause all" : "Play all";
  for (const video of document.querySelectorAll("video[src]")) wanted() ? start(video) : video.pause();
});

// The command that renders a clip again.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.body.appendChild(document.createElement("textarea"));
  area.value = text;
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("copying is not allowed here");
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => {
    const card = button.closest(".clip"), said = (text) => { button.textContent = text; };
    copy(card.querySelector(".command").textContent).then(
      () => said("Copied"),
      () => { card.querySelector("details").open = true; said("Copy it from above"); },
    );
    setTimeout(() => said("Copy command"), 2500);
  });
}

// The timeline: zoom, ticks, and what each bar is.
const chart = byId("chart");
if (chart) {
  byId("timeline").hidden = false; // laid out once: a browser would do so again with each piece of it that arrives
  const scroll = byId("scroll"), seconds = Number(chart.dataset.seconds), tip = byId("tip");
  const bars = [...chart.querySelectorAll(".bar")];
  const height = chart.height.baseVal.value;
  let zoom = 1;
  const tickSeconds = (atLeast) => {
    const power = 10 ** Math.floor(Math.log10(atLeast));
    return [1, 2, 5, 10].find((factor) => factor * power >= atLeast * 0.999) * power;
  };
  const element = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  function drawTicks() {
    const width = scroll.clientWidth * zoom;
    const step = tickSeconds(Math.max(seconds, 1e-3) / Math.max(width / 90, 1));
    const made = [];
    for (let i = 0; i * step <= seconds && i < 5000; i++) {
      const x = `${(100 * i * step) / seconds}%`, last = (width * (seconds - i * step)) / seconds < 60;
      made.push(element("line", { x1: x, x2: x, y1: 0, y2: height - 20 }));
      const text = `${Number((i * step).toPrecision(6))} s`;
      made.push(element("text", { x, y: height - 6, dx: i ? 0 : 4, "text-anchor": i === 0 ? "start" : last ? "end" : "middle" }, text));
    }
    byId("ticks").replaceChildren(...made);
  }
  function zoomTo(value, at = scroll.clientWidth / 2) {
    const centre = (scroll.scrollLeft + at) / zoom;
    zoom = Math.min(Math.max(value, 1), 200);
    chart.setAttribute("width", `${100 * zoom}%`);
    scroll.scrollLeft = centre * zoom - at;
    drawTicks();
  }
  byId("zoom-in").addEventListener("click", () => zoomTo(zoom * 1.6));
  byId("zoom-out").addEventListener("click", () => zoomTo(zoom / 1.6));
  byId("zoom-fit").addEventListener("click", () => zoomTo(1));
  scroll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoomTo(zoom * 1.0015 ** -event.deltaY, event.clientX - scroll.getBoundingClientRect().left);
  }, { passive: false });
  new ResizeObserver(drawTicks).observe(scroll);

  const tell = (bar) => {
    tip.hidden = !bar;
    for (const other of chart.querySelectorAll(".same")) other.classList.remove("same");
    if (!bar) return;
    tip.textContent = bar.getAttribute("aria-label").replace(" · ", "\n"); // the clip, and below it the rest
    for (const other of bars) if (other.dataset.clip === bar.dataset.clip) other.classList.add("same");
    const box = bar.getBoundingClientRect(), left = Math.max(box.left, scroll.getBoundingClientRect().left);
    tip.style.left = `${Math.max(12, Math.min(left, innerWidth - tip.offsetWidth - 12))}px`;
    tip.style.top = `${box.top > tip.offsetHeight + 16 ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
  };
  const open = (bar) => {
    const card = cardOf.get(bar.dataset.clip);
    if (!card) return;
    if (card.hidden) {
      byId("search").value = "";
      if (byId("failed-only")) byId("failed-only").checked = false;
      filter();
    }
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "center" });
  };
  const lanes = [...chart.querySelectorAll(".lane")].map((lane) =>
    [...lane.querySelectorAll(".bar")].sort((a, b) => a.getAttribute("x").slice(0, -1) - b.getAttribute("x").slice(0, -1)));
  const filled = lanes.filter((lane) => lane.length);
  filled[0]?.[0].setAttribute("tabindex", "0");
  const barOf = (event) => event.target.closest(".bar");
  chart.addEventListener("pointerover", (event) => tell(barOf(event)));
  chart.addEventListener("pointerleave", () => tell(null));
  chart.addEventListener("focusin", (event) => tell(barOf(event)));
  chart.addEventListener("focusout", () => tell(null));
  chart.addEventListener("click", (event) => barOf(event) && open(barOf(event)));
  chart.addEventListener("keydown", (event) => {
    const bar = barOf(event), step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (bar && event.key === "Enter") open(bar);
    if (!bar || !step) return;
    event.preventDefault();
    const row = filled.findIndex((lane) => lane.includes(bar)), lane = filled[row + step[1]] ?? filled[row];
    const x = bar.x.baseVal.value, near = (b) => Math.abs(b.x.baseVal.value - x);
    const next = step[0] ? lane[lane.indexOf(bar) + step[0]] ?? bar : lane.reduce((a, b) => (near(b) < near(a) ? b : a));
    bar.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}
