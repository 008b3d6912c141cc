-- The write path: founding a ledger, and the function that appends, one per generation.

-- Makes the lanes and the first generation of a new ledger; answers how many lanes there are.
create function bellwire.found(p_lanes int) returns int language plpgsql volatile as $fn$
declare
  v int;
begin
  lock table bellwire.ledger in exclusive mode;
  select l.lanes into v from bellwire.ledger l;
  if found then
    return v;
  end if;
  insert into bellwire.ledger (lanes) values (p_lanes);
  insert into bellwire.lane (lane) select generate_series(1, p_lanes);
  insert into bellwire.generation (gen) values (1);
  insert into bellwire.lane_start (gen, lane, first_seq) select 1, n, 1 from generate_series(1, p_lanes) n;
  perform bellwire.create_generation(1);
  return p_lanes;
end $fn$;

create function bellwire.create_append(g int) returns void language plpgsql volatile as $fn$
begin
end $fn$;
