"""What every unit vocoder shares as a fairseq model: the streams, the duration predictor, the checkpoint."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.duration_predictor import DurationPredictor, duration_loss, find_runs
from fairseq_resynth.modules.unit_generator import UnitGenerator

SPEAKER_OF_DURATIONS = "unit_generator.duration_predictor.speaker.weight"


@dataclass
class UnitVocoderConfig(FairseqDataclass):
    """Sizes that do not depend on the waveform generator; the defaults are the paper's."""

    embedding_dim: int = field(
        default=128, metadata={"help": "channels of each embedded stream (units, pitch, speaker)"}
    )
    duration_predictor: bool = field(
        default=False,
        metadata={"help": "also learn how long each unit lasts, to speak units without repeats"},
    )
    duration_hidden_dim: int = field(
        default=128, metadata={"help": "channels of the duration predictor's convolutions"}
    )
    duration_kernel_size: int = field(
        default=3, metadata={"help": "kernel size of the duration predictor's convolutions"}
    )
    duration_dropout: float = field(
        default=0.5, metadata={"help": "dropout of the duration predictor"}
    )
    duration_condition: str = field(
        default="speaker",
        metadata={
            "help": "what the predicted durations depend on beside the units: speaker (if the data has a "
            "speaker stream) or none"
        },
    )


def other_sizes(config: type, name: str, **sizes: int) -> type:
    """Returns a configuration with other defaults.

    fairseq's presets of an architecture are for its old command line: hydra would pass over them in silence.

    Args:
        config: dataclass of a model.
        name: of the new dataclass.
        sizes: the fields' new defaults.
    """
    fields = {found.name: found for found in dataclasses.fields(config)}
    changed = [
        (key, fields[key].type, field(default=size, metadata=fields[key].metadata))
        for key, size in sizes.items()
    ]
    namespace = {"__module__": config.__module__}  # where a pickled configuration is looked for
    return dataclasses.make_dataclass(name, changed, bases=(config,), namespace=namespace)


def build_unit_generator(
    cfg: UnitVocoderConfig, streams: StreamSpec, make_generator: Callable[[int], nn.Module]
) -> UnitGenerator:
    """Puts the streams' embeddings before a waveform generator.

    Args:
        cfg: sizes.
        streams: to be trained on.
        make_generator: channels of a frame to the generator.

    Raises:
        ValueError: sizes that do not fit each other or the streams.
    """
    tables: Dict[str, Any] = {
        "num_f0_codes": streams.num_f0_codes,
        "f0_channels": streams.f0_channels,
        "num_speakers": 0 if streams.speaker_dim else len(streams.speakers),
        "speaker_dim": streams.speaker_dim,
        "num_styles": len(streams.styles),
    }
    channels = UnitGenerator.frame_channels(**tables, embedding_dim=cfg.embedding_dim)
    return UnitGenerator(
        make_generator(channels),
        streams.num_units,
        streams.unit_hop,
        f0_code_hop=streams.f0_code_hop,
        embedding_dim=cfg.embedding_dim,
        duration_predictor=_duration_predictor(cfg, streams),
        **tables,
    )


def with_duration_condition(sizes: Dict[str, Any], weights: Iterable[str]) -> Dict[str, Any]:
    """Returns a model's sizes with what its weights say: models were trained before there was the option."""
    voiced = any(name.endswith(SPEAKER_OF_DURATIONS.partition(".")[2]) for name in weights)
    return {**sizes, "duration_condition": "speaker" if voiced else "none"}


def _duration_predictor(cfg: UnitVocoderConfig, streams: StreamSpec) -> Optional[DurationPredictor]:
    if cfg.duration_condition not in ("speaker", "none"):
        raise ValueError(
            f"--duration-condition is {cfg.duration_condition!r}, expected speaker or none."
        )
    if not cfg.duration_predictor:
        return None
    voiced = cfg.duration_condition == "speaker" and (streams.speakers or streams.speaker_dim)
    return DurationPredictor(
        cfg.embedding_dim,
        cfg.duration_hidden_dim,
        cfg.duration_kernel_size,
        cfg.duration_dropout,
        cfg.embedding_dim if voiced else 0,
    )


class UnitVocoder(BaseFairseqModel):
    """fairseq's wrapper of `UnitGenerator`: a checkpoint's `model` holds its weights and nothing else."""

    def __init__(self, unit_generator: UnitGenerator):
        super().__init__()
        self.unit_generator = unit_generator

    def forward(
        self,
        units: Tensor,
        f0_codes: Optional[Tensor] = None,
        speaker: Optional[Tensor] = None,
        unit_lengths: Optional[Tensor] = None,
        f0: Optional[Tensor] = None,
        style: Optional[Tensor] = None,
        source_f0: Optional[Tensor] = None,
    ) -> Tensor:
        """Generates (B, 1, T); see `UnitGenerator.forward`."""
        return self.unit_generator(units, f0_codes, speaker, f0, unit_lengths, style, source_f0)

    @property
    def takes_source_f0(self) -> bool:
        """Whether the generator's pulses have an F0 of their own, to be learnt from recordings."""
        return getattr(self.unit_generator.generator, "takes_source_f0", False)

    def upgrade_state_dict_named(self, state_dict: Dict[str, Tensor], name: str) -> None:
        """Resumes a run whose durations did not depend on the speaker as it was begun."""
        super().upgrade_state_dict_named(state_dict, name)
        key = f"{name}.{SPEAKER_OF_DURATIONS}" if name else SPEAKER_OF_DURATIONS
        if self.unit_generator.durations_need_speaker and key not in state_dict:
            self.unit_generator.duration_predictor.speaker = None

    def duration_loss(
        self,
        units: Tensor,
        unit_lengths: Optional[Tensor] = None,
        speaker: Optional[Tensor] = None,
    ) -> Optional[Tensor]:
        """Returns the duration predictor's loss on (B, U) units of crops, None without a predictor."""
        if self.unit_generator.duration_predictor is None:
            return None
        collapsed, counts, num_runs = find_runs(units, unit_lengths)
        log_counts = self.unit_generator.log_durations(collapsed, num_runs, speaker)
        return duration_loss(log_counts, counts, num_runs)

    def auxiliary_losses(self, net_input: Dict[str, Any]) -> Dict[str, Tensor]:
        """Returns {"duration"} for a model with a duration predictor, {"pitch"} for one with pulses."""
        terms = {}
        loss = self.duration_loss(
            net_input["units"], net_input.get("unit_lengths"), net_input.get("speaker")
        )
        if loss is not None:
            terms["duration"] = loss
        if net_input.get("source_f0") is not None:
            streams = {name: value for name, value in net_input.items() if name != "source_f0"}
            frames, lengths = self.unit_generator.frames(**streams)
            generator = self.unit_generator.generator
            terms["pitch"] = generator.pitch_loss(frames, net_input["source_f0"], lengths)
        return terms

    def prepare_for_inference_(self, cfg) -> None:
        """Folds weight norm away; fairseq-generate calls this."""
        self.eval()
        self.unit_generator.generator.remove_weight_norm()
