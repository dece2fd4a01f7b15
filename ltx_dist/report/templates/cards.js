// The cards: only those near the window exist. All have one height, so that a place in the list is a place on the page.
const CARD_GAP = 16, OVERSCAN = 400, SETTLED_MS = 80;
const NAME_END = 12; // characters of a name that are never cut off: the clips of a sweep differ at its end
const cards = byId("cards");
const alive = new Map(); // name of the clip -> its card
const layout = { columns: 1, width: 0, screen: 0, row: 1 };
let settled = 0;

/** Height by width of most clips; beyond these bounds a card would be all picture, or none. */
function commonRatio() {
  const shapes = new Map();
  for (const clip of clips) {
    const [width, height] = sizeOf(clip), ratio = height / width;
    shapes.set(ratio, (shapes.get(ratio) ?? 0) + 1);
  }
  const [ratio] = [...shapes].reduce((a, b) => (b[1] > a[1] ? b : a), [9 / 16, 0]);
  return Math.min(Math.max(ratio, 0.4), 1.4);
}
const ratio = commonRatio();
const chipKeys = varying.filter((key) => key !== "prompt" && key !== "segments" && !key.startsWith("meta."));
const textHeight = 12 + 20 + ("prompt" in data.row ? 0 : 44) + (chipKeys.length ? 26 : 6);

function layOut() {
  if (cards.hidden) return;
  const width = cards.clientWidth, asked = Number(byId("size").value);
  layout.columns = Math.max(1, Math.floor((width + CARD_GAP) / (Math.min(asked, width) + CARD_GAP)));
  layout.width = (width - CARD_GAP * (layout.columns - 1)) / layout.columns;
  layout.screen = Math.round(layout.width * ratio);
  layout.row = layout.screen + textHeight + CARD_GAP;
  cards.style.height = `${Math.max(0, Math.ceil(chosen.length / layout.columns) * layout.row - CARD_GAP)}px`;
  draw();
}

/** The positions of the clips whose cards should exist now. */
function inView() {
  const top = -cards.getBoundingClientRect().top, rows = [top - OVERSCAN, top + innerHeight + OVERSCAN].map((y) => y / layout.row);
  const first = Math.max(0, Math.floor(rows[0])) * layout.columns;
  return [first, Math.min(chosen.length, Math.max(0, Math.ceil(rows[1])) * layout.columns)];
}

function draw() {
  const [first, end] = inView(), wanted = new Set();
  for (let i = first; i < end; i++) wanted.add(chosen[i].name);
  for (const [name, card] of alive) if (!wanted.has(name) && !card.contains(document.activeElement)) discard(name, card);
  let next = cards.firstElementChild;
  for (let i = first; i < end; i++) {
    const card = alive.get(chosen[i].name) ?? makeCard(chosen[i]);
    place(card, i);
    if (card === next) next = next.nextElementSibling;
    else cards.insertBefore(card, next); // in order, because Tab goes by it
  }
  clearTimeout(settled);
  settled = setTimeout(showStills, SETTLED_MS); // not of cards that only fly past
}
function place(card, position) {
  const [row, column] = [Math.floor(position / layout.columns), position % layout.columns];
  card.style.transform = `translate(${column * (layout.width + CARD_GAP)}px, ${row * layout.row}px)`;
  card.style.width = `${layout.width}px`;
  card.style.height = `${layout.row - CARD_GAP}px`;
  card.firstElementChild.style.height = `${layout.screen}px`;
  card.ariaPosInSet = position + 1;
  card.ariaSetSize = chosen.length;
}
function discard(name, card) {
  release(card.firstElementChild);
  card.remove();
  alive.delete(name);
}
function showStills() {
  for (const [name, card] of alive) {
    showStill(card.firstElementChild, clipOf.get(name));
    if (playsAll()) play(card.firstElementChild, clipOf.get(name));
  }
}

