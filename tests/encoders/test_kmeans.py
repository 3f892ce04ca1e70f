"""The sample of frames, the fit, and the k-means file."""

import joblib
import numpy as np
import pytest
import safetensors
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import MiniBatchKMeans

from fairseq_resynth.encoders.content import (
    ContentEncoder,
    KMeans,
    load_kmeans,
    read_centroids,
    require_same_features,
)
from fairseq_resynth.preparation.kmeans import FrameReservoir, fit_centroids, sampled_rows

DESCRIPTION = {
    "feature_type": "hubert",
    "checkpoint": "hubert.pt",
    "checkpoint_hash": "0123456789abcdef",
    "layer": 6,
    "unit_hop": 320,
    "sample_rate": 16000,
}


def _files(count=40, frames=50):
    return {f"{i}.wav": np.full((frames, 2), i, np.float32) for i in range(count)}


def _sample(files, order, capacity=100, seed=1):
    reservoir = FrameReservoir(capacity, seed)
    for name in order:
        reservoir.add(name, files[name])
    return reservoir


def test_the_sample_does_not_depend_on_the_order_of_files():
    files = _files()
    forward, backward = _sample(files, list(files)), _sample(files, list(files)[::-1])
    assert len(forward.frames()) == 100 and forward.seen == 2000
    np.testing.assert_array_equal(forward.frames(), backward.frames())
    assert not np.array_equal(forward.frames(), _sample(files, list(files), seed=2).frames())


def test_the_sample_is_uniform_over_files():
    files = _files()
    counts = np.zeros(40)
    for seed in range(50):
        drawn = _sample(files, list(files), seed=seed).frames()[:, 0].astype(int)
        counts += np.bincount(drawn, minlength=40)
    # 5 000 draws over 40 files: 125 each, standard deviation 11
    assert counts.sum() == 5000 and counts.min() > 75 and counts.max() < 175


def test_a_small_corpus_is_taken_whole():
    files = _files(3)
    assert len(_sample(files, list(files), capacity=1000).frames()) == 150


def test_sampled_files_depend_on_their_names_alone():
    names = [f"{i}.wav" for i in range(1000)]
    chosen = {names[row] for row in sampled_rows(names, 10, 1)}
    assert 60 < len(chosen) < 140
    assert {names[::-1][row] for row in sampled_rows(names[::-1], 10, 1)} == chosen
    assert len(sampled_rows(names[:3], 0.0001, 1)) == 1


def test_fit_finds_the_clusters_and_assign_equals_scikit_learn():
    generator = np.random.default_rng(0)
    means = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    frames = (means[generator.integers(3, size=3000)] + generator.normal(0, 1, (3000, 2))).astype(
        np.float32
    )
    centroids, distance = fit_centroids(frames, 3, seed=0)
    found = centroids[np.argsort(centroids @ [1, 2])]
    np.testing.assert_allclose(found, means, atol=0.2)
    assert 1.8 < distance < 2.2  # two dimensions of variance 1
    reference = SklearnKMeans(3, n_init=1).fit(frames)
    reference.cluster_centers_ = centroids
    found = KMeans(centroids, {}).assign(torch.from_numpy(frames)).numpy()
    np.testing.assert_array_equal(found, reference.predict(frames))


def _walks(number, width):
    """Frames of random walks of 150 steps, each from a place of its own, far from the origin."""
    generator = np.random.default_rng(1)
    steps = generator.normal(size=(number, 150, width)).astype(np.float32)
    steps[:, 0] *= 10
    return generator.permutation(np.cumsum(steps, axis=1).reshape(-1, width)) + 20


@pytest.mark.parametrize("clusters", [20, 100])
def test_the_fit_is_as_good_as_scikit_learns(clusters):
    """GSLM's settings, with which `kmeans` was fitted before."""
    frames = _walks(40, 8)
    centroids, distance = fit_centroids(frames, clusters, seed=1)
    squares = ((frames[:, None] - centroids) ** 2).sum(2).min(1)
    assert distance == pytest.approx(squares.mean(), rel=1e-4)
    settings = {"max_iter": 150, "batch_size": 10000, "tol": 0.0, "max_no_improvement": 100}
    reference = MiniBatchKMeans(clusters, n_init=3, random_state=1, **settings).fit(frames)
    assert distance <= 1.01 * reference.inertia_ / len(frames)
    again = fit_centroids(frames, clusters, seed=1)
    np.testing.assert_array_equal(centroids, again[0])
    assert not np.array_equal(centroids, fit_centroids(frames, clusters, seed=2)[0])


