"""What reads texts where requests are answered makes the vectors of training, without the training stack."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from transformers import BertConfig, BertModel

from rec_engine.errors import BundleError, TrainingError
from rec_engine.models import export
from rec_engine.models.embeddings import ContentEmbedder
from rec_engine.models.export import export_text_encoder
from rec_engine.models.text_encoder import NETWORK, TOKENIZER, TextEncoder
from rec_engine.utils.config import TextSettings

TEXTS = [
    "Heat. A master thief and the detective who hunts him find that they are alike. Categories: Crime, Drama",
    "Toy Story. A cowboy doll is jealous of the space ranger who is the boy's new favourite. Categories: Animation",
    "White hanging heart candle holder",
    "",
    "Jumbo bag, red retrospot",
    "Waschbare Kissenhülle aus Leinen, 40 x 40 cm",
    "A film about dogs",
    "A film about puppies",
]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> ContentEmbedder:
    """The packaged encoder as training has it; other files of this session find its export there too."""
    return ContentEmbedder(TextSettings(), tmp_path_factory.getbasetemp() / "rec-engine" / "embeddings")


@pytest.fixture(scope="module")
def encoder_dir(embedder: ContentEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged encoder, exported; nobody may change it."""
    directory = tmp_path_factory.mktemp("exported") / "text_encoder"
    export_text_encoder(embedder, directory)
    return directory


@pytest.fixture(scope="module")
def encoder(encoder_dir: Path) -> TextEncoder:
    """The exported encoder, opened."""
    return TextEncoder.load(encoder_dir)


def test_vectors_are_those_of_training_but_for_8_bits(encoder: TextEncoder, embedder: ContentEmbedder) -> None:
    vectors, expected = encoder.embed(TEXTS), embedder.embed(TEXTS)
    written = np.array([bool(text) for text in TEXTS])
    cosines = (vectors * expected).sum(axis=1)[written]
    assert vectors.dtype == np.dtype(np.float32)
    assert np.allclose(np.linalg.norm(vectors[written], axis=1), 1, atol=1e-5)
    assert not vectors[~written].any()
    assert cosines.min() > 0.97
    assert cosines.mean() > 0.985
    assert (vectors[written] @ expected[written].T).argmax(axis=1).tolist() == list(range(written.sum()))


def test_a_text_has_the_same_vector_alone_and_among_others(encoder: TextEncoder) -> None:
    together = encoder.embed(TEXTS)
    assert np.array_equal(together, np.concatenate([encoder.embed([text]) for text in TEXTS]))


def test_no_texts_are_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.embed([]).shape == (0, 384)


def test_texts_are_cut_where_training_cuts_them(encoder: TextEncoder, embedder: ContentEmbedder) -> None:
    beginning = "dog " * TextSettings().max_tokens
    dogs, both = encoder.embed([beginning, beginning + "quarterly tax law " * 50])
    assert np.array_equal(dogs, both)
    assert encoder.embed(["dog " * 20])[0] @ dogs < 0.9999
    assert embedder.embed([beginning])[0] @ dogs > 0.97


def test_the_export_is_made_once(embedder: ContentEmbedder, encoder_dir: Path, tmp_path: Path) -> None:
    again = ContentEmbedder(embedder.settings, embedder.cache_dir)
    export_text_encoder(again, tmp_path / "copy")
    assert "model" not in vars(again)
    for name in (NETWORK, TOKENIZER):
        assert (tmp_path / "copy" / name).read_bytes() == (encoder_dir / name).read_bytes()


@pytest.mark.parametrize(("name", "complaint"), [(NETWORK, "not a readable ONNX model"), (TOKENIZER, "tokenizer")])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_encoder_is_refused(
    encoder_dir: Path, tmp_path: Path, name: str, complaint: str, is_there: bool
) -> None:
    damaged = shutil.copytree(encoder_dir, tmp_path / "damaged")
    if is_there:
        (damaged / name).write_text("nonsense", encoding="utf-8")
    else:
        (damaged / name).unlink()
    with pytest.raises(BundleError, match=complaint):
        TextEncoder.load(damaged)


@pytest.fixture(scope="module")
def small(embedder: ContentEmbedder, tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    """An encoder that has learned nothing; it leaves out the normalisation."""
    folder = tmp_path_factory.mktemp("small")
    shape = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(shape).save_pretrained(folder)
    embedder.model.tokenizer.save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(str(folder)), Pooling(16)], device="cpu")


def test_an_encoder_that_does_not_bear_8_bits_is_served_as_float32(
    small: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MIN_COSINE", 0.999999)
    small.save(str(tmp_path / "small"))
    embedder = ContentEmbedder(TextSettings(encoder=str(tmp_path / "small"), max_tokens=16), tmp_path / "cache")
    export_text_encoder(embedder, tmp_path / "exported")
    vectors = TextEncoder.load(tmp_path / "exported").embed(TEXTS)
    assert np.allclose(vectors, embedder.embed(TEXTS), atol=1e-5)


def test_an_encoder_that_puts_words_before_texts_is_refused(small: SentenceTransformer, tmp_path: Path) -> None:
    prompted = SentenceTransformer(
        modules=list(small), prompts={"passage": "passage: "}, default_prompt_name="passage", device="cpu"
    )
    prompted.save(str(tmp_path / "prompted"))
    embedder = ContentEmbedder(TextSettings(encoder=str(tmp_path / "prompted")), tmp_path / "cache")
    with pytest.raises(TrainingError, match="'passage: ' before each text"):
        export_text_encoder(embedder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_an_encoder_that_is_no_transformer_is_refused(embedder: ContentEmbedder, tmp_path: Path) -> None:
    tokenizer = embedder.model.tokenizer.backend_tokenizer
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)]).save(str(tmp_path / "static"))
    static = ContentEmbedder(TextSettings(encoder=str(tmp_path / "static")), tmp_path / "cache")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        export_text_encoder(static, tmp_path / "exported")
