-- The ledger in one SQLite file. Times are microseconds since 1970-01-01 UTC, durations milliseconds.
-- A place is an address in one number: lane * 2^48 + seq, so that one integer key orders every lane.

CREATE TABLE ledger (
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  lanes     INTEGER NOT NULL CHECK (lanes BETWEEN 1 AND 1024),
  next_line INTEGER NOT NULL
) STRICT;

-- The tail outlives the events, so a place is never used twice. No owner: nobody may flush.
CREATE TABLE lane (
  lane     INTEGER PRIMARY KEY CHECK (lane > 0),
  tail     INTEGER NOT NULL DEFAULT 0 CHECK (tail >= 0),
  epoch    INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
  owner    BLOB CHECK (length(owner) = 16),
  taken_at INTEGER,
  CHECK ((owner IS NULL) = (taken_at IS NULL))
) STRICT;

-- Words that repeat (sources, types, workers, versions), written once.
CREATE TABLE name (
  id   INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE event (
  place       INTEGER PRIMARY KEY CHECK (place > 0),
  lane        INTEGER GENERATED ALWAYS AS (place >> 48) VIRTUAL,
  seq         INTEGER GENERATED ALWAYS AS (place & 281474976710655) VIRTUAL,
  source      INTEGER NOT NULL,
  type        INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL,
  key         TEXT,
  id          TEXT NOT NULL,
  attributes  TEXT NOT NULL,
  meta        TEXT,
  data        BLOB
) STRICT;
CREATE INDEX event_by_time ON event (accepted_at, source);
CREATE INDEX event_by_source ON event (source);
CREATE INDEX event_by_type ON event (type, accepted_at);
-- Ids and keys come in random order. Grouped by 4,096 places, an insert touches pages of the newest group only, which
-- stay in memory; a search asks each group.
CREATE INDEX event_by_id ON event (place >> 12, substr(id, 1, 64));
CREATE INDEX event_by_key ON event (place >> 12, substr(key, 1, 64)) WHERE key IS NOT NULL;

-- Answers of appends, so that a repeated append is recognised; see `sqlite/append.rs` for the coding of `answer`.
CREATE TABLE append (
  n           INTEGER PRIMARY KEY,
  id          BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
  accepted_at INTEGER NOT NULL,
  answer      BLOB NOT NULL
) STRICT;

CREATE TABLE position (
  shard   TEXT PRIMARY KEY,
  version INTEGER NOT NULL CHECK (version > 0),
  value   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Hashes are random too, hence the groups: opened by size or age, left out once the last window in them is over.
CREATE TABLE dedup_group (
  id        INTEGER PRIMARY KEY,
  opened_at INTEGER NOT NULL,
  entries   INTEGER NOT NULL,
  last_end  INTEGER NOT NULL
) STRICT;
CREATE TABLE dedup (
  grp   INTEGER NOT NULL,
  hash  BLOB NOT NULL CHECK (length(hash) = 16),
  place INTEGER NOT NULL,
  until INTEGER NOT NULL,
  PRIMARY KEY (grp, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE duplicate (
  n      INTEGER PRIMARY KEY,
  at     INTEGER NOT NULL,
  source INTEGER NOT NULL,
  id     TEXT NOT NULL,
  first  INTEGER NOT NULL
) STRICT;
CREATE INDEX duplicate_by_first ON duplicate (first);
CREATE INDEX duplicate_by_id ON duplicate (substr(id, 1, 64));

CREATE TABLE quarantine (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,
  source INTEGER NOT NULL,
  reason TEXT NOT NULL,
  bytes  BLOB NOT NULL CHECK (length(bytes) <= 1048576),
  meta   TEXT NOT NULL
) STRICT;

CREATE TABLE arrival (
  source      INTEGER PRIMARY KEY,
  accepted    INTEGER NOT NULL DEFAULT 0 CHECK (accepted >= 0),
  duplicate   INTEGER NOT NULL DEFAULT 0 CHECK (duplicate >= 0),
  quarantined INTEGER NOT NULL DEFAULT 0 CHECK (quarantined >= 0),
  last_at     INTEGER,
  CHECK ((accepted = 0) = (last_at IS NULL))
) STRICT;

-- `uncounted`: how many events of the source, of all ever accepted, the binding's account leaves out (those before its
-- start, and those that retention removed before it had passed them).
CREATE TABLE binding (
  id            INTEGER PRIMARY KEY,
  name          TEXT NOT NULL UNIQUE,
  revision      INTEGER NOT NULL CHECK (revision > 0),
  start         TEXT NOT NULL,
  active        INTEGER NOT NULL CHECK (active IN (0, 1)),
  paused_at     INTEGER,
  paused_by     TEXT,
  paused_reason TEXT,
  uncounted     INTEGER NOT NULL CHECK (uncounted >= 0),
  CHECK ((paused_at IS NULL) = (paused_by IS NULL) AND (paused_at IS NULL) = (paused_reason IS NULL))
) STRICT;
CREATE TABLE binding_revision (
  binding  INTEGER NOT NULL,
  revision INTEGER NOT NULL CHECK (revision > 0),
  source   INTEGER NOT NULL,
  function TEXT NOT NULL,
  filter   TEXT NOT NULL CHECK (json_valid(filter)),
  since    INTEGER NOT NULL,
  PRIMARY KEY (binding, revision)
) STRICT, WITHOUT ROWID;

-- `done`: finished ranges above the mark, [[first, last], ...]. Deliveries above `counted_from` are in the account.
CREATE TABLE checkpoint (
  binding      INTEGER NOT NULL,
  lane         INTEGER NOT NULL,
  version      INTEGER NOT NULL CHECK (version >= 0),
  mark         INTEGER NOT NULL CHECK (mark >= 0),
  done         TEXT NOT NULL CHECK (json_valid(done)),
  counted_from INTEGER NOT NULL CHECK (counted_from >= 0),
  PRIMARY KEY (binding, lane)
) STRICT, WITHOUT ROWID;

-- The account of a binding: how many deliveries stand ended in each state. States: 1 delivered, 2 filtered,
-- 3 expired, 4 dead, 5 discarded.
CREATE TABLE ended (
  binding INTEGER NOT NULL,
  state   INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
  count   INTEGER NOT NULL CHECK (count >= 0),
  PRIMARY KEY (binding, state)
) STRICT, WITHOUT ROWID;

-- `outcome` 0: failed and owed again, else the state. `counted`: the delivery is in the binding's account.
CREATE TABLE log (
  place       INTEGER NOT NULL,
  n           INTEGER NOT NULL,
  binding     INTEGER NOT NULL,
  attempt     INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  outcome     INTEGER NOT NULL CHECK (outcome BETWEEN 0 AND 5),
  counted     INTEGER NOT NULL CHECK (counted IN (0, 1)),
  error       TEXT,
  worker      INTEGER,
  version     INTEGER,
  revision    INTEGER NOT NULL,
  replay      TEXT,
  PRIMARY KEY (place, n),
  CHECK (counted = 0 OR outcome > 0)
) STRICT, WITHOUT ROWID;

-- `reason`: 0 retry, 1 redrive, 2 replay.
CREATE TABLE owed (
  binding     INTEGER NOT NULL,
  place       INTEGER NOT NULL,
  lane        INTEGER GENERATED ALWAYS AS (place >> 48) VIRTUAL,
  accepted_at INTEGER NOT NULL,
  attempts    INTEGER NOT NULL CHECK (attempts >= 0),
  next_at     INTEGER NOT NULL,
  since       INTEGER NOT NULL,
  error       TEXT,
  reason      INTEGER NOT NULL CHECK (reason BETWEEN 0 AND 2),
  replay      TEXT,
  counted     INTEGER NOT NULL CHECK (counted IN (0, 1)),
  PRIMARY KEY (binding, place),
  CHECK ((reason = 2) = (replay IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_by_time ON owed (binding, lane, next_at, place);
CREATE INDEX owed_by_place ON owed (place);

CREATE TABLE dead_letter (
  binding     INTEGER NOT NULL,
  place       INTEGER NOT NULL,
  died_at     INTEGER NOT NULL,
  first_at    INTEGER NOT NULL,
  attempts    INTEGER NOT NULL CHECK (attempts >= 0),
  error       TEXT NOT NULL CHECK (json_valid(error)),
  fingerprint TEXT NOT NULL,
  logs        TEXT NOT NULL CHECK (json_valid(logs)),
  counted     INTEGER NOT NULL CHECK (counted IN (0, 1)),
  source      INTEGER NOT NULL,
  type        INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL,
  key         TEXT,
  id          TEXT NOT NULL,
  attributes  TEXT NOT NULL,
  meta        TEXT,
  data        BLOB,
  PRIMARY KEY (binding, place)
) STRICT;
CREATE INDEX dead_letter_by_time ON dead_letter (died_at, place, binding);
CREATE INDEX dead_letter_by_place ON dead_letter (place);

-- `record` is the replay as JSON; the columns beside it hold what JSON would round.
CREATE TABLE replay (
  n          INTEGER PRIMARY KEY,
  id         TEXT NOT NULL UNIQUE,
  binding    INTEGER NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
  created_at INTEGER NOT NULL,
  since      INTEGER,
  until      INTEGER,
  record     TEXT NOT NULL CHECK (json_valid(record))
) STRICT;

CREATE TABLE refusal (
  hour      INTEGER NOT NULL,
  source    TEXT NOT NULL,
  reason    TEXT NOT NULL,
  count     INTEGER NOT NULL CHECK (count >= 0),
  last_at   INTEGER NOT NULL,
  last_peer TEXT NOT NULL,
  PRIMARY KEY (hour, source, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX refusal_by_time ON refusal (last_at);