function makeCard(clip) {
  const card = byId("card").content.firstElementChild.cloneNode(true);
  const [screen, name, prompt, own, open] = card.children;
  card.dataset.name = clip.name;
  name.title = clean(clip.name);
  name.append(...[name.title.slice(0, -NAME_END), name.title.slice(-NAME_END)].map((textContent) => element("span", { textContent })));
  if (!("prompt" in data.row)) prompt.textContent = promptOf(clip);
  own.append(...ownChips(clip));
  if (clip.error) screen.append(reason(clip));
  if (clip.sound) screen.dataset.sound = "";
  open.ariaLabel = clean(`${clip.name}${clip.status === "done" ? "" : `, ${STATUS[clip.status]}`}: ${promptOf(clip) || clip.error || "no sidecar"}`);
  alive.set(clip.name, card);
  showMark(card, clip);
  return card;
}
function reason(clip) {
  const title = clip.status === "failed" ? "Failed" : "Incomplete";
  return element("div", { className: "reason" }, element("b", { textContent: title }), element("pre", { textContent: clean(clip.error ?? "") }));
}

/** What this clip alone has of the settings in which clips differ. */
function ownChips(clip) {
  const keys = chipKeys.filter((key) => textOf(clip, key) !== undefined);
  return keys.map((key) => element("span", { textContent: `${labelOf(key)} ${shorten(shown(key, textOf(clip, key)), 40)}` }));
}
function showMark(card, clip) {
  card.dataset.marked = markOf(clip) ?? "";
  for (const button of card.querySelectorAll("[data-mark]")) {
    const pressed = button.dataset.mark === markOf(clip);
    button.setAttribute("aria-pressed", String(pressed));
    button.ariaLabel = clean(`${pressed ? "No longer " : ""}${button.dataset.mark} ${clip.name}`);
  }
}

/** Bring the clip's card into the window and give it the focus. */
function focusCard(clip) {
  const position = chosen.indexOf(clip);
  if (position < 0 || cards.hidden) return;
  const y = cards.getBoundingClientRect().top + Math.floor(position / layout.columns) * layout.row;
  if (y < 0 || y + layout.row > innerHeight) scrollBy(0, y - Math.max(0, innerHeight - layout.row) / 2);
  draw();
  alive.get(clip.name)?.querySelector(".open").focus({ preventScroll: true });
}

// What a hand or a key does to a card.
const cardAt = (event) => event.target.closest?.(".card");
const clipAt = (event) => clipOf.get(cardAt(event)?.dataset.name);
const playsAll = () => byId("play-all").getAttribute("aria-pressed") === "true";
cards.addEventListener("click", (event) => {
  const clip = clipAt(event), mark = event.target.dataset.mark;
  if (clip && mark) toggleMark(clip, mark);
  else if (clip) openClip(clip);
});
for (const [kind, starts] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
  cards.addEventListener(kind, (event) => {
    const card = cardAt(event);
    if (!card || event.pointerType === "touch" || card.contains(event.relatedTarget) || playsAll()) return;
    if (!starts) stop(card.firstElementChild);
    else if (!calm.matches) play(card.firstElementChild, clipOf.get(card.dataset.name));
  });
}
cards.addEventListener("keydown", (event) => {
  const clip = clipAt(event), step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: layout.columns, ArrowUp: -layout.columns }[event.key];
  if (!clip || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "s" || event.key === "x") toggleMark(clip, event.key === "s" ? "star" : "reject");
  const other = step && chosen[chosen.indexOf(clip) + step];
  if (!other) return;
  event.preventDefault();
  focusCard(other);
});
byId("play-all").addEventListener("click", () => {
  const plays = !playsAll();
  byId("play-all").setAttribute("aria-pressed", String(plays));
  byId("play-all").textContent = plays ? "Pause all" : "Play all";
  for (const [name, card] of alive) plays ? play(card.firstElementChild, clipOf.get(name)) : stop(card.firstElementChild);
});
document.addEventListener("marked", ({ detail: clip }) => {
  if (alive.has(clip.name)) showMark(alive.get(clip.name), clip);
});
