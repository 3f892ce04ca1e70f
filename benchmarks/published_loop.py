"""The published GAN loop in plain torch, as its best living implementation runs it: updates per second.

    python benchmarks/published_loop.py [--arms eager compiled] [--batch 16] [--precision bfloat16]
        [--seconds 10] [--tiny] [--json FILE]

The paper's generator and discriminators, two fused AdamW, cudnn.benchmark, autocast, on the GPU where there
is one. An update is the published order: the discriminators learn from real and detached generated speech in
two passes, then the generator from two more (mel distance, feature matching and adversarial loss). Nothing is
frozen, shared or captured. It stands for the loop of unit-hifigan, written from its description; compare
`benchmarks/training_step.py`, whose networks are the same. Wall-clock time after warming up; `first_seconds`
is the first update, with the compiling.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules import losses
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.discriminators.families import build_discriminators

STREAMS = StreamSpec(320, 100, 1280, 20, speakers=tuple(f"speaker{n}" for n in range(10)))
TINY_SIZES = {
    "embedding_dim": 8,
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": "3",
    "resblock_dilation_sizes": "1,3",
}
SETTINGS: dict[str, Any] = {"lr": 2e-4, "betas": (0.8, 0.99), "weight_decay": 0.01}
WARM_UP = 3  # updates after the first


class PublishedLoop:
    """The networks, their two optimizers, and one update of both.

    `compiled` compiles the two networks and the mel spectrogram, each for one shape.
    """

    def __init__(self, device: torch.device, precision: str, compiled: bool, tiny: bool):
        torch.manual_seed(0)
        sizes = UnitHifiganSizes(**(TINY_SIZES if tiny else {}))
        self.generator: nn.Module = build_vocoder(sizes, STREAMS).to(device).train()
        self.discriminators: nn.Module = build_discriminators(width=1 / 16 if tiny else 1.0)
        self.discriminators.to(device).train()
        self.log_mel: nn.Module = losses.LogMelSpectrogram().to(device)
        fused = {"fused": True} if device.type == "cuda" else {}
        self.steps = [
            torch.optim.AdamW(network.parameters(), **SETTINGS, **fused)
            for network in (self.generator, self.discriminators)
        ]
        if compiled:
            for network in (self.generator, self.discriminators, self.log_mel):
                network.compile(dynamic=False)
        enabled = precision == "bfloat16"
        self.autocast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    def update(self, inputs: dict[str, torch.Tensor], real: torch.Tensor) -> torch.Tensor:
        """One update of both networks on (B, 1, T) recordings; returns the generator's loss."""
        step_g, step_d = self.steps
        with self.autocast():
            fake = self.generator(**inputs)
            real_scores, _ = self.discriminators(real)
            fake_scores, _ = self.discriminators(fake.detach())
            loss_d = losses.discriminator_loss(real_scores, fake_scores)
        step_d.zero_grad(set_to_none=True)
        loss_d.backward()
        step_d.step()
        with self.autocast():
            mel = losses.mel_l1(self.log_mel(real), self.log_mel(fake))
            _, real_maps = self.discriminators(real)
            fake_scores, fake_maps = self.discriminators(fake)
            matching = losses.feature_matching_loss(real_maps, fake_maps)
            loss_g = 45 * mel + 2 * matching + losses.generator_loss(fake_scores)
        step_g.zero_grad(set_to_none=True)
        loss_g.backward()
        step_g.step()
        return loss_g.detach()


def random_batch(size: int, segment: int, device: torch.device) -> tuple[dict[str, Any], Any]:
    """Random streams and noise: the inputs of the generator, and (B, 1, T) samples."""
    generator = torch.Generator().manual_seed(1)

    def integers(limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(limit, shape, generator=generator).to(device)

    inputs = {
        "units": integers(STREAMS.num_units, size, segment // STREAMS.unit_hop),
        "f0_codes": integers(STREAMS.num_f0_codes, size, segment // STREAMS.f0_code_hop),
        "speaker": integers(len(STREAMS.speakers), size),
    }
    return inputs, 0.1 * torch.randn(size, 1, segment, generator=generator).to(device)


def measure(arm: str, batch: int, precision: str, seconds: float, tiny: bool) -> dict[str, Any]:
    """Updates for so many seconds after warming up, and what they took."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    segment = 2560 if tiny else 8960
    loop = PublishedLoop(device, precision, arm == "compiled", tiny)
    inputs, real = random_batch(batch, segment, device)
    start = time.perf_counter()
    first_loss = loop.update(inputs, real).item()
    first = time.perf_counter() - start
    for _ in range(WARM_UP):
        loss = loop.update(inputs, real).item()
    start, updates = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(1 if device.type == "cpu" else 10):
            loss = loop.update(inputs, real)
            updates += 1
        loss.item()  # waits for the device
    elapsed = time.perf_counter() - start
    cuda = device.type == "cuda"
    return {
        "loop": "published",
        "arm": arm,
        "precision": precision,
        "batch": batch,
        "segment": segment,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "updates_per_second": updates / elapsed,
        "crops_per_second": updates * batch / elapsed,
        "milliseconds_per_update": 1000 * elapsed / updates,
        "first_seconds": first,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "first_loss": first_loss,
        "last_loss": float(loss),
    }


def main() -> None:
    """Prints one line per arm and batch size, as JSON too."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--arms", nargs="+", choices=("eager", "compiled"), default=["eager"])
    add("--batch", type=int, nargs="+", default=[16], help="crops per update")
    add("--precision", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16"])
    add("--seconds", type=float, default=10, help="to measure per arm, after warming up")
    add("--tiny", action="store_true", help="tiny networks and crops, to see that it runs")
    add("--json", type=Path, metavar="FILE", help="also write the rows there, after each")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for arm in args.arms:
        for batch in args.batch:
            for precision in args.precision:
                rows.append(measure(arm, batch, precision, args.seconds, args.tiny))
                print(json.dumps(rows[-1]), flush=True)
                if args.json:
                    args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
