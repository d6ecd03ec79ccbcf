"""Looks at the live page with a real browser.

    cargo build -p dinov2-view --example synthetic
    python tests/browser/check_page.py target/debug/examples/synthetic [--chromium PATH] [--shots FOLDER]

Needs PyPI's playwright and prometheus-client, and a Chromium of the system's. The example shows a square that this
script moves; square and ground have features of their own, so that it is known what is similar to what.
"""

import argparse
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from playwright.sync_api import sync_playwright
from prometheus_client.parser import text_string_to_metric_families

ROWS, COLS, SIDE = 16, 21, 5
# Longer than any machine takes.
LONG_MS = 60_000

# True once the map on the screen is hot in the square and cold outside, or the other way round.
HEAT_IS = """([row, col, side, squareIsHot]) => {
  const canvas = document.getElementById("heat");
  if (canvas.hidden || canvas.width !== 21 || canvas.height !== 16) return false;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let r = 0; r < canvas.height; r += 1) {
    for (let c = 0; c < canvas.width; c += 1) {
      const at = 4 * (r * canvas.width + c);
      const brightness = data[at] + data[at + 1] + data[at + 2];
      const inSquare = r >= row && r < row + side && c >= col && c < col + side;
      const hot = brightness > 450, cold = brightness < 330;
      if (inSquare === squareIsHot ? !hot : !cold) return false;
    }
  }
  return true;
}"""

# The mean colour of a patch of a picture.
PATCH_COLOUR = """([id, row, col]) => {
  const canvas = document.getElementById(id);
  const [width, height] = [canvas.width / 21, canvas.height / 16];
  const { data } = canvas.getContext("2d").getImageData(col * width, row * height, width, height);
  const sums = [0, 0, 0];
  for (let at = 0; at < data.length; at += 1) if (at % 4 < 3) sums[at % 4] += data[at];
  return sums.map((sum) => sum / (data.length / 4));
}"""


