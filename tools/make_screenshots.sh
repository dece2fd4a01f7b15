#!/usr/bin/env bash
# Makes docs/images/page.png and docs/images/live.png from a real run of the demo. Needs tmux and Chromium.
#
#   tools/make_screenshots.sh
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'tmux -L shots kill-server 2>/dev/null || true; rm -rf "$work"' EXIT

shoot() {  # URL PNG WIDTH HEIGHT [SCRIPT], once every clip in the window shows a picture
  PYTHONPATH=.:tests/report .venv/bin/python - "$work/profile" "$@" <<'PYTHON'
import base64, io, sys
from pathlib import Path

from PIL import Image
from browser import Browser  # that of the page's tests

profile, url, png, width, height, *scripts = sys.argv[1:]
browser = Browser(Path(profile))
size = {"width": int(width), "height": int(height), "deviceScaleFactor": 1, "mobile": False}
browser.call("Emulation.setDeviceMetricsOverride", **size)
browser.call("Emulation.setScrollbarsHidden", hidden=True)
browser.open(url)
for script in scripts:
    browser.run(script)
shown = "(screen) => screen.querySelector('img')?.complete || screen.querySelector('video')?.readyState >= 2"
browser.until(f"[...document.querySelectorAll('.screen')].every({shown})", seconds=60)
shot = base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"])
browser.close()
# 256 colours are all that these pictures have, and a third of the bytes.
Image.open(io.BytesIO(shot)).convert("RGB").quantize(256).save(png, optimize=True)
PYTHON
}

tmux -L shots new-session -d -x 110 -y 14 ".venv/bin/ltx-dist demo -o $work/demo --json-events $work/events"
for _ in $(seq 600); do
  [ "$(grep -c '"clip_done"' "$work/events" 2>/dev/null || true)" = 5 ] && break
  sleep 0.2
done
sleep 0.4
tmux -L shots capture-pane -e -p > "$work/live.ansi"
while tmux -L shots has-session 2>/dev/null; do sleep 0.5; done

.venv/bin/python - "$work/live.ansi" "$work/live.html" <<'PYTHON'
import io, sys
from pathlib import Path
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

screen = Path(sys.argv[1]).read_text().rstrip()
console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True, color_system="truecolor")
console.print(Text.from_ansi(screen))
code = "<body style='margin:14px 18px;background:#0c0c0c'><pre style='font:14px/1.35 monospace;color:#d9d9d9'>{code}</pre>"
Path(sys.argv[2]).write_text(console.export_html(theme=MONOKAI, code_format=code, inline_styles=True))
PYTHON
shoot "file://$work/live.html" docs/images/live.png 980 310
# As under a mouse, which this browser has none of; small cards leave room for the timeline.
shoot "file://$work/demo/index.html" docs/images/page.png 1440 1110 "byId('size').value = 140; layOut();
  for (const marks of document.querySelectorAll('.marks')) marks.hidden = true"
ls -l docs/images
