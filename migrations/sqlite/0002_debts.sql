-- Debts with the ordering key of their event, and more reasons to be owed: a binding in order parks what comes behind a
-- debt of its key, blocks on it, or waits for a later time.
--
-- `reason`: 0 retry, 1 redrive, 2 replay, 3 parked, 4 blocked, 5 delayed, 6 debounced, 7 cancelled. Parked and blocked
-- ones are never due by time. There may be very many of them, so the index by time leaves them out.

ALTER TABLE owed RENAME TO owed_before;
DROP INDEX owed_by_time;
DROP INDEX owed_by_place;
CREATE TABLE owed (
  binding     INTEGER NOT NULL,
  place       INTEGER NOT NULL,
  lane        INTEGER GENERATED ALWAYS AS (place >> 48) VIRTUAL,
  accepted_at INTEGER NOT NULL,
  attempts    INTEGER NOT NULL CHECK (attempts >= 0),
  next_at     INTEGER NOT NULL,
  since       INTEGER NOT NULL,
  error       TEXT,
  reason      INTEGER NOT NULL CHECK (reason BETWEEN 0 AND 7),
  replay      TEXT,
  key         TEXT,
  counted     INTEGER NOT NULL CHECK (counted IN (0, 1)),
  PRIMARY KEY (binding, place),
  CHECK ((reason = 2) = (replay IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_by_time ON owed (binding, lane, next_at, place) WHERE reason NOT IN (3, 4);
CREATE INDEX owed_by_place ON owed (place);
INSERT INTO owed (binding, place, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
  SELECT o.binding, o.place, o.accepted_at, o.attempts, o.next_at, o.since, o.error, o.reason, o.replay, e.key, o.counted
  FROM owed_before o LEFT JOIN event e ON e.place = o.place;
DROP TABLE owed_before;
