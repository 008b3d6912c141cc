-- Retention: generations that nobody needs are dropped whole, each in one transaction; and the buckets of dedup keys,
-- which open and leave alike. The order of locks: see 0003_generations.sql.

-- The generations that are there with the places that they hold in a lane, oldest first; empty ones end before they begin.
create function bellwire.ranges(p_lane smallint)
returns table (gen int, first_seq bigint, last_seq bigint, last_at timestamptz, closed boolean) language plpgsql stable as $fn$
begin
  for gen, first_seq, closed in select q.gen, s.first_seq, q.closed_at is not null
      from bellwire.generation q join bellwire.lane_start s on s.gen = q.gen and s.lane = p_lane order by q.gen loop
    last_seq := null;
    last_at := null;
    execute format('select t.first_seq + t.count - 1, t.appended_at from bellwire.event_batch_%s t
      where t.lane = $1 order by t.first_seq desc limit 1', gen) into last_seq, last_at using p_lane;
    last_seq := coalesce(last_seq, first_seq - 1);
    return next;
  end loop;
end $fn$;

-- Whether an active binding, a debt or an unfinished replay needs an event of a stretch of a lane, which is tallied to its
-- end. Cursors first: a place that a cursor passes while this runs is in the debts by then, or ended.
create function bellwire.needed(p_lane smallint, p_first bigint, p_last bigint) returns boolean language plpgsql volatile as $fn$
declare
  r record;
begin
  for r in
    select v.source, min(c.mark) as mark
      from (select distinct t.source from bellwire.tally t where t.lane = p_lane and t.upto between p_first and p_last) x
      join bellwire.binding_revision v on v.source = x.source
      join bellwire.binding b on b.id = v.binding and b.revision = v.revision and b.active
      cross join lateral (select k.mark from bellwire.checkpoint k
        where k.lane = p_lane and k.binding = b.id order by k.ver desc limit 1) c
      group by v.source having min(c.mark) < p_last
  loop
    if bellwire.accepted_upto(p_lane, r.source, p_last)
        > bellwire.accepted_upto(p_lane, r.source, greatest(r.mark, p_first - 1)) then
      return true;
    end if;
  end loop;
  return exists (select from bellwire.retry t where t.lane = p_lane and t.seq between p_first and p_last)
    or exists (
      select from bellwire.replay y
        -- The server's JSON functions refuse an escaped U+0000, which a selector may hold.
        cross join lateral (select replace(y.record, '\u0000', '\u0020')::json as record) j
        where y.state in ('running', 'paused')
          and coalesce((j.record -> 'cursor' ->> p_lane::text)::bigint, 0) < p_last
          and coalesce((j.record -> 'until' ->> p_lane::text)::bigint, 0) >= p_first);
end $fn$;

-- The places that a closed generation holds, of lanes where it holds any. A lane's start in the generation after it is
-- kept as long as this one is there.
create function bellwire.stretches_of(g int) returns table (lane smallint, first_seq bigint, last_seq bigint)
language sql stable as $fn$
  select s.lane, s.first_seq, n.first_seq - 1 from bellwire.lane_start s
    join bellwire.lane_start n on n.gen = g + 1 and n.lane = s.lane and n.first_seq > s.first_seq
    where s.gen = g order by s.lane
$fn$;

-- What retention may do with a closed generation: `open`, `young` (something in it is not older than p_before), `untallied`,
-- `needed` or `free`; and how many events it holds.
create function bellwire.judge_generation(g int, p_before timestamptz, out o_state text, out o_events bigint)
language plpgsql volatile as $fn$
declare
  v_closed timestamptz;
  v_at timestamptz;
  v_last timestamptz;
  r record;
begin
  o_state := 'open';
  o_events := 0;
  select q.closed_at into v_closed from bellwire.generation q where q.gen = g;
  if v_closed is null then
    return;
  end if;
  execute format('select max(d.at) from bellwire.duplicate_%s d', g) into v_at;
  o_state := 'free';
  for r in select * from bellwire.stretches_of(g) loop
    execute format('select t.appended_at from bellwire.event_batch_%s t
      where t.lane = $1 order by t.first_seq desc limit 1', g) into v_last using r.lane;
    o_events := o_events + r.last_seq - r.first_seq + 1;
    v_at := greatest(v_at, v_last);
    if v_at >= p_before then
      o_state := 'young';
      return;
    end if;
  end loop;
  for r in select * from bellwire.stretches_of(g) loop
    if not exists (select from bellwire.tally t where t.lane = r.lane and t.upto >= r.last_seq) then
      o_state := 'untallied';
      return;
    elsif o_state = 'free' and bellwire.needed(r.lane, r.first_seq, r.last_seq) then
      o_state := 'needed';
    end if;
  end loop;
  if coalesce(v_at, v_closed) >= p_before then
    o_state := 'young';
  end if;
end $fn$;

-- Leaves out of the accounts of bindings at rest what they had not passed of a stretch that goes.
create function bellwire.leave_uncounted(p_lane smallint, p_first bigint, p_last bigint) returns void
language plpgsql volatile as $fn$
declare
  r record;
  v bigint;
  i int;
begin
  for r in
    select b.id, v.source, greatest(l.counted_from, c.mark, p_first - 1) as after, c.done
      from bellwire.binding b
      join bellwire.binding_revision v on v.binding = b.id and v.revision = b.revision
      join bellwire.binding_lane l on l.binding = b.id and l.lane = p_lane
      cross join lateral (select k.mark, k.done from bellwire.checkpoint k
        where k.lane = p_lane and k.binding = b.id order by k.ver desc limit 1) c
      where not b.active and greatest(l.counted_from, c.mark) < p_last
  loop
    v := bellwire.accepted_upto(p_lane, r.source, p_last) - bellwire.accepted_upto(p_lane, r.source, r.after);
    for i in 1 .. cardinality(r.done) by 2 loop
      continue when r.done[i + 1] <= r.after or r.done[i] > p_last or v = 0;
      v := v - bellwire.accepted_upto(p_lane, r.source, least(r.done[i + 1], p_last))
        + bellwire.accepted_upto(p_lane, r.source, greatest(r.done[i] - 1, r.after));
    end loop;
    update bellwire.binding set uncounted = uncounted + v where id = r.id and v <> 0;
  end loop;
end $fn$;

-- Keeps of the tallies of a stretch that goes, and of gaps before it, what the end of it comes to.
create function bellwire.fold_tallies(p_lane smallint, p_after bigint, p_last bigint) returns void
language plpgsql volatile as $fn$
begin
  insert into bellwire.tally (lane, source, upto, accepted, last_at)
    select distinct on (t.source) p_lane, t.source, p_last, t.accepted, t.last_at from bellwire.tally t
      where t.lane = p_lane and t.upto > p_after and t.upto <= p_last order by t.source, t.upto desc
    on conflict do nothing;
  delete from bellwire.tally t where t.lane = p_lane and t.upto > p_after and t.upto < p_last;
end $fn$;

-- Drops a closed generation that nobody needs; answers as `judge_generation` does, with `dropped` when it did. Fails with
-- 55P03 when somebody holds its tables.
create function bellwire.drop_generation(g int, p_before timestamptz, out o_state text, out o_events bigint)
language plpgsql volatile as $fn$
declare
  v_open int;
  v_kept int;
  v_table text;
  r record;
begin
  perform bellwire.begin_upkeep(true);
  perform set_config('lock_timeout', '100', true);
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.binding'), 0);
  perform bellwire.lock_lanes('bellwire.checkpoint', clock_timestamp() + interval '100 milliseconds');
  select * into o_state, o_events from bellwire.judge_generation(g, p_before);
  if o_state <> 'free' then
    return;
  end if;
  select max(q.gen) into v_open from bellwire.generation q;
  -- The newest checkpoints live on in the open generation.
  execute format('insert into bellwire.checkpoint_%1$s select %1$s, c.lane, c.binding, c.ver, c.at, c.mark, c.done, c.account, c.ended
    from (select distinct on (t.lane, t.binding) t.* from bellwire.checkpoint_%2$s t order by t.lane, t.binding, t.ver desc) c
    where not exists (select from bellwire.checkpoint n
      where n.lane = c.lane and n.binding = c.binding and n.ver > c.ver)
    on conflict do nothing', v_open, g);
  execute format('insert into bellwire.arrival as a (source, duplicate)
    select d.source, count(*) from bellwire.duplicate_%s d group by 1
    on conflict (source) do update set duplicate = a.duplicate + excluded.duplicate', g);
  -- Tallies are folded from the end of the nearest older generation that stays.
  select max(q.gen) into v_kept from bellwire.generation q where q.gen < g;
  for r in select x.*, coalesce(n.first_seq - 1, 0) as kept from bellwire.stretches_of(g) x
      left join bellwire.lane_start n on n.gen = v_kept + 1 and n.lane = x.lane loop
    perform bellwire.leave_uncounted(r.lane, r.first_seq, r.last_seq);
    perform bellwire.fold_tallies(r.lane, r.kept, r.last_seq);
  end loop;
  -- Logs of events in older generations that stay.
  if v_kept is not null then
    perform bellwire.keep_log(g, l.lane) from bellwire.lane l;
  end if;
  foreach v_table in array bellwire.generation_tables() loop
    execute format('lock table only bellwire.%s in access exclusive mode', v_table);
  end loop;
  execute (select format('drop table %s', string_agg('bellwire.' || t || '_' || g, ', ' order by o))
    from unnest(bellwire.generation_tables()) with ordinality x(t, o));
  for r in select p.oid::regprocedure::text as name from pg_proc p
      where p.pronamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass)
        and p.proname in ('append_' || g, 'flush_' || g) loop
    execute 'drop function ' || r.name;
  end loop;
  delete from bellwire.generation where gen = g;
  delete from bellwire.lane_start where gen < (select min(q.gen) from bellwire.generation q);
  o_state := 'dropped';
end $fn$;

-- Who holds tables of a generation, for the warning: the session that has been at it longest, without its texts.
create function bellwire.holder_of(g int) returns text language sql volatile as $fn$
  select format('session %s of %s (%s, %s for %s)', a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(a.state, a.backend_type),
      date_trunc('second', clock_timestamp() - a.xact_start))
    from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.granted and l.locktype = 'relation' and l.pid <> pg_backend_pid()
      and l.database = (select oid from pg_database where datname = current_database())
      and l.relation in (select to_regclass('bellwire.' || t || x) from unnest(bellwire.generation_tables()) t,
        unnest(array['', '_' || g]) x)
    order by a.xact_start limit 1
$fn$;

-- Makes the table of a dedup bucket, unless it is there. It is not open yet.
create function bellwire.create_bucket(b int) returns boolean language plpgsql volatile as $fn$
begin
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.generation'), 2);
  if to_regclass('bellwire.dedup_' || b) is not null then
    return false;
  end if;
  execute format('create table bellwire.dedup_%1$s (like bellwire.dedup including all, primary key (h));
    alter table bellwire.dedup_%1$s set (autovacuum_freeze_min_age = 0);
    alter table bellwire.dedup attach partition bellwire.dedup_%1$s for values in (%1$s)', b);
  return true;
end $fn$;

-- Closes dedup bucket b and opens the next one, whose table is there already. Appends wait for that moment, so that
-- every one of them writes into the same bucket as its neighbours. False when b is not open. Fails with 55P03
-- when it would make them wait for long.
create function bellwire.open_bucket(b int) returns boolean language plpgsql volatile as $fn$
begin
  perform bellwire.begin_upkeep(true);
  if not exists (select from bellwire.dedup_bucket q where q.bucket = b and q.closed_at is null) then
    return false;
  end if;
  perform bellwire.lock_lanes('bellwire.lane', clock_timestamp() + interval '80 milliseconds');
  update bellwire.dedup_bucket set closed_at = clock_timestamp() where bucket = b;
  insert into bellwire.dedup_bucket (bucket) values (b + 1);
  return true;
end $fn$;

-- Drops the oldest closed dedup bucket whose windows are all over at p_now; how many it was. Fails with 55P03 when somebody
-- holds it.
create function bellwire.drop_bucket(p_now timestamptz) returns int language plpgsql volatile as $fn$
declare
  b int;
begin
  perform bellwire.begin_upkeep(true);
  for b in select q.bucket from bellwire.dedup_bucket q where q.closed_at is not null and q.last_until is null loop
    execute format('update bellwire.dedup_bucket set last_until =
      coalesce((select max(d.until) from bellwire.dedup_%1$s d), ''-infinity'') where bucket = %1$s', b);
  end loop;
  select q.bucket into b from bellwire.dedup_bucket q where q.last_until <= p_now order by q.bucket limit 1;
  if not found then
    return 0;
  end if;
  perform set_config('lock_timeout', '100', true);
  execute format('drop table bellwire.dedup_%s', b);
  delete from bellwire.dedup_bucket where bucket = b;
  return 1;
end $fn$;

-- Removes some of what is old and no event: quarantine, refusals, and events that a redrive had brought back and nobody
-- needs any more. How many rows went, how many of them were events, and how many events are needed.
create function bellwire.prune(
  p_before timestamptz, p_rows int, out o_rows bigint, out o_events bigint, out o_needed bigint)
language plpgsql volatile as $fn$
declare
  v bigint;
begin
  with gone as (
    delete from bellwire.quarantine q where q.id in (
      select x.id from bellwire.quarantine x where x.at < p_before order by x.at limit p_rows) returning q.source)
  insert into bellwire.arrival as a (source, quarantined) select g.source, count(*) from gone g group by 1 order by 1
    on conflict (source) do update set quarantined = a.quarantined + excluded.quarantined;
  get diagnostics o_rows = row_count;
  delete from bellwire.refusal f where (f.hour, f.source, f.reason) in (
    select x.hour, x.source, x.reason from bellwire.refusal x where x.last_at < p_before limit p_rows);
  get diagnostics v = row_count;
  o_rows := o_rows + v;
  -- An operator who brings one back holds the fence of its lane.
  perform set_config('lock_timeout', '100', true);
  for v in select distinct e.lane from bellwire.restored_event e where e.accepted_at < p_before order by 1 loop
    perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.checkpoint'), v::int);
  end loop;
  delete from bellwire.restored_event e where e.accepted_at < p_before
    and not exists (select from bellwire.retry t where t.lane = e.lane and t.seq = e.seq);
  get diagnostics o_events = row_count;
  o_rows := o_rows + o_events;
  o_needed := (select count(*) from bellwire.restored_event e where e.accepted_at < p_before);
end $fn$;

-- The first dedup bucket.
select bellwire.create_bucket(1);
insert into bellwire.dedup_bucket (bucket) values (1);
