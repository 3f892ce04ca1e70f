"""Bits saved on anyone's tokens: the codec's context models beside fixed length, zlib and xz.

usage: python benchmarks/token_streams.py [--codes FILE …] [--network 256] [--voices english …]

Every other utterance, from the first on, is fitted on, and the rest coded, decoded and compared. FILE are
unit files, such as the released HuBERT codes. From the embedded speech come units (k-means on log-mel frames)
and the codes of a residual quantizer (four k-means, each on what the ones before left over), as neural codecs
have them; these also with a context model for each codebook alone.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.codec.entropy.fitting import TrainingOptions, default_updates
from fairseq_resynth.codec.tokens import Tokens, fit_token_model, read_tokens, vocabularies
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.encoders.frames import LogMelEncoder
from fairseq_resynth.evaluation.codecs.bench import run_token_bench
from fairseq_resynth.preparation.kmeans import fit_centroids

SPEECH = Path(__file__).resolve().parents[1] / "examples/asterisk/speech"
CODEBOOKS, RVQ_SIZE = 4, 64


def speech_features(voices: list[str]) -> list[np.ndarray]:
    """(T, D) log-mel frames of each embedded recording of some voices."""
    encoder, paths = (
        LogMelEncoder(),
        [p for v in voices for p in sorted((SPEECH / v).glob("*.flac"))],
    )
    wavs = [torch.from_numpy(read_audio(path)) for path in paths]
    return [encoder.features([wav])[0].numpy() for wav in wavs]


def residual_codes(rows: list[np.ndarray], size: int, codebooks: int) -> list[Tokens]:
    """The codes of a residual quantizer with so many codebooks of `size` centroids, of (T, D) frames."""
    left, codes = np.concatenate(rows), []
    for _ in range(codebooks):
        shuffled = np.random.default_rng(0).permutation(left)
        centroids, _ = fit_centroids(shuffled, size, seed=0)
        nearest = [torch.cdist(part, torch.from_numpy(centroids)).argmin(1)
                   for part in torch.from_numpy(left).split(4096)]  # fmt: skip
        codes.append(torch.cat(nearest).numpy())
        left = left - centroids[codes[-1]]
    ends = np.cumsum([len(row) for row in rows])[:-1]
    parts = np.split(np.stack(codes, axis=1), ends)
    return [Tokens(f"speech {number}", part) for number, part in enumerate(parts)]


def measure(label: str, tokens: list[Tokens], network: int) -> dict:
    """Fits on every other utterance, codes the rest, and prints a line of the table."""
    fitted, tested = tokens[::2], tokens[1::2]
    codebooks = tokens[0].frames.shape[1]
    start = time.process_time()
    options = TrainingOptions(hidden_size=network, updates=default_updates(len(fitted)))
    model = fit_token_model(fitted, vocabularies(tokens, codebooks), options)
    fitting = time.process_time() - start
    found, _ = run_token_bench(model, tested)
    stored = [found[f"{name}_bits_per_frame"] for name in ("fixed", "zlib", "zlib_all", "xz_all")]
    sizes = " + ".join(map(str, found["vocabularies"]))
    figures = [*(f"{size:.2f}" for size in stored), f"**{found['bits_per_frame']:.2f}**"]
    cells = [label, sizes, str(found["frames"]), *figures, f"{found['saved_of_fixed']:.0%}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    print(f"<!-- by codebook {found['bits_by_codebook']}, fitted in {fitting:.0f} s, "
          f"{found['coded_and_decoded_frames_per_second']} frames/s both ways -->", flush=True)  # fmt: skip
    return found


def main() -> None:
    """Prints the table in bits per frame."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codes", nargs="*", default=[], metavar="FILE", help="unit files")
    parser.add_argument("--network", type=int, default=256, help="size of the network; 0: none")
    voices = sorted(path.name for path in SPEECH.iterdir() if path.is_dir())
    parser.add_argument(
        "--voices", nargs="*", default=voices, help="of the speech; none: only CODES"
    )
    args = parser.parse_args()
    print(
        "| tokens | vocabulary | frames | fixed | zlib each | zlib all | xz all | codec | saved |"
    )
    print("|---|---|" + "---:|" * 7)
    for path in args.codes:
        measure(Path(path).stem, read_tokens(path), args.network)
    if not args.voices:
        return
    rows = speech_features(args.voices)
    measure("log-mel units", residual_codes(rows, 100, 1), args.network)
    codes = residual_codes(rows, RVQ_SIZE, CODEBOOKS)
    together = measure("residual quantizer", codes, args.network)
    alone = 0.0
    for codebook in range(CODEBOOKS):
        part = [Tokens(one.name, one.frames[:, [codebook]]) for one in codes]
        found = measure(f"its codebook {codebook} alone", part, args.network)
        alone += found["bits_by_codebook"][0]
    print(f"each codebook alone {alone:.2f}, together {sum(together['bits_by_codebook']):.2f}")


if __name__ == "__main__":
    main()
