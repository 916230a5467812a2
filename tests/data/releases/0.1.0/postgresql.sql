CREATE TABLE events (
    position BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    event TEXT NOT NULL,
    timestamp BIGINT NOT NULL,
    value FLOAT,
    request_id TEXT,
    context TEXT,
    PRIMARY KEY (position),
    UNIQUE (event_id)
);
CREATE INDEX events_of_user ON events (user_id, position);
INSERT INTO events (position, event_id, user_id, item_id, event, timestamp, value, request_id, context) VALUES (3, 'e-1', 'ann', 'tea', 'click', 1700000000, NULL, 'r-1', NULL);
INSERT INTO events (position, event_id, user_id, item_id, event, timestamp, value, request_id, context) VALUES (4, 'e-2', 'ann', 'rum', 'rating', 1700000060, 4.5, NULL, '{"note":"caf\u00e9, it''s"}');
INSERT INTO events (position, event_id, user_id, item_id, event, timestamp, value, request_id, context) VALUES (5, 'e-3', '7', 'tea', 'purchase', 1690000000, 2.5, NULL, NULL);
CREATE TABLE experiment_looks (
    experiment_id TEXT NOT NULL,
    look INTEGER NOT NULL,
    timestamp BIGINT NOT NULL,
    version INTEGER NOT NULL,
    statistics TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (experiment_id, look)
);
INSERT INTO experiment_looks (experiment_id, look, timestamp, version, statistics, result) VALUES ('order', 1, 1700001000, 2, '{"n":[1,0]}', '{"verdict":"wait"}');
CREATE TABLE experiment_versions (
    experiment_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    timestamp BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (experiment_id, version)
);
INSERT INTO experiment_versions (experiment_id, version, timestamp, action, actor, reason, definition) VALUES ('order', 1, 1699990000, 'create', 'shop', 'a try', '{"experiment_id":"order"}');
INSERT INTO experiment_versions (experiment_id, version, timestamp, action, actor, reason, definition) VALUES ('order', 2, 1699990100, 'stop', 'shop', '', '{"experiment_id":"order"}');
CREATE TABLE exposures (
    experiment_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    arm TEXT NOT NULL,
    phase INTEGER NOT NULL,
    timestamp BIGINT NOT NULL,
    propensity FLOAT NOT NULL,
    PRIMARY KEY (experiment_id, user_id, arm)
);
INSERT INTO exposures (experiment_id, user_id, arm, phase, timestamp, propensity) VALUES ('order', 'ann', 'control', 0, 1699999990, 0.5);
CREATE TABLE impressions (
    place BIGSERIAL NOT NULL,
    request_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    timestamp BIGINT NOT NULL,
    model_version TEXT NOT NULL,
    shown TEXT NOT NULL,
    PRIMARY KEY (place)
);
CREATE INDEX ix_impressions_request_id ON impressions (request_id);
CREATE INDEX ix_impressions_user_id ON impressions (user_id);
INSERT INTO impressions (place, request_id, user_id, timestamp, model_version, shown) VALUES (1, 'r-1', 'ann', 1699999990, '20260101-000000-aaaaaa', '[["tea", 0.9, 1.0], ["rum", 0.4, 1.0]]');
CREATE TABLE items (
    item_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    status TEXT NOT NULL,
    attributes TEXT NOT NULL,
    PRIMARY KEY (item_id)
);
CREATE INDEX ix_items_position ON items (position);
INSERT INTO items (item_id, position, status, attributes) VALUES ('tea', 1, 'visible', '{"title":"Tea, green","categories":["drinks"],"price":2.5}');
INSERT INTO items (item_id, position, status, attributes) VALUES ('rum', 2, 'hidden', '{"title":"Rum \"old\"","categories":[]}');
CREATE TABLE log_identity (
    value TEXT NOT NULL
);
INSERT INTO log_identity (value) VALUES ('566ef27ae5b943cdacf4ef75bd1bbc7c');
CREATE TABLE log_position (
    value BIGINT NOT NULL
);
INSERT INTO log_position (value) VALUES (9);
CREATE TABLE marks (
    user_hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (user_hash, kind)
);
CREATE INDEX ix_marks_position ON marks (position);
INSERT INTO marks (user_hash, kind, position) VALUES ('375fe55b56de58a0ed4a5170e1f87e74d19d7f23322566322a972c10bb19cb53', 'erased', 8);
INSERT INTO marks (user_hash, kind, position) VALUES ('ce9bece2a230b18a10b1e08f553c0c5a8151b5d501788aad09e2329d9be95888', 'touched', 9);
INSERT INTO marks (user_hash, kind, position) VALUES ('', 'rules', 7);
CREATE TABLE measures (
    experiment_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value FLOAT NOT NULL,
    timestamp BIGINT NOT NULL,
    PRIMARY KEY (experiment_id, user_id, event_id)
);
INSERT INTO measures (experiment_id, user_id, event_id, name, value, timestamp) VALUES ('order', 'ann', 'm-1', 'clicks', 1.0, 1700000000);
CREATE TABLE rules (
    rule_id TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (rule_id)
);
INSERT INTO rules (rule_id, definition) VALUES ('pin tea', '{"kind":"pin","item_ids":["tea"]}');
CREATE TABLE turns (
    work TEXT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (work)
);
INSERT INTO turns (work, until) VALUES ('guard', 1700000300);
SELECT setval('impressions_place_seq', 1);
