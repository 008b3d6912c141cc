-- Cancelling: an operator gives up what is owed, or asks for it where no cursor has come by yet.
--
-- `owed.reason` 7: asked for, of a place that the cursor has not passed; it is no debt, and no account counts it. The
-- flush that passes the place ends it: with an ending it goes, with a debt it becomes one of reason 8, which stays until
-- it is settled. Both are due at once.

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
  reason      INTEGER NOT NULL CHECK (reason BETWEEN 0 AND 8),
  replay      TEXT,
  key         TEXT,
  counted     INTEGER NOT NULL CHECK (counted IN (0, 1)),
  PRIMARY KEY (binding, place),
  CHECK ((reason = 2) = (replay IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_by_time ON owed (binding, lane, next_at, place) WHERE reason NOT IN (3, 4);
CREATE INDEX owed_by_place ON owed (place);
CREATE INDEX owed_asked ON owed (binding, place) WHERE reason = 7;
INSERT INTO owed (binding, place, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
  SELECT o.binding, o.place, o.accepted_at, o.attempts, o.next_at, o.since, o.error, o.reason, o.replay, o.key, o.counted
  FROM owed_before o;
DROP TABLE owed_before;
