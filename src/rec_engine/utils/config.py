"""Every setting: one frozen class a YAML section, each field documented where it is defined.

Precedence: command-line flag, environment (`REC_ENGINE_TRAINING__BATCH_SIZE=256`), file, default.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from rec_engine.errors import ConfigError
from rec_engine.utils.service_settings import (
    REDIS_PASSWORD_VARIABLE,
    APISettings,
    HostName,
    LoggingSettings,
    MilvusSettings,
    RedisSettings,
)
from rec_engine.utils.settings import Settings

ENVIRONMENT_PREFIX = "REC_ENGINE_"
ScopeName = Literal["serve", "ingest", "admin"]


class EventWeights(Settings):
    """What one event says about the user's taste; at or below zero it is never a training target."""

    view: float = 1.0
    """The item's page was opened."""
    click: float = 1.0
    """The item was clicked in a list."""
    like: float = 2.0
    """Thumbs up."""
    dislike: float = -1.0
    """Thumbs down: never a target, and the item is not shown again."""
    share: float = 2.0
    """The item was sent to somebody."""
    add_to_cart: float = 2.0
    """The item was put into the cart."""
    purchase: float = 3.0
    """The item was bought."""
    rating: float = 1.0
    """The item was rated; see also `min_rating`."""


class DataSettings(Settings):
    """The `data:` section: how files become a dataset."""

    event_weights: EventWeights = EventWeights()
    """One weight an event type."""
    min_rating: float | None = None
    """Ratings below it count as negative feedback; without it every rating is a positive interaction."""
    timestamp_format: str | None = None
    """strptime format of text timestamps, such as "%m/%d/%Y"; ISO 8601 needs none."""
    max_rejected: float = Field(default=0.05, ge=0, le=1)
    """Share of unusable rows above which loading stops."""
    repeat_items: bool = False
    """Whether a user may be shown what he has met already, as a grocer wants it and a video site does not."""


class ModelSettings(Settings):
    """The `model:` section: the two towers."""

    embedding_dim: PositiveInt = Field(default=128, le=4096)
    """Width of the id embeddings and of the history encoder."""
    tower_dims: tuple[PositiveInt, ...] = Field(default=(256, 128, 64), min_length=1)
    """Layers of each tower's MLP; the last one is the width of the vectors that are searched."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of activations dropped in training."""
    temperature: float = Field(default=0.07, gt=0, le=1)
    """Divides the cosine of user and item vector; small values sharpen the softmax."""
    user_encoder: Literal["hstu", "sasrec", "mean", "none"] = "hstu"
    """How the history becomes part of the user vector; `none` uses the user's id embedding instead."""
    n_blocks: PositiveInt = Field(default=2, le=32)
    """Blocks of the hstu and sasrec encoders."""
    n_heads: PositiveInt = Field(default=1, le=32)
    """Attention heads of each block; must divide embedding_dim."""
    max_history_len: PositiveInt = Field(default=200, le=4096)
    """Latest items of a user that the encoder reads."""

    id_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the items of a step known by features and text alone: so new items find their place without an id."""


class TextSettings(Settings):
    """The `text:` section: what items are about, from title, description and categories."""

    encoder: str = Field(default="minilm", min_length=1)
    """`minilm` (comes with the package), any SentenceTransformer's name, a folder that holds one, or `none`."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Beginning of each text that is read."""
    dim: PositiveInt = Field(default=64, le=1024)
    """Whitened dimensions that the item tower reads."""


class TrainingSettings(Settings):
    """The `training:` section."""

    batch_size: PositiveInt = 512
    """Histories a batch, of all processes together; fewer where the data is so small that an epoch would have less than
    32 steps."""
    num_epochs: PositiveInt = 50
    """Passes over the users at most."""
    learning_rate: PositiveFloat = 0.001
    """Peak of the schedule: linear warm-up, then cosine decay to 5%."""
    warmup_steps: NonNegativeInt = 100
    """Steps until the learning rate has reached its peak; at most a tenth of all."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    early_stopping_patience: PositiveInt = 10
    """Epochs without a better validation NDCG@10 before training stops."""
    loss: Literal["auto", "full", "sampled"] = "auto"
    """Softmax over the whole catalogue, or over sampled items with logQ correction; auto: by `full_softmax_limit`."""
    full_softmax_limit: PositiveInt = 5_000
    """Catalogues up to this size are trained with the full softmax when `loss` is auto."""
    n_negatives: PositiveInt = 512
    """Items sampled a step, shared by all positions of the batch, when the softmax is sampled."""
    seed: NonNegativeInt = 0
    """Initial weights, order of batches, dropout and negatives."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when there is one."""
    mixed_precision: Literal["none", "bf16", "fp16"] = "none"
    """Arithmetic of towers and encoder in training: 16 bits take half of the memory and are faster on GPUs made for it.
    Weights and softmax keep 32 bits. `bf16` is right for GPUs since 2020 (Ampere); `fp16`, with scaled gradients, for
    older ones."""
    gradient_accumulation: PositiveInt = Field(default=1, le=10_000)
    """Batches a step: memory of one batch, gradients of several. Each batch counts the same, however many targets it
    has, and draws negatives of its own, so it is not to the digit a step on one larger batch."""
    gradient_checkpointing: bool = False
    """Whether what is inside the encoder's blocks is worked out a second time for the gradients rather than kept:
    slower, in less memory, with the same result."""


