// Stars and rejections: kept in this browser, by the page's place and the clip's name.
const MARKS = `ltx-dist marks of ${location.pathname}`;
const marks = new Map(Object.entries(remembered(localStorageOrNone(), MARKS) ?? {}));

/** A browser may forbid the page to keep anything. */
function localStorageOrNone() {
  try { return localStorage; } catch { return null; }
}
function sessionStorageOrNone() {
  try { return sessionStorage; } catch { return null; }
}
function remembered(storage, key) {
  try { return JSON.parse(storage.getItem(key)); } catch { return null; }
}
function remember(storage, key, value) {
  try { storage.setItem(key, JSON.stringify(value)); } catch { /* full or forbidden: gone with the page */ }
}

const markOf = (clip) => marks.get(clip.name);
const marked = (mark) => clips.filter((clip) => clip.row && markOf(clip) === mark);

/** Give the clip this mark, or take it away where the clip has it. */
function toggleMark(clip, mark) {
  if (markOf(clip) === mark) marks.delete(clip.name);
  else marks.set(clip.name, mark);
  remember(localStorageOrNone(), MARKS, Object.fromEntries(marks));
  document.dispatchEvent(new CustomEvent("marked", { detail: clip }));
}

function showCopyButtons() {
  for (const [mark, words] of [["star", "starred"], ["reject", "rejected"]]) {
    const number = marked(mark).length, button = byId(`copy-${mark}`);
    button.hidden = number === 0;
    button.textContent = `Copy ${number} ${words} row${number === 1 ? "" : "s"}`;
  }
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = (document.querySelector("dialog[open]") ?? document.body).appendChild(element("textarea", { value: text }));
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("the browser does not allow copying here");
}

/** Copy when the button is clicked, and say on it whether that worked. */
function copiesOnClick(button, text) {
  let words = "";
  button.addEventListener("click", () => {
    if (!button.dataset.said) words = button.textContent;
    const said = (what) => { button.textContent = what; button.dataset.said = "1"; };
    copy(text()).then(() => said("Copied"), () => said("Not allowed here"));
    setTimeout(() => { button.textContent = words; delete button.dataset.said; }, 2000);
  });
}
for (const mark of ["star", "reject"]) {
  copiesOnClick(byId(`copy-${mark}`), () => marked(mark).map((clip) => `${rowOf(clip)}\n`).join(""));
}
document.addEventListener("marked", showCopyButtons);
