-- Where a revision of a binding begins: the last place of every lane when it was declared, in the order of the lanes. What
-- lies beyond is judged by it, what lies before by the one before. Null where nobody had written it down.
ALTER TABLE binding_revision ADD COLUMN tails TEXT CHECK (tails IS NULL OR json_valid(tails));
