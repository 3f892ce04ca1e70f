"""Every reader under mutations of valid files: it reads them, or says in one line what is wrong."""

import io
import json
import warnings

import numpy as np
import pytest
import soundfile

from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import audio_length, read_audio
from fairseq_resynth.data.manifest import read_manifest, read_names
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.unit_files import read_generated_units, read_unit_file
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.evaluation.runs.pairing import read_transcripts
from fairseq_resynth.preparation.manifest import read_reference

WAV = 0.1 * np.random.default_rng(0).standard_normal(1600)


def sound(format, subtype=None):
    stream = io.BytesIO()
    soundfile.write(stream, WAV, 16000, subtype, format=format)
    return stream.getvalue()


def array():
    stream = io.BytesIO()
    np.save(stream, np.arange(9, dtype=np.int64))
    return stream.getvalue()


AUDIO = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF", "au": "AU", "w64": "W64",
         "sph": "NIST", "caf": "CAF"}  # fmt: skip
UNITS = {
    "plain.txt": b"1 2 3\n4 5 6\n",
    "named.txt": b"a|1 2 3\nb|4 5\n",
    "tabs.txt": b"a\t1 2 3\nb\t4 5\n",
    "dicts.txt": b"{'audio': 'a.wav', 'hubert': '1 2 3', 'duration': 0.5}\n",
    "lines.jsonl": b'{"file": "a.wav", "units": [1, 2, 3], "durations": [1, 2, 1]}\n',
    "tokens.txt": b"[Hu1][Hu22]\n<1><2><3>\n",
    "units.npy": array(),
}
READERS = {
    **{f"a.{name}": (sound(format), [load_any_audio]) for name, format in AUDIO.items()},
    "prepared.wav": (sound("WAV"), [read_audio, audio_length]),
    "prepared.flac": (sound("FLAC"), [read_audio, audio_length]),
    "train.tsv": (b".\na/b.wav\t800\nc.wav\t320\n", [read_manifest]),
    "train.speaker": (b"anna\nboris\n", [lambda path: read_names(path, 2)]),
    "train.units": (b"1 2 3\n4 5 6\n", [lambda path: read_integer_rows(path, 2, "it")]),
    "list.txt": (b"a/b.wav|text\nc.wav\n", [read_reference, read_transcripts]),
    "config.json": (b'{"a": [1, 2.5, null], "b": {"c": "d"}}', [read_json]),
    "speakers.json": (
        json.dumps({"anna": {"mean": 1.0, "std": 2.0}}).encode(),
        [SpeakerStatistics.load],
    ),
    **{name: (data, [read_unit_file, read_generated_units]) for name, data in UNITS.items()},
}


def mutate(data, rng):
    """Bytes of a file of which some are changed, removed, doubled or cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(data) or 1))
        if rng.random() < 0.5:  # headers decide more than content
            place = min(place, int(rng.integers(64)))
        end = place + int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind == 0:
            data[place:end] = rng.bytes(end - place)
        elif kind == 1:
            del data[place:end]
        elif kind == 2:
            data[place:place] = data[place:end] * int(rng.integers(1, 5))
        elif kind == 3:
            del data[place:]
        else:
            data[place:end] = bytes([rng.choice([0, 255, 10, 9, 32, 127])]) * (end - place)
    return bytes(data)


def check(name, folder, count):
    data, readers = READERS[name]
    rng = np.random.default_rng(count)
    for _ in range(count):
        (folder / name).write_bytes(mutate(data, rng))
        for read in readers:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(folder / name)
            except (ValueError, FileNotFoundError) as error:
                own = type(error) in (ValueError, FileNotFoundError)
                assert own and len(str(error).splitlines()) == 1, repr(error)
        assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused_in_one_line(name, tmp_path):
    check(name, tmp_path, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_mutations(name, tmp_path):
    check(name, tmp_path, 10_000)
