"""How the service listens, how patient it is, what it logs, where it keeps answers, and where it searches."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rec_engine.utils.settings import Settings

REDIS_PASSWORD_VARIABLE = "REDIS_PASSWORD"  # noqa: S105 - the name of it

Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s*]+)$", max_length=300)]
HostName = Annotated[str, Field(pattern=r"^(\*|[^\s:/*@]+|\[[0-9A-Fa-f:.]+\])$", max_length=253)]


class APISettings(Settings):
    """The `api:` section."""

    host: str = "127.0.0.1"
    """Address to listen on: this machine only, or 0.0.0.0 for everybody who can reach it, which asks for keys."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    workers: PositiveInt = Field(default=4, le=256)
    """Server processes."""
    deadline_ms: PositiveInt = Field(default=5_000, le=600_000)
    """Time after which an answer goes without the sources and the re-ranker that have not begun; `degraded` names them.
    What has begun is finished."""
    dashboard: bool = True
    """Whether `/` shows the dashboard; it asks the service's own routes, with the key of whoever looks."""
    cors_origins: tuple[Origin, ...] = Field(default=(), max_length=100)
    """Web pages that may ask from a browser, such as `https://shop.example`; `*` is all of them, none when empty."""
    max_connections: PositiveInt = Field(default=1_000, le=100_000)
    """Connections that one server process holds; whoever comes on top is answered 503."""
    receive_seconds: PositiveFloat = Field(default=10.0, le=3_600)
    """How long a client may take to send a request, head and body; then 408 is answered and the connection closed."""
    answer_seconds: PositiveFloat = Field(default=30.0, le=3_600)
    """How long an answer may wait, such as for a database; then 503 is answered."""
    keep_alive_seconds: PositiveInt = Field(default=5, le=3_600)
    """How long a connection stays open without a request; longer than that of a balancer in front."""


class LoggingSettings(Settings):
    """The `logging:` section: lines on stderr."""

    style: Literal["auto", "plain", "json"] = "auto"
    """`json` writes an object a line, `plain` text; `auto` is plain, and coloured on a terminal."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What is less important is not written."""
    access: bool = False
    """Whether every request leaves a line with route, status and time."""


class RedisSettings(Settings):
    """The `redis:` section: the cache of answers. `USE_MEMORY_CACHE=true` keeps it in the process instead.

    The password is taken from the variable `REDIS_PASSWORD` and nowhere else.
    """

    host: str = "localhost"
    """Where Redis runs."""
    port: int = Field(default=6379, ge=1, le=65535)
    """Redis' port."""
    cluster: bool = False
    """Whether it is a Redis Cluster; host and port are then those of any of its nodes."""
    cache_ttl: NonNegativeInt = 3600
    """Seconds an answer is kept; 0 keeps none."""
    memory_mebibytes: PositiveInt = Field(default=128, le=65_536)
    """Answers that each server process keeps itself, before Redis or instead of it; 10 items take some 3.6 kB."""
    username: str | None = None
    """User of Redis' access control list; its default user when null. The password is in `REDIS_PASSWORD`."""
    tls: bool = False
    """Whether the connection to Redis is encrypted and its certificate checked."""
    tls_ca: str | None = None
    """File of the certificates by which Redis' own is checked; those of the machine when null."""


class MilvusSettings(Settings):
    """The `milvus:` section: a server that finds the nearest vectors, for more items than a process should search.

    Every server process keeps the vectors mapped from the bundle, so that scores stay exact, and searches itself while
    Milvus is away. The token is taken from the variable `MILVUS_TOKEN` and nowhere else.
    """

    uri: str | None = Field(default=None, pattern=r"^(https?|tcp|unix)://[^@\s]+$|^[^@:\s]+\.db$")
    """Where Milvus is, such as `http://localhost:19530`, or a file of Milvus Lite for one worker; null searches in the
    process."""
    database: str = Field(default="", max_length=255)
    """Milvus' database; its default one when empty."""
    timeout_ms: PositiveInt = Field(default=200, le=60_000)
    """How long a search may take. One that takes longer is done in the process, as are all others until Milvus answers
    again."""
