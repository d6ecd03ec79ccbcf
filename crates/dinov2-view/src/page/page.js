// The live page. docs/live-page.md describes the messages of the socket.
"use strict";

const HEADER_BYTES = 48;
const KIND = { similarity: 1, picture: 3, colours: 4, output: 5 };
const PLOT_SECONDS = 60;
const SILENCE_MS = 5000; // Reconnects after this time without a message; statistics come every second.
const MAX_PAUSE_MS = 8000; // Longest pause between two attempts to connect.

const root = document.documentElement;
const at = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

let camera = Number(query.get("camera")) || 0;
let socket = null;
let lastMessageAt = 0; // performance.now() of the last message.
let failures = 0;
let retry = 0; // Timer of the next attempt.
let pictureAt = null; // performance.now() of the last picture of this connection.
let trouble = null; // The problem that the server reports.
let fps = 0;
let grid = { rows: 1, cols: 1, width_px: 4, height_px: 3 };
let model = ""; // Features of the same model can be compared.
let pick = null; // { x, y } in 0..1, and feature and model after the message "picked".
let pickPending = false; // The pick of the previous connection was not sent on this one yet.
let cursor = null; // { row, col } of the keyboard cursor
let frozen = false;
let colours = null; // Newest message of each kind; shown with the picture of the same frame.
let similarity = null;
let lastFrame = null; // The displayed frame: { bitmap, colours }
let latencies = []; // [seconds, ms] of frames
let trends = []; // [seconds, fps, p95 in ms] of statistics

// ---- Connection

function connect() {
  clearTimeout(retry);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const opened = new WebSocket(`${scheme}://${location.host}/ws?camera=${camera}`);
  opened.binaryType = "arraybuffer";
  socket = opened;
  lastMessageAt = performance.now();
  let connected = false;
  opened.onmessage = ({ data }) => {
    if (opened !== socket) return;
    lastMessageAt = performance.now();
    if (!connected) {
      connected = true;
      failures = 0;
      subscribe();
    }
    if (typeof data === "string") onMessage(JSON.parse(data));
    else onBinary(data);
  };
  opened.onclose = () => {
    if (opened === socket) onDisconnect(connected);
  };
}

/** Called when the socket closes, and by the watchdog when a connection is silent without a close. */
function onDisconnect(wasConnected) {
  if (socket) socket.close();
  socket = null;
  // The pick is kept for the next connection; its map belongs to an old frame.
  hideMap();
  failures += 1;
  const pause = Math.min(MAX_PAUSE_MS, 250 * 2 ** failures) * (0.75 + Math.random() / 2);
  retry = setTimeout(connect, pause);
  showState("lost", "connection lost, trying again");
  if (!wasConnected) explainFailure();
}

/** Browsers do not report why a socket was refused, so a plain request finds out. */
async function explainFailure() {
  try {
    const { status } = await fetch("healthz");
    if (socket) return;
    if (status === 401) showState("lost", "token missing or wrong: open this page with ?token=…");
    else showState("lost", "the server refused the connection (too many viewers?), trying again");
  } catch {
    // No server: the status already says "connection lost".
  }
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

/** Subscribes while the page is visible, so that a hidden page causes no load. */
function subscribe() {
  for (const topic of ["outputs", "pictures"]) send({ [document.hidden ? "unsubscribe" : "subscribe"]: topic });
}

function showState(state, text) {
  root.dataset.state = state;
  if (at("status").textContent !== text) at("status").textContent = text;
}

function watchdog() {
  const now = performance.now();
  if (socket && now - lastMessageAt > SILENCE_MS) onDisconnect(socket.readyState === WebSocket.OPEN);
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  const still = pictureAt === null ? null : now - pictureAt;
  // The limit grows with the frame interval, so a slow model is not reported as a stall.
  const limit = Math.max(2000, 3000 / Math.max(fps, 0.1));
  if (trouble) showState("still", trouble);
  else if (still === null) showState("still", "waiting for a picture");
  else if (still > limit) showState("still", `no picture for ${Math.round(still / 1000)} s`);
  else showState("live", "live");
}

// ---- Messages

function onMessage(message) {
  if (message.type === "hello") {
    model = message.model;
    pickPending = pick !== null;
    if (pick?.feature && pick.model !== model) dropPick("The server runs another model now: pick again.");
    document.title = message.title;
    at("title").textContent = message.title;
    pictureAt = null;
    showCameras(message.cameras);
    showMode(message.pca);
  } else if (message.type === "grid") {
    grid = message;
    for (const picture of document.querySelectorAll(".picture")) {
      picture.style.aspectRatio = `${grid.width_px} / ${grid.height_px}`;
    }
    if (pickPending) resendPick();
  } else if (message.type === "picked") {
    if (pick && !pick.feature) pick = { ...pick, feature: message.feature, model };
  } else if (message.type === "stats") {
    trouble = message.trouble;
    showMode(message.pca);
    showNumbers(message.stats, message.clients);
  } else if (message.type === "outputs") {
    showValues(message.outputs);
  } else if (message.type === "error") {
    at("hint").textContent = message.message;
  }
}

function onBinary(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEADER_BYTES || view.getUint32(0) !== 0x44563256 || view.getUint8(4) !== 1) return;
  const kind = view.getUint8(5);
  const message = {
    rows: view.getUint32(12, true),
    cols: view.getUint32(16, true),
    frame: view.getBigUint64(24, true),
    latency_ms: view.getFloat64(40, true),
    buffer,
  };
  if (kind === KIND.colours) colours = message;
  else if (kind === KIND.similarity) similarity = message;
  else if (kind === KIND.output) showOutput({ ...message, dtype: view.getUint8(6), dim: view.getUint32(20, true) });
  else if (kind === KIND.picture) showPicture(message);
}

