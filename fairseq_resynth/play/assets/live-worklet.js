"use strict";

// Passes the microphone on in messages of 20 ms, and plays what comes back, in order and without a gap of its own.
class LiveProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.heard = new Float32Array(Math.round(sampleRate / 50));
    this.filled = 0;
    this.pieces = []; // of the result
    this.position = 0; // in the first piece
    this.captured = 0; // samples
    this.played = 0;
    this.peak = 0;
    this.port.onmessage = (event) => this.pieces.push(event.data);
  }

  process(inputs, outputs) {
    const input = inputs[0][0];
    const output = outputs[0][0];
    if (input) for (const sample of input) this.hear(sample);
    for (let i = 0; i < output.length && this.pieces.length; i += 1) {
      output[i] = this.pieces[0][this.position];
      this.peak = Math.max(this.peak, Math.abs(output[i]));
      this.played += 1;
      this.position += 1;
      if (this.position === this.pieces[0].length) {
        this.pieces.shift();
        this.position = 0;
      }
    }
    for (const channel of outputs[0].slice(1)) channel.set(output);
    return true;
  }

  hear(sample) {
    this.heard[this.filled] = sample;
    this.filled += 1;
    this.captured += 1;
    if (this.filled < this.heard.length) return;
    const { captured, played, peak } = this;
    this.port.postMessage({ samples: this.heard.slice(), captured, played, peak });
    this.filled = 0;
  }
}

registerProcessor("live", LiveProcessor);
