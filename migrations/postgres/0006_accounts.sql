-- The accounts: what was accepted, what is waiting, owed and ended. Every function here reads one snapshot, that of the
-- statement which calls it, and reads no more rows than lie between two tallies.

-- The oldest generation that may hold what lies after a place of a lane.
create function bellwire.generation_after(p_lane smallint, p_after bigint) returns int language sql stable as $fn$
  select coalesce(max(s.gen), 0) from bellwire.lane_start s where s.lane = p_lane and s.first_seq <= p_after + 1
$fn$;

-- How many events of a source that are still kept lie in a lane after a place, up to another one. Generations need not
-- leave in order, so each run of neighbours that are there is counted.
create function bellwire.kept_between(p_lane smallint, p_source int, p_after bigint, p_upto bigint) returns bigint
language plpgsql stable as $fn$
declare
  r record;
  v_from bigint;
  v_to bigint;
  v_sum bigint := 0;
begin
  for r in select x.first_seq, x.last_seq from bellwire.ranges(p_lane) x
      where x.last_seq >= x.first_seq and x.first_seq <= p_upto and x.last_seq > p_after order by x.gen loop
    if v_to is distinct from r.first_seq - 1 then
      if v_to is not null then
        v_sum := v_sum + bellwire.accepted_upto(p_lane, p_source, v_to)
          - bellwire.accepted_upto(p_lane, p_source, v_from);
      end if;
      v_from := greatest(r.first_seq - 1, p_after);
    end if;
    v_to := least(r.last_seq, p_upto);
  end loop;
  if v_to is not null then
    v_sum := v_sum + bellwire.accepted_upto(p_lane, p_source, v_to)
      - bellwire.accepted_upto(p_lane, p_source, v_from);
  end if;
  return v_sum;
end $fn$;

-- Begins the account of a binding in a lane: it counts the kept events of its source after a place. What lies before, and
-- what retention has removed, is left out by `counted_base`.
create function bellwire.open_account(p_binding int, p_lane smallint, p_source int, p_from bigint) returns void
language plpgsql volatile as $fn$
declare
  v_tail bigint := bellwire.tail_of(p_lane);
begin
  insert into bellwire.binding_lane (binding, lane, counted_from, counted_base)
    values (p_binding, p_lane, p_from, bellwire.accepted_upto(p_lane, p_source, v_tail)
      - bellwire.kept_between(p_lane, p_source, p_from, v_tail))
    on conflict (binding, lane) do update
      set counted_from = excluded.counted_from, counted_base = excluded.counted_base;
end $fn$;

-- The kept events of a source after a place of a lane, up to another one; for stretches that are short.
create function bellwire.places_of_source(p_lane smallint, p_source int, p_after bigint, p_upto bigint)
returns table (seq bigint, accepted_at timestamptz) language plpgsql stable as $fn$
declare
  v_gen int;
  v_first bigint;
begin
  for v_gen in
    select g.gen from bellwire.generation g where g.gen >= bellwire.generation_after(p_lane, p_after) order by g.gen
  loop
    v_first := (select b.first_seq from bellwire.event_batch b
      where b.gen = v_gen and b.lane = p_lane and b.first_seq <= p_after + 1 order by b.first_seq desc limit 1);
    return query
      select b.first_seq + n - 1, b.appended_at from bellwire.event_batch b
        cross join lateral generate_series(
          greatest(1, p_after - b.first_seq + 2)::int, least(b.count, p_upto - b.first_seq + 1)::int) n
        where b.gen = v_gen and b.lane = p_lane and b.first_seq >= coalesce(v_first, 0) and b.first_seq <= p_upto
          and p_source = any (b.sources)
          and p_source = b.sources[case when cardinality(b.sources) = 1 then 1 else n end];
  end loop;
end $fn$;

-- When the first kept event of a source after a place of a lane was accepted.
create function bellwire.first_of_source(p_lane smallint, p_source int, p_after bigint) returns timestamptz
language plpgsql stable as $fn$
declare
  v_gen int;
  v_first bigint;
  b record;
begin
  for v_gen in
    select g.gen from bellwire.generation g where g.gen >= bellwire.generation_after(p_lane, p_after) order by g.gen
  loop
    v_first := (select e.first_seq from bellwire.event_batch e
      where e.gen = v_gen and e.lane = p_lane and e.first_seq <= p_after + 1 order by e.first_seq desc limit 1);
    for b in
      select e.first_seq, e.count, e.sources, e.appended_at from bellwire.event_batch e
        where e.gen = v_gen and e.lane = p_lane and e.first_seq >= coalesce(v_first, 0)
          and e.first_seq + e.count > p_after + 1 and p_source = any (e.sources)
        order by e.first_seq
    loop
      if b.first_seq > p_after or cardinality(b.sources) = 1
          or p_source = any (b.sources[(p_after - b.first_seq + 2)::int:]) then
        return b.appended_at;
      end if;
    end loop;
  end loop;
  return null;
end $fn$;