// ---- Pictures

let decoding = false;
let waiting = null; // The newest picture that arrived while another was decoded.

/** The server sends the picture last, so colours and similarity of the frame are already here. */
async function showPicture(message) {
  const ofThisFrame = (other) => (other && other.frame === message.frame ? other : null);
  waiting = { ...message, colours: ofThisFrame(colours), similarity: ofThisFrame(similarity) };
  if (decoding) return;
  decoding = true;
  try {
    while (waiting) {
      const frame = waiting;
      waiting = null;
      const jpeg = new Blob([new Uint8Array(frame.buffer, HEADER_BYTES)], { type: "image/jpeg" });
      lastFrame?.bitmap.close();
      lastFrame = null;
      lastFrame = { ...frame, bitmap: await createImageBitmap(jpeg) };
      drawFrame(lastFrame);
    }
  } finally {
    decoding = false;
  }
}

function drawFrame(frame) {
  pictureAt = performance.now();
  latencies.push([pictureAt / 1000, frame.latency_ms]);
  const canvas = sized("camera", frame.bitmap.width, frame.bitmap.height);
  canvas.getContext("2d").drawImage(frame.bitmap, 0, 0);
  if (frame.colours) drawColours(frame.colours);
  drawOverlay();
  if (pick && frame.similarity) drawHeat(frame.similarity);
  root.dataset.frame = frame.frame;
}

/** Canvas `id`, resized if needed. An unchanged size keeps the pixels. */
function sized(id, width, height) {
  const canvas = at(id);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return canvas;
}

/** One pixel per patch, scaled by the style sheet. `colour(index)` returns the RGBA bytes of a patch. */
function drawPatches(id, { rows, cols }, colour) {
  const context = sized(id, cols, rows).getContext("2d");
  const image = context.createImageData(cols, rows);
  for (let index = 0; index < rows * cols; index += 1) image.data.set(colour(index), 4 * index);
  context.putImageData(image, 0, 0);
}

function drawColours(message) {
  const rgb = new Uint8Array(message.buffer, HEADER_BYTES);
  drawPatches("pca", message, (index) => [rgb[3 * index], rgb[3 * index + 1], rgb[3 * index + 2], 255]);
}

function drawOverlay() {
  if (!lastFrame) return;
  const { width, height } = lastFrame.bitmap;
  const context = sized("overlay", width, height).getContext("2d");
  context.globalAlpha = 1;
  context.drawImage(lastFrame.bitmap, 0, 0);
  context.globalAlpha = at("mix").value / 100;
  context.imageSmoothingEnabled = false;
  if (lastFrame.colours) context.drawImage(at("pca"), 0, 0, width, height);
}

// ---- Outputs of heads: shown by their kind, without knowing the head

const panels = new Map(); // Output name to canvas id.

