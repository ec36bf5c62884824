"""The page in a real browser: Chromium, without a window or a network.

A script is added to a copy of the page, which measures it and writes what it
finds into the page, which the browser then prints.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

from dreamer.pages.elements import POLICY
from dreamer.pages.page import page
from dreamer.pages.read import read
from tests.pages import logdirs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium: apt install chromium"
)
# Waits for the films, then says what has no room on the page, among others.
PROBE = """
<script>
addEventListener('load', async () => {
  const all = (x) => [...document.querySelectorAll(x)];
  const videos = all('video');
  for (const video of videos) {
    if (video.readyState < 2) {
      await new Promise((done) => {
        video.onloadeddata = video.onerror = done;
      });
    }
  }
  const there = (x) => {
    const box = x.getBoundingClientRect();
    return box.width > 4 && box.height > 4;
  };
  const seen = 'h1, h2, h3, p, figure, .chart > svg, video, table, dd';
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((x) => {
      x /= 255;
      return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (x) => {
    const color = getComputedStyle(x).backgroundColor;
    return color.endsWith(', 0)') ? behind(x.parentElement) : color;
  };
  const contrast = (x) => {
    const pair = [getComputedStyle(x).color, behind(x)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const texts = 'h1, h2, h3, p, dt, dd, th, td, caption, a, code, summary, '
    + 'figcaption, .chart span, small, footer';
  const result = {
    width: innerWidth,
    needed: document.documentElement.scrollWidth,
    hidden: all(seen).filter((x) => !x.closest('details:not([open])')
      && !there(x)).map((x) => x.outerHTML.slice(0, 80)),
    count: all(seen).length,
    videos: videos.map((x) => [x.videoWidth, x.duration > 0]),
    contrast: Math.min(...all(texts).map(contrast)),
    letters: Math.min(...all(texts + ', li').map(
      (x) => parseFloat(getComputedStyle(x).fontSize))),
    paper: getComputedStyle(document.body).backgroundColor,
    scrolled: all('.scroll').filter(
      (x) => x.scrollWidth > x.clientWidth).length,
    captions: all('caption span').filter(
      (x) => x.offsetWidth > x.closest('.scroll').clientWidth).length,
  };
  const text = JSON.stringify(result);
  (parent === window ? document : parent.document).body.dataset.found = text;
});
</script>
"""


def browse(path, *flags, size="1280,900"):
    """What Chromium prints: the page as it is then, and its messages."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={path.parent}/profile",
            f"--window-size={size}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            *flags,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=80,
        check=True,
    )
    said = [x for x in done.stderr.splitlines() if "CONSOLE" in x]
    return done.stdout, said


def measure(text, folder, width=None, *flags):
    """What the probe finds; in a frame if the page is to be narrower."""
    text = text.replace(html.escape(POLICY), "script-src 'unsafe-inline'")
    text = text.replace("</head>", f"{PROBE}</head>")
    if width:
        source = html.escape(text)
        text = (
            '<!doctype html><meta charset="utf-8"><body>'
            f'<iframe width="{width}" height="900" srcdoc="{source}"></iframe>'
        )
    path = folder / "probe.html"
    path.write_text(text, "utf-8")
    shown, said = browse(path, *flags)
    assert said == []
    found = re.search(r'data-found="([^"]*)"', shown)
    assert found, shown[:500]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def text(finished):
    return page(read(finished))


def test_no_errors_on_the_console(text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text, "utf-8")
    shown, said = browse(path)
    assert said == []
    assert shown.count("<h2>") == text.count("<h2>") == 7
    # And one would be noticed: the page forbids itself to load anything.
    image = '<img src="https://example.org/x.png" alt="">'
    path.write_text(text.replace("<main>", f"<main>{image}"), "utf-8")
    assert any("Content Security Policy" in x for x in browse(path)[1])


DARK = "--blink-settings=preferredColorScheme=0"


@pytest.mark.parametrize(
    ("width", "flags", "paper"),
    [
        (None, (), "rgb(255, 255, 255)"),
        (360, (), "rgb(255, 255, 255)"),
        (360, (DARK,), "rgb(22, 23, 26)"),
    ],
)
def test_everything_is_seen(text, tmp_path, width, flags, paper):
    found = measure(text, tmp_path, width, *flags)
    assert found["width"] == (width or 1280)
    assert found["needed"] <= found["width"]  # tables scroll by themselves
    assert found["count"] > 40
    assert found["hidden"] == []
    assert found["videos"] == [[48, True]] * 3
    assert found["paper"] == paper
    assert found["contrast"] >= 4.5
    assert found["letters"] >= 12


@pytest.mark.parametrize("width", [None, 360])
def test_long_words_and_wide_tables_fit(run, tmp_path, width):
    told = {"state": "failed", "time": 0, "error": f"/{'x' * 200}: full"}
    (run / "status.json").write_text(json.dumps(told))
    about = {"settings": {f"env.gym.option{x}": "value" for x in range(6)}}
    logdirs.evaluation(run / "eval-1.json", [1.0], 1, **about)
    found = measure(page(read(run)), tmp_path, width)
    assert found["needed"] <= found["width"]
    assert found["captions"] == 0
    assert width or found["scrolled"] == 0
