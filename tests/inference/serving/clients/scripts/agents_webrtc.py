"""@openai/agents-realtime in a page of a real Chromium, by WebRTC, with an ephemeral key, from another origin.

    python agents_webrtc.py http://127.0.0.1:8000/v1 question.wav turns|functions FOLDER    FOLDER has node_modules
"""

from __future__ import annotations

import json
import mimetypes
import shutil
import sys
import urllib.request
from pathlib import Path

from playwright.sync_api import Route, sync_playwright

ORIGIN = "http://localhost:8001"  # nothing listens there: the page's files are handed to the browser here
_BUNDLE = "node_modules/@openai/agents-realtime/dist/bundle"


def main() -> None:
    url, recording, task, folder = sys.argv[1:5]
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is missing (Debian: apt-get install chromium)")
    page_folder, bundle = Path(__file__).parent, Path(folder) / _BUNDLE

    def give(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if not name:
            route.fulfill(body="<!doctype html><title>A page that talks</title>", content_type="text/html")
            return
        path = Path(recording) if name == "question.wav" else page_folder / name
        path = path if path.is_file() else bundle / name
        kind = "text/javascript" if path.suffix == ".mjs" else mimetypes.guess_type(name)[0]
        route.fulfill(body=path.read_bytes(), content_type=kind)

    asked = urllib.request.Request(
        f"{url}/realtime/client_secrets", b'{"session": {"type": "realtime"}}', {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        key = json.load(answer)["value"]
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = browser.new_page(permissions=["local-network-access"])  # the service is on this machine, the page is not
        page.on("console", lambda message: print(message.text, file=sys.stderr))
        page.route(f"{ORIGIN}/**", give)
        page.goto(f"{ORIGIN}/")
        talk = "([url, key, task]) => import('./agents_webrtc.mjs').then(({ talk }) => talk(url, key, task))"
        seen = page.evaluate(talk, [url, key, task])
        browser.close()
    print(json.dumps(seen))


main()