-- What waits in a lane: how many kept events of a source lie after a place, those in p_done (pairs first, last) left out,
-- and when the first of them was accepted.
create function bellwire.waiting(
  p_lane smallint, p_source int, p_after bigint, p_done bigint[], p_tail bigint,
  out o_count bigint, out o_first timestamptz) language plpgsql stable as $fn$
declare
  v_reach bigint := greatest(p_after, coalesce(p_done[cardinality(p_done)], 0));
  v_beyond bigint := 0;
begin
  o_count := 0;
  if v_reach > p_after then
    with done as (
      select generate_series(greatest(p_done[i], p_after + 1), p_done[i + 1]) as seq
        from generate_series(1, cardinality(p_done), 2) i)
    select count(*), min(s.accepted_at) into o_count, o_first
      from bellwire.places_of_source(p_lane, p_source, p_after, v_reach) s
      where not exists (select from done d where d.seq = s.seq);
  end if;
  if v_reach < p_tail then
    v_beyond := bellwire.kept_between(p_lane, p_source, v_reach, p_tail);
  end if;
  if o_count = 0 and v_beyond > 0 then
    o_first := bellwire.first_of_source(p_lane, p_source, v_reach);
  end if;
  o_count := o_count + v_beyond;
end $fn$;

-- Totals of every binding; see `BindingTotals`. `ended`: delivered, filtered, expired, dead, discarded.
create function bellwire.totals()
returns table (binding int, ended bigint[], waiting bigint, retrying bigint, dead_letters bigint,
  oldest_owed timestamptz, accepted bigint, outside bigint) language plpgsql stable as $fn$
declare
  v_tails bigint[] := array(select bellwire.tail_of(l.lane) from bellwire.lane l order by l.lane);
  v_accepted bigint[];
  v_source int;
  v_b record;
  v_c record;
  v_w record;
begin
  for v_b in
    select b.id, b.account, b.uncounted, r.source from bellwire.binding b
      join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision order by r.source, b.id
  loop
    if v_source is distinct from v_b.source then
      v_source := v_b.source;
      v_accepted := array(
        select bellwire.accepted_upto(l.lane, v_b.source, v_tails[l.lane]) from bellwire.lane l order by l.lane);
    end if;
    binding := v_b.id;
    select array_agg(coalesce(e.count, 0) order by n) into ended from generate_series(1, 5) n
      left join bellwire.ended_change e on e.binding = v_b.id and e.state = n;
    select count(*), count(*) filter (where not r.counted), min(r.accepted_at) into retrying, outside, oldest_owed
      from bellwire.retry r where r.binding = v_b.id;
    dead_letters := (select count(*) from bellwire.dead d where d.binding = v_b.id);
    waiting := 0;
    accepted := -v_b.uncounted;
    for v_c in
      select a.lane, a.counted_from, a.counted_base, n.mark, n.done, n.account, n.ended from bellwire.binding_lane a
        cross join lateral bellwire.newest_checkpoint(a.lane, v_b.id) n
        where a.binding = v_b.id
    loop
      accepted := accepted + v_accepted[v_c.lane] - v_c.counted_base;
      if v_c.account = v_b.account then
        ended := array(select e + d from unnest(ended, v_c.ended) with ordinality u(e, d, o) order by o);
      end if;
      if greatest(v_c.mark, v_c.counted_from) < v_tails[v_c.lane] then
        select * into v_w from bellwire.waiting(
          v_c.lane, v_b.source, greatest(v_c.mark, v_c.counted_from), v_c.done, v_tails[v_c.lane]);
        waiting := waiting + v_w.o_count;
        oldest_owed := least(oldest_owed, v_w.o_first);
      end if;
    end loop;
    return next;
  end loop;
end $fn$;

-- Accepted, duplicate and quarantined arrivals of every source that had any, and when its last event came.
create function bellwire.arrivals()
returns table (name text, accepted bigint, duplicate bigint, quarantined bigint, last_at timestamptz)
language plpgsql stable as $fn$
declare
  v_tails bigint[] := array(select bellwire.tail_of(l.lane) from bellwire.lane l order by l.lane);
  v_s record;
begin
  for v_s in
    select s.id, s.name, coalesce(a.duplicate, 0) + coalesce(d.n, 0) as duplicate,
        coalesce(a.quarantined, 0) + coalesce(q.n, 0) as quarantined
      from bellwire.source s
      left join bellwire.arrival a on a.source = s.id
      left join (select d.source, count(*) as n from bellwire.duplicate d group by 1) d on d.source = s.id
      left join (select q.source, count(*) as n from bellwire.quarantine q group by 1) q on q.source = s.id
  loop
    name := v_s.name;
    duplicate := v_s.duplicate;
    quarantined := v_s.quarantined;
    last_at := null;
    accepted := (select sum(bellwire.accepted_upto(l.lane, v_s.id, v_tails[l.lane])) from bellwire.lane l);
    if accepted > 0 then
      last_at := (select max(bellwire.last_accepted(l.lane, v_s.id)) from bellwire.lane l);
    end if;
    if accepted + duplicate + quarantined > 0 then
      return next;
    end if;
  end loop;
end $fn$;
