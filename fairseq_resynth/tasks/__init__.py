"""fairseq tasks; importing this package registers every task, model, criterion and optimizer of ours."""

# fairseq's --user-dir imports tasks/ and models/ but not criterions/.
from fairseq_resynth import compat
from fairseq_resynth.criterions import f0_vqvae, hifigan  # noqa: F401
from fairseq_resynth.models import quantizers, unit_vocoders  # noqa: F401
from fairseq_resynth.tasks import (  # noqa: F401
    content_quantization,
    f0_quantization,
    optimizers,
    trainer,
    unit_resynthesis,
)

trainer.report_briefly()
compat.restore_numpy_names()
