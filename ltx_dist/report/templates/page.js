// Puts the page together, and hears what the whole page hears.
function shareLine() {
  const fields = { ...data.row, ...data.settings }, has = (key) => fields[key] !== undefined;
  const parts = has("width") && has("height") ? [`${fields.width} × ${fields.height}`] : [];
  for (const [key, words] of [["num_frames", "frames"], ["frame_rate", "fps"], ["num_inference_steps", "steps"]]) {
    if (has(key)) parts.push(`${shown(key, fields[key])} ${words}`);
  }
  for (const key of ["guidance_scale", "seed", "loras", "conditions"]) if (has(key)) parts.push(`${labelOf(key)} ${shown(key, fields[key])}`);
  const prompt = clips.length > 1 && has("prompt") ? `: ${promptOf({ row: {} })}` : "";
  return clips.length > 1 && parts.length ? `All clips: ${parts.join(", ")}${prompt && `, prompt${prompt}`}` : parts.join(", ");
}

/** At most twice a clip's own size, unless somebody asks for more. */
function usualSize() {
  const widths = clips.slice(0, 100).map((clip) => sizeOf(clip)[0]);
  return Math.min(280, Math.max(200, 2 * Math.max(...widths, 0)));
}

function startPage() {
  byId("shared").textContent = shareLine();
  byId("no-clips").hidden = clips.length > 0;
  byId("size").value = remembered(localStorageOrNone(), SIZE) ?? usualSize();
  const wide = matchMedia("(min-width: 641px)");
  byId("filters").open = wide.matches;
  wide.addEventListener("change", () => { byId("filters").open = wide.matches; });
  addFacets();
  addSortKeys();
  chooseAxes();
  showCopyButtons();
  const state = restoreState();
  showChoice();
  choose();
  if (state?.view === "sweep") setView("sweep");
  if (state) scrollTo(0, state.scroll);
  const clip = clipOfHash();
  if (clip) openClip(clip, state?.seconds);
  else if (state?.focus && clipOf.has(state.focus)) focusCard(clipOf.get(state.focus));
}

history.scrollRestoration = "manual";
document.documentElement.style.setProperty("--text-height", `${textHeight}px`);
document.addEventListener("chosen", () => { layOut(); drawSweep(); });
byId("size").addEventListener("input", () => { remember(localStorageOrNone(), SIZE, Number(byId("size").value)); layOut(); });
addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("hashchange", () => { const clip = clipOfHash(); if (clip && clip !== current) openClip(clip); });
addEventListener("keydown", (event) => {
  if (event.key !== "/" || /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName) || dialog.open) return;
  event.preventDefault();
  byId("search").focus();
});
startPage();
new ResizeObserver(layOut).observe(cards);
