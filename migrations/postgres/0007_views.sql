-- For people: what the ledger holds in plain rows, as views and functions, and a role that may read them. The program uses
-- none of it, but for `totals` and `arrivals`. docs/sql.md shows how to ask.
--
-- Functions that read tables run with the rights of their owner, so that the role needs no right on any table; they find
-- nothing by a search path.

-- An event's data as text, or null when it is not UTF-8.
create function bellwire.data_text(p_data bytea) returns text language plpgsql immutable strict parallel safe as $fn$
begin
  return convert_from(p_data, 'UTF8');
exception when others then
  return null;
end $fn$;

-- The same as JSON, or null when it is not.
create function bellwire.data_json(p_data bytea) returns json language plpgsql immutable strict parallel safe as $fn$
begin
  return convert_from(p_data, 'UTF8')::json;
exception when others then
  return null;
end $fn$;

-- A failure in one line.
create function bellwire.headline(p_error text) returns text language plpgsql immutable strict parallel safe as $fn$
begin
  return concat_ws(': ', p_error::json ->> 'type', nullif(split_part(p_error::json ->> 'message', E'\n', 1), ''));
exception when others then
  return p_error;
end $fn$;

-- The word for a number in `delivery_log.outcomes` and `ended_change.state`.
create function bellwire.outcome_word(p_outcome smallint) returns text language sql immutable strict parallel safe as $fn$
  select (array['failed', 'delivered', 'filtered', 'expired', 'dead', 'discarded'])[p_outcome + 1]
$fn$;

-- Every event kept in its lane. Conditions on `lane`, `accepted_at`, `first_seq` and `count` are quick; for one event use
-- `event_at`.
create view bellwire.event as
  select b.lane, b.first_seq + e.o - 1 as seq, b.lane || '-' || (b.first_seq + e.o - 1) as address,
    b.appended_at as accepted_at, s.name as source, coalesce(e.type, b.types[1]) as type, e.id, e.key, e.attributes, e.meta,
    e.data, b.first_seq, b.count
  from bellwire.event_batch b
  cross join lateral unnest(b.sources, b.types, b.ids, b.keys, b.attributes, b.metas, b.data)
    with ordinality e(source, type, id, key, attributes, meta, data, o)
  join bellwire.source s on s.id = coalesce(e.source, b.sources[1]);

-- The delivery log: a row per attempt or decision. Conditions on `lane`, `block` and `flushed_at` are quick; for one event
-- use `log_at`.
create view bellwire.delivery as
  select l.lane, l.block * 4096 + o.at as seq, l.lane || '-' || (l.block * 4096 + o.at) as address, b.name as binding,
    bellwire.outcome_word(l.outcomes[case when cardinality(l.outcomes) > 1 then o.n else 1 end]) as outcome,
    l.attempts[case when cardinality(l.attempts) > 1 then o.n else 1 end] as attempt,
    l.at + l.started[case when cardinality(l.started) > 1 then o.n else 1 end] * interval '1 microsecond' as started_at,
    l.ms[case when cardinality(l.ms) > 1 then o.n else 1 end] as ms,
    l.errors[case when cardinality(l.errors) > 1 then o.n else 1 end] as error,
    nullif(l.workers[case when cardinality(l.workers) > 1 then o.n else 1 end], '') as worker,
    nullif(l.versions[case when cardinality(l.versions) > 1 then o.n else 1 end], '') as version,
    l.revisions[case when cardinality(l.revisions) > 1 then o.n else 1 end] as revision,
    l.replays[case when cardinality(l.replays) > 1 then o.n else 1 end] as replay,
    l.block, l.at as flushed_at, l.ver as flush
  from bellwire.delivery_log l
  cross join lateral unnest(l.offsets) with ordinality o(at, n)
  join bellwire.binding b on b.id = l.binding;

