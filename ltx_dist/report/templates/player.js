// A small screen with a clip: a still picture, and the clip itself while it plays.
const isPlaying = (screen) => screen.classList.contains("playing");

/** Show a still: the poster where there is one, else the first frame, of which a browser reads only a part. */
function showStill(screen, clip) {
  showSource(screen, clip);
  if (!clip.url || screen.querySelector(":scope > :not(.source)")) return;
  if (clip.poster) screen.append(element("img", { src: clip.poster, alt: "", decoding: "async", onerror: (event) => { event.target.remove(); showStill(screen, { ...clip, poster: null }); } }));
  else screen.append(videoOf(clip, "metadata"));
}

/** In a corner, the image that the clip was made from. */
function showSource(screen, clip) {
  const image = clip.pictures?.find(([, , isVideo]) => !isVideo);
  if (!image || screen.querySelector(".source")) return;
  const [label, url] = image;
  screen.append(element("img", { className: "source", src: url, alt: clean(label), onerror: (event) => event.target.remove() }));
}

function videoOf(clip, preload) {
  // Without a time, phones show no picture before a video plays.
  return element("video", { src: `${clip.url}#t=0.001`, preload, muted: true, loop: true, playsInline: true, tabIndex: -1 });
}

function play(screen, clip) {
  if (!clip.url || isPlaying(screen)) return;
  screen.classList.add("playing");
  let video = screen.querySelector("video");
  if (!video) screen.append(video = videoOf(clip, "auto"));
  video.play().catch(() => {}); // refused, or gone from view: the still stays
}

function stop(screen) {
  screen.classList.remove("playing");
  const video = screen.querySelector("video");
  if (!video) return;
  video.pause();
  if (screen.querySelector("img:not(.source)")) release(screen, video);
  else video.currentTime = 0.001;
}

/** A browser has few players: give this one back. */
function release(screen, video = screen.querySelector("video")) {
  screen.classList.remove("playing");
  if (!video) return;
  video.removeAttribute("src");
  video.load();
  video.remove();
}
