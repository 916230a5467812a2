"""Every setting is documented, arrives, and is refused with a useful sentence when it is wrong."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from rec_engine.errors import ConfigError
from rec_engine.utils.config import ENVIRONMENT_PREFIX, ModelConfig, ServingConfig, load_config, valid_keys
from rec_engine.utils.settings import Settings

ROOT = Path(__file__).parents[2]
OTHER_VALUES: dict[str, object] = {
    "milvus.uri": "http://vectors:19530", "milvus.database": "shop",
    "store.url": "sqlite:///elsewhere.db", "recommendations.caps": {"brand": 2},
    "security.keys": [{"name": "shop", "sha256": "0" * 64, "scopes": ["serve"]}],
    "security.allow_public_without_keys": True, "security.allowed_hosts": ["shop.example"],
    "data.repeat_items": True,
    "training.mixed_precision": "bf16",
    "training.gradient_checkpointing": True,
    "data.min_rating": 3.5, "data.timestamp_format": "%Y", "model.tower_dims": [32, 8], "model.user_encoder": "mean",
    "training.loss": "sampled", "training.device": "cpu", "faiss.index_type": "HNSW", "faiss.metric": "inner_product",
    "ctr.model_type": "none", "ctr.objective": "lambdarank", "text.encoder": "none", "text.max_tokens": 9,
    "evaluation.split": "random", "api.host": "127.0.0.2", "redis.host": "cache",
    "redis.username": "shop", "redis.cluster": True, "redis.tls": True, "redis.tls_ca": "ca.pem", "api.cors_origins": ["https://shop.example"],
    "logging.style": "json", "logging.level": "ERROR", "logging.access": True, "api.dashboard": False,
}  # fmt: skip
FRACTIONS = {"data.max_rejected", "model.dropout", "model.temperature", "faiss.recall_floor", "training.learning_rate",
             "model.id_dropout", "training.weight_decay", "ctr.learning_rate", "recommendations.min_score_threshold",
             "recommendations.diversity", "recommendations.new_item_share",
             "recommendations.exploration", "evaluation.test_share", "evaluation.validation_share"}  # fmt: skip
KEYS = [(kind, key) for kind in (ModelConfig, ServingConfig) for key in valid_keys(kind)]


def other_value(key: str) -> object:
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    return 0.43 if key in FRACTIONS else 7


def reached(settings: Settings, key: str) -> object:
    found: object = settings
    for part in key.split("."):
        found = getattr(found, part)
    if isinstance(found, tuple):
        return [item.model_dump(mode="json") if isinstance(item, Settings) else item for item in found]
    return found


def nested(key: str, value: object) -> dict[str, object]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_every_key_arrives_from_file_and_environment(
    kind: type[ModelConfig] | type[ServingConfig], key: str, tmp_path: Path
) -> None:
    value = other_value(key)
    if key != "faiss.metric":
        assert value != reached(kind(), key)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(nested(key, value)))
    assert reached(load_config(kind, path, environment={}), key) == value
    name = ENVIRONMENT_PREFIX + key.upper().replace(".", "__")
    assert reached(load_config(kind, None, environment={name: str(value)}), key) == value


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("training: {batch_size: 1, num_epochs: 1, seed: 1}")
    environment = {"REC_ENGINE_TRAINING__BATCH_SIZE": "2", "REC_ENGINE_TRAINING__NUM_EPOCHS": "2"}
    flags = {"training.batch_size": 3, "training.learning_rate": None}
    training = load_config(ModelConfig, path, environment=environment, flags=flags).training
    assert (training.batch_size, training.num_epochs, training.seed, training.learning_rate) == (3, 2, 1, 0.001)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("training: {batch_sise: 3}", "training.batch_sise is not a setting", "training.batch_size"),
        ("trainig: {batch_size: 3}", "trainig is not a setting", "training"),
        ("training: {num_epochs: many}", "training.num_epochs = 'many'", ""),
        ("training: {num_epochs: 0}", "training.num_epochs = 0", ""),
        ("faiss: {index_type: flat}", "faiss.index_type = 'flat'", ""),
        ("data: {event_weights: {clik: 1}}", "data.event_weights.clik is not a setting", "data.event_weights.click"),
        ("training: 3", "training = 3", ""),
        ("- a list", "holds a list", ""),
        ("a: [", "not readable as YAML", ""),
    ],
)
def test_wrong_settings_name_file_key_and_remedy(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(ModelConfig, path, environment={})
    assert "settings.yaml" in str(error.value)
    assert message in str(error.value)
    assert hint in error.value.hint


def test_wrong_environment_and_flag_are_named_as_the_source() -> None:
    with pytest.raises(ConfigError, match="REC_ENGINE_API__PORT: api.port"):
        load_config(ServingConfig, None, environment={"REC_ENGINE_API__PORT": "99999"})
    with pytest.raises(ConfigError, match="--num-epochs: training.num_epochs"):
        load_config(ModelConfig, None, environment={}, flags={"training.num_epochs": -1})


def test_unknown_keys_of_environment_and_flags_name_their_source_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match="REC_ENGINE_TRAINING__BATCH_SISE: training.batch_sise is not") as error:
        load_config(ModelConfig, None, environment={"REC_ENGINE_TRAINING__BATCH_SISE": "3"})
    assert "training.batch_size" in error.value.hint
    with pytest.raises(ConfigError, match="--batch-sise: training.batch_sise is not") as error:
        load_config(ModelConfig, None, environment={}, flags={"training.batch_sise": 3})
    assert "training.batch_size" in error.value.hint


def test_the_environment_of_the_other_file_is_left_alone() -> None:
    environment = {"REC_ENGINE_API__PORT": "9000", "REC_ENGINE_MODEL_DIR": "models", "PATH": "/bin"}
    assert load_config(ModelConfig, None, environment=environment) == ModelConfig()


def test_missing_file_is_named_and_an_empty_one_is_all_defaults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone.yaml: no such file"):
        load_config(ModelConfig, tmp_path / "gone.yaml", environment={})
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(ModelConfig, tmp_path / "empty.yaml", environment={}) == ModelConfig()


def test_every_setting_is_documented_where_it_is_defined() -> None:
    sections: list[type[Settings]] = Settings.__subclasses__()
    missing = [
        f"{kind.__name__}.{name}"
        for kind in sections
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert missing == []


def test_settings_do_not_change_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ModelConfig().training.seed = 5


@pytest.mark.parametrize(("name", "kind"), [("model", ModelConfig), ("serving", ServingConfig)])
def test_the_files_of_the_repository_hold_the_defaults(
    name: str, kind: type[ModelConfig] | type[ServingConfig]
) -> None:
    assert load_config(kind, ROOT / f"configs/{name}_config.yaml", environment={}) == kind()


def test_text_in_the_environment_is_taken_as_it_is() -> None:
    environment = {"REC_ENGINE_DATA__TIMESTAMP_FORMAT": "%m/%d/%Y", "REC_ENGINE_MODEL__TOWER_DIMS": "[32, 8]"}
    found = load_config(ModelConfig, None, environment=environment)
    assert (found.data.timestamp_format, found.model.tower_dims) == ("%m/%d/%Y", (32, 8))
    assert load_config(ServingConfig, None, environment={"REC_ENGINE_REDIS__HOST": "no"}).redis.host == "no"


def test_misspelt_section_in_the_environment_is_an_error_and_another_files_is_not() -> None:
    with pytest.raises(ConfigError, match="REC_ENGINE_TRAINING_X__SEED") as error:
        load_config(ModelConfig, None, environment={"REC_ENGINE_TRAINING_X__SEED": "1"})
    assert "training" in error.value.hint
    assert load_config(ModelConfig, None, environment={"REC_ENGINE_API__PORT": "80"}) == ModelConfig()


def test_a_key_is_blamed_on_its_own_source(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("training: {seed_x: 3}")
    with pytest.raises(ConfigError, match=r"settings.yaml: training.seed_x"):
        load_config(ModelConfig, path, environment={"REC_ENGINE_TRAINING__SEED": "1"})


def test_a_section_with_everything_commented_out_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("training:\n  # seed: 3\nmodel: {dropout: 0.1}\n")
    assert load_config(ModelConfig, path, environment={}).training == ModelConfig().training


def test_infinity_is_not_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("training: {learning_rate: .inf}")
    with pytest.raises(ConfigError, match="learning_rate"):
        load_config(ModelConfig, path, environment={})