-- Deliveries that were given up, with their events.
create view bellwire.dead_letter as
  select d.lane, d.seq, d.lane || '-' || d.seq as address, b.name as binding, d.died_at, d.first_at, d.attempts,
    bellwire.headline(d.error) as error, d.fingerprint, s.name as source, d.type, d.id, d.key, d.accepted_at, d.attributes,
    d.meta, d.data, d.error as error_json, d.logs
  from bellwire.dead d
  join bellwire.binding b on b.id = d.binding
  join bellwire.source s on s.id = d.source;

-- How far each binding is, and its account: accepted = ended + waiting + retrying - outside.
create view bellwire.binding_lag as
  select b.name as binding, s.name as source, r.function, b.active, b.paused_at, b.paused_by, b.paused_reason,
    t.waiting, t.retrying, t.dead_letters, t.oldest_owed, clock_timestamp() - t.oldest_owed as lag, t.accepted, t.outside,
    t.ended[1] as delivered, t.ended[2] as filtered, t.ended[3] as expired, t.ended[4] as dead, t.ended[5] as discarded
  from bellwire.totals() t
  join bellwire.binding b on b.id = t.binding
  join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
  join bellwire.source s on s.id = r.source;

-- Arrivals of each source.
create view bellwire.source_total as
  select a.name as source, a.accepted, a.duplicate, a.quarantined, a.last_at from bellwire.arrivals() a;

-- The lanes, how far they are filled, and who owns them.
create view bellwire.lane_owner as
  select l.lane, bellwire.tail_of(l.lane) as tail, l.epoch, c.name as owner, l.taken_at, c.expires_at as lease_ends_at
  from bellwire.lane l
  left join bellwire.controller c on c.id = l.owner and c.expires_at > clock_timestamp();

-- The delivery log of one event, oldest first.
create function bellwire.log_at(p_lane int, p_seq bigint)
returns table (binding text, outcome text, attempt int, started_at timestamptz, ms int, error text, worker text, version text,
  revision int, replay text) language sql stable security definer set search_path = pg_catalog, pg_temp as $fn$
  select d.binding, d.outcome, d.attempt, d.started_at, d.ms, bellwire.headline(d.error), d.worker, d.version, d.revision,
      d.replay
    from bellwire.delivery d where d.lane = p_lane::smallint and d.block = p_seq / 4096 and d.seq = p_seq
    order by d.started_at, d.flush
$fn$;

-- What one binding makes of an event that has no debt and no dead letter.
create function bellwire.explain_rest(p_binding int, p_lane smallint, p_seq bigint, out o_state text, out o_reason text)
language plpgsql stable as $fn$
declare
  v_row record;
  v_from bigint := (select a.counted_from from bellwire.binding_lane a where a.binding = p_binding and a.lane = p_lane);
begin
  select bellwire.outcome_word(e.state) into o_state from bellwire.last_endings(p_binding, p_lane, array[p_seq]) e;
  if o_state is not null then
    o_reason := case o_state
      when 'delivered' then 'the function answered'
      when 'filtered' then 'the filter said no'
      when 'expired' then 'it was older than max_age'
      when 'discarded' then 'an operator discarded it'
      else 'it was given up' end;
    return;
  end if;
  select c.mark, c.done into v_row from bellwire.newest_checkpoint(p_lane, p_binding) c;
  if p_seq <= v_row.mark or exists (
      select from generate_series(1, cardinality(v_row.done), 2) i
        where p_seq between v_row.done[i] and v_row.done[i + 1]) then
    o_state := 'none';
    o_reason := case when p_seq <= v_from then 'it was accepted before the binding began'
      else 'its log left with retention' end;
  elsif exists (select from bellwire.binding b where b.id = p_binding and (b.paused_at is not null or not b.active)) then
    o_state := 'paused';
    o_reason := 'the binding is paused or not in the configuration';
  else
    o_state := 'waiting';
    o_reason := format('%s places beyond the cursor', p_seq - v_row.mark);
  end if;
end $fn$;

