"use strict";

// Live conversion: microphone, WebSocket and loudspeaker. Uses $, problem and conversionRequest of play.js.
const live = { context: null, microphone: null, socket: null, delay: 0, peak: 0, received: 0 };

function liveSettings() {
  const { voice, reference, speaker, pitch } = conversionRequest();
  return JSON.stringify({ voice, reference, speaker, pitch, ...tokens(), sample_rate: live.context.sampleRate });
}

async function startLive() {
  problem("");
  live.context = new AudioContext({ latencyHint: "interactive" });
  Object.assign(live, { delay: 0, peak: 0, received: 0 });
  try {
    const settings = liveSettings();
    const audio = { echoCancellation: true, channelCount: 1 };
    live.microphone = await navigator.mediaDevices.getUserMedia({ audio });
    await live.context.audioWorklet.addModule("live-worklet.js");
    const node = new AudioWorkletNode(live.context, "live");
    live.context.createMediaStreamSource(live.microphone).connect(node);
    node.connect(live.context.destination);
    connectLive(node, settings);
  } catch (error) {
    endLive();
    problem(error.name === "NotFoundError" || error.name === "NotAllowedError"
      ? `The microphone cannot be used: ${error.message}.` : error.message);
    return;
  }
  $("live").textContent = "Stop";
  $("live").setAttribute("aria-pressed", "true");
  $("live-status").textContent = "connecting …";
}

function connectLive(node, settings) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
  socket.binaryType = "arraybuffer";
  live.socket = socket;
  socket.onopen = () => socket.send(settings);
  socket.onmessage = (event) => {
    if (typeof event.data !== "string") {
      const samples = new Float32Array(event.data);
      live.received += samples.length;
      return node.port.postMessage(samples);
    }
    const said = JSON.parse(event.data);
    if (said.error) problem(said.error);
    if (said.delay) live.delay = said.delay;
  };
  socket.onclose = () => {
    if (live.socket !== socket) return;
    if (!live.delay && $("problem").hidden) problem("The server takes no live conversion: is another one running?");
    endLive();
  };
  node.port.onmessage = (event) => {
    if (live.socket !== socket || socket.readyState !== WebSocket.OPEN) return;
    const { samples, captured, played, peak } = event.data;
    socket.send(samples); // the browser keeps what the server cannot take yet
    live.peak = peak;
    const late = (captured - played) / live.context.sampleRate;
    const behind = late - live.delay;
    $("live-status").textContent = `speaking, heard ${late.toFixed(2)} s later`
      + (live.received && behind > 1 ? `; the computer is too slow, and ${behind.toFixed(1)} s of audio are waiting` : "");
  };
}

function endLive() {
  const { context, microphone, socket } = live;
  Object.assign(live, { context: null, microphone: null, socket: null });
  if (socket && socket.readyState === WebSocket.OPEN) socket.close(1000);
  if (microphone) microphone.getTracks().forEach((track) => track.stop());
  if (context) context.close();
  $("live").textContent = "Speak live";
  $("live").setAttribute("aria-pressed", "false");
  $("live-status").textContent = "";
}

function changeLive() {
  if (!live.socket || live.socket.readyState !== WebSocket.OPEN) return;
  try {
    live.socket.send(liveSettings());
  } catch (error) {
    problem(error.message);
  }
}

const reason = canRecord() || (window.AudioWorkletNode ? "" : "This browser has no AudioWorklet.");
$("live").disabled = Boolean(reason);
$("live").title = reason;
$("live").addEventListener("click", () => (live.context ? endLive() : startLive()));
$("request").addEventListener("change", changeLive);
