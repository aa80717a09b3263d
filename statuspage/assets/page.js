// Fills the page again and again with the state that update.json returns. The server
// has rendered it once, and composes all texts; only countdowns and lines are made here.
'use strict';
(() => {
  const refreshEvery = 2000, slowest = 30000, timeout = 10000, filterFrom = 10;
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  root.classList.add('script');

  let skew = Number(document.body.dataset.time) - Date.now(); // the server's clock less ours
  let refreshed = Date.now();
  let failures = 0;
  let paused = false;
  let timer = 0;
  let request = null; // the controller of the request that is under way
  let view = null;
  const history = { starts: [], times: [], series: new Map() }; // of samples: when they began, and ended

  // Places in the page.

  const places = new WeakMap(); // the elements with data-f below an element
  function fill(element, fields) {
    let found = places.get(element);
    if (!found) places.set(element, found = [...element.querySelectorAll('[data-f]')]);
    for (const node of found) {
      const text = fields[node.dataset.f] ?? '';
      if (node.textContent !== text) node.textContent = text;
      if (node.localName === 'b') node.classList.toggle('zero', text === '0' || text === '–');
      if ('optional' in node.dataset) show(node, text !== '');
    }
  }
  const fillHeads = (element, fields) => element.querySelectorAll('[data-head]').forEach((e) => fill(e, fields));
  const show = (element, shown) => { if (element.hidden === shown) element.hidden = !shown; };
  function set(element, name, value) {
    if (value === undefined || value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }

  // list makes the children of an element those of the items. Elements of items that
  // stay are kept, with their focus and their open details.
  function list(parent, items, template, update) {
    const ids = new Set(items.map((item) => item.id));
    const kept = new Map();
    for (const child of [...parent.children]) {
      if (ids.has(child.id)) kept.set(child.id, child);
      else child.remove();
    }
    let next = parent.firstElementChild;
    for (const item of items) {
      let element = kept.get(item.id);
      if (!element) {
        element = template.content.firstElementChild.cloneNode(true);
        element.id = item.id;
      }
      if (element === next) next = next.nextElementSibling;
      else parent.insertBefore(element, next);
      update(element, item);
    }
  }

  // Times.

  function duration(ms) {
    const s = Math.max(Math.ceil(ms / 1000), 0), two = (n) => String(n).padStart(2, '0');
    if (s < 60) return s + ' s';
    if (s < 3600) return Math.floor(s / 60) + ' min ' + two(s % 60) + ' s';
    if (s < 86400) return Math.floor(s / 3600) + ' h ' + two(Math.floor(s / 60) % 60) + ' min';
    return Math.floor(s / 86400) + ' d ' + two(Math.floor(s / 3600) % 24) + ' h';
  }
  function text(element, name, value) {
    const node = element.querySelector('[data-f="' + name + '"]');
    if (node && node.textContent !== value) node.textContent = value;
  }
  function tick() {
    const now = Date.now() + skew;
    for (const element of document.querySelectorAll('[data-until], [data-failed], [data-heard]')) {
      const { until, due, failed, heard } = element.dataset;
      if (until) text(element, 'due', until > now ? due + ' ' + duration(until - now) : 'due now');
      if (failed) text(element, 'failed_ago', duration(now - failed) + ' ago');
      if (heard) text(element, 'ago', duration(now - heard) + ' ago');
    }
    const age = Date.now() - refreshed;
    byId('updated').textContent = paused ? 'Paused' : age < 3000 ? 'Updated just now' : 'Updated ' + duration(age) + ' ago';
  }

  // Rendering.

  function render(v) {
    document.title = v.title + ' – spillover';
    const icon = byId('favicon');
    set(icon, 'href', icon.dataset[v.level]);
    const headline = document.querySelector('.headline');
    // Rate limits come and go: those that leave the pool well are not announced.
    const noteworthy = v.level !== 'ok' || headline.dataset.level !== 'ok';
    set(headline, 'data-level', v.level);
    set(headline, 'data-until', v.until);
    set(headline, 'data-due', v.due);
    set(headline.querySelector('use'), 'href', '#i-' + v.level);
    if (byId('title').textContent !== v.title) {
      byId('title').textContent = v.title;
      if (noteworthy) byId('announcement').textContent = v.title;
    }
    for (const head of document.querySelectorAll('main > [data-head]')) fill(head, v.fields);
    byId('deployments').classList.toggle('no-utilization', !v.has_utilization);
    list(byId('deployments'), v.tiers, byId('tier-template'), renderTier);
    show(byId('fleet'), Boolean(v.fleet));
    if (v.fleet) {
      fillHeads(byId('fleet'), v.fleet.fields);
      list(byId('replicas'), v.fleet.rows, byId('replica-template'), (element, r) => {
        set(element, 'data-state', r.state);
        set(element, 'data-heard', r.heard);
        set(element.querySelector('use'), 'href', '#i-' + r.state);
        fill(element, r.fields);
      });
    }
    filter();
  }

  function renderTier(element, tier) {
    const title = tier.id + '-title';
    set(element, 'aria-labelledby', title);
    element.querySelector('h2').id = title;
    set(element.querySelector('.swatch'), 'class', 'swatch k' + tier.color);
    set(element.querySelector('table'), 'aria-labelledby', title);
    fillHeads(element, tier.fields);
    list(element.querySelector('tbody'), tier.rows, byId('row-template'), renderRow);
  }

  function renderRow(element, r) {
    const details = element.querySelector('details');
    // A change of the state opens or closes the details; until the next one the reader does.
    if (element.dataset.state !== r.state) details.open = Boolean(r.open);
    set(element, 'data-state', r.state);
    set(element, 'data-until', r.until);
    set(element, 'data-due', r.due);
    set(element, 'data-failed', r.failed_at);
    set(element.querySelector('use'), 'href', '#i-' + r.state);
    show(details, Boolean(r.failed_at));
    const bar = element.querySelector('.bar'), known = r.utilization !== undefined;
    set(bar, 'hidden', known ? null : '');
    bar.parentElement.classList.toggle('none', !known);
    set(bar.querySelector('.fill'), 'width', Math.min(r.utilization ?? 0, 100));
    fill(element, r.fields);
  }

  function filter() {
    const rows = [...document.querySelectorAll('.tier tbody tr')];
    const usable = rows.length >= filterFrom;
    show(byId('filter'), usable);
    const words = usable ? byId('search').value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    const problems = usable && byId('problems').checked;
    let shown = 0;
    for (const row of rows) {
      let fits = !(problems && row.dataset.state === 'available');
      if (fits && words.length > 0) {
        const own = ['.c-name', '.state', '.why'].map((part) => row.querySelector(part).textContent).join(' ').toLowerCase();
        fits = words.every((word) => own.includes(word));
      }
      show(row, fits);
      if (fits) shown++;
    }
    const filtered = words.length > 0 || problems;
    for (const tier of document.querySelectorAll('.tier')) show(tier, !filtered || tier.querySelector('tbody tr:not([hidden])') !== null);
    const found = filtered ? shown + ' of ' + rows.length + ' shown' : '';
    if (byId('found').textContent !== found) byId('found').textContent = found;
  }

  // History.

  const columns = ['in_flight', 'served', 'throttled', 'failed', 'spilled', 'input_tokens', 'output_tokens', 'utilization'];
  const samples = 180, span = samples * 5000;
  function merge(h) {
    if (h.times.length === 0) return false;
    history.starts = history.starts.concat(h.since, h.times.slice(0, -1)).slice(-samples);
    history.times = history.times.concat(h.times).slice(-samples);
    const present = new Set();
    const add = (id, s) => {
      present.add(id);
      const own = history.series.get(id) ?? {}, before = own.served?.length ?? 0, added = s.served.length;
      for (const name of columns) {
        if (!s[name] && !own[name]) continue;
        const unknown = (n) => new Array(n).fill(null);
        own[name] = (own[name] ?? unknown(before)).concat(s[name] ?? unknown(added)).slice(-samples);
      }
      history.series.set(id, own);
    };
    add('pool', h.pool);
    for (const s of h.tiers) add(s.id, s);
    for (const s of h.deployments) add(s.id, s);
    for (const id of history.series.keys()) if (!present.has(id)) history.series.delete(id);
    return true;
  }

  // values are the counts per second of a column, or what it has if it has no counts.
  function values(id, name) {
    const s = history.series.get(id);
    if (!s) return [];
    if (name === 'tokens') {
      const output = values(id, 'output_tokens');
      return values(id, 'input_tokens').map((x, i) => x + output[i]);
    }
    const column = s[name] ?? [];
    if (name === 'in_flight' || name === 'utilization') return column;
    const skipped = history.times.length - column.length;
    return column.map((x, i) => {
      const at = skipped + i;
      const seconds = Math.max((history.times[at] - history.starts[at]) / 1000, 0.001);
      return x === null ? null : x / seconds;
    });
  }
  const round = (x) => Math.round(x * 10) / 10;
  const short = (x) => x >= 100 ? Math.round(x).toLocaleString('en-US') : String(Math.round(x * 10) / 10);

  const svg = (name, attributes) => {
    const e = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    return e;
  };
  const names = {
    in_flight: ['Requests in flight', ''], served: ['Served requests', ' per second'], throttled: ['Rate-limited attempts', ' per second'], failed: ['Failed attempts', ' per second'],
    spilled: ['Spilled requests', ' per second'], tokens: ['Tokens', ' per second'], utilization: ['Utilization', ' %'],
  };

  // spark draws a small line of the last 15 minutes.
  function spark(element, id) {
    const name = element.dataset.spark;
    let points = values(id, name);
    if (name === 'utilization') points = points.map((x) => x === null ? null : x * 100);
    const known = points.filter((x) => x !== null);
    if (known.length < 2) {
      element.replaceChildren();
      set(element, 'aria-hidden', 'true');
      set(element, 'role', null);
      set(element, 'aria-label', null);
      return;
    }
    const end = history.times[history.times.length - 1], skipped = history.times.length - points.length;
    const most = Math.max(...known), top = name === 'utilization' ? Math.max(most, 100) : most || 1;
    const still = most === 0;
    const step = Math.ceil(points.length / 90);
    let line = '', area = '', open = false, lastX = 0;
    for (let i = 0; i < points.length; i += step) {
      const part = points.slice(i, i + step).filter((x) => x !== null);
      if (part.length === 0) {
        if (open) area += 'L' + lastX + ' 30Z';
        open = false;
        continue;
      }
      // The greatest of a step for what must not be overlooked.
      const value = name === 'throttled' || name === 'failed' ? Math.max(...part) : part.reduce((a, b) => a + b) / part.length;
      const at = history.times[skipped + Math.min(i + step, points.length) - 1];
      const x = round(100 - (end - at) / span * 100), y = round(29 - value / top * 27);
      if (!open) area += 'M' + x + ' 30';
      line += (open ? 'L' : 'M') + x + ' ' + y;
      area += 'L' + x + ' ' + y;
      open = true;
      lastX = x;
    }
    if (open) area += 'L' + lastX + ' 30Z';
    if (!element.firstChild) {
      set(element, 'viewBox', '0 0 100 30');
      set(element, 'preserveAspectRatio', 'none');
      element.append(svg('path', { class: 'area' }), svg('path', {}));
    }
    element.classList.toggle('still', still);
    set(element.firstChild, 'd', area);
    set(element.lastChild, 'd', line);
    const [what, unit] = names[name];
    set(element, 'aria-hidden', null);
    set(element, 'role', 'img');
    set(element, 'aria-label', what + ', last 15 minutes: ' + short(known[known.length - 1]) + unit + ' now, at most ' + short(most) + unit);
  }

  // chart draws what each tier served, one above the other.
  function chart() {
    const tiers = view.tiers.filter((t) => history.series.has(t.id));
    const enough = history.times.length > 1 && tiers.length > 0;
    show(byId('traffic'), enough);
    if (!enough) return;
    const element = byId('chart');
    const style = getComputedStyle(element);
    const width = element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = element.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    if (width <= 0) return;
    const bottom = height - 20, left = 38, right = width - 2, topEdge = 8;
    const n = history.times.length, end = history.times[n - 1];
    const xs = history.times.map((t) => round(right - (end - t) / span * (right - left)));
    const bands = [];
    let below = new Array(n).fill(0), most = 0;
    for (const t of tiers) {
      const own = values(t.id, 'served'), skipped = n - own.length;
      // Smoothed over three samples.
      const at = (i) => own[Math.min(Math.max(i - skipped, 0), own.length - 1)] ?? 0;
      const above = below.map((y, i) => i < skipped ? y : y + (at(i - 1) + at(i) + at(i + 1)) / 3);
      bands.push([t, below, above, own]);
      below = above;
    }
    most = Math.max(...below);
    const unit = niceStep(most / 3), top = Math.max(Math.ceil(most / unit), 1) * unit;
    const y = (value) => round(bottom - value / top * (bottom - topEdge));
    const parts = [];
    for (let value = 0; value <= top + unit / 2; value += unit) {
      parts.push(svg('line', { class: 'rule', x1: left, x2: right, y1: y(value), y2: y(value) }));
      const label = svg('text', { x: left - 8, y: y(value) + 4, 'text-anchor': 'end' });
      label.textContent = value < 10000 ? short(value) : short(value / 1000) + ' k';
      parts.push(label);
    }
    for (const minutes of [15, 10, 5, 0]) {
      const label = svg('text', { x: right - minutes / 15 * (right - left), y: height - 2, 'text-anchor': minutes === 15 ? 'start' : minutes === 0 ? 'end' : 'middle' });
      label.textContent = minutes === 0 ? 'now' : '−' + minutes + ' min';
      parts.push(label);
    }
    const texts = [];
    // From the top down, so that the edge of a tier covers that of one above that served nothing.
    [...bands].reverse().forEach(([t, low, high, own]) => {
      const color = 'k' + t.color;
      const upper = xs.map((x, j) => x + ' ' + y(high[j])), lower = xs.map((x, j) => x + ' ' + y(low[j])).reverse();
      parts.push(svg('path', { class: 'band ' + color, d: 'M' + upper.join('L') + 'L' + lower.join('L') + 'Z' }));
      parts.push(svg('path', { class: 'edge ' + color, d: 'M' + upper.join('L') }));
      texts.unshift(t.name + ': ' + short(own[own.length - 1] ?? 0) + ' now, at most ' + short(Math.max(0, ...own)));
    });
    set(element, 'viewBox', '0 0 ' + width + ' ' + height);
    element.replaceChildren(...parts);
    set(element, 'aria-label', 'Served requests per second, last 15 minutes. ' + texts.join('. '));
    byId('legend').replaceChildren(...bands.map(([t, , , own]) => {
      const item = document.createElement('li'), swatch = svg('svg', { class: 'swatch k' + t.color, viewBox: '0 0 10 10', 'aria-hidden': 'true' }), value = document.createElement('b');
      swatch.append(svg('rect', { width: 10, height: 10, rx: 3 }));
      const recent = own.slice(-12);
      value.textContent = short(recent.reduce((a, b) => a + b, 0) / Math.max(recent.length, 1)) + '/s';
      item.append(swatch, t.name + ' ', value);
      return item;
    }));
  }
  function niceStep(x) {
    const power = 10 ** Math.floor(Math.log10(Math.max(x, 0.01)));
    return [1, 2, 5, 10].find((m) => m * power >= x) * power;
  }

  function draw() {
    for (const element of document.querySelectorAll('.figures .spark')) spark(element, 'pool');
    for (const row of document.querySelectorAll('.tier tbody tr')) {
      for (const element of row.querySelectorAll('.spark')) spark(element, row.id);
    }
    chart();
  }

  // Refreshing.

  async function refresh() {
    clearTimeout(timer);
    if (request || paused || document.hidden) return;
    request = new AbortController();
    const limit = setTimeout(() => request.abort(), timeout);
    try {
      const response = await fetch('update.json?after=' + (history.times[history.times.length - 1] ?? 0), { signal: request.signal, cache: 'no-store' });
      if (!response.ok) throw new Error('status ' + response.status);
      const v = await response.json();
      skew = v.time - Date.now();
      refreshed = Date.now();
      failures = 0;
      view = v;
      const known = history.series.size;
      render(v);
      if (merge(v.history) || known === 0) draw();
    } catch {
      failures++;
    } finally {
      clearTimeout(limit);
      request = null;
    }
    live();
    tick();
    timer = setTimeout(refresh, failures === 0 ? refreshEvery : Math.min(refreshEvery * 2 ** (failures - 1), slowest));
  }
  function live() {
    root.dataset.live = paused ? 'paused' : failures > 0 ? 'stale' : 'on';
    const stale = byId('stale'), away = failures > 1 || failures > 0 && stale.textContent !== '';
    const message = away ? 'Not updated since ' + new Date(refreshed).toLocaleTimeString() + '. The server does not answer; the page keeps trying.' : '';
    if (stale.textContent !== message) stale.textContent = message;
    show(stale, away);
  }

  byId('pause').addEventListener('click', (event) => {
    paused = !paused;
    set(event.currentTarget, 'aria-pressed', String(paused));
    live();
    tick();
    refresh();
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
  addEventListener('online', refresh);
  byId('search').addEventListener('input', filter);
  byId('problems').addEventListener('change', filter);
  let resized = 0;
  addEventListener('resize', () => {
    cancelAnimationFrame(resized);
    resized = requestAnimationFrame(() => { if (view) chart(); });
  });
  setInterval(() => { if (!document.hidden) tick(); }, 1000);
  refresh();
})();
