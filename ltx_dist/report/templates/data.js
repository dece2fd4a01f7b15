"use strict";
// The page's data about its clips. Settings are JSON texts by field, so that numbers keep all their digits; what all
// clips share is in `data.row` and `data.settings`, and each clip has only its own.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("clips-data").textContent);
const timeline = JSON.parse(byId("timeline-data").textContent);
const clips = data.clips;
const clipOf = new Map(clips.map((clip) => [clip.name, clip]));
const calm = matchMedia("(prefers-reduced-motion: reduce)");
clips.forEach((clip, position) => { clip.position = position; });
timeline?.names.forEach((name, order) => { if (clipOf.has(name)) clipOf.get(name).order = order; });

const LABELS = {
  num_frames: "frames", frame_rate: "fps", num_inference_steps: "steps", guidance_scale: "guidance",
  loras: "LoRA", conditions: "images", negative_prompt: "negative",
};
const STATUS = { done: "done", failed: "failed", unknown: "incomplete" };

/** Text as people may see it: nothing that moves a cursor or turns the direction of writing. */
const clean = (text) => String(text).replace(/[^\P{C}\n]|[\u2028\u2029]/gu, " ");
const labelOf = (key) => clean(LABELS[key] ?? key.replace(/^\w+\./, "").replaceAll("_", " "));
const fieldsOf = (clip) => ({ ...clip.row, ...data.row });
const settingsOf = (clip) => ({ ...clip.settings, ...data.settings });
/** A name as part of a URL; bytes of it that are no Unicode become underscores. */
const escaped = (name) => name.replace(/\p{Cs}/gu, "_").split("/").map(encodeURIComponent).join("/");
const fileOf = (place) => String(place).split(/[\\/]/).pop();

/** A field's JSON text, or undefined where the clip has none. `size` stands for the width and the height. */
function textOf(clip, key) {
  if (key === "size") return clip.row && `${textOf(clip, "width")} × ${textOf(clip, "height")}`;
  return data.row[key] ?? clip.row?.[key] ?? data.settings[key] ?? clip.settings?.[key];
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return text; } // NaN and Infinity, which are no JSON
}

/** A field's value in words. */
function shown(key, text) {
  if (text === undefined) return "–";
  const value = parsed(text);
  if (typeof value === "number") return text.replace(/\.0$/, ""); // its digits, which a number may lose
  if (value === null || value === "") return "–";
  return clean(inWords(key, value));
}

function inWords(key, value) {
  if (Array.isArray(value)) return value.map((one) => inWords(key, one)).join(", ");
  if (value === null || typeof value !== "object") return String(value);
  if (key === "loras") return fileOf(value.path) + (value.weight === 1 ? "" : ` × ${value.weight}`);
  if (key === "conditions") return `${fileOf(value.image ?? value.video)} at ${value.frame_index}`;
  return Object.entries(value).map(([name, one]) => `${labelOf(name)} ${inWords(name, one)}`).join(", ");
}

/** What the clip shows; of a clip of several segments, one after the other. */
function promptOf(clip) {
  if (!clip.row) return "";
  const prompt = textOf(clip, "prompt"), segments = parsed(textOf(clip, "segments") ?? "[]");
  return prompt || !Array.isArray(segments) ? shown("prompt", prompt) : segments.map((one) => clean(one?.prompt)).join(" / ");
}
const secondsOf = (clip) => (clip.stages ?? []).reduce((sum, stage) => sum + (stage ? stage[1] : 0), 0);

function sizeOf(clip) {
  const [width, height] = ["width", "height"].map((key) => Number(textOf(clip, key)));
  return width > 0 && height > 0 ? [width, height] : [16, 9];
}

/** How many clips have each value, as JSON texts; the empty text for clips without one. */
function valuesOf(key, among = clips) {
  const found = new Map();
  for (const clip of among) {
    const text = textOf(clip, key) ?? "";
    found.set(text, (found.get(text) ?? 0) + 1);
  }
  return found;
}

/** In order: numbers, and sizes by their width, by value; all else by its text. */
function compareTexts(a, b) {
  return parseFloat(a) - parseFloat(b) || (a < b ? -1 : a > b ? 1 : 0);
}

/** The fields in which clips differ, the size first and those of the config last. */
function findVarying() {
  const keys = new Set();
  for (const part of ["row", "settings"]) for (const clip of clips) for (const key in clip[part]) keys.add(key);
  const sides = ["width", "height"].filter((key) => keys.delete(key));
  return [...(sides.length ? ["size"] : []), ...keys];
}
const varying = findVarying();

/** The row of a prompt file that renders the clip again, as `json.dumps` writes it. */
function rowOf(clip) {
  const fields = { name: JSON.stringify(clip.name), ...fieldsOf(clip) };
  const meta = Object.entries(settingsOf(clip)).filter(([key]) => key.startsWith("meta."));
  if (meta.length) fields.meta = `{${meta.map(([key, text]) => `${JSON.stringify(key.slice(5))}: ${text}`).join(", ")}}`;
  return `{${Object.entries(fields).map(([key, text]) => `${JSON.stringify(key)}: ${text}`).join(", ")}}`;
}

/** The same as `copied_command` of the package, but for the order of the fields and `meta`, which changes no clip. */
function commandOf(clip) {
  return `printf '%s\\n' '${rowOf(clip).replaceAll("'", `'"'"'`)}' | ltx-dist render - -o again${data.options[clip.options]}`;
}

const brief = (seconds) => (seconds < 9.995 ? seconds.toFixed(2) : seconds < 59.95 ? seconds.toFixed(1) : duration(seconds)) + (seconds < 59.95 ? " s" : "");

/** `1:05` or `2:00:05`; `12.5 s` below a minute. */
function duration(seconds, digits = 0) {
  if (seconds < 60) return Number(seconds.toFixed(digits)).toString();
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
