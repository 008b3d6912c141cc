-- Whoever takes a lane asks whether debts of a binding wait for their key there; there may be very many of other kinds.
create index retry_parked on bellwire.retry (binding, lane) where reason in (3, 4);
