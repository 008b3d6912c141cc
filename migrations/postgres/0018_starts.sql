-- A binding that is new starts no further than one place beyond the end of its lane, and not in the future: it would be given
-- what comes before its start all the same.

-- Refuses the first start that cannot be, of bindings that are not there yet.
create function bellwire.check_starts(
  p_names text[], p_kinds smallint[], p_ats timestamptz[], p_at_lanes int[], p_at_seqs bigint[], p_now timestamptz,
  p_tails bigint[]) returns void
language plpgsql volatile as $fn$
declare
  n record;
  v_next bigint;
begin
  for n in
    select d.* from unnest(p_names, p_kinds, p_ats, p_at_lanes, p_at_seqs) with ordinality d(name, kind, at, lane, seq, o)
      where d.kind in (2, 3) and not exists (select from bellwire.binding b where b.name = d.name)
      order by d.o
  loop
    if n.kind = 2 then
      continue when n.at <= p_now;
      raise exception using errcode = 'BW020', message = format(
        'binding `%s`: start %s lies in the future: name a time that has passed, or `now`',
        n.name, to_char(n.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
    end if;
    if not n.lane between 1 and cardinality(p_tails) then
      raise exception using errcode = 'BW020',
        message = format('lane %s does not exist: the ledger has %s', n.lane, cardinality(p_tails));
    end if;
    v_next := p_tails[n.lane] + 1;
    if n.seq > v_next then
      raise exception using errcode = 'BW020', message = format(
        'binding `%1$s`: start %2$s-%3$s lies beyond the end of lane %2$s, whose next event will be %2$s-%4$s: name '
        'that address or one before it, or `now`', n.name, n.lane, n.seq, v_next);
    end if;
  end loop;
end $fn$;

-- As in 0013_revisions.sql.
create or replace function bellwire.declare_bindings(
  p_names text[], p_sources text[], p_functions text[], p_filters text[], p_starts text[],
  p_kinds smallint[], p_ats timestamptz[], p_at_lanes int[], p_at_seqs bigint[], p_now timestamptz) returns void
language plpgsql volatile as $fn$
declare
  v_changed boolean;
  v_moves boolean;
  v_tails bigint[];
  n record;
begin
  perform bellwire.check_isolation();
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.binding'), 0);
  -- In the order in which appends number new ones.
  perform bellwire.number_sources(p_sources);
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
  perform bellwire.check_starts(p_names, p_kinds, p_ats, p_at_lanes, p_at_seqs, p_now, v_tails);
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