class FaissSettings(Settings):
    """The `faiss:` section: search by the user vector."""

    index_type: Literal["Flat", "IVF", "HNSW"] = "IVF"
    """Flat is exact and right for small catalogues; IVF and HNSW trade recall for speed."""
    nlist: PositiveInt = 100
    """IVF cells; lowered when the catalogue is too small to fill them."""
    metric: Literal["inner_product"] = "inner_product"
    """Both towers end in L2 normalisation, so the inner product is the cosine."""
    recall_floor: float = Field(default=0.99, gt=0, le=1)
    """The build widens the search until recall@100 against Flat reaches this on the real vectors."""


class CTRSettings(Settings):
    """The `ctr:` section: the re-ranker."""

    model_type: Literal["lightgbm", "none"] = "lightgbm"
    """`none` leaves the order to retrieval."""
    objective: Literal["auto", "binary", "lambdarank", "rank_xendcg"] = "auto"
    """What the trees learn; auto takes the one that does best on users who did not teach it."""
    num_leaves: int = Field(default=31, ge=2, le=1024)
    """Leaves of each tree."""
    learning_rate: PositiveFloat = 0.05
    """Shrinkage of each tree."""


class EvaluationSettings(Settings):
    """The `evaluation:` section: what is held out."""

    split: Literal["leave_one_out", "temporal", "random"] = "leave_one_out"
    """Each user's last interaction, the last part of time for all users, or a random part of each user's."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the interactions that is reported on (temporal and random)."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share before it, on which training stops and the ranker learns (temporal and random)."""


class ModelConfig(Settings):
    """The whole of model_config.yaml."""

    data: DataSettings = DataSettings()
    """How files become a dataset."""
    model: ModelSettings = ModelSettings()
    """The two towers."""
    text: TextSettings = TextSettings()
    """What items are about."""
    training: TrainingSettings = TrainingSettings()
    """How the towers are trained."""
    faiss: FaissSettings = FaissSettings()
    """Search by the user vector."""
    ctr: CTRSettings = CTRSettings()
    """The re-ranker."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is held out."""


class KeySettings(Settings):
    """An entry of `security.keys`."""

    name: str = Field(min_length=1, max_length=64)
    """Who holds the key; no two have the same name."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key, in hex, as `rec-engine keys new` prints it. The key itself is written down nowhere."""
    scopes: tuple[ScopeName, ...] = Field(min_length=1)
    """`serve` asks for recommendations and figures, `ingest` sends events, `admin` may do everything."""


class SecuritySettings(Settings):
    """The `security:` section."""

    keys: tuple[KeySettings, ...] = ()
    """Who may use the service; without any it is open to everybody who reaches it."""
    allow_public_without_keys: bool = False
    """Whether to listen on other addresses than this machine's own although there are no keys."""
    allowed_hosts: tuple[HostName, ...] = Field(default=(), max_length=100)
    """Names in `Host` that are answered beside localhost, 127.0.0.1 and [::1]; `*` for any. When empty any is, but for
    a service without keys that listens on this machine only: a web page could have its own name lead there."""
    requests_per_second: PositiveFloat | None = None
    """Requests that one key (without keys: one address) may send to one server process; no limit when null."""
    burst: PositiveInt = Field(default=100, le=1_000_000)
    """Requests that may come at once after a pause."""


class StoreSettings(Settings):
    """The `store:` section: the log of events."""

    url: str = "sqlite:///state/events.db"
    """`sqlite:///path`, or `postgresql://user:password@host/name` for several machines."""
    keep_events_days: PositiveInt | None = Field(default=None, le=36_500)
    """Days after which the service removes events, but for what a running experiment measures; never when null."""
    keep_impressions_days: PositiveInt | None = Field(default=None, le=36_500)
    """Days after which it removes what was shown, which takes most of the room; never when null."""


