// What a person would see or hear of a page: functions that tests of pages evaluate in a browser.
({
  // Text whose contrast against what stands behind it is below WCAG 2.1 AA: 4.5, or 3 where it is large. Backgrounds are blended through.
  faint: () => {
    const channels = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
    const luminance = (c) => {
      const [r, g, b] = c.map((v) => { const s = v / 255; return s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      const box = element.closest(".node") && element.closest(".node").querySelector("rect");
      if (box && !element.matches(".flagged")) return channels(getComputedStyle(box).fill).slice(0, 3);
      const layers = [];
      for (let one = element; one; one = one.parentElement) {
        const colour = channels(getComputedStyle(one).backgroundColor);
        layers.push(colour);
        if (colour[3] === 1) break;
      }
      return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const found = new Map();
    for (const element of document.querySelectorAll("body *")) {
      const said = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
      if (!said || !element.getClientRects().length || element.closest(".skip, script, caption")) continue;
      const style = getComputedStyle(element);
      const ink = channels(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
      const paper = behind(element);
      const [a, b] = [luminance(over(ink, paper)), luminance(paper)];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (contrast < (large ? 3 : 4.5)) found.set(`${element.tagName}.${element.className.baseVal ?? element.className}`, `${said.slice(0, 30)}: ${contrast.toFixed(2)}`);
    }
    return [...found].map((pair) => pair.join(" "));
  },

  // Things to use that a screen reader could not name, duplicate ids, headings that skip a level, pictures without words.
  unnamed: () => {
    const wrong = [];
    const name = (e) => e.getAttribute("aria-label") || (e.labels && e.labels.length && e.labels[0].textContent) || e.textContent.trim() || e.title;
    for (const e of document.querySelectorAll("a[href], button, input, select, summary, [tabindex], [role]"))
      if (e.getAttribute("aria-hidden") !== "true" && !name(e)) wrong.push(`no name: ${e.outerHTML.slice(0, 80)}`);
    for (const e of document.querySelectorAll("svg:not([role]):not([aria-hidden]), img:not([alt])")) wrong.push(`no words: ${e.outerHTML.slice(0, 80)}`);
    for (const e of document.querySelectorAll("[aria-labelledby]"))
      if (!e.getAttribute("aria-labelledby").split(" ").every((id) => document.getElementById(id))) wrong.push(`labelled by nothing: ${e.outerHTML.slice(0, 80)}`);
    for (const e of document.querySelectorAll("[tabindex]")) if (Number(e.tabIndex) > 0) wrong.push(`out of order: ${e.outerHTML.slice(0, 80)}`);
    let before = 0;
    for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
      const level = Number(h.tagName[1]);
      if (level > before + 1) wrong.push(`${h.tagName} ${h.textContent} after h${before}`);
      before = level;
    }
    return wrong;
  },

  // Where the tab key stops, in the order of the page.
  stops: () => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex]")]
    .filter((e) => e.tabIndex >= 0 && e.checkVisibility() && !e.closest("details:not([open]) > :not(summary)")).length,

  // Columns whose title does not sort both ways and back again, or loses rows.
  unsorted: () => {
    const wrong = [];
    for (const table of document.querySelectorAll("table[data-sortable]")) {
      const rows = () => [...table.tBodies[0].rows];
      const before = rows();
      const same = (a, b) => a.length === b.length && a.every((row, at) => row === b[at]);
      for (const button of table.querySelectorAll("th button")) {
        const said = new Set();
        for (let click = 0; click < 2; click++) {
          button.click();
          said.add(button.parentElement.getAttribute("aria-sort"));
          if (new Set(rows()).size !== before.length) wrong.push(`${table.id} ${button.textContent} loses rows`);
        }
        if (!(said.has("ascending") && said.has("descending"))) wrong.push(`${table.id} ${button.textContent} says ${[...said]}`);
        button.click();
        if (!same(rows(), before)) wrong.push(`${table.id} ${button.textContent} does not come back`);
      }
    }
    return wrong;
  },

  // What a sheet of paper would lose: content beyond its frame or beyond the page, controls that paper cannot serve.
  cut: () => {
    const wrong = [];
    const width = document.documentElement.clientWidth;
    for (const e of document.querySelectorAll("main *")) {
      if (!e.checkVisibility()) continue;
      const style = getComputedStyle(e);
      if (e.matches("caption, svg *")) continue;
      if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth && style.overflowX !== "visible") wrong.push(`${e.tagName}.${e.className} scrolls: ${e.scrollWidth} in ${e.clientWidth}`);
      const right = e.getBoundingClientRect().right;
      if (right > width + 1) wrong.push(`${e.tagName}.${e.className.baseVal ?? e.className} ends at ${Math.round(right)} of ${width}: ${e.textContent.trim().slice(0, 40)}`);
    }
    for (const e of document.querySelectorAll(".bar, .controls, .command button, .tip, .skip")) if (e.checkVisibility()) wrong.push(`printed: ${e.className}`);
    return wrong;
  },
})
