"""Packaging of fairseq_resynth; `scripts/setup.sh` installs it with the versions of constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "fairseq_resynth" / "__init__.py").read_text(), re.MULTILINE
)[1]
REQUIREMENTS = [
    # fairseq 0.12.2 rebuilt for Python 3.11 and 3.12: training and fairseq's own content encoders need it
    "ve-fairseq>=0.12.3,<0.13; python_version < '3.13'",
    "torch>=2.6,<3",
    "torchaudio>=2.6,<3",
    "omegaconf>=2.1,<2.4",
    "sentencepiece>=0.1.99,<0.3",
    "librosa>=0.10,<0.12",
    "amfm_decompy>=1.0.11,<2",
    "tensorboardX>=2.6,<3",
    "soundfile>=0.12,<1",
    "av>=12,<19",
    "soxr>=0.4,<2",  # resampling; librosa brings it too
    "safetensors>=0.4,<1",
    "numpy>=1.26,<3",
    "pillow>=9,<14",  # pictures in TensorBoard
    "matplotlib>=3.8,<4",  # plots of reports, `resynth inspect` and `resynth codec-bench`
    "tqdm>=4.60,<5",
    "shtab>=1.7,<2",  # completions of the shell
    "constriction>=0.4,<0.6",
    "swift-f0>=0.3,<0.4",  # F0: --method swift
    "numba>=0.60,<1",  # the codec's integer loops; librosa brings it too
]
EXTRAS = {
    "hf": ["transformers>=5,<6"],  # content encoders: --feature-type hf
    "eval": [  # metrics of `resynth evaluate`; it runs without, and says which are missing
        "pyworld>=0.3.4,<0.4",
        "pesq>=0.0.4,<0.1",
        "pystoi>=0.4,<0.5",
        "speechmos>=0.0.1.1,<0.1",
        "onnxruntime>=1.17,<2",
        "requests>=2,<3",
        "distillmos>=0.9,<1",
        "xls-r-sqa>=0.1,<0.2",
        "resemblyzer>=0.1.4,<0.2",
        "setuptools<81",  # pkg_resources, which resemblyzer's webrtcvad and pyworld import
        "pocketsphinx>=5.0.3,<6",
        "faster-whisper>=1.0,<2",
        "whisper-normalizer>=0.1.12,<0.2",
        "visqol-python[lattice]>=3.8,<4",
        "torchmetrics>=1.6,<2",  # NISQA
    ],
    "live": ["sounddevice>=0.4.6,<0.6"],  # `resynth live`; on Linux it needs libportaudio2
    "onnx": ["onnx>=1.16,<2", "onnxscript>=0.5,<1", "onnxruntime>=1.17,<2"],
    "parquet": ["pyarrow>=15,<27"],  # units in parquet files and Hugging Face datasets
    "hylee": ["datasets>=2.19,<6"],
    "kokoro": ["kokoro-onnx>=0.6,<0.7"],  # the speech of examples/conversion
    "hub": ["huggingface_hub>=0.24,<3"],
    "slurm": ["submitit>=1.5,<2"],  # examples/slurm
    "docs": ["mkdocs-material>=9.5,<10"],  # the documentation site
    "test": [
        "pyarrow>=15,<27",
        "pytest>=8,<10",
        "scikit-learn>=1.4,<2",  # k-means of reference, and pickles of GSLM's that are refused
        "pytest-xdist>=3.6,<4",
        "hypothesis>=6,<7",
        "ruff>=0.6,<1",
        "pyworld>=0.3.4,<0.4",
        "transformers>=5,<6",
        "pesq>=0.0.4,<0.1",
        "pystoi>=0.4,<0.5",
        "jiwer>=3,<5",
        "mir_eval>=0.7,<0.9",
        "speechmos>=0.0.1.1,<0.1",
        "onnx>=1.16,<2",
        "onnxscript>=0.5,<1",
        "onnxruntime>=1.17,<2",
        "requests>=2,<3",
        "resemblyzer>=0.1.4,<0.2",
        "setuptools<81",
        "pocketsphinx>=5.0.3,<6",
        "whisper-normalizer>=0.1.12,<0.2",
        "visqol-python[lattice]>=3.8,<4",
        "torchmetrics>=1.6,<2",
        "selenium>=4.20,<5",
        "submitit>=1.5,<2",
        "mkdocs-material>=9.5,<10",
        "mypy>=1.10,<3",
    ],
}

setup(
    name="fairseq_resynth",
    version=VERSION,
    description="Speech resynthesis from discrete disentangled units, as a fairseq plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["fairseq_resynth", "fairseq_resynth.*"]),
    package_data={
        "fairseq_resynth.evaluation.report": ["assets/*"],
        "fairseq_resynth.play": ["assets/*"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["resynth=fairseq_resynth.cli.main:main"]},
)