class RecommendationSettings(Settings):
    """The `recommendations:` section."""

    default_k: PositiveInt = Field(default=10, le=100)
    """Items in an answer when the request does not say."""
    candidate_multiplier: PositiveInt = Field(default=3, le=100)
    """Candidates retrieved for each item wanted."""
    min_candidates: PositiveInt = Field(default=200, le=10_000)
    """Candidates retrieved at least: a short answer deserves a careful ranking too."""
    min_score_threshold: float = Field(default=0.1, ge=-1, le=1)
    """Cosine below which an item found by the towers gives way to popular ones; answers stay complete."""
    diversity: float = Field(default=0.0, ge=0, le=1)
    """How much likeness to the items above counts against an item, where the request does not say."""
    caps: dict[str, PositiveInt] = {}
    """Attribute to the most items of an answer that may share a value of it, as far as there are others."""
    exploration: float = Field(default=0.0, ge=0, le=10)
    """Temperature, in log-odds, at which the order is drawn; 0 shows the best. Drawn answers are never cached, and what
    they show is logged with its probability."""
    new_item_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the drawn places that goes to items that hardly anybody has met, most often to those nearest to the
    user's taste. It takes effect where exploration is above 0."""


class ServingConfig(Settings):
    """The whole of serving_config.yaml."""

    api: APISettings = APISettings()
    """Where the service listens, and how patient it is."""
    logging: LoggingSettings = LoggingSettings()
    """What the service logs."""
    redis: RedisSettings = RedisSettings()
    """The cache of answers."""
    store: StoreSettings = StoreSettings()
    """The log of events."""
    security: SecuritySettings = SecuritySettings()
    """Who may use the service, and how often."""
    recommendations: RecommendationSettings = RecommendationSettings()
    """What an answer holds."""
    milvus: MilvusSettings = MilvusSettings()
    """Where vectors are searched, if not in the process."""


Config = TypeVar("Config", bound=Settings)
Tree = dict[str, object]


def load_config(
    kind: type[Config],
    path: Path | None,
    *,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Return the settings of a file, overlaid by the environment and by command-line flags.

    Args:
        kind: ModelConfig or ServingConfig.
        path: a YAML file; without one only the defaults are below.
        flags: values by dotted key ("training.batch_size"); None means that the flag was not given.
        environment: the process's, unless a test gives another.

    Raises:
        ConfigError: naming source, key and, for an unknown key, the nearest valid one.
    """
    tree = _read_yaml(path) if path else {}
    source_by_key: dict[str, str] = {}
    for key, (name, text) in _from_environment(kind, os.environ if environment is None else environment).items():
        _put(tree, key, _value_of(name, text), str(path))
        source_by_key[key] = name
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key, value, str(path))
            source_by_key[key] = f"--{key.rpartition('.')[2].replace('_', '-')}"
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        source = next((name for known, name in source_by_key.items() if f"{key}.".startswith(f"{known}.")), str(path))
        if first["type"] == "extra_forbidden":
            raise _unknown_key(kind, key, source) from None
        raise ConfigError(
            f"{source}: {key} = {first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}",
            hint="the reference of all settings is docs/configuration.md",
        ) from None


def valid_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key of a settings class, in the order of definition."""
    keys: list[str] = []
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += valid_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _read_yaml(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="see configs/ for examples") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}", hint="see configs/ for examples") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}, not sections", hint="see configs/ for examples")
    # A section in which everything is commented out is an empty one.
    return {section: settings for section, settings in tree.items() if settings is not None}


def _from_environment(kind: type[BaseModel], environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return variable name and text by dotted key, for the variables that name a section of this class."""
    found: dict[str, tuple[str, str]] = {}
    sections = ModelConfig.model_fields.keys() | ServingConfig.model_fields.keys()
    for name, text in sorted(environment.items()):
        section, separator, rest = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or not separator:
            continue
        if section not in sections:
            near = difflib.get_close_matches(section, sections, n=1) or sorted(sections)
            raise ConfigError(f"{name}: {section} is not a section of the settings", hint=f"there is {', '.join(near)}")
        if section in kind.model_fields:
            found[f"{section}.{rest.replace('__', '.')}"] = (name, text)
    return found


def _value_of(name: str, text: str) -> object:
    """Return a variable's text as it is, a list or mapping parsed, nothing as None."""
    if text.strip() in {"", "null"}:
        return None
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not readable as YAML: {error}", hint="a list is written as [256, 64]") from None


def _put(tree: Tree, key: str, value: object, file: str) -> None:
    """Set a dotted key in place."""
    *sections, last = key.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{file}: {section} holds {below!r}, not settings", hint="see configs/ for examples")
        tree = below
    tree[last] = value


def _unknown_key(kind: type[BaseModel], key: str, source: str) -> ConfigError:
    sections = list(kind.model_fields)
    if key == "redis.password":
        hint = f"give it in the variable {REDIS_PASSWORD_VARIABLE}: no file and no copy of the settings holds it"
        return ConfigError(f"{source}: {key} is not a setting", hint=hint)
    known = valid_keys(kind)
    near = difflib.get_close_matches(key, known + sections, n=1, cutoff=0.5)
    return ConfigError(
        f"{source}: {key} is not a setting",
        hint=f"did you mean {near[0]}?" if near else f"the sections are {', '.join(sections)}",
    )
