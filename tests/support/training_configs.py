"""The files of configs/, composed as fairseq-hydra-train does it."""

import warnings

from fairseq.dataclass.initialize import hydra_init
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from small_corpus import PLUGIN, REPOSITORY

CONFIGS = REPOSITORY / "configs"


def composed(name: str, *overrides: str) -> DictConfig:
    """The values of a training before fairseq adds the defaults of the plugin."""
    hydra_init(name)
    try:
        with warnings.catch_warnings(action="ignore"), initialize_config_dir(str(CONFIGS)):
            return compose(name, [f"common.user_dir={PLUGIN}", *overrides])
    finally:  # otherwise a file that includes this one would get fairseq's defaults a second time
        del ConfigStore.instance().repo[f"{name}.yaml"]
