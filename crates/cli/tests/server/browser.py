"""The server's page in Chromium: `browser.py WHAT ADDRESS BUILDS PICTURES`, as browser.rs beside this file runs it."""

import json
import shutil
import sys
import urllib.parse

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

WHAT, ADDRESS, BUILDS, PICTURES = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
HOST = urllib.parse.urlsplit(ADDRESS).netloc
WIDTHS = [360, 1280]
PICTURED = [(360, "dark"), (1280, "light")]
expect.set_options(timeout=15000)


def say(word):
    """Tells the test where the browser is, and waits until it says that the browser may go on."""
    print(word, flush=True)
    sys.stdin.readline()


class Watch:
    """What a browser complains of, and whom it asks."""

    def __init__(self, page):
        self.troubles = []
        self.forgiven = []
        page.on("console", self.message)
        page.on("pageerror", lambda error: self.troubles.append(f"error of the script: {error}"))
        page.on("request", self.request)
        page.on("dialog", lambda dialog: self.troubles.append(f"a dialog: {dialog.message}"))

    def message(self, message):
        if message.type in ("error", "warning") and not any(text in message.text for text in self.forgiven):
            self.troubles.append(f"{message.type}: {message.text}")

    def request(self, request):
        host = urllib.parse.urlsplit(request.url).netloc
        if host != HOST:
            self.troubles.append(f"a request to another host: {request.url}")

    def done(self, where):
        assert not self.troubles, f"{where}: {self.troubles}"


def judge(page, name):
    """axe-core, in both themes and widths; nothing is scrolled sideways."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            found = Axe().run(page).response["violations"]
            told = [(one["id"], [node["html"][:200] + node["failureSummary"] for node in one["nodes"]]) for one in found]
            assert not told, f"{name}, {width} px, {theme}: {told}"
            if (width, theme) in PICTURED:
                page.screenshot(path=f"{PICTURES}/{name}-{width}-{theme}.png", full_page=True)
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], f"{name}: {wide[0]} px of content in {wide[1]} px"


FOCUS = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const box = at.getBoundingClientRect(), style = getComputedStyle(at);
  const all = [...document.querySelectorAll('*')];
  return {
    at: all.indexOf(at), name: at.outerHTML.slice(0, 100),
    seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
  };
}"""
FROM_THE_TOP = """() => {
  scrollTo(0, 0);
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute('tabindex');
}"""
REACHABLE = """() => {
  const all = [...document.querySelectorAll('*')];
  const shown = (node) => node.getClientRects().length && node.checkVisibility({ visibilityProperty: true });
  return all.map((node, at) => [node, at]).filter(([node]) =>
    node.matches('a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]')
    && node.tabIndex >= 0 && !node.disabled && shown(node)).map(([, at]) => at);
}"""


