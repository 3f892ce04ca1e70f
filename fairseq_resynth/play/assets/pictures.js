"use strict";
// A recording or a result: player, spectrogram with F0, units, bits per second.

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Runs of a unit: [unit, start, count]
function runsOf(units) {
  const runs = [];
  units.forEach((unit, place) => {
    const last = runs[runs.length - 1];
    if (last && last[0] === unit) last[2] += 1;
    else runs.push([unit, place, 1]);
  });
  return runs;
}

function drawUnits(canvas, units) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  if (!width) return;
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const [unit, start, count] of runsOf(units)) {
    const [left, wide] = [(start / units.length) * width, (count / units.length) * width];
    // Units with adjacent numbers get hues a golden angle apart.
    pen.fillStyle = `hsl(${(unit * 137.508) % 360} 60% 72%)`;
    pen.fillRect(left, 0, Math.max(wide - scale, scale * 0.5), height);
    if (pen.measureText(unit).width + 4 * scale < wide) {
      pen.fillStyle = "#111";
      pen.fillText(unit, left + 3 * scale, height / 2);
    }
  }
}

function overTime(shown, name) {
  const picture = element("img", { src: shown.spectrogram, alt: `Spectrogram of ${name}, its pitch as a line` });
  const head = element("div", { className: "playhead", hidden: true });
  const place = element("div", { className: "over-time" }, picture, head);
  if (shown.units) {
    const strip = element("canvas", {});
    strip.setAttribute("role", "img");
    strip.setAttribute("aria-label", `Units of ${name}, listed below`);
    place.append(strip);
    new ResizeObserver(() => drawUnits(strip, shown.units)).observe(strip);
  }
  return [place, head];
}

function player(shown, name, place, head) {
  const audio = element("audio", { controls: true, src: shown.audio, preload: "auto" });
  audio.setAttribute("aria-label", name);
  audio.addEventListener("timeupdate", () => {
    head.hidden = audio.currentTime === 0;
    head.style.left = `${(100 * audio.currentTime) / audio.duration}%`;
  });
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
  place.addEventListener("click", (event) => {
    const box = place.getBoundingClientRect();
    audio.currentTime = (audio.duration * (event.clientX - box.left)) / box.width;
  });
  return audio;
}

function bitsText(bits) {
  const named = (rates) => Object.entries(rates).filter(([name, rate]) => name !== "total" && rate >= 0.5)
    .map(([name, rate]) => `${name} ${Math.round(rate)}`).join(", ");
  const sum = Object.values(bits.fixed).reduce((a, b) => a + b, 0);
  const fixed = `${Math.round(sum)} bit/s at a fixed length per code (${named(bits.fixed)})`;
  const coded = bits.coded ? `${Math.round(bits.coded.total)} bit/s as a coded file of ${bits.bytes} bytes (${named(bits.coded)}), ` : "";
  const left = bits.continuous ? "; continuous pitch is not counted" : "";
  return `Bit rate: ${coded}${fixed}${left}. The waveform has ${bits.pcm} bit/s.`;
}

function facts(shown) {
  const length = `${shown.seconds.toFixed(2)} s, `;
  if (!shown.f0_mean) return `${length}no voiced sound.`;
  return `${length}${Math.round(100 * shown.voiced_share)} % voiced, with a pitch of ${Math.round(shown.f0_mean)} Hz on average. `
    + "The line is the pitch, from 50 Hz at the bottom to 600 Hz at the top.";
}

// One article; `shown` is the server's answer about a recording or a result.
function sound(shown, name, id) {
  const [place, head] = overTime(shown, name);
  const made = element("article", { className: "result", id },
    element("h2", { textContent: name }), place, player(shown, name, place, head),
    element("p", { className: "facts", textContent: facts(shown) }));
  made.shown = shown;
  for (const note of shown.notes || []) made.append(element("p", { className: "note", textContent: note }));
  if (shown.units) {
    const runs = runsOf(shown.units);
    made.append(element("p", { className: "bits", textContent: bitsText(shown.bits) }));
    made.append(element("p", {}, element("a", { href: shown.audio, download: "result.flac", textContent: "Save as FLAC" })));
    const list = runs.map(([unit, , count]) => (count > 1 ? `${unit}×${count}` : unit)).join(" ");
    made.append(element("details", {},
      element("summary", { textContent: `${shown.units.length} units in ${runs.length} runs` }),
      element("p", { className: "numbers", textContent: list })));
  }
  return made;
}

// Recordings of different lengths share one time scale.
function sameScale(articles) {
  const longest = Math.max(...articles.map((article) => article.shown.seconds));
  for (const article of articles) {
    article.querySelector(".over-time").style.width = `${(100 * article.shown.seconds) / longest}%`;
  }
}