class Server:
    """The example, with the square where it was told to be."""

    def __init__(self, program, port, token="", model="one"):
        command = [program, f"127.0.0.1:{port}", token, model]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for(f"listening 127.0.0.1:{port}")

    def _read(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.strip())
                self.news.notify_all()

    def wait_for(self, line):
        with self.news:
            if not self.news.wait_for(lambda: line in self.lines, LONG_MS / 1000):
                raise AssertionError(f"never printed: {line}; printed: {self.lines}")

    def move(self, row, col):
        self.process.stdin.write(f"{row} {col}\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Watched:
    """A page whose complaints are kept."""

    def __init__(self, context, url):
        self.complaints = []
        self.page = context.new_page()
        self.page.set_default_timeout(LONG_MS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.goto(url)

    def _console(self, message):
        # Reading the canvases back is what this script does, not the page.
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.complaints.append(f"{message.type}: {message.text}")

    def assert_quiet(self):
        assert not self.complaints, self.complaints

    def wait_for(self, what, script, argument=None):
        try:
            self.page.wait_for_function(script, arg=argument, timeout=LONG_MS)
        except Exception as error:
            raise AssertionError(f"never: {what}") from error

    def wait_for_state(self, state):
        self.wait_for(f"state {state}", "(state) => document.documentElement.dataset.state === state", state)

    def wait_for_frames(self, count=5):
        """So many different frames appear."""
        frame = "document.documentElement.dataset.frame"
        for _ in range(count):
            seen = self.page.evaluate(frame) or ""
            self.wait_for("a newer frame", f"(seen) => {frame} && {frame} !== seen", seen)

    def click_patch(self, selector, row, col):
        box = self.page.locator(selector).bounding_box()
        position = {"x": (col + 0.5) / COLS * box["width"], "y": (row + 0.5) / ROWS * box["height"]}
        self.page.locator(selector).click(position=position)

    def wait_for_heat(self, row, col, square_is_hot):
        what = f"square at {row} {col} {'hot' if square_is_hot else 'cold'} and the rest not"
        self.wait_for(what, HEAT_IS, [row, col, SIDE, square_is_hot])

    def colour(self, canvas, row, col):
        return self.page.evaluate(PATCH_COLOUR, [canvas, row, col])


def near(left, right, tolerance):
    return all(abs(a - b) <= tolerance for a, b in zip(left, right))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_pictures(watched, server):
    server.move(2, 3)
    watched.wait_for_state("live")
    watched.wait_for_frames()
    watched.wait_for(
        "orange where the square is",
        f"() => {{ const [r, g, b] = ({PATCH_COLOUR})(['camera', 2, 3]); return r > 200 && b < 90; }}",
    )
    # The example's own colours: orange square (its edge patch), blue ground.
    assert near(watched.colour("camera", 2, 3), [240, 140, 40], 12), watched.colour("camera", 2, 3)
    ground = watched.colour("camera", 12, 17)
    assert ground[2] > ground[1] > ground[0], ground
    # Three pictures of which the last is the mean of the others, of one frame.
    colours = [watched.colour("pca", row, col) for row, col in ((4, 5), (12, 17))]
    assert not near(*colours, 60), f"square and ground have the same colours: {colours}"
    for row, col in ((2, 3), (12, 17)):
        both, (camera, pca) = watched.colour("overlay", row, col), (
            watched.colour(name, row, col) for name in ("camera", "pca")
        )
        middle = [(a + b) / 2 for a, b in zip(camera, pca)]
        assert near(both, middle, 25), (both, middle)
    # Text of others is text.
    assert watched.page.locator("#title").inner_text() == "synthetic <b>square</b>"
    watched.wait_for("numbers", "() => document.getElementById('facts').textContent.includes('52 °C')")


def check_outputs(watched):
    """The head `norm` has a panel of its own, named after it, beside the three pictures."""
    panel = watched.page.locator("figure:has(figcaption:text-is('norm')) canvas")
    panel.wait_for()
    shades = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [canvas.width, canvas.height, new Set(data.filter((_, index) => index % 4 === 0)).size];
    }"""
    cols, rows, distinct = panel.evaluate(shades)
    assert rows > 1 and cols > 1 and distinct > 1, (rows, cols, distinct)


def check_heat(watched, server):
    watched.click_patch("#pickable", 4, 5)
    watched.wait_for_heat(2, 3, True)
    # The map follows the thing, not the place.
    server.move(9, 12)
    watched.wait_for_heat(9, 12, True)
    # Another click, on another picture: the ground.
    watched.click_patch("div.picture:has(#pca)", 1, 1)
    watched.wait_for_heat(9, 12, False)
    watched.click_patch("div.picture:has(#overlay)", 11, 14)
    watched.wait_for_heat(9, 12, True)
    watched.page.locator("#clear").click()
    assert watched.page.locator("#heat").is_hidden()
    watched.wait_for_frames(2)
    assert watched.page.locator("#heat").is_hidden()
    # By keyboard: from the middle (row 8, column 10) into the square.
    watched.page.locator("#pickable").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        watched.page.keyboard.press(key)
    watched.wait_for_heat(9, 12, True)
    watched.page.keyboard.press("Escape")
    assert watched.page.locator("#heat").is_hidden()


def check_colours(watched, server):
    freeze = watched.page.locator("#freeze")
    freeze.click()
    server.wait_for('asked pca "freeze"')
    watched.wait_for("freezing shows", "() => document.getElementById('freeze').ariaPressed === 'true'")
    watched.page.locator("#refit").click()
    server.wait_for('asked pca "refit"')
    freeze.click()
    server.wait_for('asked pca "follow"')
    watched.wait_for("following shows", "() => document.getElementById('freeze').ariaPressed === 'false'")
    with watched.page.expect_download() as download:
        watched.page.locator("#snapshot").click()
    assert re.fullmatch(r"camera-0-frame-\d+\.png", download.value.suggested_filename)
    assert pathlib.Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def check_restart(watched, server, start):
    watched.assert_quiet()
    watched.click_patch("#pickable", 11, 14)
    watched.wait_for_heat(9, 12, True)
    server.kill()
    watched.wait_for_state("lost")
    assert "lost" in watched.page.locator("#status").inner_text()
    assert watched.page.locator("#heat").is_hidden(), "a map of what nobody sees any longer"
    time.sleep(2)
    # A browser tells of refused connections by itself.
    assert all("ERR_CONNECTION_REFUSED" in text for text in watched.complaints), watched.complaints
    server = start()
    server.move(6, 8)
    watched.wait_for_state("live")
    watched.complaints.clear()
    watched.wait_for_frames()
    # The pick was of the square, which is elsewhere now.
    watched.wait_for_heat(6, 8, True)
    server.kill()
    watched.wait_for_state("lost")
    server = start(model="another")
    server.move(6, 8)
    watched.wait_for_state("live")
    watched.complaints.clear()
    told = "() => document.getElementById('hint').textContent.includes('another model')"
    watched.wait_for("the page says that the model is another", told)
    assert watched.page.locator("#heat").is_hidden(), "features of two models compared"
    watched.click_patch("#pickable", 8, 10)
    watched.wait_for_heat(6, 8, True)
    return server


def check_phone(browser, url, shots):
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True, device_scale_factor=2
    )
    watched = Watched(context, url)
    watched.wait_for_frames()
    box = watched.page.locator("#pickable").bounding_box()
    watched.page.touchscreen.tap(box["x"] + 10.5 / COLS * box["width"], box["y"] + 8.5 / ROWS * box["height"])
    watched.wait_for_heat(6, 8, True)
    width = watched.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, f"scrolls sideways: {width} px"
    tops = [watched.page.locator(f"#{name}").bounding_box()["y"] for name in ("camera", "pca", "overlay")]
    assert tops == sorted(set(tops)), f"not below each other: {tops}"
    take(watched, shots, "phone")
    watched.assert_quiet()
    context.close()


def check_token(browser, program):
    port = free_port()
    server = Server(program, port, token="correct-horse-battery")
    try:
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"http://127.0.0.1:{port}/").status == 401
        page.close()
        watched = Watched(context, f"http://127.0.0.1:{port}/?token=correct-horse-battery")
        watched.wait_for_frames()
        assert "token" not in watched.page.url, watched.page.url
        # The cookie is enough from now on.
        watched.page.reload()
        watched.wait_for_frames()
        watched.assert_quiet()
        context.close()
    finally:
        server.kill()


def check_stream(browser, url):
    """The stream as a plain picture, as other programs and pages of this machine embed it."""
    page = browser.new_page()
    page.goto(f"{url}stream.mjpg", wait_until="commit")
    page.wait_for_function("() => document.images[0]?.naturalWidth === 3 * 294", timeout=LONG_MS)
    page.close()


def check_metrics(url):
    with urllib.request.urlopen(f"{url}metrics") as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    assert families["dinov2_frames"].samples[0].value > 0
    quantiles = {sample.labels["quantile"]: sample.value for sample in families["dinov2_latency_seconds"].samples}
    assert quantiles == {"0.5": 0.02, "0.95": 0.027, "0.99": 0.028}, quantiles
    assert families["dinov2_dropped"].type == "counter" and len(families["dinov2_dropped"].samples) == 6
    assert families["dinov2_temperature_celsius"].samples[0].value == 51.5


def take(watched, shots, name):
    if shots:
        watched.page.screenshot(path=shots / f"{name}.png", full_page=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--shots", type=pathlib.Path)
    options = parser.parse_args()
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    start = lambda **what: Server(options.program, port, **what)
    server = start()
    try:
        with sync_playwright() as playwright:
            # CI runs as root, where the browser's own sandbox does not start.
            browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            watched = Watched(context, url)
            check_pictures(watched, server)
            check_outputs(watched)
            check_heat(watched, server)
            check_colours(watched, server)
            server = check_restart(watched, server, start)
            take(watched, options.shots, "desktop")
            watched.assert_quiet()
            context.close()
            check_phone(browser, url, options.shots)
            check_stream(browser, url)
            check_token(browser, options.program)
            browser.close()
        check_metrics(url)
    finally:
        server.kill()
    print("live page: pictures, heat-map, colours, restart, phone, stream, token and metrics are right")


if __name__ == "__main__":
    sys.exit(main())
