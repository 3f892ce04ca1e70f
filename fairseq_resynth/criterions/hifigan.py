"""HiFi-GAN's losses; the discriminators are this criterion's parameters."""

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Tuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from fairseq_resynth.modules import losses
from fairseq_resynth.modules.discriminators.base import detach
from fairseq_resynth.modules.discriminators.families import (
    HIFIGAN,
    build_discriminators,
    parse_names,
)
from fairseq_resynth.modules.options import option


@dataclass
class HifiganCriterionConfig(FairseqDataclass):
    """Weights and kinds of the losses; the defaults are the paper's."""

    mel_weight: float = option(45.0, "weight of the mel L1 distance")
    feature_matching_weight: float = option(2.0, "weight of the feature matching loss")
    adversarial_weight: float = option(1.0, "weight of the generator's adversarial loss")
    discriminators: str = option(
        HIFIGAN,
        "families of discriminators, with commas: mpd (periods) and msd (scales) of the paper, mrd "
        "(magnitudes at three resolutions, UnivNet), msstft (complex spectra at five windows, EnCodec), "
        "mbstft (complex spectra in five bands, DAC)",
    )
    discriminator_width: float = option(
        1.0, "factor on the discriminators' channels; 1 is the paper's 70.7 M parameters"
    )
    mel_loss: str = option(
        "single",
        "mel distance to train on: single, the paper's 80 bands, or multi, the mean over seven windows of "
        "32 to 2048 samples with 5 to 320 bands; validation always uses single",
    )
    adversarial_loss: str = option("least-squares", "least-squares, the paper's, or hinge")
    clip_norm_d: float = option(
        0.0, "norm at which the discriminators' gradients are clipped; 0: no clipping"
    )
    duration_weight: float = option(
        1.0, "weight of the duration predictor's loss, with --duration-predictor"
    )
    discriminator_start: int = option(
        0,
        "number of first updates in which the generator trains on the mel distance alone, without "
        "discriminators; 0: none, as in the paper",
    )
    commitment_weight: float = option(0.02, "weight of a content VQ-VAE's commitment loss")
    pitch_weight: float = option(
        1.0,
        "weight of unit_source_filter's F0 loss: the distance in semitones plus the voicing's cross-entropy "
        "in bits",
    )
    sample_rate: int = II("task.sample_rate")
    reset_optimizer: bool = II("checkpoint.reset_optimizer")


FeatureMaps = List[List[Tensor]]
LOGGED = ("loss", "mel", "adv_g", "fm", "loss_d", "gnorm_d", "duration", "commitment", "pitch")


def _choice(name: str, value: str, choices: Dict[str, Any]) -> Any:
    if value not in choices:
        raise ValueError(f"--{name} is {value!r}, expected {' or '.join(choices)}.")
    return choices[value]


