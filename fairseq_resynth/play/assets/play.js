"use strict";

const $ = (id) => document.getElementById(id);
const REFERENCE = "\u0000reference"; // no speaker has this name
const keys = { source: null, reference: null };
const turns = { source: 0, reference: 0 }; // of two overlapping uploads the later one counts
let model = null;

function problem(sentence) {
  $("problem").textContent = sentence || "";
  $("problem").hidden = !sentence;
}

async function ask(path, body, type) {
  let answer;
  const patience = Date.now() + 60000;
  try {
    const options = body === undefined ? {} : { method: "POST", body, headers: { "Content-Type": type } };
    do {
      if (answer) await new Promise((done) => setTimeout(done, 2000));
      answer = await fetch(path, options);
    } while (answer.status === 503 && Date.now() < patience); // the server is busy
  } catch {
    throw new Error("The server does not answer: is `resynth play` still running?");
  }
  const values = await answer.json();
  if (!answer.ok) throw new Error(values.error);
  return values;
}

// ---- recordings

async function send(kind, blob, name) {
  problem("");
  const status = $(`${kind}-status`);
  const turn = ++turns[kind];
  keys[kind] = null;
  status.textContent = `${name} is being uploaded …`;
  try {
    if (blob.size > model.max_bytes) {
      throw new Error(`${name}: ${(blob.size / 1e6).toFixed(1)} MB, expected up to ${model.max_bytes / 1e6} MB`);
    }
    const shown = await ask(`api/${kind}`, blob, "application/octet-stream");
    if (turn !== turns[kind]) return;
    keys[kind] = shown.key;
    status.textContent = `${name}: ${shown.seconds.toFixed(2)} s`;
    if (kind === "reference") {
      const pitch = shown.statistics;
      status.textContent += `, ${Math.round(pitch.f0_mean)} ± ${Math.round(pitch.f0_std)} Hz on ${pitch.num_voiced} voiced frames`;
      for (const note of shown.notes) status.textContent += `; ${note}`;
    } else {
      $("players").replaceChildren(sound(shown, "Recording", "source"));
      $("speak-status").textContent = "";
    }
  } catch (error) {
    status.textContent = "";
    problem(error.message);
  }
}

function canRecord() {
  if (!window.isSecureContext) return "Recording needs https, or the page opened on this machine.";
  if (!navigator.mediaDevices || !window.MediaRecorder) return "This browser does not record.";
  return "";
}

let running = null; // the recorder, while it records

async function record(button) {
  if (running) return running.stop();
  const kind = button.dataset.for;
  problem("");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    return problem(`The microphone cannot be used: ${error.message}.`);
  }
  const pieces = [];
  const started = Date.now();
  running = new MediaRecorder(stream);
  const tick = setInterval(() => {
    const seconds = (Date.now() - started) / 1000;
    $(`${kind}-status`).textContent = `recording, ${seconds.toFixed(1)} s`;
    if (seconds > model.max_seconds - 0.5 && running.state === "recording") running.stop();
  }, 100);
  running.ondataavailable = (event) => pieces.push(event.data);
  running.onstop = () => {
    clearInterval(tick);
    stream.getTracks().forEach((track) => track.stop());
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Record";
    running = null;
    $(`${kind}-file`).value = ""; // the name of an earlier file would stay
    send(kind, new Blob(pieces), "recording");
  };
  running.start();
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop";
}

// ---- the request