function panelOf(name) {
  if (!panels.has(name)) {
    const id = `output-${panels.size}`;
    const figure = document.createElement("figure");
    figure.append(document.createElement("figcaption"), document.createElement("div"));
    figure.firstChild.textContent = name;
    figure.lastChild.className = "picture";
    figure.lastChild.style.aspectRatio = `${grid.width_px} / ${grid.height_px}`;
    const canvas = document.createElement("canvas");
    canvas.id = id;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Output ${name}`);
    figure.lastChild.append(canvas);
    at("pictures").append(figure);
    panels.set(name, id);
  }
  return panels.get(name);
}

/** Draws a map (scaled from minimum to maximum), a mask (a colour per class) or colours. */
function showOutput(message) {
  const length = new Uint8Array(message.buffer)[HEADER_BYTES];
  const name = new TextDecoder().decode(new Uint8Array(message.buffer, HEADER_BYTES + 1, length));
  const data = message.buffer.slice(HEADER_BYTES + 1 + length);
  const panel = panelOf(name);
  if (message.dtype === 2) {
    const values = new Float32Array(data);
    const finite = values.filter(Number.isFinite);
    const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
    const range = finite.reduce((a, b) => Math.max(a, b), -Infinity) - low;
    drawPatches(panel, message, (index) => [...rampColour(range > 0 ? (values[index] - low) / range : 0.5), 255]);
  } else if (message.dim === 3) {
    const rgb = new Uint8Array(data);
    drawPatches(panel, message, (index) => [rgb[3 * index], rgb[3 * index + 1], rgb[3 * index + 2], 255]);
  } else {
    const classes = new Uint8Array(data);
    drawPatches(panel, message, (index) => [...classColour(classes[index]), 255]);
  }
}

/** The colour map of PASCAL VOC. */
function classColour(number) {
  const bit = (place) => (number >> place) & 1;
  return [0, 1, 2].map((channel) => (bit(channel) << 7) | (bit(channel + 3) << 6) | (bit(channel + 6) << 5));
}

/** Shows scores and vectors as text, and boxes on the camera picture. */
function showValues(outputs) {
  const text = [];
  const boxes = [];
  for (const [name, { kind, value }] of Object.entries(outputs)) {
    if (kind === "boxes") {
      boxes.push(...value.map((box) => ({ ...box, name })));
      text.push([name, String(value.length)]);
    } else if (kind === "vector") text.push([name, `${value.length} numbers`]);
    else text.push([name, value === null ? "none" : Number(value).toPrecision(4)]);
  }
  at("values").replaceChildren(...text.map((pair) => {
    const row = document.createElement("div");
    row.append(...pair.map((words, index) => {
      const element = document.createElement(index ? "dd" : "dt");
      element.textContent = words;
      return element;
    }));
    return row;
  }));
  at("boxes").replaceChildren(...boxes.map(({ left, top, width, height, score, name }) => {
    const element = document.createElement("div");
    element.className = "box";
    const place = { left, top, width, height };
    for (const [side, part] of Object.entries(place)) element.style[side] = `${100 * part}%`;
    element.title = `${name} ${score.toFixed(2)}`;
    return element;
  }));
}

// ---- Similarity

// Dark violet to light yellow; brightness increases with the value.
const RAMP = [[10, 5, 40], [90, 20, 110], [190, 55, 85], [250, 145, 20], [255, 250, 165]];

function rampColour(part) {
  const place = Math.min(Math.max(part || 0, 0), 1) * (RAMP.length - 1);
  const below = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[below].map((low, channel) => low + (RAMP[below + 1][channel] - low) * (place - below));
}

function drawHeat(message) {
  const values = new Float32Array(message.buffer, HEADER_BYTES);
  // Low similarity darkens the camera picture, high similarity covers it.
  drawPatches("heat", message, (index) => [...rampColour(values[index]), 135 + 40 * Math.max(values[index] || 0, 0)]);
  at("heat").hidden = false;
  let best = 0;
  values.forEach((value, index) => {
    if (value > values[best]) best = index;
  });
  const { rows, cols } = message;
  mark("best", ((best % cols) + 0.5) / cols, (Math.floor(best / cols) + 0.5) / rows);
  at("hint").textContent = `Best match ${values[best].toFixed(2)}: row ${Math.floor(best / cols) + 1}, column ${(best % cols) + 1}`;
}

function mark(id, x, y) {
  const { style } = at(id);
  style.left = `${100 * x}%`;
  style.top = `${100 * y}%`;
  at(id).hidden = false;
}

function pickAt(x, y) {
  if (!socket) return;
  pick = { x, y };
  pickPending = false;
  send({ pick });
  mark("origin", x, y);
  at("clear").disabled = false;
  at("scale").hidden = false;
}

/** After a reconnect: compares with the same feature, not with the patch that is now at its position. */
function resendPick() {
  pickPending = false;
  if (!pick) return;
  if (pick.feature && pick.feature.length !== grid.dim) {
    dropPick("The server runs another model now: pick again.");
  } else {
    send(pick.feature ? { query: pick.feature } : { pick: { x: pick.x, y: pick.y } });
  }
}

function clearPick() {
  if (!pick) return;
  send({ unpick: true });
  dropPick("Tap a picture: all patches similar to it light up.");
}

function dropPick(hint) {
  pick = null;
  pickPending = false;
  hideMap();
  for (const id of ["origin", "cursor", "scale"]) at(id).hidden = true;
  at("clear").disabled = true;
  at("hint").textContent = hint;
}

function hideMap() {
  similarity = null;
  for (const id of ["heat", "best"]) at(id).hidden = true;
}

function moveCursor(down, right) {
  const clamp = (value, count) => Math.min(Math.max(value, 0), count - 1);
  cursor ??= { row: Math.floor(grid.rows / 2), col: Math.floor(grid.cols / 2) };
  cursor = { row: clamp(cursor.row + down, grid.rows), col: clamp(cursor.col + right, grid.cols) };
  mark("cursor", (cursor.col + 0.5) / grid.cols, (cursor.row + 0.5) / grid.rows);
  at("cursor").style.width = `${100 / grid.cols}%`;
  at("cursor").style.height = `${100 / grid.rows}%`;
}

function onKey(event) {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (moves[event.key]) moveCursor(...moves[event.key]);
  else if (event.key === "Enter" || event.key === " ") {
    if (!cursor) moveCursor(0, 0);
    pickAt((cursor.col + 0.5) / grid.cols, (cursor.row + 0.5) / grid.rows);
  } else if (event.key === "Escape") {
    clearPick();
    at("cursor").hidden = true;
  } else return;
  event.preventDefault();
}

// ---- Numbers

function showMode(mode) {
  frozen = mode === "frozen";
  at("freeze").setAttribute("aria-pressed", frozen);
  at("freeze").textContent = frozen ? "Unfreeze colours" : "Freeze colours";
}

function showCameras(names) {
  at("cameras").hidden = names.length < 2;
  const options = names.map((name, index) => new Option(name, index, false, index === camera));
  at("camera-choice").replaceChildren(...options);
  at("snapshot").href = `snapshot?camera=${camera}`;
}

const DROPS = { engine_busy: "engine busy", sink_busy: "output busy", rate_limit: "above rate" };
// Faults of the source.
const FAULTS = { missed: "missed", corrupt: "corrupt", reopened: "reopened" };

function showNumbers(stats, clients) {
  fps = stats.fps;
  const ms = (value) => `${value.toFixed(1)} ms`;
  const now = performance.now() / 1000;
  trends.push([now, stats.fps, stats.latency_ms.p95]);
  const facts = [
    ["p50", ms(stats.latency_ms.p50)],
    ["p95", ms(stats.latency_ms.p95)],
    ["p99", ms(stats.latency_ms.p99)],
    ["engine", ms(stats.extract_ms.p50)],
    ["frames", String(stats.frames)],
    ["running", duration(stats.uptime_s)],
    ["viewers", String(clients)],
  ];
  if (stats.temperature_c !== null) {
    facts.push(["temperature", `${stats.temperature_c.toFixed(0)} °C`, stats.throttled === true]);
  }
  if (stats.throttled !== null) facts.push(["throttled", stats.throttled ? "yes" : "no", stats.throttled]);
  const drops = Object.entries(DROPS).map(([key, name]) => [name, String(stats.drops[key])]);
  drops.push(["not newest", String(stats.losses.stale)]);
  const faults = Object.entries(FAULTS).map(([key, name]) => [name, String(stats.losses[key]), stats.losses[key] > 0]);
  at("facts").replaceChildren(...facts.map(fact));
  at("drops").replaceChildren(...[...drops, ...faults].map(fact));
  at("latency-now").textContent = ms(stats.latency_ms.p50);
  at("fps-now").textContent = stats.fps.toFixed(1);
  drawPlots(now);
}

function fact([name, value, warn]) {
  const row = document.createElement("div");
  row.className = warn ? "warn" : "";
  for (const [tag, text] of [["dt", name], ["dd", value]]) {
    row.append(Object.assign(document.createElement(tag), { textContent: text }));
  }
  return row;
}

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  const unit = parts.findIndex(([length]) => seconds >= length);
  if (unit < 0) return `${Math.floor(seconds)} s`;
  const [length, name] = parts[unit];
  const rest = parts[unit + 1];
  const whole = `${Math.floor(seconds / length)} ${name}`;
  return rest ? `${whole} ${Math.floor((seconds % length) / rest[0])} ${rest[1]}` : whole;
}

function drawPlots(now) {
  const recent = ([seconds]) => now - seconds < PLOT_SECONDS;
  latencies = latencies.filter(recent);
  trends = trends.filter(recent);
  plot("latency-plot", now, "ms", [
    { points: trends.map(([seconds, , p95]) => [seconds, p95]), colour: "#f0b429", name: "p95" },
    { points: latencies, colour: "#5fb3ff", name: "each frame" },
  ]);
  plot("fps-plot", now, "", [{ points: trends, colour: "#4cc38a", name: "" }]);
}

/** Plots lines over the last minute. The y axis ends at a round number above the maximum. */
function plot(id, now, unit, lines) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = at(id);
  const context = sized(id, Math.round(width * scale), Math.round(height * scale)).getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const top = roundUp(Math.max(1, ...lines.flatMap(({ points }) => points.map(([, value]) => value))));
  const margin = 6;
  const x = (seconds) => width - margin - ((now - seconds) / PLOT_SECONDS) * (width - 2 * margin);
  const y = (value) => height - margin - (value / top) * (height - 2 * margin);
  context.strokeStyle = "#2c343f";
  context.strokeRect(margin, y(top / 2), width - 2 * margin, 0);
  context.lineWidth = 1.5;
  for (const { points, colour } of lines) {
    context.strokeStyle = colour;
    context.beginPath();
    points.forEach(([seconds, value]) => context.lineTo(x(seconds), y(value)));
    context.stroke();
  }
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = "#9aa5b4";
  context.fillText(`${top} ${unit}`, margin, margin + 9);
  context.fillText(`${top / 2}`, margin, y(top / 2) - 3);
  let right = width - margin;
  for (const { colour, name } of lines) {
    context.fillStyle = colour;
    right -= context.measureText(name).width;
    context.fillText(name, right, height - margin - 3);
    right -= 10;
  }
}

function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}

// ---- Start

for (const picture of document.querySelectorAll(".picture")) {
  picture.addEventListener("click", (event) => {
    const { left, top, width, height } = picture.getBoundingClientRect();
    const part = (value) => Math.min(Math.max(value, 0), 1);
    pickAt(part((event.clientX - left) / width), part((event.clientY - top) / height));
  });
}
at("pickable").addEventListener("keydown", onKey);
at("clear").addEventListener("click", clearPick);
at("freeze").addEventListener("click", () => send({ pca: frozen ? "follow" : "freeze" }));
at("refit").addEventListener("click", () => send({ pca: "refit" }));
at("mix").addEventListener("input", drawOverlay);
at("camera-choice").addEventListener("change", (event) => {
  camera = Number(event.target.value);
  clearPick();
  const old = socket;
  connect();
  old?.close();
});
document.addEventListener("visibilitychange", () => {
  if (socket) subscribe();
  else connect();
});
window.addEventListener("online", () => socket || connect());
drawRamp();
// The token is in a cookie now; keep it out of the history.
if (query.has("token")) {
  query.delete("token");
  const rest = query.toString();
  window.history.replaceState(null, "", location.pathname + (rest && `?${rest}`));
}
setInterval(watchdog, 250);
connect();

function drawRamp() {
  const context = at("ramp").getContext("2d");
  for (let x = 0; x < 128; x += 1) {
    context.fillStyle = `rgb(${rampColour(x / 127).map(Math.round).join(" ")})`;
    context.fillRect(x, 0, 1, 1);
  }
}
