"""`resynth synthesize` loads what speech needs and no more, so that it starts fast."""

import json
import subprocess
import sys

import pytest
from tiny_bundles import write_bundle

HEAVY = {"fairseq", "librosa", "matplotlib", "numba", "scipy", "torchaudio", "transformers"}
PROGRAM = """
import json, sys
from fairseq_resynth.cli.main import main
assert main(sys.argv[1:]) == 0
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("source", ["file", "data directory"])
def test_synthesis_loads_no_library_that_it_does_not_use(tmp_path, tiny_data, source):
    write_bundle("units at 100 Hz" if source == "file" else "units", tmp_path / "bundle")
    (tmp_path / "units.txt").write_text("a|1 2 3\n")
    spoken = tmp_path / "units.txt" if source == "file" else tiny_data
    options = ["--bundle", tmp_path / "bundle", "--input", spoken, "--outdir", tmp_path / "out"]
    command = [sys.executable, "-c", PROGRAM, "synthesize", *map(str, options), "-n", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "torch" in loaded and not loaded & HEAVY
