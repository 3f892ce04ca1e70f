"""The unit vocoders as fairseq models: one class for each entry of `modules.architectures.ARCHITECTURES`."""

from dataclasses import field, fields, make_dataclass
from typing import Any, Dict, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor, nn

from fairseq_resynth.modules.architectures import ARCHITECTURES, build_vocoder
from fairseq_resynth.modules.duration_predictor import duration_loss, find_runs
from fairseq_resynth.modules.options import sizes_from
from fairseq_resynth.modules.unit_generator import UnitGenerator

SPEAKER_OF_DURATIONS = "unit_generator.duration_predictor.speaker.weight"


class UnitVocoder(BaseFairseqModel):
    """fairseq's wrapper of `UnitGenerator`: a checkpoint's `model` holds its weights and nothing else."""

    arch = ""

    def __init__(self, unit_generator: UnitGenerator):
        super().__init__()
        self.unit_generator = unit_generator

    @classmethod
    def build_model(cls, cfg, task) -> "UnitVocoder":
        """Builds the model for the streams of a task; raises ValueError as `build_vocoder` does."""
        sizes = sizes_from(ARCHITECTURES[cls.arch].sizes, cfg)
        return cls(build_vocoder(sizes, task.streams))

    def forward(self, units: Tensor, **streams: Optional[Tensor]) -> Tensor:
        """Generates (B, 1, T) samples; the arguments are those of `UnitGenerator.forward`."""
        return self.unit_generator(units, **streams)

    @property
    def waveform_generator(self) -> nn.Module:
        """The network that --compile compiles: frames to samples."""
        return self.unit_generator.generator

    @property
    def unrecordable(self) -> str:
        """Why a step cannot be recorded as a CUDA graph; empty if it can be."""
        if self.unit_generator.duration_predictor is None:
            return ""
        return "--duration-predictor counts the repeats of units on the processor in each step"

    @property
    def takes_source_f0(self) -> bool:
        """Whether the generator predicts F0, for which training needs a separate F0 target."""
        return getattr(self.unit_generator.generator, "takes_source_f0", False)

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """Drops the speaker layer of the durations when resuming a checkpoint without it."""
        super().upgrade_state_dict_named(state_dict, name)
        key = f"{name}.{SPEAKER_OF_DURATIONS}" if name else SPEAKER_OF_DURATIONS
        if self.unit_generator.durations_need_speaker and key not in state_dict:
            self.unit_generator.duration_predictor.speaker = None

    def auxiliary_losses(self, net_input: Dict[str, Any]) -> Dict[str, Tensor]:
        """{"duration"} for a model with a duration predictor, {"pitch"} for one that predicts F0."""
        terms = {}
        if self.unit_generator.duration_predictor is not None:
            units, counts, num_runs = find_runs(net_input["units"], net_input.get("unit_lengths"))
            speaker = net_input.get("speaker")
            log_counts = self.unit_generator.log_durations(units, num_runs, speaker)
            terms["duration"] = duration_loss(log_counts, counts, num_runs)
        if net_input.get("source_f0") is not None:
            streams = {name: value for name, value in net_input.items() if name != "source_f0"}
            frames, lengths = self.unit_generator.frames(**streams)
            generator = self.unit_generator.generator
            terms["pitch"] = generator.pitch_loss(frames, net_input["source_f0"], lengths)
        return terms

    def prepare_for_inference_(self, cfg) -> None:
        """Folds weight norm into the weights; fairseq-generate calls this."""
        self.eval()
        self.unit_generator.generator.remove_weight_norm()


def _register(arch: str) -> None:
    """Registers an architecture: its sizes as a FairseqDataclass, and a class of its own as the model.

    fairseq's own presets (`register_model_architecture`) would be ignored by hydra, so a preset is a
    dataclass with other defaults. Both classes become names of this module, since the processes that fairseq
    spawns unpickle the configuration by name.
    """
    name = arch.title().replace("_", "")
    sizes, defaults = ARCHITECTURES[arch]
    changed = [
        (each.name, each.type, field(default=defaults[each.name], metadata=each.metadata))
        for each in fields(sizes)
        if each.name in defaults
    ]
    namespace, bases = {"__module__": __name__}, (sizes, FairseqDataclass)
    config = make_dataclass(f"{name}Config", changed, bases=bases, namespace=namespace)
    model = type(name, (UnitVocoder,), {**namespace, "arch": arch})
    globals().update({config.__name__: config, name: model})
    register_model(arch, dataclass=config)(model)


for _arch in ARCHITECTURES:
    _register(_arch)
