-- Whoever takes a lane asks whether debts of a binding wait for their key there; there may be very many of other kinds.
CREATE INDEX owed_parked ON owed (binding, place) WHERE reason IN (3, 4);