function rate() {
  return Number((2 ** Number($("octaves").value)).toFixed(2));
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value)}`;
}

function refresh() {
  $("shift-field").hidden = $("pitch").value !== "shift";
  $("scale-field").hidden = $("pitch").value !== "scale";
  $("reference").hidden = $("voice").value !== REFERENCE;
  const texts = {
    shift: `${signed(Number($("shift").value))} st`,
    scale: `${Number($("scale").value).toFixed(2)}×`,
    octaves: `${rate().toFixed(2)}×`,
  };
  for (const [id, text] of Object.entries(texts)) {
    document.querySelector(`output[for=${id}]`).textContent = text;
    $(id).setAttribute("aria-valuetext", text);
  }
}

function pitchControl() {
  const kind = $("pitch").value;
  if (kind === "shift") return `shift=${$("shift").value < 0 ? "" : "+"}${$("shift").value}st`;
  return kind === "scale" ? `scale=${$("scale").value}` : kind || null;
}

// Style, language and whatever other names the model knows.
function tokens() {
  return Object.fromEntries([...document.querySelectorAll("#tokens select")].map(({ id, value }) => [id, value]));
}

function conversionRequest() {
  const ofReference = $("voice").value === REFERENCE;
  if (ofReference && !keys.reference) throw new Error("Record the target voice, or choose a file of it.");
  return {
    source: keys.source,
    voice: ofReference ? null : $("voice").value || null,
    reference: ofReference ? keys.reference : null,
    speaker: $("speaker").value || null,
    pitch: pitchControl(),
    rate: rate(),
    durations: $("durations").checked ? "predicted" : null,
    ...tokens(),
  };
}

async function speak(event) {
  event.preventDefault();
  problem("");
  try {
    if (!keys.source) throw new Error("Record something first, or choose a file.");
    const body = JSON.stringify(conversionRequest());
    $("speak").disabled = true;
    $("speak-status").textContent = "converting …";
    const shown = await ask("api/speech", body, "application/json");
    const made = sound(shown, `Result: ${shown.title}`, "result");
    const old = $("result");
    if (old) old.remove();
    $("players").append(made);
    sameScale([...$("players").children]);
    $("speak-status").textContent = `${shown.seconds.toFixed(2)} s generated`;
  } catch (error) {
    $("speak-status").textContent = "";
    problem(error.message);
  }
  $("speak").disabled = false;
}

// ---- the form of this model

function fill(select, entries) {
  $(select).replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
}

function offer() {
  const names = model.speakers.map((name) => [name, name]);
  const own = names.length > 1 || model.takes_reference ? [] : [["", "the model's one voice"]];
  const reference = model.takes_reference ? [[REFERENCE, "somebody in a recording …"]] : [];
  fill("voice", [...(own.length ? own : names), ...reference]);
  fill("speaker", [["", "somebody else"], ...names]);
  for (const [token, known] of Object.entries(model.tokens).filter(([, known]) => known.length)) {
    const select = element("select", { id: token }, ...known.map((name) => new Option(name)));
    $("tokens").append(element("label", { className: "field" }, token[0].toUpperCase() + token.slice(1), select));
  }
  $("speaker-field").hidden = !names.length;
  $("pitch-field").hidden = !model.has_pitch;
  $("durations-field").hidden = !model.predicts_durations;
  $("model").textContent = `Model ${model.identity} has ${model.num_units} units of ${1000 * model.unit_seconds} ms, `
    + `${model.has_pitch ? "" : "no "}pitch, and ${names.length || "one"} voice${names.length > 1 ? "s" : ""}`
    + `${model.takes_reference ? ", and takes that of a recording" : ""}. `
    + `Recordings may last up to ${model.max_seconds} s and stay in the memory of this server.`;
}

function listen() {
  const reason = canRecord();
  for (const button of document.querySelectorAll(".record")) {
    button.disabled = Boolean(reason);
    button.title = reason;
    button.addEventListener("click", () => record(button));
  }
  for (const input of document.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      if (input.files.length) send(input.dataset.for, input.files[0], input.files[0].name);
    });
    input.addEventListener("click", () => { input.value = ""; }); // the same file may be chosen again
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (file) send(event.target.closest("#reference") ? "reference" : "source", file, file.name);
  });
  $("request").addEventListener("input", refresh);
  $("request").addEventListener("change", refresh);
  $("request").addEventListener("submit", speak);
  if (reason) $("source-status").textContent = reason;
}

async function start() {
  try {
    model = await ask("api/model");
    offer();
    refresh();
    listen();
  } catch (error) {
    problem(error.message);
  }
}

start();
