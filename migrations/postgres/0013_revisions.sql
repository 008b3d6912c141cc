-- Where a revision of a binding begins: the last place of every lane when it was declared, in the order of the lanes. What
-- lies beyond is judged by it, what lies before by the one before. Null where nobody had written it down.
alter table bellwire.binding_revision add column tails bigint[];

create function bellwire.tails() returns bigint[] language sql volatile as $fn$
  select array(select bellwire.tail_of(l.lane) from bellwire.lane l order by l.lane)
$fn$;

-- What is declared in one call begins at one moment: an append that commits meanwhile lies behind it in all its lanes, for all
-- its bindings. So these are given the ends of the lanes; otherwise see 0005_cluster.sql.
drop function bellwire.start_mark(smallint, smallint, timestamptz, int, bigint);
drop function bellwire.create_binding(text, int, text, text, text, timestamptz, smallint, timestamptz, int, bigint);
drop function bellwire.declare_binding(
  int, boolean, int, int, text, text, text, int, text, text, text, timestamptz, smallint, timestamptz, int, bigint);
drop function bellwire.number_of_source(text);

-- Where a binding that is new begins in a lane that ends at p_tail. p_kind: 0 now, 1 earliest, 2 at a time, 3 at an address.
create function bellwire.start_mark(
  p_lane smallint, p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint, p_tail bigint) returns bigint
language sql volatile as $fn$
  select case
    when p_kind = 1 then 0
    when p_kind = 2 then coalesce(bellwire.first_since(p_lane, p_at, p_tail) - 1, p_tail)
    when p_kind = 3 and p_at_lane = p_lane then least(greatest(p_at_seq - 1, 0), p_tail)
    else p_tail
  end
$fn$;

create function bellwire.create_binding(
  p_name text, p_source int, p_function text, p_filter text, p_start text, p_now timestamptz,
  p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint, p_tails bigint[]) returns void
language plpgsql volatile as $fn$
declare
  v_id int;
  v_lane smallint;
  v_mark bigint;
begin
  insert into bellwire.binding (name, revision, start, active) values (p_name, 1, p_start, true) returning id into v_id;
  insert into bellwire.binding_revision (binding, revision, source, function, filter, since, tails)
    values (v_id, 1, p_source, p_function, p_filter, p_now, p_tails);
  for v_lane in select l.lane from bellwire.lane l order by l.lane loop
    v_mark := bellwire.start_mark(v_lane, p_kind, p_at, p_at_lane, p_at_seq, p_tails[v_lane]);
    perform bellwire.open_account(v_id, v_lane, p_source, v_mark);
    insert into bellwire.checkpoint (gen, lane, binding, ver, at, mark, done, account, ended)
      select max(g.gen), v_lane, v_id, 0, p_now, v_mark, '{}', 1, '{0,0,0,0,0}' from bellwire.generation g;
  end loop;
end $fn$;

create function bellwire.declare_binding(
  p_id int, p_active boolean, p_revision int, p_old_source int, p_old_function text, p_old_filter text,
  p_name text, p_source int, p_function text, p_filter text, p_start text, p_now timestamptz,
  p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint, p_tails bigint[]) returns boolean
language plpgsql volatile as $fn$
begin
  if p_id is null then
    perform bellwire.create_binding(p_name, p_source, p_function, p_filter, p_start, p_now,
      p_kind, p_at, p_at_lane, p_at_seq, p_tails);
    return true;
  end if;
  if (p_old_source, p_old_function, p_old_filter) = (p_source, p_function, p_filter) then
    update bellwire.binding set active = true where id = p_id and not active;
    return found;
  end if;
  insert into bellwire.binding_revision (binding, revision, source, function, filter, since, tails)
    values (p_id, p_revision + 1, p_source, p_function, p_filter, p_now, p_tails);
  update bellwire.binding set active = true, revision = p_revision + 1 where id = p_id;
  if p_old_source <> p_source then
    perform bellwire.move_binding(p_id, p_source);
  end if;
  return true;
end $fn$;

create or replace function bellwire.declare_bindings(
  p_names text[], p_sources text[], p_functions text[], p_filters text[], p_starts text[],
  p_kinds smallint[], p_ats timestamptz[], p_at_lanes int[], p_at_seqs bigint[], p_now timestamptz) returns void
language plpgsql volatile as $fn$
declare
  v_lanes smallint;
  v_changed boolean;
  v_moves boolean;
  v_tails bigint[];
  n record;
begin
  perform bellwire.check_isolation();
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.binding'), 0);
  -- In the order in which appends number new ones.
  perform bellwire.number_sources(p_sources);
  select l.lanes into v_lanes from bellwire.ledger l;
  for n in
    select d.at_lane from unnest(p_names, p_kinds, p_at_lanes) d(name, kind, at_lane)
      where d.kind = 3 and not d.at_lane between 1 and v_lanes
        and not exists (select from bellwire.binding b where b.name = d.name)
  loop
    raise exception using errcode = 'BW020',
      message = format('lane %s does not exist: the ledger has %s', n.at_lane, v_lanes);
  end loop;
  select exists (
    select from unnest(p_names, p_sources) d(name, source)
      join bellwire.binding b on b.name = d.name
      join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
      join bellwire.source s on s.id = r.source where s.name <> d.source) into v_moves;
  if v_moves then
    -- A flush works with the account that it knows, so none may be under way.
    perform bellwire.fence(l.lane) from (select lane from bellwire.lane order by lane) l;
  end if;
  update bellwire.binding set active = false where active and name <> all (p_names);
  v_changed := found;
  v_tails := bellwire.tails();
  for n in
    select d.*, s.id as source_id, b.id, b.active, b.revision, r.source as old_source,
      r.function as old_function, r.filter as old_filter
      from unnest(p_names, p_sources, p_functions, p_filters, p_starts, p_kinds, p_ats, p_at_lanes, p_at_seqs)
        with ordinality d(name, source, function, filter, start, kind, at, at_lane, at_seq, o)
      join bellwire.source s on s.name = d.source
      left join bellwire.binding b on b.name = d.name
      left join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
      order by d.o
  loop
    v_changed := bellwire.declare_binding(n.id, n.active, n.revision, n.old_source, n.old_function, n.old_filter, n.name,
      n.source_id, n.function, n.filter, n.start, p_now, n.kind, n.at, n.at_lane, n.at_seq, v_tails)
      or v_changed;
  end loop;
  if v_changed then
    update bellwire.ledger set changes = changes + 1;
  end if;
end $fn$;
