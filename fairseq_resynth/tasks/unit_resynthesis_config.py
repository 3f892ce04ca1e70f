"""Options of the task `unit_resynthesis`."""

from dataclasses import dataclass, field
from typing import List, Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II


@dataclass
class UnitResynthesisConfig(FairseqDataclass):
    """Data and step of the training; the defaults are the paper's."""

    data: str = field(
        default="",
        metadata={
            "help": "directory with {train,valid,test}.tsv, .units and, if wanted, .f0, .speaker"
        },
    )
    streams: str = field(
        default="auto",
        metadata={
            "help": "streams to train on, some of units,f0,speaker,style; auto: every one that DATA has"
        },
    )
    segment_size: int = field(
        default=8960,
        metadata={"help": "samples of a random crop, a multiple of the streams' hops (1280)"},
    )
    unit_hop: int = field(
        default=0,
        metadata={"help": "samples a unit, for units made elsewhere; 0: as units.json says"},
    )
    num_units: int = field(
        default=0,
        metadata={
            "help": "size of the unit table, for units made elsewhere; 0: as units.json says"
        },
    )
    speaker_input: str = field(
        default="table",
        metadata={
            "help": "table: a row for each speaker; vector: the vectors of `resynth speakers`, which "
            "voices that were never trained on have too"
        },
    )
    speaker_mean_rate: float = field(
        default=0.5,
        metadata={
            "help": "with vectors, how often a crop has its speaker's mean instead of its utterance's "
            "own, so that both work (0 to 1)"
        },
    )
    sample_rate: int = field(default=16000, metadata={"help": "Hz; 16000 is the only rate so far"})
    autocast: str = field(
        default="float32",
        metadata={
            "help": "precision of the forward passes: float32 or bfloat16 (weights stay float32)"
        },
    )
    gan_update: str = field(
        default="alternate",
        metadata={
            "help": "alternate: the discriminators step, then judge again for the generator, as published; "
            "simultaneous: one pass of theirs serves both steps"
        },
    )
    compile: bool = field(
        default=False,
        metadata={
            "help": "train the networks compiled (torch.compile, one size of crop and batch): equal but for "
            "rounding, and worth its minutes of compiling in a long training"
        },
    )
    eval_audio: int = field(
        default=5,
        metadata={
            "help": "utterances of the valid split, spread evenly, whose F0 errors and mel L1 are measured "
            "at each validation (vde, gpe, ffe, log_f0_rmse, log_f0_correlation, mel_l1, for "
            "--best-checkpoint-metric too) and which TensorBoard shows; 0: none"
        },
    )
    wav_format: str = field(
        default="PCM_16",
        metadata={
            "help": "sample format of the wavs that fairseq-generate writes: PCM_16 or FLOAT"
        },
    )
    seed: int = II("common.seed")
    cpu: bool = II("common.cpu")
    results_path: Optional[str] = II("common_eval.results_path")
    tensorboard_logdir: Optional[str] = II("common.tensorboard_logdir")
    update_freq: List[int] = II("optimization.update_freq")
    fp16: bool = II("common.fp16")
    bf16: bool = II("common.bf16")
    amp: bool = II("common.amp")
    memory_efficient_fp16: bool = II("common.memory_efficient_fp16")
    memory_efficient_bf16: bool = II("common.memory_efficient_bf16")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")
    ddp_backend: str = II("distributed_training.ddp_backend")
    zero_sharding: str = II("distributed_training.zero_sharding")
