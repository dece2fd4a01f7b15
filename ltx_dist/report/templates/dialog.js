// One clip, large: its settings, digests and commands, and the clips before and after it.
const dialog = byId("dialog"), large = byId("large");
const SOUND = "ltx-dist sound";
let current = null;

function openClip(clip, seconds = 0) {
  stopAll();
  current = clip;
  showLarge(clip, seconds);
  describe(clip);
  markButtons();
  byId("previous").disabled = !neighbour(-1);
  byId("next").disabled = !neighbour(1);
  if (!dialog.open) {
    dialog.showModal();
    dialog.focus(); // and not the video, whose own keys would come first
  }
  setHash(`#${escaped(clip.name)}`);
}
function stopAll() {
  for (const card of alive.values()) stop(card.firstElementChild);
  for (const screen of document.querySelectorAll("#table .playing")) stop(screen);
}
function setHash(hash) {
  try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { /* not from every place */ }
}
const clipOfHash = () => {
  try { return clipOf.get(decodeURIComponent(location.hash.slice(1))); } catch { return undefined; }
};

function showLarge(clip, seconds) {
  release(large);
  large.replaceChildren();
  byId("sound").hidden = !clip.sound;
  if (!clip.url) return large.append(reason(clip));
  const video = element("video", {
    src: `${clip.url}#t=${Math.max(seconds, 0.001)}`, controls: true, loop: true, playsInline: true, preload: "auto",
    muted: !(clip.sound && heard()), ariaLabel: clean(clip.name),
  });
  const [width, height] = sizeOf(clip);
  video.width = Math.min(4 * width, 4096); // a small clip grows, but not beyond recognition
  video.style.aspectRatio = `${width} / ${height}`;
  video.addEventListener("volumechange", () => { if (clip.sound) hear(!video.muted); });
  large.append(video);
  if (!calm.matches) video.play().catch(() => {});
}

// Sound is on where there is some, until somebody turns it off; the next clip does as this one.
const heard = () => remembered(sessionStorageOrNone(), SOUND) ?? true;
function hear(on) {
  remember(sessionStorageOrNone(), SOUND, on);
  byId("sound").setAttribute("aria-pressed", String(on));
  const video = large.querySelector("video");
  if (video && video.muted === on) video.muted = !on;
}

function describe(clip) {
  byId("clip-name").textContent = clean(clip.name);
  byId("clip-place").textContent = chosen.includes(clip) ? `${chosen.indexOf(clip) + 1} of ${chosen.length}` : "";
  byId("clip-prompt").textContent = promptOf(clip);
  byId("clip-notes").replaceChildren(...(clip.notes ?? []).map((note) => element("p", { className: "note", textContent: clean(note) })));
  byId("clip-pictures").replaceChildren(...(clip.pictures ?? []).map(pictureOf));
  byId("clip-facts").replaceChildren(...factsOf(clip).map(([name, value, own]) =>
    element("div", { className: own ? "own" : "" }, element("dt", { textContent: name }), element("dd", { textContent: value }))));
  byId("clip-command").textContent = clip.row ? commandOf(clip) : "";
  for (const id of ["copy-command", "copy-row", "copy-prompt", "clip-command", "open-json"]) byId(id).hidden = !clip.row;
  byId("open-mp4").hidden = !clip.url;
  byId("open-mp4").href = clip.url ?? "";
  byId("open-also").replaceChildren(...Object.entries(clip.also ?? {}).map(([ending, url]) =>
    element("a", { href: url, download: "", textContent: clean(ending.slice(1)) })));
  byId("open-json").href = `${escaped(clip.name)}.json`;
  hear(heard());
}

/** What clips differ in comes first, then what all share, then how long it took, then digests. */
function factsOf(clip) {
  if (!clip.row) return [];
  const rest = { ...data.row, ...data.settings };
  const own = Object.entries({ ...clip.row, ...clip.settings }).filter(([key]) => key !== "prompt");
  const shared = Object.entries(rest).filter(([key]) => key !== "prompt");
  const stages = (clip.stages ?? []).map((stage, i) => stage && [clean(data.stages[i]), `${brief(stage[1])} on ${clean(data.workers[stage[0]])}`]);
  return [
    // Named as in prompt files and configs.
    ...own.map(([key, text]) => [clean(key), shown(key, text), true]),
    ...shared.map(([key, text]) => [clean(key), shown(key, text), false]),
    ...(clip.sound ? [["sound", `${clip.sound / 1000} kHz`, false]] : []),
    ...stages.filter(Boolean).map(([name, value]) => [name, value, false]),
    ...Object.entries(clip.digests ?? {}).map(([key, value]) => [key, clean(value), false]),
  ];
}
function pictureOf([label, url, isVideo]) {
  const properties = { src: url, onerror: (event) => event.target.remove() }; // moved, or not to be reached from here
  const picture = isVideo
    ? element("video", { ...properties, muted: true, loop: true, controls: true, preload: "metadata", ariaLabel: clean(label) })
    : element("img", { ...properties, alt: clean(label) });
  return element("figure", {}, picture, element("figcaption", { textContent: clean(label) }));
}

function markButtons() {
  for (const mark of ["star", "reject"]) byId(mark).setAttribute("aria-pressed", String(current && markOf(current) === mark));
}
function neighbour(step) {
  return chosen[chosen.indexOf(current) + step];
}
function go(step) {
  const clip = neighbour(step);
  if (clip) openClip(clip);
}

const stepFrame = (direction) => (video) => {
  video.pause();
  video.currentTime = Math.max(0, video.currentTime + direction / (Number(textOf(current, "frame_rate")) || 25));
};
const KEYS = {
  ArrowLeft: () => go(-1),
  ArrowRight: () => go(1),
  s: () => toggleMark(current, "star"),
  x: () => toggleMark(current, "reject"),
  m: () => hear(!heard()),
  " ": (video) => (video.paused ? video.play().catch(() => {}) : video.pause()),
  ",": stepFrame(-1),
  ".": stepFrame(1),
};
// Before the video's own controls, which would wind with the arrows.
dialog.addEventListener("keydown", (event) => {
  const act = KEYS[event.key], video = large.querySelector("video");
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  if (" ,.".includes(event.key) && (!video || event.target.closest("button, a"))) return;
  event.preventDefault();
  event.stopPropagation();
  act(video);
}, true);
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  release(large);
  setHash("");
  focusCard(current);
  current = null;
});
byId("close").addEventListener("click", () => dialog.close());
byId("previous").addEventListener("click", () => go(-1));
byId("next").addEventListener("click", () => go(1));
byId("sound").addEventListener("click", () => hear(!heard()));
for (const mark of ["star", "reject"]) byId(mark).addEventListener("click", () => toggleMark(current, mark));
document.addEventListener("marked", markButtons);
copiesOnClick(byId("copy-command"), () => commandOf(current));
copiesOnClick(byId("copy-row"), () => rowOf(current));
copiesOnClick(byId("copy-prompt"), () => promptOf(current));