def _summed(logs: List[Dict[str, Any]], names: Iterable[str]) -> Dict[str, float]:
    """The sum of each of these names over the logs that have it.

    All tensors leave a GPU in one copy: the only one of a step, and nothing waits for the GPU before it.
    """
    found = [(name, log[name]) for name in names for log in logs if name in log]
    tensors = [value for _, value in found if torch.is_tensor(value)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    totals: Dict[str, float] = {}
    for name, value in found:
        totals[name] = totals.get(name, 0.0) + (next(numbers) if torch.is_tensor(value) else value)
    return totals


@register_criterion("hifigan", dataclass=HifiganCriterionConfig)
class HifiganCriterion(FairseqCriterion):
    """Owns the discriminators, weights the losses and logs them; the task alternates the steps.

    Called as a criterion (in validation) it is the mel L1 distance alone, so that --best-checkpoint-metric
    loss compares epochs, which an adversarial loss does not.
    """

    def __init__(self, task, cfg: HifiganCriterionConfig):
        super().__init__(task)
        self.cfg = cfg
        self.auxiliary_weights = {
            "duration": cfg.duration_weight,
            "commitment": cfg.commitment_weight,
            "pitch": cfg.pitch_weight,
        }
        self.log_mel = losses.LogMelSpectrogram(cfg.sample_rate)  # of the validation
        scales = _choice("mel-loss", cfg.mel_loss, losses.MEL_SCALES)
        self.mel_distance = losses.MelLoss(cfg.sample_rate, scales)
        self.adversarial_losses = _choice(
            "adversarial-loss", cfg.adversarial_loss, losses.ADVERSARIAL_LOSSES
        )
        self.feature_matching_loss = losses.feature_matching_loss
        self.discriminator_names = parse_names(cfg.discriminators)
        self.discriminators = build_discriminators(cfg.discriminators, cfg.discriminator_width)

    @classmethod
    def build_criterion(cls, cfg: HifiganCriterionConfig, task) -> "HifiganCriterion":
        """Builds the criterion. Raises ValueError if an option has an unknown value."""
        return cls(task, cfg)

    def get_extra_state(self) -> Dict[str, Any]:
        """What the rows of the tables mean, so that training never resumes on other speakers or units."""
        return {**self.task.streams.to_dict(), "discriminators": self.discriminator_names}

    def load_state_dict(
        self, state_dict: Dict[str, Any], strict: bool = True, assign: bool = False
    ):
        """Takes a checkpoint's discriminators; with --reset-optimizer it may lack families.

        Raises ValueError if it has other streams, or other discriminators without --reset-optimizer.
        """
        saved = dict(state_dict.get("_extra_state", {}))
        names = saved.pop("discriminators", ["mpd", "msd"])  # checkpoints from before the option
        self.task.check_streams(saved)
        if names != self.discriminator_names:
            if not self.cfg.reset_optimizer:
                then, now = ",".join(names), ",".join(self.discriminator_names)
                raise ValueError(
                    f"the checkpoint was trained with --discriminators {then}, now they are {now}. Add "
                    "--reset-optimizer to start the new ones from random weights, or use another --save-dir."
                )
            own = self.state_dict()
            state_dict = {name: state_dict.get(name, value) for name, value in own.items()}
        return super().load_state_dict(state_dict, strict, assign)

    def set_extra_state(self, state: Dict[str, Any]) -> None:
        """Takes nothing, since `load_state_dict` has checked it."""

    def compile_once(self) -> None:
        """Compiles the discriminators and the losses for one shape of batches, unless they are already."""
        if self.discriminators._compiled_call_impl is not None:
            return
        self.discriminators.compile(dynamic=False)
        self.mel_distance.compile(dynamic=False)
        compiled = [torch.compile(loss, dynamic=False) for loss in self.adversarial_losses]
        self.adversarial_losses = tuple(compiled)
        self.feature_matching_loss = torch.compile(self.feature_matching_loss, dynamic=False)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminators' loss on (B, 1, T) real and detached generated speech."""
        both = torch.cat([real, fake])
        scores, _ = self.discriminators(both)
        real_scores, fake_scores = zip(*[score.chunk(2) for score in scores], strict=True)
        return self.adversarial_losses[0](real_scores, fake_scores)

    def mel_loss(self, real: Tensor, fake: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
        """(weighted mel distance, {mel}) on (B, 1, T): the loss before `discriminator_start`."""
        mel = self.mel_distance(real, fake)
        return self.cfg.mel_weight * mel, {"mel": mel}

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
        """(weighted sum, {mel, adv_g, fm}) on (B, 1, T); the discriminators must be frozen."""
        with torch.no_grad():
            _, real_maps = self.discriminators(real)
        fake_scores, fake_maps = self.discriminators(fake)
        mel_loss, terms = self.mel_loss(real, fake)
        loss, adversarial_terms = self._adversarial_loss(real_maps, fake_scores, fake_maps)
        return mel_loss + loss, terms | adversarial_terms

    def shared_losses(self, real: Tensor, fake: Tensor) -> Tuple[Tensor, Tensor, Dict[str, Tensor]]:
        """The losses of both networks on (B, 1, T) from one pass of the discriminators, not frozen.

        Returns (discriminators' loss, generator's weighted loss without the mel distance, {adv_g, fm}): only
        the gradient of the first for the discriminators' parameters is meant, and of the second for `fake`.
        """
        real_scores, real_maps = self.discriminators(real)
        fake_scores, fake_maps = self.discriminators(fake)
        loss_d = self.adversarial_losses[0](real_scores, fake_scores)
        return loss_d, *self._adversarial_loss(real_maps, fake_scores, fake_maps)

    def _adversarial_loss(
        self, real_maps: FeatureMaps, fake_scores: List[Tensor], fake_maps: FeatureMaps
    ) -> Tuple[Tensor, Dict[str, Tensor]]:
        terms = {
            "adv_g": self.adversarial_losses[1](fake_scores),
            "fm": self.feature_matching_loss(detach(real_maps), fake_maps),
        }
        weighted_adversarial = self.cfg.adversarial_weight * terms["adv_g"]
        return weighted_adversarial + self.cfg.feature_matching_weight * terms["fm"], terms

    def auxiliary_loss(self, losses_by_name: Dict[str, Tensor]) -> Any:
        """The weighted sum of a model's `auxiliary_losses`, 0 if it has none."""
        return sum(self.auxiliary_weights[name] * loss for name, loss in losses_by_name.items())

    def forward(self, model, sample, reduce: bool = True):
        """(mel L1 summed over utterances, number of utterances, logged terms)."""
        fake = model(**sample["net_input"]).float()
        real = sample["target"]
        lengths, num_frames = sample["net_input"].get("unit_lengths"), None
        if lengths is not None:
            hop = real.size(2) // sample["net_input"]["units"].size(1)
            num_frames = (lengths * hop // self.log_mel.hop).clamp(min=1)
        mel = losses.mel_l1(self.log_mel(real), self.log_mel(fake), num_frames)
        terms = {"loss": mel, "mel": mel, **model.auxiliary_losses(sample["net_input"])}
        rows = real.size(0)
        return mel * rows, rows, self.logged(sample, terms, rows)

    @staticmethod
    def logged(sample: Dict[str, Any], terms: Dict[str, Any], weight: int) -> Dict[str, Any]:
        """fairseq's logging output: each term times `weight`, to be averaged over sample_size."""
        return {
            **{name: value if weight == 1 else value * weight for name, value in terms.items()},
            "sample_size": weight,
            "nsentences": sample["target"].size(0),
            "ntokens": sample["target"].numel(),
        }

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Logs the mean of every term."""
        totals = _summed(logging_outputs, ("sample_size", *LOGGED))
        size = totals.pop("sample_size", 0)
        for name, total in totals.items():
            metrics.log_scalar(name, total / max(size, 1), size, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True, since every term is a sum."""
        return True
