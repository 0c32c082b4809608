"""A page in a headless browser, as wide as asked, with a probe at its end that says what it found.

The frame around the page is there because a browser's own window does not get as narrow as a phone.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

MISSING = shutil.which("chromium") is None
GUARD = """<script>
window.failed = [];
addEventListener("error", (event) => window.failed.push(String(event.message)));
addEventListener("unhandledrejection", (event) => window.failed.push(String(event.reason)));
console.error = (...words) => window.failed.push(words.join(" "));
</script><style>"""
PROBE = """<script>
addEventListener("load", async () => {
  let found;
  try { found = await (async () => { BODY })(); } catch (error) { found = { crash: String(error.stack) }; }
  parent.postMessage({ width: innerWidth, text: JSON.stringify({ ...found, errors: window.failed }) }, "*");
});
</script></body>"""
FRAME = """<!doctype html><html><body style="margin:0">
<script>
const found = {};
addEventListener("message", (event) => {
  found[event.data.width] = event.data.text; document.body.dataset.found = JSON.stringify(found);
});
</script>"""
INSIDE = '<iframe style="border:0;width:{}px;height:2000px" src="{}"></iframe>'


def probed(text: str, probe: str, folder: Path, *widths: int) -> list[dict[str, Any]]:
    """What `probe` found in the page `text` at each of `widths` (CSS pixels): the body of an async function that runs
    when the page has loaded and returns an object.

    `errors` is added: what failed in the page's own scripts.
    """
    assert text.count("<style>") == 1
    page, frame = folder / "probed.html", folder / "frame.html"
    script = PROBE.replace("BODY", probe)
    page.write_text(text.replace("<style>", GUARD, 1).replace("</body>", script), encoding="utf-8")
    frame.write_text(FRAME + "".join(INSIDE.format(width, page.as_uri()) for width in widths))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr", "--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1300,2100", "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    sent = re.search(r'data-found="([^"]*)"', done.stdout)
    assert sent is not None, "the probe did not end"
    said = json.loads(html.unescape(sent[1]))
    found = [json.loads(said[str(width)]) for width in widths]
    for one in found:
        assert "crash" not in one, one["crash"]
    return found
