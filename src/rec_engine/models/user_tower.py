"""The user tower at request time: ONNX Runtime and arrays, no torch."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.data.rows import GrowingRows
from rec_engine.data.state import COLD, UserState
from rec_engine.errors import BundleError

USERS_A_BATCH = 256


@dataclass(frozen=True, slots=True)
class UserTower:
    """Turns histories into user vectors.

    Attributes:
        session: the exported tower.
        item_inputs: (n_items, embedding_dim) float32, what the encoder reads of each item.
        user_inputs: (n_users, embedding_dim) float32 id embeddings; without rows where the tower reads histories.
        user_features: (n_users, n_features) float32.
        max_history_len: latest items that the encoder reads.
        room: the inputs with those of items that came later; None where none can.
    """

    session: onnxruntime.InferenceSession
    item_inputs: FloatArray
    user_inputs: FloatArray
    user_features: FloatArray
    max_history_len: int
    room: GrowingRows | None = None
    _inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Remember what the network reads; asking it costs as much as a small network does."""
        object.__setattr__(self, "_inputs", tuple(node.name for node in self.session.get_inputs()))

    def vector(self, state: UserState) -> FloatArray | None:
        """Return (dim,) float32, L2-normalised; None for a user of whom the tower knows nothing.

        That is one without a positive history or, where the tower reads ids, one that was not in training.

        Raises:
            BundleError: if ONNX Runtime fails.
        """
        if len(state.liked) == 0 or (len(self.user_inputs) and state.user_code == COLD):
            return None
        n = self.max_history_len
        features = np.zeros((1, self.user_features.shape[1]), dtype=np.float32)
        if state.user_code != COLD:
            features = self.user_features[state.user_code][None]
        if len(self.user_inputs):
            sequence, times = self.user_inputs[state.user_code][None, None], np.zeros((1, 1), dtype=np.int64)
        else:
            rows = self.item_inputs if self.room is None else self.room
            sequence, times = rows[state.liked[-n:]][None], state.liked_at[-n:][None]
        last = np.array([times.shape[1] - 1])
        vector: FloatArray = self._run(sequence, times, last, np.array([state.now]), features)[0]
        return vector

    def vectors(self, history: Interactions, user_codes: IntArray, now: LongArray) -> FloatArray:
        """Return (n, dim) float32, L2-normalised; zeros for users without a positive history.

        Args:
            history: what the users met.
            user_codes: (n,) int32.
            now: (n_users,) int64, Unix seconds of each user's request.
        """
        liked = history.of_users(user_codes).positive()
        lengths = np.minimum(np.diff(liked.starts), self.max_history_len)
        vectors = np.zeros((len(user_codes), self.dim), dtype=np.float32)
        order = np.argsort(lengths, kind="stable")
        order = order[np.searchsorted(lengths[order], 1) :]
        for first in range(0, len(order), USERS_A_BATCH):
            rows = order[first : first + USERS_A_BATCH]
            users = user_codes[rows]
            if len(self.user_inputs):
                sequence, last = self.user_inputs[users][:, None], np.zeros(len(users), dtype=np.int64)
                times = np.zeros((len(users), 1), dtype=np.int64)
            else:
                places = self._places(liked, rows, lengths[rows])
                sequence, times = self.item_inputs[liked.item_codes[places]], liked.timestamps[places]
                last = lengths[rows] - 1
            vectors[rows] = self._run(sequence, times, last, now[users], self.user_features[users])
        return vectors

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.session.get_outputs()[0].shape[-1])

    def _places(self, liked: Interactions, users: LongArray, lengths: LongArray) -> LongArray:
        """Return (n, max(lengths)) rows of the latest items of each user; any row after the last of them."""
        steps = np.arange(lengths.max())
        rows: LongArray = np.minimum((liked.starts[1:][users] - lengths)[:, None] + steps, len(liked) - 1)
        return rows

    def _run(
        self, sequence: FloatArray, times: LongArray, last: LongArray, now: LongArray, features: FloatArray
    ) -> FloatArray:
        # Each position is asked when the next item came, the last one at the time of the request.
        query_times = np.concatenate([times[:, 1:], times[:, -1:]], axis=1)
        query_times[np.arange(len(last)), last] = now
        feed = {
            "sequence": sequence,
            "times": times,
            "query_times": query_times,
            "last": last.astype(np.int64),
            "user_features": features,
        }
        try:
            vectors: FloatArray = self.session.run(None, {name: feed[name] for name in self._inputs})[0]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own errors have no common base but Exception
            raise BundleError(f"the user tower fails: {error}", hint="restore the model or train again") from error
        return vectors


def open_session(path: Path, n_threads: int = 1) -> onnxruntime.InferenceSession:
    """Return the exported tower, ready to run; one thread a request is fastest where requests come side by side.

    Raises:
        BundleError: if the file is not an ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own errors have no common base but Exception
        raise BundleError(f"{path}: not a readable ONNX model ({error})", hint="train again") from error
