BEGIN TRANSACTION;
CREATE TABLE events (
    position INTEGER NOT NULL,
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
INSERT INTO "events" VALUES(3,'e-1','ann','tea','click',1700000000,NULL,'r-1',NULL);
INSERT INTO "events" VALUES(4,'e-2','ann','rum','rating',1700000060,4.5,NULL,'{"note":"caf\u00e9, it''s"}');
INSERT INTO "events" VALUES(5,'e-3','7','tea','purchase',1690000000,2.5,NULL,NULL);
CREATE TABLE experiment_looks (
    experiment_id TEXT NOT NULL,
    look INTEGER NOT NULL,
    timestamp BIGINT NOT NULL,
    version INTEGER NOT NULL,
    statistics TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (experiment_id, look)
);
INSERT INTO "experiment_looks" VALUES('order',1,1700001000,2,'{"n":[1,0]}','{"verdict":"wait"}');
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
INSERT INTO "experiment_versions" VALUES('order',1,1699990000,'create','shop','a try','{"experiment_id":"order"}');
INSERT INTO "experiment_versions" VALUES('order',2,1699990100,'stop','shop','','{"experiment_id":"order"}');
CREATE TABLE exposures (
    experiment_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    arm TEXT NOT NULL,
    phase INTEGER NOT NULL,
    timestamp BIGINT NOT NULL,
    propensity FLOAT NOT NULL,
    PRIMARY KEY (experiment_id, user_id, arm)
)
 WITHOUT ROWID

;
INSERT INTO "exposures" VALUES('order','ann','control',0,1699999990,0.5);
CREATE TABLE impressions (
    place INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    timestamp BIGINT NOT NULL,
    model_version TEXT NOT NULL,
    shown TEXT NOT NULL,
    PRIMARY KEY (place)
);
INSERT INTO "impressions" VALUES(1,'r-1','ann',1699999990,'20260101-000000-aaaaaa','[["tea", 0.9, 1.0], ["rum", 0.4, 1.0]]');
CREATE TABLE items (
    item_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    status TEXT NOT NULL,
    attributes TEXT NOT NULL,
    PRIMARY KEY (item_id)
);
INSERT INTO "items" VALUES('tea',1,'visible','{"title":"Tea, green","categories":["drinks"],"price":2.5}');
INSERT INTO "items" VALUES('rum',2,'hidden','{"title":"Rum \"old\"","categories":[]}');
CREATE TABLE log_identity (
    value TEXT NOT NULL
);
INSERT INTO "log_identity" VALUES('566ef27ae5b943cdacf4ef75bd1bbc7c');
CREATE TABLE log_position (
    value BIGINT NOT NULL
);
INSERT INTO "log_position" VALUES(9);
CREATE TABLE marks (
    user_hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (user_hash, kind)
);
INSERT INTO "marks" VALUES('375fe55b56de58a0ed4a5170e1f87e74d19d7f23322566322a972c10bb19cb53','erased',8);
INSERT INTO "marks" VALUES('ce9bece2a230b18a10b1e08f553c0c5a8151b5d501788aad09e2329d9be95888','touched',9);
INSERT INTO "marks" VALUES('','rules',7);
CREATE TABLE measures (
    experiment_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value FLOAT NOT NULL,
    timestamp BIGINT NOT NULL,
    PRIMARY KEY (experiment_id, user_id, event_id)
)
 WITHOUT ROWID

;
INSERT INTO "measures" VALUES('order','ann','m-1','clicks',1.0,1700000000);
CREATE TABLE rules (
    rule_id TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (rule_id)
);
INSERT INTO "rules" VALUES('pin tea','{"kind":"pin","item_ids":["tea"]}');
CREATE TABLE turns (
    work TEXT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (work)
);
INSERT INTO "turns" VALUES('guard',1700000300);
CREATE INDEX events_of_user ON events (user_id, position);
CREATE INDEX ix_items_position ON items (position);
CREATE INDEX ix_marks_position ON marks (position);
CREATE INDEX ix_impressions_user_id ON impressions (user_id);
CREATE INDEX ix_impressions_request_id ON impressions (request_id);
COMMIT;
