"use strict";
// The page works without this. It adds the reader's time zone, live updates, and a log of any length.
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Times, durations that grow, buttons that copy.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  const relative = (then) => {
    const s = Math.max(0, (Date.now() - then) / 1000);
    if (s < 60) return "just now";
    if (s < 3600) return Math.floor(s / 60) + " min ago";
    if (s < 86400) return Math.floor(s / 3600) + " h ago";
    return new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).format(then);
  };
  const span = (s) => s < 10 ? s.toFixed(1) + " s" : s < 60 ? Math.round(s) + " s"
    : s < 3600 ? Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s"
    : Math.floor(s / 3600) + " h " + Math.floor(s / 60) % 60 + " min";
  const dress = (root) => {
    for (const time of root.querySelectorAll("time")) {
      const then = Date.parse(time.dateTime);
      time.title = absolute.format(then) + " " + zone;
      time.tabIndex = 0;
      time.textContent = relative(then);
      time.onfocus = () => { time.textContent = absolute.format(then); };
      time.onblur = () => { time.textContent = relative(then); };
    }
    for (const place of root.querySelectorAll("[data-zone]")) place.textContent = zone;
    for (const code of root.querySelectorAll("[data-copy]")) {
      if (!navigator.clipboard || code.nextSibling?.className === "copy") continue;
      const button = make("button", "copy", "Copy");
      button.type = "button";
      button.setAttribute("aria-label", "Copy " + code.textContent);
      button.onclick = () => navigator.clipboard.writeText(code.dataset.copy).then(() => { button.textContent = "Copied"; });
      code.after(button);
    }
  };
  const tick = () => {
    for (const node of document.querySelectorAll("[data-since]"))
      node.textContent = span((Date.now() - Number(node.dataset.since)) / 1000);
  };
  setInterval(tick, 1000);

  // The parts of a page that change are taken from the page itself, loaded again.
  let loading = false, again = false;
  const refresh = async () => {
    if (loading) { again = true; return; }
    loading = true;
    try {
      const answer = await fetch(location.pathname + location.search, { headers: { accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const now = fresh.getElementById(old.id);
        if (now) merge(old, now);
      }
      // A build that waited has a log now.
      if (!view && fresh.getElementById("view")) location.reload();
      document.title = fresh.title;
    } catch { /* The server is away; the next event comes when it is back. */ } finally {
      loading = false;
      if (again) { again = false; refresh(); }
    }
  };
  // Nothing is taken from under a finger: a part that has the focus or an open question stays until that is over.
  const merge = (old, now) => {
    dress(now);
    if (old.contains(document.activeElement) && old.id !== "main") {
      const open = [...old.children], next = [...now.children];
      if (open.length === next.length) {
        open.forEach((child, at) => { if (!child.contains(document.activeElement)) child.replaceWith(next[at]); });
        return;
      }
      old.addEventListener("focusout", refresh, { once: true });
      return;
    }
    if (old.querySelector("details.ask[open]")) { setTimeout(refresh, 5000); return; }
    const opened = [...old.querySelectorAll("details")].map((part) => part.open);
    [...now.querySelectorAll("details")].forEach((part, at) => { if (at in opened) part.open = opened[at]; });
    old.replaceChildren(...now.childNodes);
  };

  const live = $("live");
  if (live?.dataset.every) setInterval(() => { if (!document.hidden) refresh(); }, live.dataset.every * 1000);
  let log = null;
  if (live?.dataset.events) {
    const source = new EventSource(live.dataset.events);
    let shown = null;
    source.addEventListener("state", (event) => {
      const state = JSON.parse(event.data);
      log?.grown(state.lines, state.over, state.attempt);
      if (shown !== null && shown !== state.shown) refresh();
      shown = state.shown;
      if (state.over) { source.close(); refresh(); }
    });
  }

  // The log: only what is seen is in the page. A log that would be higher than browsers allow is scrolled in proportion.
  const LINE = 20, HIGHEST = 8e6, BLOCK = 500, AROUND = 20;
  class Log {
    constructor(view) {
      this.view = view;
      this.address = "/builds/" + encodeURIComponent(view.dataset.build);
      this.attempt = view.dataset.attempt;
      this.total = Number(view.dataset.total);
      this.running = view.dataset.liveLog === "1";
      this.following = false;
      this.times = false;
      this.blocks = new Map();
      this.parts = [];
      this.folded = new Set();
      this.fresh = 0;
      this.matches = [];
      this.marked = 0;
      this.room = make("div", "room");
      this.rows = make("ol", "rows");
      this.room.append(this.rows);
      view.replaceChildren(this.room);
      view.addEventListener("scroll", () => this.scrolled(), { passive: true });
      new ResizeObserver(() => this.draw()).observe(view);
      this.resize();
    }
    // Lines that folded parts hide, as ranges.
    hidden() {
      return this.parts.filter((part) => this.folded.has(part[1]) && part[2] > part[1]).map((part) => [part[1] + 1, Math.min(part[2], this.total)]);
    }
    count() { return this.hidden().reduce((rest, [from, to]) => rest - (to - from + 1), this.total); }
    // The line of a row, and the row of a line; rows are counted from 0.
    line(row) {
      let line = row + 1;
      for (const [from, to] of this.hidden()) if (line >= from) line += to - from + 1;
      return line;
    }
    row(line) {
      let row = line - 1;
      for (const [from, to] of this.hidden()) {
        if (line > to) row -= to - from + 1;
        else if (line >= from) row -= line - from + 1;
      }
      return row;
    }
    resize() {
      this.height = Math.max(1, this.count() * LINE);
      this.room.style.height = Math.min(this.height, HIGHEST) + "px";
      this.draw();
    }
    scale() {
      const seen = this.view.clientHeight;
      return Math.max(1, (this.height - seen) / Math.max(1, Math.min(this.height, HIGHEST) - seen));
    }
    // Where the view stands, in rows.
    top() { return this.view.scrollTop * this.scale() / LINE; }
    show(line) {
      const seen = this.view.clientHeight / LINE;
      this.view.scrollTop = Math.max(0, this.row(line) - seen / 2) * LINE / this.scale();
      this.draw();
    }
    mark(line) { this.marked = line; this.draw(); }
    draw() {
      if (this.drawing) return;
      this.drawing = requestAnimationFrame(() => { this.drawing = 0; this.paint(); });
    }
    paint() {
      const seen = Math.ceil(this.view.clientHeight / LINE);
      const top = this.top();
      const first = Math.max(0, Math.floor(top) - AROUND);
      const last = Math.min(this.count() - 1, Math.floor(top) + seen + AROUND);
      const rows = [];
      for (let row = first; row <= last; row++) rows.push(this.element(this.line(row)));
      this.rows.replaceChildren(...rows);
      this.rows.style.transform = "translateY(" + (this.view.scrollTop - (top - first) * LINE) + "px)";
    }
    element(number) {
      const item = make("li");
      const link = make("a", "n", number.toLocaleString("en"));
      link.href = this.link(number);
      // Rows come and go with the view, and would take the focus along. A search leads to a line's address by keyboard.
      link.tabIndex = -1;
      link.onclick = (event) => { event.preventDefault(); history.replaceState(null, "", this.link(number)); this.mark(number); };
      item.append(link);
      const known = this.known(number);
      if (this.times) item.append(make("span", "when", known?.time ? clock.format(known.time) : "        "));
      const text = make("span", "t");
      if (known) for (const part of known.parts) this.part(text, part);
      else text.textContent = "…";
      item.append(text);
      if (number === this.marked) item.classList.add("at");
      const part = this.parts.find((part) => part[1] === number);
      if (part && part[2] > part[1]) {
        item.classList.add("fold");
        if (this.folded.has(number)) item.classList.add("folded");
        text.onclick = () => this.fold(number);
      }
      return item;
    }
    part(parent, part) {
      const wanted = this.wanted;
      const span = part.c ? make("span", part.c) : parent;
      let rest = part.t;
      for (let at; wanted && (at = rest.toLowerCase().indexOf(wanted)) >= 0;) {
        span.append(rest.slice(0, at), make("mark", "", rest.slice(at, at + wanted.length)));
        rest = rest.slice(at + wanted.length);
      }
      span.append(rest);
      if (span !== parent) parent.append(span);
    }
    link(number) { return location.pathname + "?attempt=" + this.attempt + "&line=" + number + "#L" + number; }
    fold(number) {
      if (!this.folded.delete(number)) this.folded.add(number);
      this.resize();
    }
    known(number) {
      const block = Math.floor((number - 1) / BLOCK), at = (number - 1) % BLOCK;
      const found = this.blocks.get(block);
      if (found && at < found.lines.length) return { parts: found.lines[at], time: found.times?.[at] };
      this.load(block);
      return null;
    }
    async load(block) {
      const before = this.blocks.get(block);
      if (before?.loading) return;
      const entry = { lines: before?.lines ?? [], times: before?.times, loading: true };
      this.blocks.set(block, entry);
      try {
        const query = "/lines?attempt=" + this.attempt + "&from=" + (block * BLOCK + 1) + "&count=" + BLOCK + (this.times ? "&times=1" : "");
        const answer = await (await fetch(this.address + query)).json();
        entry.lines = answer.lines;
        entry.times = answer.times;
        this.parts = answer.parts;
        if (answer.total > this.total) { this.total = answer.total; this.resize(); }
      } catch { await new Promise((done) => setTimeout(done, 2000)); }
      entry.loading = false;
      if (this.blocks.size > 60) this.blocks.delete(this.blocks.keys().next().value);
      this.draw();
    }
    scrolled() {
      const end = this.view.scrollHeight - this.view.clientHeight - this.view.scrollTop < LINE * 2;
      if (this.following && !end && this.view.scrollTop < this.last - 2) this.follow(false);
      if (end) this.seen();
      this.last = this.view.scrollTop;
      this.draw();
    }
    follow(on) {
      this.following = on;
      $("follow").setAttribute("aria-pressed", on);
      if (on) this.end();
    }
    end() {
      this.view.scrollTop = this.view.scrollHeight;
      this.last = this.view.scrollTop;
      this.seen();
      this.draw();
    }
    seen() { this.fresh = 0; $("fresh").hidden = true; }
    grown(lines, over, attempt) {
      if (String(attempt) !== this.attempt) { if (this.running) location.search = ""; return; }
      const more = lines - this.total;
      if (more > 0) {
        this.total = lines;
        this.resize();
        if (this.following) this.end();
        else {
          this.fresh += more;
          $("fresh").textContent = this.fresh.toLocaleString("en") + (this.fresh === 1 ? " new line" : " new lines");
          $("fresh").hidden = false;
        }
      }
      if (over) this.running = false;
    }
    async search(text) {
      this.wanted = text.toLowerCase();
      this.matches = [];
      if (!text) { $("found").textContent = ""; this.draw(); return; }
      const answer = await fetch(this.address + "/search?attempt=" + this.attempt + "&q=" + encodeURIComponent(text));
      const found = await answer.json();
      if (this.wanted !== text.toLowerCase()) return;
      this.matches = found.lines;
      this.all = found.count;
      this.place = this.matches.findIndex((line) => line >= this.line(Math.floor(this.top())));
      if (this.place < 0) this.place = 0;
      this.step(0);
    }
    step(by) {
      if (!this.matches.length) { $("found").textContent = this.wanted ? "no match" : ""; this.draw(); return; }
      this.place = (this.place + by + this.matches.length) % this.matches.length;
      const line = this.matches[this.place];
      for (const part of this.parts) if (line > part[1] && line <= part[2] && this.folded.delete(part[1])) this.resize();
      $("found").textContent = (this.place + 1).toLocaleString("en") + " of " + this.all.toLocaleString("en");
      this.follow(false);
      this.mark(line);
      this.show(line);
      history.replaceState(null, "", this.link(line));
    }
  }
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

  const view = $("view");
  if (view) {
    const asked = Number((location.hash.match(/^#L(\d+)$/) || [])[1] || new URLSearchParams(location.search).get("line") || 0);
    log = new Log(view);
    $("tools").hidden = false;
    let waits;
    $("find").oninput = () => { clearTimeout(waits); waits = setTimeout(() => log.search($("find").value), 200); };
    $("find").onkeydown = (event) => {
      if (event.key === "Enter") { event.preventDefault(); log.step(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape") { $("find").value = ""; log.search(""); view.focus(); }
    };
    $("older").onclick = () => log.step(-1);
    $("newer").onclick = () => log.step(1);
    $("follow").onclick = () => log.follow(!log.following);
    $("fresh").onclick = () => log.follow(true);
    $("clock").onclick = () => {
      log.times = !log.times;
      $("clock").setAttribute("aria-pressed", log.times);
      log.blocks.clear();
      log.draw();
    };
    $("fold").onclick = () => {
      const on = $("fold").getAttribute("aria-pressed") !== "true";
      $("fold").setAttribute("aria-pressed", on);
      log.folded = new Set(on ? log.parts.map((part) => part[1]) : []);
      log.resize();
    };
    if (asked) { log.mark(asked); log.show(asked); view.scrollIntoView({ block: "nearest" }); }
    else if (log.running) log.follow(true);
    else log.end();
    addEventListener("hashchange", () => {
      const line = Number((location.hash.match(/^#L(\d+)$/) || [])[1] || 0);
      if (line) { log.follow(false); log.mark(line); log.show(line); }
    });
  }
  // Links to lines of this very log do not load the page again.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href*='#L']");
    if (!link || !log || link.className === "n" || link.pathname !== location.pathname) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    const line = Number(link.hash.slice(2));
    log.follow(false);
    log.mark(line);
    log.show(line);
    view.focus();
    view.scrollIntoView({ block: "center" });
  });

  // A file that is dropped on the form of a kickstart fills it.
  const text = $("text");
  if (text) {
    text.ondragover = (event) => { event.preventDefault(); text.classList.add("over"); };
    text.ondragleave = () => text.classList.remove("over");
    text.ondrop = async (event) => {
      event.preventDefault();
      text.classList.remove("over");
      const file = event.dataTransfer.files[0];
      if (!file) return;
      text.value = await file.text();
      if (!$("name").value) $("name").value = file.name.replace(/\.ks$/, "");
    };
  }

  // Keys.
  const keys = [["/", "search"], ["j, k", "next and earlier row"], ["Enter", "open the row"], ["f", "follow the log"], ["g, G", "start and end of the log"], ["?", "these keys"]];
  const help = () => {
    const dialog = make("dialog");
    dialog.setAttribute("aria-label", "Keys");
    const list = make("dl");
    for (const [key, what] of keys) {
      const term = make("dt");
      term.append(make("kbd", "", key));
      list.append(term, make("dd", "", what));
    }
    const close = make("button", "", "Close");
    close.onclick = () => dialog.close();
    dialog.onclose = () => dialog.remove();
    dialog.append(make("h2", "", "Keys"), list, close);
    document.body.append(dialog);
    dialog.showModal();
  };
  const button = document.querySelector("button.keys");
  if (button) { button.hidden = false; button.onclick = help; }
  const move = (by) => {
    const links = [...document.querySelectorAll("ol.builds .what a")];
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at + by))].focus();
  };
  document.addEventListener("focusin", (event) => {
    document.querySelector("ol.builds li.at")?.classList.remove("at");
    event.target.closest?.("ol.builds li")?.classList.add("at");
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const act = {
      "/": () => ($("find") ?? document.querySelector("input[type=search]"))?.focus(),
      j: () => move(1), k: () => move(-1), "?": help,
      f: () => log?.follow(!log.following),
      g: () => { if (log) { log.follow(false); view.scrollTop = 0; } }, G: () => log?.end(),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  dress(document);
})();
