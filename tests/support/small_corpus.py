"""Small data directories and the command lines that the tests train with."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).resolve().parents[2]
SPEECH = REPOSITORY / "examples" / "asterisk" / "speech"
PLUGIN = REPOSITORY / "fairseq_resynth"

# A generator and discriminators small enough for a training step in milliseconds.
TINY_MODEL = (
    "--arch unit_hifigan --embedding-dim 8 --upsample-initial-channel 32 "
    "--resblock-kernel-sizes 3 --resblock-dilation-sizes 1,3"
).split()
TINY_CRITERION = ["--criterion", "hifigan", "--discriminator-width", "0.0625"]
ADAM = "--optimizer adam --adam-betas (0.8,0.99) --weight-decay 0.01 --lr 2e-4 --lr-scheduler fixed".split()

# HuBERT as small as possible with the convolutions of mHuBERT-25: HuBERT's seven and one more of stride 2,
# which together stride by 640.
MHUBERT = {
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2, 2],
    "conv_dim": [8] * 8,
    "num_feat_extract_layers": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def run(program: str, *arguments, check: bool = True, **kwargs) -> subprocess.CompletedProcess:
    """Runs an installed command; a failure shows its output."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **kwargs)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}")
    return done


def fairseq_train(*arguments, check: bool = True) -> subprocess.CompletedProcess:
    """As `run("fairseq-train", …)`, in this process, which saves the seconds that fairseq takes to start.

    All that is logged and printed is in `stdout`; a failure raises, or is in `stderr` without `check`.
    """
    from fairseq import checkpoint_utils, options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli.train import main

    import fairseq_resynth.tasks  # noqa: F401  registers the plugin

    words = list(map(str, arguments))
    log, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(log), root.level
    # fairseq remembers the best score of a process
    checkpoint_utils.save_checkpoint.__dict__.pop("best", None)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(log):
            parsed = options.parse_args_and_arch(options.get_training_parser(), words)
            main(convert_namespace_to_omegaconf(parsed))
    except Exception:
        if check:
            raise
        return subprocess.CompletedProcess(words, 1, log.getvalue(), traceback.format_exc())
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return subprocess.CompletedProcess(words, 0, log.getvalue(), "")


def write_data(
    folder: Path,
    lengths: dict[str, list[int]],
    unit_hop: int = 320,
    num_units: int = 10,
    num_f0_codes: int = 5,
    speakers: tuple[str, ...] = ("anna", "boris"),
    seed: int = 0,
) -> Path:
    """Writes a data directory of noise with random streams: {split: [samples of each utterance]}."""
    rng = np.random.default_rng(seed)
    (folder / "wav").mkdir(parents=True)
    for split, samples in lengths.items():
        rows = {"tsv": [str(folder / "wav")], "units": [], "f0": [], "speaker": []}
        for index, count in enumerate(samples):
            name = f"{split}_{index}.wav"
            wav = 0.1 * rng.standard_normal(count)
            soundfile.write(folder / "wav" / name, wav, 16000, subtype="PCM_16")
            rows["tsv"].append(f"{name}\t{count}")
            rows["units"].append(
                " ".join(map(str, rng.integers(num_units, size=count // unit_hop)))
            )
            codes = rng.integers(num_f0_codes or 1, size=-(-count // 1280))
            rows["f0"].append(" ".join(map(str, codes)))
            rows["speaker"].append(speakers[index % len(speakers)] if speakers else "")
        for suffix, lines in rows.items():
            if (suffix == "f0" and not num_f0_codes) or (suffix == "speaker" and not speakers):
                continue
            (folder / f"{split}.{suffix}").write_text("\n".join(lines) + "\n")
    units = {
        "feature_type": "test",
        "num_clusters": num_units,
        "unit_hop": unit_hop,
        "kmeans_hash": "k",
    }
    (folder / "units.json").write_text(json.dumps(units))
    if num_f0_codes:
        codes = {"num_codes": num_f0_codes, "f0_code_hop": 1280, "vqvae_hash": "v"}
        (folder / "f0_codes.json").write_text(json.dumps(codes))
    return folder


def train_arguments(data: Path, save_dir: Path, *extra) -> list[str]:
    """Arguments of fairseq-train for a tiny unit vocoder on the CPU; without --eval-audio, which is slow."""
    return [
        str(data), "--user-dir", str(PLUGIN), "--task", "unit_resynthesis", *TINY_MODEL,
        *TINY_CRITERION, *ADAM, "--cpu", "--batch-size", "2", "--required-batch-size-multiple", "1",
        "--segment-size", "2560", "--num-workers", "0", "--save-dir", str(save_dir),
        "--log-format", "json", "--no-progress-bar", "--seed", "3", "--eval-audio", "0",
        *map(str, extra),
    ]  # fmt: skip


def write_f0_data(folder: Path, lengths: dict[str, list[int]], seed: int = 0, **streams) -> Path:
    """Writes a data directory with an F0 cache of random contours: {split: [samples]}; the rest as for
    `write_data`."""
    from fairseq_resynth.data.manifest import read_manifest
    from fairseq_resynth.data.pitch.extraction import F0Options
    from fairseq_resynth.data.storage.files import write_json
    from fairseq_resynth.preparation.f0 import f0_key, write_speaker_statistics

    write_data(folder, lengths, seed=seed, **streams)
    rng = np.random.default_rng(seed)
    (folder / "f0").mkdir()
    for split, samples in lengths.items():
        rows = []
        for count in samples:
            frames = -(-count // 80)
            contour = 150 + 40 * np.sin(np.arange(frames) / 20 + rng.uniform(0, 6))
            contour[: frames // 5] = 0
            rows.append(contour)
        np.save(folder / "f0" / f"{split}.npy", np.concatenate(rows).astype(np.float32))
        key = f0_key(read_manifest(folder / f"{split}.tsv"), F0Options())
        write_json(folder / "f0" / f"{split}.json", key)
    write_speaker_statistics(folder, list(lengths))
    return folder


def f0_arguments(data: Path, save_dir: Path, *extra) -> list[str]:
    """Arguments of fairseq-train for a small F0 quantizer on the CPU."""
    return [
        str(data), "--user-dir", str(PLUGIN), "--task", "f0_quantization", "--arch", "f0_vqvae",
        "--criterion", "f0_vqvae", "--width", "8", "--code-dim", "8", *ADAM, "--cpu",
        "--batch-size", "2", "--segment-size", "6400", "--num-workers", "0", "--save-dir",
        str(save_dir), "--log-format", "json", "--no-progress-bar", "--seed", "3", *map(str, extra),
    ]  # fmt: skip


def assert_same(one, two, where=""):
    """Two checkpoints, or parts of them, are equal bit for bit; `where` is named if they are not."""
    import torch

    if torch.is_tensor(one):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for index, pair in enumerate(zip(one, two, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert one == two, where
