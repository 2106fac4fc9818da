"""The sentence embeddings: the known model, and its meaning."""

import importlib.util
import math
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from meshnode.adapters.agents import embeddings
from meshnode.adapters.agents.embeddings import DIMENSIONS, load_minilm
from meshnode.errors import AgentError


def test_vectors_have_length_one_and_do_not_depend_on_their_neighbours() -> None:
    model = load_minilm()
    texts = ["A cat sat on the mat.", "", "word " * 5_000, "\0 \ud800 😀"]
    together = model.encode(texts)
    assert together.shape == (4, DIMENSIONS)
    assert abs((together**2).sum(1) - 1).max() < 1e-5
    for text, vector in zip(texts, together, strict=True):
        assert (model.encode([text])[0] == vector).all()
    assert model.encode([]).shape == (0, DIMENSIONS)


def test_likeness_follows_meaning() -> None:
    cat, kitten, stocks = load_minilm().encode(
        ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Shares fell on Monday."]
    )
    assert cat @ kitten > 0.6
    assert cat @ stocks < 0.2


def test_agrees_with_the_published_model() -> None:
    # The example that the model's page is known for; the numbers are the original's.
    person, *others = load_minilm().encode(
        [
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ]
    )
    likeness = [float(person @ other) for other in others]
    assert likeness == pytest.approx([0.695, 0.943, 0.257], abs=0.001)


def test_error_function_is_as_close_as_its_source_says() -> None:
    points = np.linspace(-4, 4, 1001, dtype=np.float32)
    exact = np.array([math.erf(float(point)) for point in points])
    assert np.abs(embeddings._erf(points) - exact).max() < 4e-7


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not the model")
    spec = ModuleSpec("fake", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(AgentError, match="isn't the model it should be"):
        embeddings.load_minilm.__wrapped__()


def test_blas_keeps_to_one_thread() -> None:
    import threadpoolctl  # type: ignore[import-untyped]  # it has no types

    load_minilm()
    pools = [
        p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"
    ]
    assert pools
    assert set(pools) == {1}
