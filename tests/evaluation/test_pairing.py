from pathlib import Path

import pytest

from fairseq_resynth.evaluation.runs.pairing import (
    Collection,
    pair_files,
    read_collection,
    read_folder,
    read_transcripts,
    transcript_of,
)


def collection(*names, speakers=None):
    return Collection({name: Path(name) for name in names}, speakers or {}, Path("somewhere"))


def pairs(found):
    return [(pair.name, pair.reference_name, pair.speaker) for pair in found[0]]


def test_names_pair_exactly_and_the_rest_is_listed():
    pairing = pair_files(collection("a/1", "a/10", "b/1"), collection("a/1", "c/1", "1"))
    assert pairs(pairing) == [("a/1", "a/1", "")]
    assert pairing[1]["only_generated"] == ["a/10", "b/1"]  # b/1 is no c/1, nor the bare 1
    assert pairing[1]["only_reference"] == ["c/1", "1"]


def test_suffixes_only_by_the_option():
    generated, reference = collection("one_gen", "one"), collection("one", "one_gen_gen")
    assert pairs(pair_files(generated, reference)) == [("one", "one", "")]
    pairing = pair_files(generated, reference, "{name}_gen")
    assert pairs(pairing) == [("one_gen", "one", "")]
    assert pairing[1]["only_generated"] == ["one"]


def test_conversions_by_known_speakers():
    speakers = {"ann/1": "ann", "bob_b/1": "bob_b"}
    reference = collection("ann/1", "bob_b/1", speakers=speakers)
    generated = collection("ann/1_bob_b", "bob_b/1_ann", "ann/1_b", "ann/1")
    pairing = pair_files(generated, reference, "{name}_{target}")
    assert pairs(pairing) == [("ann/1_bob_b", "ann/1", "bob_b"), ("bob_b/1_ann", "bob_b/1", "ann")]
    assert [pair.source_speaker for pair in pairing[0]] == ["ann", "bob_b"]
    assert pairing[1]["only_generated"] == ["ann/1_b", "ann/1"]
    more = pair_files(generated, reference, "{name}_{target}", targets=["b"])
    assert ("ann/1_b", "ann/1", "b") in pairs(more)


def test_an_ambiguous_name_is_left_unpaired():
    reference = collection("u", "u_x", speakers={"u": "x_y", "u_x": "y"})
    pairing = pair_files(collection("u_x_y", "u_y"), reference, "{name}_{target}")
    assert pairs(pairing) == [("u_y", "u", "y")]
    assert pairing[1]["only_generated"] == ["u_x_y"]  # u in x_y's voice, or u_x in y's


def test_nothing_paired_says_what_names_look_like():
    with pytest.raises(ValueError, match="called like 'x/1', references like 'wavs/1'.*--pattern"):
        pair_files(collection("x/1"), collection("wavs/1"))


@pytest.mark.parametrize("pattern", ["gen", "{name}{name}", "{name}_{speaker}"])
def test_bad_patterns(pattern):
    with pytest.raises(ValueError, match="--pattern"):
        pair_files(collection("a"), collection("a"), pattern)


def test_folder(tmp_path, wavs):
    found = read_folder(wavs)
    assert list(found.files) == ["ann/one", "ann/two", "bob/one"]
    assert found.speakers["bob/one"] == "bob"
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(FileNotFoundError, match="has no audio"):
        read_folder(tmp_path)
    for suffix in ("wav", "flac"):
        (tmp_path / f"same.{suffix}").write_bytes(b"x")
    with pytest.raises(ValueError, match="the same name"):
        read_folder(tmp_path)


def test_data_directory(tmp_path, wavs):
    rows = "ann/one.wav\t19200\nbob/one.wav\t22400\n"
    (tmp_path / "test.tsv").write_text(f"{wavs}\n{rows}")
    (tmp_path / "test.speaker").write_text("A\nB\n")
    found = read_collection(tmp_path)
    assert found.files == {name: wavs / f"{name}.wav" for name in ("ann/one", "bob/one")}
    assert found.speakers == {"ann/one": "A", "bob/one": "B"}
    (tmp_path / "train.speaker").write_text("A\nC\nC\n")  # a voice that no test row has
    generated = collection("ann/one_C", "ann/one_D")
    pairing = pair_files(generated, read_collection(tmp_path), "{name}_{target}")
    assert pairs(pairing) == [("ann/one_C", "ann/one", "C")]
    with pytest.raises(FileNotFoundError, match="no valid.tsv; choose one of test with --split"):
        read_collection(tmp_path, "valid")


def test_transcripts(tmp_path):
    path = tmp_path / "text"
    path.write_text("a/1\tone | two\nLJ1|raw 1|raw one\n\nc.wav\t\n")
    transcripts = read_transcripts(path)
    assert transcripts == {"a/1": "one | two", "LJ1": "raw one", "c": ""}
    assert transcript_of(transcripts, "wavs/LJ1") == "raw one"
    assert transcript_of(transcripts, "b/1") is None
    path.write_text("a\tx\nno separator\n")
    with pytest.raises(ValueError, match=":2: expected name<TAB>text, found 'no separator'"):
        read_transcripts(path)
    path.write_text("a\tx\na\ty\n")
    with pytest.raises(ValueError, match=":2: a has a transcript already"):
        read_transcripts(path)
