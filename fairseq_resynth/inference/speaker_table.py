"""Turns a model with a table of speakers into a model on speaker vectors."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fairseq_resynth.data.speaker_vectors import DESCRIPTION, parse_vectors
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.inference.bundle import Bundle


def with_speaker_vectors(bundle: Bundle, data: str | Path) -> Bundle:
    """Replaces the table by a linear map of vectors that maps each speaker's mean vector to their row.

    The known speakers sound the same except for rounding. Other vectors are mapped between the rows: good for
    voices near the known ones and as a start of training on vectors, no replacement for that training.

    `data` holds the `speaker_vectors.json` of every speaker of the table. Returns a new bundle, which gets an
    identity when it is saved. Raises FileNotFoundError if the vectors do not exist, and ValueError for a
    model without a table, a speaker without a vector, or more speakers than dimensions.
    """
    path = Path(data) / DESCRIPTION
    found = read_json(path, f"Make it with `resynth speakers {data}`.")
    streams = bundle.streams
    if streams is None or not streams.speakers or streams.speaker_dim:
        raise ValueError("--speaker-vectors: the model has no table of speakers to replace.")
    missing = [name for name in streams.speakers if name not in found["means"]]
    if missing:
        raise ValueError(f"{path} lacks the model's speakers {', '.join(missing[:10])}.")
    if len(streams.speakers) > found["speaker_dim"]:
        raise ValueError(
            f"{path}: {found['speaker_dim']} dimensions cannot distinguish {len(streams.speakers)} speakers."
        )
    means = {name: found["means"][name] for name in streams.speakers}
    vectors = np.stack(list(parse_vectors(means, found["speaker_dim"]).values()))
    generator = copy.deepcopy(bundle.generator)
    generator.speaker_embedding = _fit_linear(vectors, generator.speaker_embedding)
    streams = dataclasses.replace(
        streams, speaker_dim=found["speaker_dim"], speaker_vectors={**found, "means": means}
    )
    return dataclasses.replace(bundle, generator=generator, streams=streams, identity="")


def _fit_linear(vectors: np.ndarray, table: nn.Embedding) -> nn.Linear:
    """The linear map of least norm that maps each of (S, D) vectors to its row of the (S, E) table."""
    rows = table.weight.detach().cpu().double().numpy()
    inputs, outputs = vectors.astype(np.float64).mean(0), rows.mean(0)
    weight = np.linalg.pinv(vectors - inputs) @ (rows - outputs)
    layer = nn.Linear(vectors.shape[1], rows.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.copy_(torch.from_numpy(outputs - inputs @ weight))
    return layer.eval()