def walk(page, name):
    """By the Tab key alone: everything is reached, in the order of the page, and can be seen to have the focus."""
    page.evaluate(FROM_THE_TOP)
    wanted = page.evaluate(REACHABLE)
    reached = []
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus is None or (reached and focus["at"] == reached[0]):
            break
        assert focus["seen"] and focus["outline"], f"{name}: the focus cannot be seen: {focus}"
        reached.append(focus["at"])
    missed = [at for at in wanted if at not in reached]
    missed = page.evaluate("(all) => all.map((at) => document.querySelectorAll('*')[at].outerHTML.slice(0, 150))", missed)
    assert not missed, f"{name}: Tab does not reach {missed}"
    assert reached == wanted, f"{name}: Tab goes {reached}, the page {wanted}"
    # The first stop jumps over what all pages have.
    page.evaluate(FROM_THE_TOP)
    page.keyboard.press("Tab")
    expect(page.locator("a.skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def pages(browser):
    page = browser.new_page()
    watch = Watch(page)
    # A document with such a status is what is asked for here.
    watch.forgiven = ["status of 404", "status of 401"]
    addresses = {name: f"/builds/{id}" for name, id in BUILDS.items()}
    addresses |= {"list": "/", "none": "/?q=nothing-fits", "submit": "/submit", "login": "/login", "admin": "/admin"}
    addresses |= {"error": "/builds/none", "line": f"/builds/{BUILDS['failed']}?attempt=1&line=30#L30"}
    words = {
        "done": ["emulated: login prompt after 48 s", "Debian GNU/Linux 12", "The screen of the image before", "Files", "desktop.png", "Changed packages", "Size by package"],
        "failed": ["Why it failed", "bad.ks:"],
        "refused": ["Why it failed", "good.ks"],
        "lost": ["3 of 3", "3 times"],
        "running": ["running", "Cancel"],
        "queued": ["waits for a processor"],
        "error": ["This did not work"],
        "admin": ["Make a token"],
    }
    for name, address in addresses.items():
        page.goto(ADDRESS + address)
        for word in words.get(name, []):
            expect(page.locator("main")).to_contain_text(word)
        judge(page, name)
        if name in ("list", "done", "failed", "submit", "login", "admin"):
            walk(page, name)
    watch.done("all pages")

    log(page)
    watch.done("the log")


def log(page):
    """Lines of a log: colours, a search, following, an address of each, the text as a file."""
    page.goto(f"{ADDRESS}/builds/{BUILDS['failed']}")
    page.set_viewport_size({"width": 1280, "height": 800})
    view, lines = page.locator("#view"), page.locator("#view li")
    total = int(view.get_attribute("data-total"))
    assert total > 400, total
    expect(lines.last).to_be_visible()
    assert lines.count() < 200, "only what is seen is in the page"
    page.keyboard.press("/")
    expect(page.locator("#find")).to_be_focused()
    page.keyboard.type("nonsense200")
    expect(page.locator("#found")).to_contain_text("1 of ")
    expect(page.locator("#view li.at mark").first).to_have_text("nonsense200")
    number = page.locator("#view li.at a.n").inner_text().replace(",", "")
    # The line that was found has its address, which leads back to it.
    address = page.url
    assert address.endswith(f"#L{number}"), address
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#view li.at a.n")).to_have_text(f"{int(number):,}")
    expect(page.locator("#view li.at")).to_be_in_viewport()
    colour = page.locator("#view span[class^=f], #view span[class*=' f']").first
    expect(colour).to_be_visible()
    plain = page.locator("#view .t").first.evaluate("(node) => getComputedStyle(node).color")
    assert colour.evaluate("(node) => getComputedStyle(node).color") != plain, "a colour of the terminal"
    page.locator("#view").focus()
    follow = page.locator("#follow")
    page.keyboard.press("f")
    expect(follow).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#view li a.n").last).to_have_text(f"{total:,}")
    page.keyboard.press("g")
    expect(follow).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#view li a.n").first).to_have_text("1")
    with page.expect_download() as download:
        page.locator(".bar-of-log a[download]").click()
    text = open(download.value.path(), encoding="utf-8").read()
    assert "nonsense200" in text and len(text.splitlines()) >= total, len(text.splitlines())


def live(browser):
    """A build that waits, runs, outlives its server, is stopped and repeated; by the keyboard alone."""
    page = browser.new_page()
    watch = Watch(page)
    page.goto(f"{ADDRESS}/builds/{BUILDS['live']}")
    expect(page.locator("h1")).to_contain_text("queued")
    # Room for it is made on another page.
    other = browser.new_page()
    stop(other, BUILDS["first"])
    expect(page.locator("h1")).to_contain_text("running")
    view = page.locator("#view")
    expect(view).to_contain_text("Starting Step")
    seen = set()
    while not page.evaluate("() => document.querySelector('#view').textContent.includes('Step #150')"):
        seen.add(page.locator("#view li a.n").last.inner_text())
        page.wait_for_timeout(50)
    assert len(seen) > 3, f"lines come while the build runs: {seen}"
    page.screenshot(path=f"{PICTURES}/live.png")
    watch.done("a build that runs")

    # The server goes away and comes back; the page finds it again by itself.
    watch.forgiven = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
    say("restart")
    stop(other, BUILDS["live"])
    print("cancelled", flush=True)
    sys.stdin.readline()
    expect(page.locator("h1")).to_contain_text("cancelled", timeout=30000)
    expect(page.locator("#view li").last).to_contain_text("context canceled")
    watch.done("a server that was away")
    press(page, "Build again")
    page.wait_for_url(lambda url: "/builds/" in url and BUILDS["live"] not in url)
    stop(page, page.url.rsplit("/", 1)[1])
    watch.done("a build that is repeated")
    print("done", flush=True)


def press(page, words):
    """Goes to a button by the Tab key, and presses it."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent.trim()") == words:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"Tab leads to no {words!r}")


def stop(page, id):
    page.goto(f"{ADDRESS}/builds/{id}")
    press(page, "Cancel")
    press(page, "Cancel this build")
    expect(page.locator("h1")).to_contain_text("cancelled")


def reload(page, is_there):
    """Loads a page again until it has what is waited for: without script nobody else does."""
    for _ in range(200):
        if is_there():
            return
        page.wait_for_timeout(100)
        page.reload()
    raise AssertionError(f"{page.url} stays as it is: {page.locator('main').inner_text()}")


def plain(browser):
    """Without script: the list, a build and its log, and a kickstart that is planned and built."""
    page = browser.new_context(java_script_enabled=False).new_page()
    watch = Watch(page)
    page.goto(ADDRESS)
    page.locator("ol.builds a").first.click()
    expect(page.locator("h1")).to_contain_text("failed")
    expect(page.locator("#view li").first).to_be_visible()
    expect(page.locator("#view")).to_contain_text("nonsense399")
    page.locator("#view a.n").last.click()
    page.get_by_role("link", name="Submit").click()
    page.get_by_label("Name").fill("lab")
    page.get_by_label("Kickstart", exact=True).fill(BUILDS["kickstart"])
    page.get_by_label("Distribution").first.fill("debian:bookworm")
    page.get_by_role("button", name="Show what will be done", exact=True).click()
    build = page.get_by_role("button", name="Build it")
    reload(page, build.count)
    planned = page.url
    build.click()
    assert page.url != planned and "/builds/" in page.url, page.url
    expect(page.locator("main")).to_contain_text("build lab.ks")
    page.locator("summary", has_text="Cancel").click()
    page.get_by_role("button", name="Cancel this build").click()
    reload(page, page.locator("h1", has_text="cancelled").count)
    for field in ("archive", "directory"):
        page.goto(f"{ADDRESS}/submit")
        page.locator(f"#{field}").set_input_files(BUILDS[field])
        page.get_by_role("button", name="Send and show").click()
        reload(page, page.locator("h1", has_text="failed").count)
        expect(page.locator(".why").first).to_contain_text("lab.ks:1")
    watch.forgiven = ["status of 400"]
    page.goto(f"{ADDRESS}/submit")
    page.get_by_role("button", name="Send and show").click()
    expect(page.locator(".failure")).to_contain_text("no file was chosen")
    watch.done("a page without script")
    print("done", flush=True)


with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    {"pages": pages, "live": live, "plain": plain}[WHAT](chromium)
    if WHAT == "pages":
        print("done", flush=True)
    chromium.close()
