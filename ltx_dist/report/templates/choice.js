// Which clips are shown, and in which order: search, facets, sort.
const MOST_VALUES = 60;
const choice = { search: "", sort: "position", descending: false, facets: {} };
let chosen = clips;
let searched = null; // names and prompts in small letters, made when first asked for

const BUILT_IN = {
  status: { label: "State", of: (clip) => clip.status, words: (value) => STATUS[value] },
  mark: { label: "Mark", of: (clip) => markOf(clip) ?? "none", words: (value) => ({ star: "starred", reject: "rejected", none: "unmarked", "not reject": "not rejected" })[value] },
};
const facetOf = (key) => BUILT_IN[key] ?? {
  label: labelOf(key) || "?", of: (clip) => textOf(clip, key) ?? "", words: (value) => shorten(value === "" ? "none" : shown(key, value)),
};
const shorten = (text, longest = 48) => (text.length > longest ? `${text.slice(0, longest - 1)}…` : text);

/** A field helps to choose where many clips share each of few values. */
function isFacet(key) {
  const number = valuesOf(key).size;
  return number > 1 && number <= MOST_VALUES && number <= Math.max(2, clips.length / 2);
}

function choose() {
  const words = choice.search.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) searched ??= clips.map((clip) => `${clip.name} ${promptOf(clip)}`.toLowerCase());
  const facets = Object.entries(choice.facets).map(([key, value]) => [facetOf(key).of, value]);
  const fits = (of, value, clip) => (value === "not reject" ? markOf(clip) !== "reject" : of(clip) === value);
  chosen = clips.filter((clip) =>
    words.every((word) => searched[clip.position].includes(word)) && facets.every(([of, value]) => fits(of, value, clip)));
  sortChosen();
  byId("count").textContent = chosen.length === clips.length ? `${clips.length} clips` : `${chosen.length} of ${clips.length} clips`;
  byId("all-clips").hidden = chosen.length === clips.length;
  byId("none").hidden = chosen.length > 0 || clips.length === 0;
  document.dispatchEvent(new Event("chosen"));
}

function sortChosen() {
  const keys = new Map(chosen.map((clip) => [clip, sortKey(clip)])), sign = choice.descending ? -1 : 1;
  chosen.sort((a, b) => sign * compareKeys(keys.get(a), keys.get(b)) || a.position - b.position);
}
function sortKey(clip) {
  if (choice.sort === "position") return clip.position;
  if (choice.sort === "order") return clip.order ?? -1;
  if (choice.sort === "seconds") return -secondsOf(clip);
  if (choice.sort === "size") return clip.row ? sizeOf(clip)[0] * sizeOf(clip)[1] : "";
  const text = textOf(clip, choice.sort) ?? "";
  return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
}
function compareKeys(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function showEverything() {
  choice.search = byId("search").value = "";
  choice.facets = {};
  for (const select of byId("facets").querySelectorAll("select")) select.value = "";
  choose();
}

// The controls.
function addFacet(key, values) {
  const facet = facetOf(key), select = element("select", { id: `facet-${key}` }, element("option", { value: "", textContent: "any" }));
  for (const [value, number] of values) {
    // An absent value is the empty text, which here stands for any.
    select.append(element("option", { value: `=${value}`, textContent: facet.words(value) + (number ? ` (${number})` : "") }));
  }
  select.addEventListener("change", () => {
    if (select.value === "") delete choice.facets[key];
    else choice.facets[key] = select.value.slice(1);
    choose();
  });
  byId("facets").append(element("label", {}, facet.label[0].toUpperCase() + facet.label.slice(1), select));
}
function addFacets() {
  const states = Object.keys(STATUS).map((status) => [status, clips.filter((clip) => clip.status === status).length]);
  if (states[0][1] < clips.length) addFacet("status", states.filter(([, number]) => number));
  for (const key of varying.filter(isFacet)) {
    addFacet(key, [...valuesOf(key)].sort(([a], [b]) => compareTexts(a, b)));
  }
  addFacet("mark", [["star"], ["reject"], ["not reject"], ["none"]]);
}
function addSortKeys() {
  const orders = [["position", "name"], ...(timeline ? [["order", "render order"]] : []), ["seconds", "slowest first"]];
  for (const [value, textContent] of [...orders, ...varying.map((key) => [key, labelOf(key)])]) {
    byId("sort").append(element("option", { value, textContent }));
  }
}
function showChoice() {
  byId("search").value = choice.search;
  byId("sort").value = choice.sort;
  byId("descending").setAttribute("aria-pressed", String(choice.descending));
  for (const [key, value] of Object.entries(choice.facets)) {
    const select = byId(`facet-${key}`);
    if (select) select.value = `=${value}`;
    if (!select?.value) delete choice.facets[key];
  }
}
byId("search").addEventListener("input", () => { choice.search = byId("search").value; choose(); });
byId("sort").addEventListener("change", () => { choice.sort = byId("sort").value; choose(); });
byId("descending").addEventListener("click", () => { choice.descending = !choice.descending; showChoice(); choose(); });
byId("all-clips").addEventListener("click", showEverything);
byId("show-failed")?.addEventListener("click", () => {
  showEverything();
  choice.facets.status = "failed";
  showChoice();
  choose();
});
