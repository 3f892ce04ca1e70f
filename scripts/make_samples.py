"""Writes the page of samples, docs/samples.md, and its audio, docs/samples/*.flac.

usage: python scripts/make_samples.py [--outdir docs] [--number 6]

Takes the streams of held-out prompts in examples/asterisk/held_out and the bundle beside it, so that no
weights of a content encoder are needed; Opus comes with PyAV, Codec2 by `apt-get install codec2`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio, write_audio
from fairseq_resynth.data.storage.files import write_text
from fairseq_resynth.evaluation.codecs.baselines import codec2, opus
from fairseq_resynth.inference.synthesis import Job, read_jobs

ASTERISK = Path(__file__).resolve().parents[1] / "examples" / "asterisk"
# The held-out prompts on the page, and the voice that each is also said in.
PROMPTS = {
    "english/demo-enterkeywords": "russian",
    "french/vm-reenterpassword": "english",
    "italian/vm-review-nonurgent": "french",
    "russian/confbridge-lock-out": "spanish",
    "french/confbridge-lock-out": "italian",
    "english/truncating_audio": "spanish",
}
HEAD = """# Samples

Listen to what the streams keep, and to what changing one of them does.

Six prompts that the bundle in `examples/asterisk` never heard in training (3.5 million parameters,
trained for 91 minutes on one core). Each is a recording; the speech made from its units, pitch codes
and speaker; the same with another speaker or other pitch codes; and, for comparison, two codecs that
keep the waveform or its spectrum. The bits per second are those of the whole `.rsyn` file with header
and checksum, of Opus' packets and of Codec2's file, in which a frame of 28 bits takes 4 bytes. The
recordings are Asterisk's prompts (CC BY-SA 3.0 and CC BY 3.0; the attribution is in
`examples/asterisk/speech/ATTRIBUTION.md`), and what is made from them has the same license. `python
scripts/make_samples.py` makes this page.
"""


def versions(codec: SpeechCodec, job: Job, target: str) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yields the label of each version of an utterance, its rate in bit/s, and its (T,) samples."""
    recording = read_audio(job.reference)
    seconds = len(recording) / SAMPLE_RATE
    coded = codec.pack(job.speech)
    rate = 8 * len(coded) / seconds
    yield "recording", 16 * SAMPLE_RATE, recording
    yield "resynthesis", rate, codec.decode(coded)
    yield f"another voice: {target}", rate, codec.decode(coded, speaker=target)
    yield "three semitones up", rate, codec.decode(coded, pitch="shift=+3st")
    yield "flattened", rate, codec.decode(coded, pitch="flatten")
    wav, _, packets = opus(recording, 6)
    yield "Opus at 6 kbit/s", 8 * packets / seconds, wav
    wav, size, _ = codec2(recording, 700)
    yield "Codec2 at 700 bit/s", 8 * size / seconds, wav


def section(codec: SpeechCodec, job: Job, outdir: Path) -> str:
    """Writes the audio of an utterance; returns its part of the page, in Markdown."""
    lines = [
        f"\n## {job.name}, {job.speech.num_samples / SAMPLE_RATE:.1f} s\n",
        "| version | bits per second | listen |",
        "|---|---:|---|",
    ]
    for number, (label, rate, wav) in enumerate(versions(codec, job, PROMPTS[job.name])):
        file = f"samples/{job.name.replace('/', '_')}_{number}.flac"
        (outdir / file).parent.mkdir(parents=True, exist_ok=True)
        write_audio(outdir / file, wav)
        player = f'<audio controls preload="none" src="{file}"><a href="{file}">flac</a></audio>'
        lines.append(f"| {label} | {rate:,.0f} | {player} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the page and its audio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outdir", type=Path, default=ASTERISK.parents[1] / "docs")
    parser.add_argument("--number", type=int, default=len(PROMPTS), help="only the first prompts")
    args = parser.parse_args()
    codec = SpeechCodec.from_pretrained(ASTERISK / "bundle", decode_only=True)
    jobs = {job.name: job for job in read_jobs(ASTERISK / "held_out", codec.resynthesizer.streams)}
    sections = [section(codec, jobs[name], args.outdir) for name in list(PROMPTS)[: args.number]]
    write_text(args.outdir / "samples.md", HEAD + "".join(sections))


if __name__ == "__main__":
    main()