-- What became of an event, a row per binding that has to do with it; states as in docs/states.md, or `none`, or `unknown`
-- when nothing is known of the event. `at` is when it ended, or when its debt is due.
create function bellwire.explain(p_lane int, p_seq bigint)
returns table (binding text, state text, reason text, attempts int, last_error text, at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_any boolean := false;
  v_event record;
  v_b record;
  v_debt record;
  v_dead record;
  v_log record;
begin
  select e.source into v_event from bellwire.heads(p_lane::smallint, array[p_seq]) e;
  for v_b in
    select b.id, b.name, r.source from bellwire.binding b
      join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision order by b.id
  loop
    select * into v_debt from bellwire.retry t where t.binding = v_b.id and t.lane = p_lane and t.seq = p_seq;
    select * into v_dead from bellwire.dead d where d.binding = v_b.id and d.lane = p_lane and d.seq = p_seq;
    select count(*) as n, max(l.attempt) as attempts, max(l.started_at) as at,
        (array_agg(l.error order by l.started_at desc) filter (where l.error is not null))[1] as error
      into v_log from bellwire.log_at(p_lane, p_seq) l where l.binding = v_b.name;
    binding := v_b.name;
    if v_debt.seq is not null then
      state := 'retrying';
      attempts := v_debt.attempts;
      last_error := bellwire.headline(v_debt.error);
      at := v_debt.next_at;
      reason := case v_debt.reason when 0 then 'an attempt failed' when 1 then 'an operator redrove it'
        else 'replay ' || v_debt.replay || ' asked for it' end;
    elsif v_dead.seq is not null then
      state := 'dead';
      reason := 'it was given up';
      attempts := v_dead.attempts;
      last_error := bellwire.headline(v_dead.error);
      at := v_dead.died_at;
    elsif v_log.n > 0 or v_b.source = v_event.source then
      attempts := coalesce(v_log.attempts, 0);
      last_error := v_log.error;
      at := v_log.at;
      select r.o_state, r.o_reason into state, reason from bellwire.explain_rest(v_b.id, p_lane::smallint, p_seq) r;
    else
      continue;
    end if;
    v_any := true;
    return next;
  end loop;
  binding := null;
  if v_event is null and not v_any then
    state := 'unknown';
    reason := case when p_seq > bellwire.tail_of(p_lane::smallint) then 'nothing has been stored there yet'
      else 'it is not kept any more' end;
    return next;
  end if;
end $fn$;

alter function bellwire.event_at(int, bigint) security definer set search_path = pg_catalog, pg_temp;
alter function bellwire.totals() security definer set search_path = pg_catalog, pg_temp;
alter function bellwire.arrivals() security definer set search_path = pg_catalog, pg_temp;
alter function bellwire.tail_of(smallint) security definer set search_path = pg_catalog, pg_temp;

-- The role, shared by all ledgers of the server. Who may not create roles creates it otherwise and repeats the grants.
create function bellwire.grant_reader() returns void language plpgsql volatile as $fn$
declare
  v_schema text;
begin
  begin
    create role bellwire_reader nologin;
  exception when duplicate_object or unique_violation then
    null;
  end;
  select c.relnamespace::regnamespace::text into v_schema from pg_class c where c.oid = 'bellwire.lane'::regclass;
  execute format('grant usage on schema %s to bellwire_reader', v_schema);
  grant select on bellwire.event, bellwire.delivery, bellwire.dead_letter, bellwire.binding_lag, bellwire.source_total,
    bellwire.lane_owner to bellwire_reader;
  grant execute on function bellwire.event_at(int, bigint), bellwire.log_at(int, bigint), bellwire.explain(int, bigint),
    bellwire.totals(), bellwire.arrivals(), bellwire.tail_of(smallint) to bellwire_reader;
exception when insufficient_privilege then
  raise notice 'the role bellwire_reader could not be set up: create it, then call grant_reader() of this schema';
end $fn$;

revoke execute on function bellwire.event_at(int, bigint), bellwire.log_at(int, bigint), bellwire.explain(int, bigint),
  bellwire.totals(), bellwire.arrivals(), bellwire.tail_of(smallint) from public;
select bellwire.grant_reader();
