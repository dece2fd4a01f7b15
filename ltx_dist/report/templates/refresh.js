// While a run goes on the page loads itself again, and is then as it was: search, filters, place, open clip. A page from
// a file may not read another file, so there is no other way to news.
const STATE = `ltx-dist state of ${location.pathname}`;
const OFTEN = 10, RARELY = 120, REST_SECONDS = 4, SIZE = "ltx-dist size";

/** Seconds since the page was written, by the file's time. */
const age = () => Math.max(0, (Date.now() - Date.parse(document.lastModified)) / 1000);

function keepState() {
  const video = large.querySelector("video");
  remember(sessionStorageOrNone(), STATE, {
    choice, axes, view: sweepShown() ? "sweep" : "cards", scroll: scrollY, seconds: video?.currentTime ?? 0,
    focus: document.activeElement?.closest?.(".card")?.dataset.name ?? "", filters: byId("filters").open,
  });
}
function restoreState() {
  const state = remembered(sessionStorageOrNone(), STATE);
  if (!state) return null;
  Object.assign(choice, state.choice);
  for (const id of ["across", "down"]) {
    byId(id).value = state.axes[id];
    if (byId(id).value === state.axes[id]) axes[id] = state.axes[id];
    else byId(id).value = axes[id];
  }
  return state;
}

/** Not while somebody looks at a clip, selects text, or moved a hand just now: the page would go away under it. */
function isInUse() {
  return dialog.open || playsAll() || String(getSelection()) !== "" || performance.now() - touched < REST_SECONDS * 1000;
}
let touched = 0;
for (const kind of ["pointermove", "keydown", "scroll", "input"]) {
  addEventListener(kind, () => { touched = performance.now(); }, { passive: true, capture: true });
}
function refreshWhenDue(seconds) {
  setTimeout(function reload() {
    if (document.hidden || isInUse()) return setTimeout(reload, 1000);
    keepState();
    location.reload();
  }, seconds * 1000);
}
const loadSeconds = () => performance.getEntriesByType("navigation")[0]?.domComplete / 1000 || 0;

function showAge() {
  const minutes = Math.floor(age() / 60), hours = Math.floor(minutes / 60);
  const text = age() < 90 ? "written just now" : minutes < 120 ? `written ${minutes} min ago` : `written ${hours} h ago`;
  byId("written").textContent = text;
}
addEventListener("pagehide", keepState);
if ("running" in document.body.dataset) {
  showAge();
  setInterval(showAge, 30_000);
  refreshWhenDue(Math.min(Math.max(OFTEN, age() / 4, 20 * loadSeconds()), RARELY));
}
