"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const compare = data.mode === "compare";
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;

  // ---------------------------------------------------------------- text

  // What steers a terminal, turns the direction of text or is not seen is shown by its number.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
  const plain = (text) => String(text).replace(HIDDEN, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  const bytes = (n) => {
    let unit = 0, value = Math.abs(n);
    while (value >= 1023.5 && unit < UNITS.length - 1) { value /= 1024; unit++; }
    return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
  };
  const signed = (n) => (n === 0 ? "\u00b10" : `${n > 0 ? "+" : "\u2212"}${bytes(n)}`);
  const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;
  const percent = (part, whole) => {
    const p = whole > 0 ? (100 * part) / whole : 0;
    return p === 0 ? "0 %" : p < 0.1 ? "<0.1 %" : `${p < 10 ? p.toFixed(1) : Math.round(p)} %`;
  };
  const el = (tag, attributes, ...children) => {
    const e = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") e.className = value;
      else if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
      else e.setAttribute(name, value);
    }
    for (const child of children) {
      if (child === null || child === undefined || child === "") continue;
      e.append(child instanceof Node ? child : plain(child));
    }
    return e;
  };
  const fill = (e, ...children) => { e.replaceChildren(...children.filter((c) => c)); return e; };
  // Text from the image stands in an element of its own, whatever direction it has.
  const own = (text) => el("bdi", null, text);
  const track = (parts) => {
    const t = el("div", { class: "track", "aria-hidden": "true" });
    for (const [share, name] of parts) {
      const bar = el("i", name ? { class: name } : null);
      bar.style.width = `${Math.max(share > 0 ? 0.4 : 0, Math.min(100, 100 * share))}%`;
      t.append(bar);
    }
    return t;
  };

  // ---------------------------------------------------------------- the tree of files

  const { dirs, files } = data;
  const SEEN = 2, GREW = 5;      // files of a lower state are in the image; see page.rs
  const VIEWS = { layer: "Layers", directory: "Directories", package: "Packages" };
  const dirPath = (d) => { const all = []; for (; d > 0; d = dirs.parent[d]) all.unshift(dirs.name[d]); return "/" + all.join("/"); };
  const isWaste = (row) => !compare && files.state[row] > 0;

  const node = (name, rows, dir) => {
    const n = { name, rows, dir, size: 0, files: 0, waste: 0, down: 0, parts: null };
    for (const row of rows) {
      const size = files.bytes[row];
      n.size += size;
      n.files += files.count[row];
      if (isWaste(row)) n.waste += size;
      if (compare && files.state[row] > GREW) n.down += size;
    }
    return n;
  };
  const rootNode = (view) => {
    const rows = [];
    for (let row = 0; row < files.dir.length; row++) {
      if (compare || view === "layer" || files.state[row] < SEEN) rows.push(row);
    }
    const n = node(compare ? "all changes" : view === "layer" ? "all layers" : "the image", rows, 0);
    n.by = view;
    return n;
  };
  const grouped = (rows, key) => {
    const groups = new Map();
    for (const row of rows) {
      const k = key(row), group = groups.get(k);
      if (group) group.push(row); else groups.set(k, [row]);
    }
    return groups;
  };
  const layerName = (n) => {
    const layer = data.layers[n];
    return `${layer.rank}: ${layer.by || (data.layers.length > 1 ? "layer" : "files")}`;
  };
  // The directory in which all of these files lie, however deep.
  const common = (rows) => {
    let at = files.dir[rows[0]];
    for (const row of rows) {
      for (let d = files.dir[row]; d !== at; ) {
        // A directory has a higher number than the one that it lies in.
        if (d > at) d = dirs.parent[d]; else at = dirs.parent[at];
      }
    }
    return at;
  };
  const byDirectory = (n) => {
    const step = new Map();
    const below = (d) => {
      if (d === n.dir) return -1;
      let at = step.get(d);
      if (at === undefined) {
        for (at = d; dirs.parent[at] !== n.dir; ) at = dirs.parent[at];
        step.set(d, at);
      }
      return at;
    };
    const cut = n.dir ? dirPath(n.dir).length + 1 : 1;
    const all = [];
    for (const [dir, rows] of grouped(n.rows, (row) => below(files.dir[row]))) {
      if (dir >= 0) {
        // A directory with nothing but another one in it is no step of its own.
        const deepest = common(rows);
        all.push(node(dirPath(deepest).slice(cut) + "/", rows, deepest));
      } else for (const row of rows) {
        const file = node(files.name[row], [row], -1);
        file.file = row;
        all.push(file);
      }
    }
    return all;
  };
  const parts = (n) => {
    if (n.parts) return n.parts;
    let all;
    if (n.file !== undefined) all = [];
    else if (n.by === "layer") all = [...grouped(n.rows, (r) => files.layer[r])].map(([k, rows]) => node(layerName(k), rows, 0));
    else if (n.by === "package") all = [...grouped(n.rows, (r) => files.package[r])].map(([k, rows]) => {
      const part = node(k < 0 ? "no package" : data.packages[k].name, rows, 0);
      part.loose = k < 0;
      return part;
    });
    else all = byDirectory(n);
    n.parts = all.sort((a, b) => b.size - a.size);
    return n.parts;
  };
  // The largest parts, and one that stands for those that would not be seen.
  const largest = (n, most, least) => {
    const all = parts(n);
    let shown = Math.min(all.length, most);
    while (shown > 1 && all[shown - 1].size < least) shown--;
    if (all.length - shown < 2) shown = Math.min(all.length, shown + 1);
    if (shown >= all.length) return all;
    const rest = node(count(all.length - shown, "smaller one"), all.slice(shown).flatMap((p) => [...p.rows]), -1);
    rest.parts = all.slice(shown);
    rest.rest = true;
    return [...all.slice(0, shown), rest];
  };
  const opens = (n) => n.file === undefined && (n.rest || parts(n).length > 0);

  // ---------------------------------------------------------------- the map

  const roots = {};
  let view = compare || data.layers.length < 2 ? "directory" : "layer";
  let trail = [];
  const at = () => trail[trail.length - 1];
  const chart = charts.init($("chart"), null, { renderer: "svg" });
  const style = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  // One colour towards another, both as #rrggbb.
  const mixed = (a, b, share) => {
    const part = (c, i) => parseInt(c.slice(1 + 2 * i, 3 + 2 * i), 16);
    return "#" + [0, 1, 2].map((i) => Math.round(part(a, i) * (1 - share) + part(b, i) * share).toString(16).padStart(2, "0")).join("");
  };
  const tip = (n) => {
    const hint = n.file !== undefined ? "" : opens(n) ? "Click to go in" : "";
    const rows = [compare ? `${signed(n.size - 2 * n.down)} in ${count(n.files, "file")}` : `${bytes(n.size)} in ${count(n.files, "file")}`];
    if (n.waste > 0) rows.push(`waste ${bytes(n.waste)}, ${percent(n.waste, n.size)}`);
    if (n.file !== undefined && data.states[files.state[n.file]]) rows.push(data.states[files.state[n.file]]);
    return el("div", { class: "tip" }, el("strong", null, own(n.name)), ...rows.map((r) => el("div", null, r)), hint && el("div", { class: "hint" }, hint));
  };
  // How many parts of one group have a tile, and which share of the whole one has at least; how deep
  // groups lie in one another, and which share one has at least whose parts are shown.
  const MOST = 120, LEAST = 0.0016, DEEP = 4, OPEN = 0.018;
  let tiles = [];
  const draw = () => {
    const current = at();
    const hues = [1, 2, 3, 4, 5, 6, 7, 8].map((i) => style(`hue-${i}`));
    const [rest, waste, shrank, ink, gap] = ["rest", "tile-waste", "tile-shrank", "tile-ink", "gap"].map(style);
    const colored = (n, hue) => {
      if (compare) return n.down * 2 > n.size ? shrank : waste;
      return n.waste * 2 > n.size ? waste : hue;
    };
    tiles = [];
    let next = 0;
    const inside = (n, way, hue) => largest(n, MOST, current.size * LEAST).filter((part) => part.size > 0).map((part, i) => {
      const own = hue ? mixed(hue, part.rest ? "#808890" : gap, part.rest ? 0.35 : (i % 3) * 0.06) : part.rest || part.loose ? rest : hues[next % hues.length];
      const to = [...way, part], number = tiles.push({ node: part, to }) - 1, share = part.size / current.size;
      const open = !part.rest && way.length < DEEP && share >= OPEN && opens(part);
      // What is nearly everything leaves the colours to its parts.
      const wide = open && !hue && !part.loose && share > 0.6;
      if (!hue && !wide && own !== rest) next++;
      const children = open ? inside(part, to, wide ? undefined : own) : [];
      const tile = { name: plain(part.name), value: part.size, number };
      if (children.length > 0) {
        const frame = mixed(wide || compare ? rest : own, "#000000", 0.3);
        return { ...tile, children, itemStyle: { color: frame, borderColor: frame, borderWidth: 2, gapWidth: 1 } };
      }
      return { ...tile, itemStyle: { color: colored(part, own), borderWidth: 0 }, label: { show: share > 0.0035 }, lines: share > 0.007 ? 2 : 1 };
    });
    const top = inside(current, []);
    const label = (p, between) => (p.data && p.data.number >= 0 ? `${p.name}${between}${bytes(p.value)}` : "");
    // What is there is not to be moved to where other things will be.
    chart.clear();
    chart.setOption({
      animation: false,
      tooltip: { confine: true, backgroundColor: style("card"), borderColor: style("line"), textStyle: { color: style("ink") }, formatter: (p) => (p.data && tiles[p.data.number] ? tip(tiles[p.data.number].node) : "") },
      series: [{
        type: "treemap", data: top, left: 0, right: 0, top: 0, bottom: 0, roam: false, nodeClick: false, sort: "desc",
        breadcrumb: { show: false }, visibleMin: 30, squareRatio: 0.9,
        label: { color: ink, fontSize: 12, overflow: "truncate", padding: [3, 5], formatter: (p) => (p.data && p.data.lines === 1 ? p.name : label(p, "\n")), lineHeight: 16, position: "insideTopLeft" },
        upperLabel: { show: true, height: 22, color: ink, fontSize: 12, fontWeight: 600, overflow: "truncate", formatter: (p) => label(p, "  ") },
        emphasis: { itemStyle: { borderColor: style("ink"), opacity: 0.85 }, upperLabel: { show: true } },
        levels: [{ itemStyle: { color: gap, borderColor: gap, borderWidth: 0, gapWidth: 3 }, upperLabel: { show: false } }],
      }],
    });
    $("chart").hidden = tiles.length === 0;
    root.dataset.tiles = tiles.length;
  };
  const list = () => {
    const current = at(), all = largest(current, 14, 0);
    const most = all.reduce((m, n) => Math.max(m, n.size), 1);
    const row = (n) => {
      const size = el("span", { class: compare ? `number ${n.size - 2 * n.down < 0 ? "shrank" : "grew"}` : "number" }, compare ? signed(n.size - 2 * n.down) : bytes(n.size));
      const share = el("span", { class: "share number" }, percent(n.size, current.size));
      const bar = compare
        ? track([[(n.size - n.down) / most, "waste"], [n.down / most, "shrank"]])
        : track([[(n.size - n.waste) / most], [n.waste / most, "waste"]]);
      const label = el("span", { class: "label", title: plain(n.name) }, own(n.name));
      const inside = [label, size, share, bar];
      return el("li", null, opens(n) ? el("button", { type: "button", onclick: () => go([...trail, n], true) }, ...inside) : el("div", { class: "leaf" }, ...inside));
    };
    fill($("parts"), ...all.map(row));
    const title = compare ? `${signed(current.size - 2 * current.down)} in ${count(current.files, "changed file")}` : `${bytes(current.size)} in ${count(current.files, "file")}`;
    fill($("parts-title"), el("span", null, title));
    fill($("trail"), ...trail.flatMap((n, i) => [
      i > 0 && el("i", { "aria-hidden": "true" }, "\u203a"),
      i < trail.length - 1
        ? el("button", { type: "button", onclick: () => go(trail.slice(0, i + 1), true) }, own(n.name))
        : el("span", { "aria-current": "true" }, own(n.name)),
    ]));
    $("chart").setAttribute("aria-label", `Treemap by ${view}: ${title}. The list beside it has the largest parts.`);
  };
  const go = (to, focus) => {
    trail = to;
    draw();
    list();
    if (focus) $("parts-title").focus({ preventScroll: true });
  };
  const show = (name) => {
    view = name;
    roots[view] = roots[view] || rootNode(view);
    go([roots[view]]);
  };
  chart.on("click", ({ data: clicked }) => {
    const tile = clicked && tiles[clicked.number];
    if (!tile) return;
    const to = opens(tile.node) ? tile.to : tile.to.slice(0, -1);
    if (to.length > 0) go([...trail, ...to]);
  });
  $("map").addEventListener("keydown", (e) => {
    if (e.key === "Backspace" && trail.length > 1) { e.preventDefault(); go(trail.slice(0, -1), true); }
  });
  for (const [name, label] of Object.entries(VIEWS)) {
    const input = el("input", { type: "radio", name: "view", value: name, onchange: () => show(name) });
    input.checked = name === view;
    $("views").append(el("label", null, input, el("span", null, label)));
  }
  const legend = (name, text) => el("span", null, el("b", { class: name }), text);
  fill($("legend"), ...(compare
    ? [legend("grew", "grew or new"), legend("shrank", "shrank or gone")]
    : [legend("waste", "mostly waste: hidden by a later layer, or content that is there already"), legend("rest", "smaller ones, or no package")]));

  // ---------------------------------------------------------------- tables

  // Columns: [title, value for sorting, cell, class]; rows are made once and shown or not.
  const table = (target, columns, rows, sortable) => {
    const body = el("tbody");
    const lines = rows.map((row) => el("tr", null, ...columns.map(([, , cell, name]) => el("td", name ? { class: name } : null, cell(row)))));
    const heads = columns.map(([title, value, , name], i) => {
      const th = el("th", { scope: "col", ...(name && name.includes("number") ? { class: "number" } : {}) });
      if (!sortable) { th.append(title); return th; }
      th.append(el("button", { type: "button", onclick: () => {
        const down = th.getAttribute("aria-sort") === "ascending" || (!th.hasAttribute("aria-sort") && typeof value(rows[0] || {}) === "number");
        for (const other of heads) other.removeAttribute("aria-sort");
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const order = rows.map((_, k) => k).sort((a, b) => {
          const [x, y] = [value(rows[a]), value(rows[b])];
          return (down ? -1 : 1) * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en"));
        });
        fill(body, ...order.map((k) => lines[k]));
      } }, title));
      return th;
    });
    fill(body, ...lines);
    fill(target, el("thead", null, el("tr", null, ...heads)), body);
    return lines;
  };

  const checks = data.checks;
  if (checks) {
    const failed = checks.filter((c) => !c.passed).length;
    $("checks").hidden = false;
    fill($("checks-sum"), el("span", { class: failed ? "failed" : "passed" }, failed ? `${failed} of ${count(checks.length, "check")} failed` : `${count(checks.length, "check")} passed`));
    const sorted = [...checks.filter((c) => !c.passed), ...checks.filter((c) => c.passed)];
    table($("checks-table"), [
      ["Result", null, (c) => el("span", { class: c.passed ? "passed" : "failed" }, c.passed ? "\u2713 passed" : "\u2717 failed")],
      ["Check", null, (c) => own(c.name), "name"],
      ["Wanted", null, (c) => own(c.wanted || "")],
      ["Found", null, (c) => own(c.found || "")],
      ["Place", null, (c) => own(c.place || ""), "path"],
    ], sorted, false);
  }

  const mostBytes = data.layers.reduce((m, l) => Math.max(m, l.bytes), 1);
  const shorter = (digest) => (digest ? digest.slice(0, 19) : "");
  fill($("layer-list"), ...data.layers.map((l) => {
    const meta = [l.created && l.created.slice(0, 19).replace("T", " "), l.comment, shorter(l.digest)].filter((t) => t).join(" \u00b7 ");
    const sizes = [el("strong", null, bytes(l.bytes)), el("div", null, count(l.files, "file"))];
    if (l.size !== null) sizes.push(el("div", null, `${bytes(l.size)} compressed`));
    if (l.waste > 0) sizes.push(el("div", { class: "waste" }, `waste ${bytes(l.waste)}`));
    const tag = l.change && el("span", { class: `tag ${{ added: "grew", removed: "shrank" }[l.change] || ""}` }, l.change);
    return el("li", null,
      el("div", { class: "rank" }, l.rank),
      el("div", null, el("code", null, own(l.by || (l.digest ? "(nothing is said of how it was made)" : "files of a folder"))), el("div", { class: "meta" }, tag, tag ? " " : "", own(meta))),
      el("div", { class: "sizes" }, ...sizes),
      track([[(l.bytes - l.waste) / mostBytes], [l.waste / mostBytes, "waste"]]));
  }));

  if (data.wasted.length > 0) {
    $("waste").hidden = false;
    const few = data.wastedCount > data.wasted.length ? `, of which the ${data.wasted.length} largest are here` : "";
    fill($("waste-sum"), el("span", null, count(data.wastedCount, "file") + few));
    table($("waste-table"), [
      ["File", (w) => w.path, (w) => own(w.path), "path"],
      ["Why", (w) => w.why, (w) => own(w.why)],
      ["Layer", (w) => w.layer, (w) => String(w.layer), "number"],
      ["Bytes", (w) => w.bytes, (w) => bytes(w.bytes), "number"],
    ], data.wasted, true);
  }

  const growth = (r) => (r.newBytes || 0) - (r.oldBytes || 0);
  const amount = (n) => (n === null || n === undefined ? "\u2013" : bytes(n));
  const changeCell = (r) => el("span", { class: `tag ${{ added: "grew", removed: "shrank" }[r.change] || ""}` }, r.change);
  const growthCell = (r) => el("span", { class: growth(r) < 0 ? "shrank" : growth(r) > 0 ? "grew" : "" }, signed(growth(r)));
  if (compare) {
    $("changes").hidden = data.changes.length === 0;
    table($("changes-table"), [
      ["Directory", (r) => r.path, (r) => own(r.path), "path"],
      ["Before", (r) => r.oldBytes || 0, (r) => amount(r.oldBytes), "number"],
      ["After", (r) => r.newBytes || 0, (r) => amount(r.newBytes), "number"],
      ["Growth", growth, growthCell, "number"],
    ], data.changes, true);
  }
  const packageColumns = compare
    ? [
      ["Package", (p) => p.name, (p) => own(p.name), "name"],
      ["Change", (p) => p.change, changeCell],
      ["Before", (p) => p.oldVersion || "", (p) => own(p.oldVersion || "\u2013")],
      ["After", (p) => p.version || "", (p) => own(p.version || "\u2013")],
      ["Architecture", (p) => p.architecture, (p) => own(p.architecture)],
      ["Bytes", (p) => p.newBytes || 0, (p) => amount(p.newBytes), "number"],
      ["Growth", growth, growthCell, "number"],
    ]
    : [
      ["Package", (p) => p.name, (p) => own(p.name), "name"],
      ["Version", (p) => p.version, (p) => own(p.version)],
      ["Architecture", (p) => p.architecture, (p) => own(p.architecture)],
      ["Licence", (p) => p.licence || "", (p) => own(p.licence || "\u2013")],
      ["Files", (p) => p.files, (p) => p.files.toLocaleString("en"), "number"],
      ["Bytes", (p) => p.bytes, (p) => bytes(p.bytes), "number"],
    ];
  const listed = data.packages.filter((p) => !compare || p.change);
  const lines = table($("packages-table"), packageColumns, listed, true);
  const texts = listed.map((p) => [p.name, p.version, p.oldVersion, p.architecture, p.licence, p.change].filter((t) => t).join(" ").toLowerCase());
  const filter = () => {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter((w) => w);
    let shown = 0;
    lines.forEach((line, i) => {
      const fits = words.every((w) => texts[i].includes(w));
      line.hidden = !fits;
      if (fits) shown++;
    });
    const all = compare ? `${count(listed.length, "package")} added, removed or changed` : count(listed.length, "package");
    fill($("packages-sum"), el("span", null, listed.length === 0 ? (compare ? "The packages are the same." : "The image has no database of packages that is known.") : shown === listed.length ? all : `${shown.toLocaleString("en")} of ${all}`));
  };
  $("filter").addEventListener("input", filter);
  $("filter").parentElement.hidden = $("packages-table").hidden = listed.length === 0;
  filter();

  // ---------------------------------------------------------------- the rest

  document.title = plain(data.title);
  fill($("kind"), el("span", null, data.kind));
  if (compare) fill($("map-title"), el("span", null, "What grew and shrank"));
  fill($("title"), own(data.title));
  fill($("digest"), data.digest && own(data.digest));
  fill($("facts"), ...data.facts.map(([name, value, more]) => el("div", null, el("dt", null, name), el("dd", null, value, more && el("small", null, more)))));
  $("notes").hidden = data.notes.length === 0;
  fill($("notes"), ...data.notes.map((n) => el("li", null, `Note: ${n}`)));
  fill($("footer"), el("p", null, data.footer));

  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const theme = (name) => {
    root.dataset.theme = name || chosen || (dark.matches ? "dark" : "light");
    fill($("theme"), el("span", null, root.dataset.theme === "dark" ? "Light colours" : "Dark colours"));
    if (trail.length) draw();
  };
  $("theme").addEventListener("click", () => { chosen = root.dataset.theme === "dark" ? "light" : "dark"; theme(); });
  dark.addEventListener("change", () => theme());
  // The picture on paper is the one on the screen, scaled.
  addEventListener("beforeprint", () => {
    theme("light");
    chart.getZr().flush();
    $("chart").querySelector("svg").setAttribute("viewBox", `0 0 ${chart.getWidth()} ${chart.getHeight()}`);
  });
  addEventListener("afterprint", () => theme());
  new ResizeObserver(() => { if (!matchMedia("print").matches) chart.resize(); }).observe($("chart"));
  theme();
  show(view);
})();
