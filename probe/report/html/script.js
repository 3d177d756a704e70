"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, text) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Light and dark: what the system says, until someone chooses.
  const root = document.documentElement;
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = make("button");
  theme.type = "button";
  const say = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; say(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  say();
  one(".bar").append(theme);

  // Commands to copy; where the clipboard is closed, the text is selected instead.
  for (const block of all(".command")) {
    const button = make("button", "Copy");
    button.type = "button";
    const code = one("code", block);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.append(button);
  }

  // Tables: a click on a title sorts (largest first for numbers), a second one the other way round, a third as it was.
  const valueOf = (cell, numeric) => {
    const text = (one("summary", cell) || cell).textContent.trim();
    if (!numeric) return text;
    if (text === "" || text === "-") return null;
    if (/^nan/i.test(text)) return Infinity;
    if (/inf/i.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
    const near = /^1-(.+)$/.exec(text); // a cosine next to one
    return near ? 1 - Number(near[1]) : Number.parseFloat(text.replace(/[#,]/g, ""));
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a < b ? -1 : a > b ? 1 : 0);
  for (const table of all("table[data-sortable]")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    table.inOrder = rows;
    headings.forEach((heading, column) => {
      const button = make("button", heading.textContent);
      button.type = "button";
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const numeric = heading.classList.contains("number");
        const cycle = numeric ? ["descending", "ascending", null] : ["ascending", "descending", null];
        const next = cycle[(cycle.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) heading.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        const keyed = rows.map((row, at) => ({ row, at, key: next ? valueOf(row.cells[column], numeric) : at }));
        keyed.sort((a, b) => {
          if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.at - b.at;
          return sign * compare(a.key, b.key) || a.at - b.at;
        });
        body.append(...keyed.map((entry) => entry.row));
      });
    });
  }
  for (const controls of all(".controls")) {
    controls.hidden = false;
    const search = one("[data-filter]", controls);
    const choice = one("[data-choose]", controls);
    const rows = document.getElementById(search.dataset.filter).inOrder;
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const shown = one("output", controls);
    const apply = () => {
      const wanted = search.value.trim().toLowerCase();
      const tag = choice ? choice.value : "";
      let left = 0;
      rows.forEach((row, at) => {
        row.hidden = !(texts[at].includes(wanted) && (!tag || (row.dataset.tags || "").split(" ").includes(tag)));
        left += !row.hidden;
      });
      shown.textContent = left === rows.length ? "" : `${left} of ${rows.length} shown`;
    };
    controls.reset = () => { search.value = ""; if (choice) choice.value = ""; apply(); };
    search.addEventListener("input", apply);
    if (choice) choice.addEventListener("change", apply);
  }

  // A link into a table: the row is there, whatever is filtered or folded, and open.
  const reveal = (row) => {
    if (row.hidden) one(".controls", row.closest(".table")).reset();
    for (let outer = row.parentElement; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
    const details = one("details", row);
    if (details) details.open = true;
    all("tr.chosen").forEach((other) => other.classList.remove("chosen"));
    row.classList.add("chosen");
    const summary = one("summary", row);
    (summary || row).scrollIntoView({ block: "center" });
    if (summary) summary.focus({ preventScroll: true });
  };
  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "TR") reveal(target);
    const drill = target && target.closest("details.drill"); // a tensor in detail
    if (drill) { drill.open = true; drill.scrollIntoView(); one("summary", drill).focus({ preventScroll: true }); }
  };
  addEventListener("hashchange", follow);
  follow();

  // Pictures: each place stands for a row of a table, and what is told about it is read there.
  const tell = (tip, row) => {
    const titles = [...row.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
    const told = titles.map((title, i) => [title, i ? row.cells[i].textContent.trim() : ""]).filter(([, said]) => said && said !== "-");
    const full = one("summary code[title]", row);
    const title = full ? full.title : (one("summary", row) || row.cells[0]).textContent.trim();
    const facts = told.map(([name, said]) => `${name} ${said}`).join(", ");
    const nodes = all("dt", row).filter((label) => label.textContent === "ONNX nodes")
      .flatMap((label) => all("li", label.nextElementSibling)).map((item) => item.textContent);
    tip.replaceChildren(make("strong", title), make("span", facts));
    if (nodes.length) {
      const list = make("ul");
      nodes.slice(0, 4).forEach((node) => list.append(make("li", node)));
      if (nodes.length > 4) list.append(make("li", `and ${nodes.length - 4} more`));
      tip.append(list);
    }
    return { title, facts };
  };
  for (const stage of all("[data-plot]")) {
    const { plot, noun, left, step, places, width } = stage.dataset;
    const table = document.getElementById(plot);
    const rows = table.inOrder;
    const [tip, cursor, picture] = [one(".tip", stage.parentElement), one(".cursor", stage), one("svg", stage)];
    let at = -1;
    const show = (place) => {
      at = Math.max(0, Math.min(Number(places) - 1, place));
      const x = Number(left) + (at + 0.5) * Number(step);
      cursor.setAttribute("transform", `translate(${x + 9} 0)`);
      const row = rows[at];
      const { title, facts } = tell(tip, row);
      tip.hidden = false;
      const scale = picture.getBoundingClientRect().width / Number(width);
      const seen = x * scale - stage.scrollLeft;
      const room = stage.clientWidth;
      if (seen < stage.clientLeft || seen > room) stage.scrollLeft = x * scale - room / 2;
      const now = x * scale - stage.scrollLeft;
      tip.style.left = `${now > room / 2 ? Math.max(0, now - tip.offsetWidth - 14) : Math.min(now + 14, Math.max(0, room - tip.offsetWidth))}px`;
      stage.setAttribute("aria-valuenow", at + 1);
      stage.setAttribute("aria-valuetext", `${noun} ${at + 1}: ${title}, ${facts}`);
    };
    const hide = () => { tip.hidden = true; };
    const placeOf = (event) => {
      const box = picture.getBoundingClientRect();
      return Math.round(((event.clientX - box.left) / box.width * Number(width) - Number(left)) / Number(step) - 0.5);
    };
    const first = one("svg .mark", stage); // on a narrow screen, begin where it gets interesting
    if (first && stage.scrollWidth > stage.clientWidth)
      stage.scrollLeft = first.getBoundingClientRect().left - picture.getBoundingClientRect().left - stage.clientWidth / 2;
    stage.tabIndex = 0;
    Object.entries({ role: "slider", "aria-label": `Walk through the picture, ${noun} by ${noun}`, "aria-valuemin": 1, "aria-valuemax": places, "aria-valuenow": 1,
      "aria-valuetext": `${places} places; arrow keys move, Enter opens the row` }).forEach(([name, value]) => stage.setAttribute(name, value));
    stage.addEventListener("pointermove", (event) => show(placeOf(event)));
    stage.addEventListener("pointerleave", hide);
    stage.addEventListener("blur", hide);
    stage.addEventListener("click", (event) => { show(placeOf(event)); hide(); reveal(rows[at]); });
    stage.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 };
      if (event.key in moves) { event.preventDefault(); show(at < 0 && event.key !== "End" ? 0 : at + moves[event.key]); }
      else if (event.key === "Enter" && at >= 0) { event.preventDefault(); hide(); reveal(rows[at]); }
      else if (event.key === "Escape") hide();
    });
  }

  // The layer graph: one stop for the tab key; arrows walk along lines (up, down) and in execution order (left, right).
  for (const plot of all("[data-graph]")) {
    const rows = document.getElementById(plot.dataset.graph).inOrder;
    const [stage, tip] = [one(".stage", plot), one(".tip", plot)];
    const nodes = all("a.node", plot);
    const byThing = new Map(nodes.map((node) => [node.dataset.at, node]));
    const lines = new Map(all(".edge", plot).map((line) => [line.dataset.of, line]));
    const listed = (text) => (text ? text.split(" ") : []);
    const rowOf = (node) => rows[Number(node.getAttribute("href").split("-").pop())];
    let hit = null;
    const leave = () => {
      if (!hit) return;
      [hit, ...all(".edge.lit", plot)].forEach((one) => one.classList.remove("hit", "lit"));
      tip.hidden = true;
      hit = null;
    };
    const enter = (node) => {
      if (node === hit) return;
      leave();
      hit = node;
      node.classList.add("hit");
      [node.dataset.at, ...listed(node.dataset.in)].forEach((thing) => { const line = lines.get(thing); if (line) line.classList.add("lit"); });
      tell(tip, rowOf(node));
      tip.hidden = false;
      const [box, around] = [node.getBoundingClientRect(), plot.getBoundingClientRect()];
      const right = box.right - around.left + 12;
      const left = box.left - around.left - tip.offsetWidth - 12;
      tip.style.left = `${right + tip.offsetWidth <= around.width ? right : Math.max(0, left)}px`;
      const below = right + tip.offsetWidth > around.width && left < 0; // a narrow screen: under the box, not over it
      tip.style.top = `${Math.max(0, below ? box.bottom - around.top + 8 : box.top - around.top - 10)}px`;
    };
    nodes.forEach((node, at) => {
      node.setAttribute("aria-label", one("title", node).textContent);
      one("title", node).remove(); // else the browser would show it over ours
      node.setAttribute("tabindex", at ? -1 : 0);
      node.addEventListener("pointerenter", () => enter(node));
      node.addEventListener("pointerleave", leave);
      node.addEventListener("blur", leave);
      node.addEventListener("focus", () => {
        nodes.forEach((other) => other.setAttribute("tabindex", other === node ? 0 : -1));
        enter(node);
      });
      node.addEventListener("click", (event) => { event.preventDefault(); leave(); reveal(rowOf(node)); });
      node.addEventListener("keydown", (event) => {
        const along = (things) => listed(things).map((thing) => byThing.get(thing)).find(Boolean);
        const to = {
          ArrowDown: () => along(node.dataset.out), ArrowUp: () => along(node.dataset.in), ArrowRight: () => nodes[at + 1], ArrowLeft: () => nodes[at - 1],
          Home: () => nodes[0], End: () => nodes[nodes.length - 1],
        }[event.key];
        if (event.key === "Escape") leave();
        if (!to) return;
        event.preventDefault();
        const next = to();
        if (next) next.focus();
      });
    });
    const start = one(".node.starts", stage);
    if (start && stage.scrollWidth > stage.clientWidth)
      stage.scrollLeft = start.getBoundingClientRect().left - stage.getBoundingClientRect().left - stage.clientWidth / 2;
  }
})();