def test_a_fit_of_few_different_frames_is_finite():
    frames = np.repeat(np.arange(3, dtype=np.float32)[:, None], 20, axis=0)
    centroids, distance = fit_centroids(frames, 5, seed=0)
    assert np.isfinite(centroids).all() and distance == pytest.approx(0, abs=1e-6)


def test_more_clusters_than_frames_are_refused():
    with pytest.raises(ValueError, match="--num-clusters is 9, expected 2 to 5: the frames"):
        fit_centroids(np.zeros((5, 2), np.float32), 9, 0)


def test_the_file_keeps_centroids_and_what_they_are_of(tmp_path):
    centroids = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    KMeans(centroids, DESCRIPTION).save(tmp_path / "km.safetensors")
    found = load_kmeans(tmp_path / "km.safetensors")
    np.testing.assert_array_equal(found.centroids, centroids)
    assert (
        found.description.items()
        >= (DESCRIPTION | {"num_clusters": 5, "kmeans": "km.safetensors"}).items()
    )
    require_same_features(found, DESCRIPTION)
    with pytest.raises(ValueError, match="made from layer 6, the encoder has 7"):
        require_same_features(found, DESCRIPTION | {"layer": 7})
    with pytest.raises(ValueError, match="made from checkpoint_hash '0123456789abcdef'"):
        require_same_features(found, DESCRIPTION | {"checkpoint_hash": "f" * 16})
    with pytest.raises(ValueError, match="features have 4 dimensions, the k-means 3"):
        found.assign(torch.zeros(2, 4))


class _Hostile:
    def __reduce__(self):
        return open, ("sentinel", "w")


def test_whoever_may_read_new_files_may_read_centroids(tmp_path):
    KMeans(np.zeros((2, 3), np.float32), DESCRIPTION).save(tmp_path / "km.safetensors")
    (tmp_path / "new").touch()
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 2 and len(set(modes.values())) == 1


def test_pickles_are_refused_unopened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    joblib.dump(_Hostile(), "km.bin")
    with pytest.raises(
        ValueError, match="km.bin is not a k-means file.*run code.*--centroids km.npy"
    ):
        load_kmeans("km.bin")
    np.save("objects.npy", np.array([_Hostile()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects.npy is not readable as an array of numbers"):
        read_centroids("objects.npy")
    assert not (tmp_path / "sentinel").exists()


def test_foreign_safetensors_are_refused(tmp_path):
    safetensors.numpy.save_file({"weight": np.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors is not a k-means file"):
        load_kmeans(tmp_path / "a.safetensors")
    safetensors.numpy.save_file({"centroids": np.zeros((2, 3))}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="b.safetensors lacks feature_type, layer"):
        load_kmeans(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"found an array \(2,\), expected \(K, D\)"):
        KMeans(np.zeros(2), {})


def test_files_of_the_torchaudio_encoder_name_its_replacement(tmp_path):
    description = {"feature_type": "torchaudio", "layer": 6, "unit_hop": 320, "sample_rate": 16000}
    KMeans(np.zeros((2, 3), np.float32), description).save(tmp_path / "km.safetensors")
    for checkpoint in (None, tmp_path / "HUBERT_BASE"):
        with pytest.raises(ValueError, match="--feature-type hf reads the same models"):
            ContentEncoder.from_kmeans(tmp_path / "km.safetensors", checkpoint)


def test_a_damaged_header_is_one_line(tmp_path):
    header = '{"centroids": {"dtype": "\u2028", "shape": [1, 1], "data_offsets": [0, 4]}}'.encode()
    (tmp_path / "km.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="is not a k-means file") as raised:
        load_kmeans(tmp_path / "km.safetensors")
    assert len(str(raised.value).splitlines()) == 1
