// The timeline as a picture: what `timeline.js` asks to be drawn, on a canvas as wide as the window into it.
const LANE = 46, BAR_TOP = 8, BAR_HEIGHT = 30, AXIS = 24, NARROW = 2;
const STAGE = 0, START = 1, SECONDS = 2, LOAD = 3, SHADE = 4, CLIPS = 5, ERROR = 6; // of a bar, see bars.py

/** Colours as the page has them now, in light or dark. */
function paintsOf(page) {
  const style = getComputedStyle(document.documentElement), named = (name) => style.getPropertyValue(`--${name}`).trim();
  const stages = data.stages.map((_, i) => {
    const swatch = byId("legend").querySelector(`.stage${i}`);
    return swatch ? getComputedStyle(swatch).color : named("soft");
  });
  return { stages, ink: named("ink"), soft: named("soft"), line: named("line"), bad: named("bad"), load: named("load") };
}

/** view: `width` in pixels, `left` in seconds, `scale` in pixels a second. picked: the bar under the hand or the key. */
function drawTimeline(canvas, lanes, view, paints, picked) {
  const sharp = devicePixelRatio || 1, height = lanes.length * LANE + AXIS;
  canvas.width = Math.round(view.width * sharp);
  canvas.height = Math.round(height * sharp);
  canvas.style.width = `${view.width}px`;
  canvas.style.height = `${height}px`;
  const paper = canvas.getContext("2d");
  paper.scale(sharp, sharp);
  drawAxis(paper, view, paints, lanes.length * LANE);
  lanes.forEach((lane, i) => {
    paper.save();
    paper.translate(0, i * LANE);
    drawLane(paper, lane, view, paints, picked);
    paper.restore();
  });
}

function drawLane(paper, lane, view, paints, picked) {
  paper.fillStyle = paints.line;
  paper.fillRect(0, LANE - 1, view.width, 1);
  paper.fillRect(0, BAR_TOP + BAR_HEIGHT / 2 - 1.5, view.width, 3); // the time in between
  const narrow = [], failed = [];
  for (const bar of lane) {
    const x = (bar[START] - view.left) * view.scale, width = bar[SECONDS] * view.scale, load = bar[LOAD] * view.scale;
    if (x + width < 0 || x - load > view.width) continue;
    if (load >= 1) drawLoad(paper, paints, x - load, load);
    if (bar[ERROR]) failed.push(bar);
    else if (width < NARROW) narrow.push([x, width, bar[STAGE]]);
    else drawBar(paper, paints, bar, x, width, picked);
  }
  if (narrow.length) drawShares(paper, paints, narrow, view.width);
  for (const bar of failed) drawFailed(paper, paints, bar, view);
  if (picked && lane.includes(picked)) outline(paper, paints, picked, view);
}
function drawLoad(paper, paints, x, width) {
  paper.save();
  paper.beginPath();
  paper.rect(x, BAR_TOP, width, BAR_HEIGHT);
  paper.clip();
  paper.strokeStyle = paints.load;
  paper.lineWidth = 2;
  paper.beginPath();
  for (let at = Math.max(x, 0) - BAR_HEIGHT; at < Math.min(x + width, 8192); at += 6) {
    paper.moveTo(at, BAR_TOP + BAR_HEIGHT);
    paper.lineTo(at + BAR_HEIGHT, BAR_TOP);
  }
  paper.stroke();
  paper.restore();
}
function drawBar(paper, paints, bar, x, width, picked) {
  const same = picked && bar[CLIPS].some((clip) => picked[CLIPS].includes(clip));
  paper.clearRect(x, BAR_TOP, width, BAR_HEIGHT); // what a pale bar would let shine through
  paper.globalAlpha = same || !bar[SHADE] ? 1 : 0.68;
  paper.fillStyle = paints.stages[bar[STAGE]];
  paper.fillRect(x, BAR_TOP, width, BAR_HEIGHT);
  paper.globalAlpha = 1;
  if (same && bar !== picked) {
    paper.fillStyle = paints.ink;
    paper.fillRect(x, BAR_TOP + BAR_HEIGHT, width, 3);
  }
}

/** Bars too narrow to be seen one by one: in each column of pixels, the share of each stage, one above the other. */
function drawShares(paper, paints, bars, width) {
  const stages = paints.stages.length, shares = new Float32Array((Math.ceil(width) + 1) * stages);
  for (const [x, wide, stage] of bars) {
    const column = Math.floor(x), inside = Math.min(wide, column + 1 - x);
    shares[column * stages + stage] += inside; // outside of the picture nothing is kept
    shares[(column + 1) * stages + stage] += wide - inside;
  }
  for (let column = 0; column < width; column++) drawColumn(paper, paints, column, shares.subarray(column * stages, (column + 1) * stages));
}
function drawColumn(paper, paints, column, shares) {
  let bottom = BAR_TOP + BAR_HEIGHT;
  for (let stage = 0; stage < shares.length; stage++) {
    if (!shares[stage]) continue;
    const height = Math.min(shares[stage], 1) * BAR_HEIGHT;
    bottom -= height;
    paper.fillStyle = paints.stages[stage];
    paper.fillRect(column, bottom, 1, height);
  }
}
function drawFailed(paper, paints, bar, view) {
  paper.fillStyle = paints.bad;
  paper.fillRect((bar[START] - view.left) * view.scale, 3, Math.max(3, bar[SECONDS] * view.scale), LANE - 6);
}
function outline(paper, paints, bar, view) {
  paper.strokeStyle = paints.ink;
  paper.lineWidth = 2;
  paper.strokeRect((bar[START] - view.left) * view.scale, BAR_TOP - 1, Math.max(2, bar[SECONDS] * view.scale), BAR_HEIGHT + 2);
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
function tickSeconds(atLeast) {
  if (atLeast >= 1) return STEPS.find((step) => step >= atLeast) ?? 86400 * Math.ceil(atLeast / 86400);
  const power = 10 ** Math.floor(Math.log10(atLeast));
  return [1, 2, 5, 10].find((factor) => factor * power >= atLeast * 0.999) * power;
}
function drawAxis(paper, view, paints, bottom) {
  const step = tickSeconds(80 / view.scale), digits = Math.max(0, -Math.floor(Math.log10(step)));
  const end = view.left + view.width / view.scale;
  paper.font = "12px system-ui, sans-serif";
  paper.textBaseline = "middle";
  for (let number = Math.floor(view.left / step); number * step <= Math.min(end, timeline.seconds); number++) {
    const seconds = number * step, x = (seconds - view.left) * view.scale;
    paper.fillStyle = paints.line;
    paper.fillRect(x, 0, 1, bottom + 4);
    paper.fillStyle = paints.soft;
    const text = duration(seconds, digits), unit = timeline.seconds < 60 ? " s" : "";
    const room = paper.measureText(text + unit).width;
    paper.fillText(text + unit, Math.min(Math.max(x - room / 2, 4), view.width - room - 4), bottom + AXIS / 2 + 2);
  }
}
