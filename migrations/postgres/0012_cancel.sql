-- Cancelling: an operator gives up what is owed, or asks for it where no cursor has come by yet.
--
-- `retry.reason` 7: asked for, of a place that the cursor has not passed; it is no debt, and no account counts it. The
-- flush that passes the place ends it: with an ending it goes, with a debt it becomes one of reason 8, which stays until
-- it is settled. Both are due at once.

alter table bellwire.retry drop constraint retry_reason_check;
alter table bellwire.retry add constraint retry_reason_check check (reason between 0 and 8);
create index retry_asked on bellwire.retry (lane, binding, seq) where reason = 7;

-- Writes the debts of a flush of places that it passes for the first time. What an operator cancelled stays cancelled.
drop function bellwire.begin_debts;
create function bellwire.begin_debts(
  p_lane smallint, p_bindings int[], p_live boolean[],
  x_parts int[], x_seqs bigint[], x_passed boolean[], x_owes boolean[], x_settles boolean[],
  x_attempts int[], x_next timestamptz[], x_since timestamptz[], x_errors text[], x_reasons smallint[], x_replays text[],
  x_keys text[])
returns void language plpgsql volatile set enable_hashjoin = on as $fn$
begin
  insert into bellwire.retry as t
    (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
  select p_bindings[x.part], p_lane, x.seq, h.accepted_at, x.attempts, x.next_at, x.since, x.error, x.reason, x.replay,
    x.key, x.seq > l.counted_from
  from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles, x_attempts, x_next, x_since, x_errors, x_reasons, x_replays,
    x_keys) x(part, seq, passed, owes, settles, attempts, next_at, since, error, reason, replay, key)
  join bellwire.heads(p_lane, x_seqs) h on h.seq = x.seq
  left join bellwire.binding_lane l on l.binding = p_bindings[x.part] and l.lane = p_lane
  where x.owes and not x.settles and p_live[x.part] and not x.passed
  on conflict (binding, lane, seq) do update set attempts = excluded.attempts, since = excluded.since,
    key = excluded.key, counted = excluded.counted,
    next_at = case when t.reason >= 7 then t.next_at else excluded.next_at end,
    error = case when t.reason >= 7 then t.error else excluded.error end,
    reason = case when t.reason >= 7 then 8 else excluded.reason end,
    replay = case when t.reason >= 7 then null else excluded.replay end;
end $fn$;

-- What a flush says of places that the cursor had passed before it, and the debts that it begins; see 0004_delivery.sql.
create or replace function bellwire.flush_exceptions(
  p_lane smallint, p_bindings int[], p_live boolean[],
  x_parts int[], x_seqs bigint[], x_passed boolean[], x_owes boolean[], x_settles boolean[], x_states smallint[],
  x_attempts int[], x_next timestamptz[], x_since timestamptz[], x_errors text[], x_reasons smallint[], x_replays text[],
  d_parts int[], d_places int[], d_seqs bigint[], d_died timestamptz[], d_first timestamptz[], d_attempts int[],
  d_errors text[], d_fingerprints text[], d_logs text[], d_sources text[], d_types text[], d_accepted timestamptz[],
  d_keys text[], d_ids text[], d_attributes text[], d_metas text[], d_data bytea[],
  x_keys text[])
returns bigint[] language plpgsql volatile
-- Plans made while the tables were empty would scan them when they are not.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $fn$
declare
  r record;
  e record;
  k int;
  v_more bigint[] := array_fill(0::bigint, array[5 * cardinality(p_bindings)]);
  v_flags boolean[] := array_fill(null::boolean, array[cardinality(x_parts)]);
  -- Places passed before whose debts were not looked for yet, and debts that begin.
  v_left bigint;
  v_begin bigint;
begin
  select count(*) filter (where x.passed and (x.owes or x.state is not null)), count(*) filter (where x.owes and not x.passed)
    into v_left, v_begin
    from unnest(x_parts, x_passed, x_owes, x_states) x(part, passed, owes, state) where p_live[x.part];
  -- Debts that end. One without an ending of its own leaves the delivery as it stood before it was owed.
  if true = any(x_settles) then
    for r in
      delete from bellwire.retry t
      using unnest(x_parts, x_seqs, x_owes, x_settles, x_states) with ordinality x(part, seq, owes, settles, state, n)
      where x.settles and p_live[x.part] and t.binding = p_bindings[x.part] and t.lane = p_lane and t.seq = x.seq
      returning x.part, x.seq, x.owes, x.state, x.n::int as n, t.counted loop
      v_flags[r.n] := r.counted;
      if r.owes or r.state is not null then
        v_left := v_left - 1;
      end if;
      if r.counted and r.state is not null then
        k := 5 * (r.part - 1) + r.state;
        v_more[k] := v_more[k] + 1;
      elsif r.counted then
        for e in select l.state from bellwire.last_endings(p_bindings[r.part], p_lane, array[r.seq]) l loop
          k := 5 * (r.part - 1) + e.state;
          v_more[k] := v_more[k] + 1;
        end loop;
      end if;
    end loop;
  end if;
  -- Debts that go on: the delivery is counted when they end.
  if v_left > 0 and true = any(x_owes) then
    for r in
      update bellwire.retry t set attempts = x.attempts, since = x.since, key = x.key,
        next_at = case when t.reason = 8 then t.next_at else x.next_at end,
        error = case when t.reason = 8 then t.error else x.error end,
        reason = case when t.reason = 8 then 8 else x.reason end,
        replay = case when t.reason = 8 then null else x.replay end
      from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles, x_attempts, x_next, x_since, x_errors, x_reasons, x_replays,
        x_keys) with ordinality x(part, seq, passed, owes, settles, attempts, next_at, since, error, reason, replay, key, n)
      where x.passed and x.owes and not x.settles and p_live[x.part]
        and t.binding = p_bindings[x.part] and t.lane = p_lane and t.seq = x.seq
      returning x.n::int as n, t.counted loop
      v_flags[r.n] := r.counted;
      v_left := v_left - 1;
    end loop;
  end if;
  if v_left > 0 then
    for r in
      select x.n::int as n, t.counted
      from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles) with ordinality x(part, seq, passed, owes, settles, n)
      join bellwire.retry t on t.binding = p_bindings[x.part] and t.lane = p_lane and t.seq = x.seq
      where x.passed and not x.owes and not x.settles and p_live[x.part] loop
      v_flags[r.n] := r.counted;
      v_left := v_left - 1;
    end loop;
  end if;
  -- Places passed before that had no debt: they ended then, and end again. One that is owed was given up meanwhile by an
  -- operator, and stays so.
  if v_left > 0 then
    for r in
      select x.part, x.seq, x.state, x.n::int as n
      from unnest(x_parts, x_seqs, x_passed, x_states) with ordinality x(part, seq, passed, state, n)
      where p_live[x.part] and x.passed and v_flags[x.n::int] is null and x.state is not null loop
      select o.state, o.counted into e from bellwire.reopen(p_bindings[r.part], p_lane, array[r.seq]) o;
      v_flags[r.n] := e.counted;
      if e.counted then
        k := 5 * (r.part - 1) + e.state;
        v_more[k] := v_more[k] - 1;
        k := 5 * (r.part - 1) + r.state;
        v_more[k] := v_more[k] + 1;
      end if;
    end loop;
  end if;
  if v_begin > 0 then
    perform bellwire.begin_debts(p_lane, p_bindings, p_live, x_parts, x_seqs, x_passed, x_owes, x_settles, x_attempts, x_next,
      x_since, x_errors, x_reasons, x_replays, x_keys);
  end if;
  if d_parts is not null then
    insert into bellwire.source (name)
    select distinct q.name from unnest(d_sources) q(name)
    where not exists (select 1 from bellwire.source s where s.name = q.name) on conflict do nothing;
    insert into bellwire.dead as t
      (binding, lane, seq, died_at, first_at, attempts, error, fingerprint, logs, counted, source, type, accepted_at, key, id,
       attributes, meta, data)
    select p_bindings[d.part], p_lane, d.seq, d.died, d.first, d.attempts, d.error, d.fingerprint, d.logs,
      coalesce(v_flags[nullif(d.place, 0)], d.seq > l.counted_from), s.id, d.type, d.accepted, d.key, d.id, d.attributes, d.meta,
      d.data
    from unnest(d_parts, d_places, d_seqs, d_died, d_first, d_attempts, d_errors, d_fingerprints, d_logs, d_sources, d_types,
      d_accepted, d_keys, d_ids, d_attributes, d_metas, d_data)
      d(part, place, seq, died, first, attempts, error, fingerprint, logs, source, type, accepted, key, id, attributes, meta, data)
    join bellwire.source s on s.name = d.source
    left join bellwire.binding_lane l on l.binding = p_bindings[d.part] and l.lane = p_lane
    where p_live[d.part]
    on conflict (binding, lane, seq) do update set died_at = excluded.died_at, first_at = excluded.first_at,
      attempts = excluded.attempts, error = excluded.error, fingerprint = excluded.fingerprint, logs = excluded.logs,
      counted = excluded.counted;
  end if;
  return v_more;
end $fn$;

-- Ends the requests to cancel of which a flush passes the places, but for those that became debts.
create function bellwire.end_requests(
  p_lane smallint, p_bindings int[], p_live boolean[], p_marks bigint[], p_dones bigint[], p_done_counts int[])
returns void language plpgsql volatile set enable_seqscan = off as $fn$
declare
  v_done bigint[];
  z int := 0;
begin
  if not exists (select from bellwire.retry t where t.lane = p_lane and t.reason = 7) then
    return;
  end if;
  for i in 1 .. cardinality(p_bindings) loop
    v_done := p_dones[z + 1 : z + p_done_counts[i]];
    z := z + p_done_counts[i];
    continue when not p_live[i];
    delete from bellwire.retry t where t.lane = p_lane and t.binding = p_bindings[i] and t.reason = 7
      and (t.seq <= p_marks[i] or exists (
        select from generate_series(1, cardinality(v_done), 2) k where t.seq between v_done[k] and v_done[k + 1]));
  end loop;
end $fn$;

create or replace function bellwire.create_plain_flush(g int) returns void language plpgsql volatile as $make$
begin
  execute format($f$
create function bellwire.flush_%1$s(
  p_lane smallint, p_epoch bigint, p_strict boolean, p_reach bigint,
  p_bindings int[], p_vers bigint[], p_prevs bigint[], p_accounts int[], p_marks bigint[], p_dones bigint[],
  p_done_counts int[], p_ended bigint[],
  l_parts int[], l_blocks bigint[], l_at timestamptz[], l_ends int[],
  l_offsets smallint[], l_outcomes smallint[], l_attempts int[], l_started bigint[], l_ms int[], l_revisions int[],
  l_errors text[], l_workers text[], l_versions text[], l_replays text[],
  x_parts int[] default null, x_seqs bigint[] default null, x_passed boolean[] default null, x_owes boolean[] default null,
  x_settles boolean[] default null, x_states smallint[] default null, x_attempts int[] default null,
  x_next timestamptz[] default null, x_since timestamptz[] default null, x_errors text[] default null,
  x_reasons smallint[] default null, x_replays text[] default null,
  d_parts int[] default null, d_places int[] default null, d_seqs bigint[] default null, d_died timestamptz[] default null,
  d_first timestamptz[] default null, d_attempts int[] default null, d_errors text[] default null,
  d_fingerprints text[] default null, d_logs text[] default null, d_sources text[] default null,
  d_types text[] default null, d_accepted timestamptz[] default null, d_keys text[] default null,
  d_ids text[] default null, d_attributes text[] default null, d_metas text[] default null, d_data bytea[] default null,
  x_keys text[] default null)
returns boolean language plpgsql volatile as $b$
declare
  c int := cardinality(p_bindings);
  i int;
  k int;
  z int := 0;
  v bigint;
  v_live boolean[] := '{}';
  v_base bigint[] := '{}';
  v_more bigint[];
  v_account int;
  v_then int;
  v_ended bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'BW000', message = 'the ledger needs READ COMMITTED transactions';
  end if;
  if p_strict then
    perform bellwire.commit_safely();
  else
    perform set_config('synchronous_commit', 'off', true);
  end if;
  perform bellwire.fence(p_lane);
  -- In another history the places of this flush may hold other events.
  perform 1 from bellwire.lane l
    where l.lane = p_lane and l.epoch = p_epoch and l.owner is not null and l.history = bellwire.history();
  if not found then
    raise exception using errcode = 'BW010', message = 'fenced';
  end if;
  perform 1 from bellwire.generation q where q.gen = %1$s and q.closed_at is null;
  if not found then
    raise exception using errcode = 'BW001', message = 'another generation is open';
  end if;
  select t.first_seq + t.count into v from bellwire.event_batch_%1$s t where t.lane = p_lane order by t.first_seq desc limit 1;
  if v is null then
    select s.first_seq into strict v from bellwire.lane_start s where s.gen = %1$s and s.lane = p_lane;
  end if;
  if p_reach >= v then
    raise exception using errcode = 'BW013', message = 'the flush goes beyond the tail', detail = (v - 1)::text;
  end if;
  for i in 1 .. c loop
    v := null;
    select b.account, q.ver, q.account, q.ended into v_account, v, v_then, v_ended
      from bellwire.binding b left join lateral (select t.ver, t.account, t.ended from bellwire.checkpoint_%1$s t
        where t.lane = p_lane and t.binding = b.id order by t.ver desc limit 1) q on true
      where b.id = p_bindings[i];
    if v is null then
      select q.ver, q.account, q.ended into v, v_then, v_ended from bellwire.newest_checkpoint(p_lane, p_bindings[i]) q;
    end if;
    if v is null then
      raise exception using errcode = 'BW020', message = 'binding number ' || p_bindings[i] || ' was never declared';
    end if;
    v_live[i] := v < p_vers[i];
    if v_live[i] and v <> p_prevs[i] then
      raise exception using errcode = 'BW011', message = 'an earlier flush is missing, or this is not the next one',
        detail = format('%%s %%s %%s', p_bindings[i], v, p_prevs[i]);
    elsif v_live[i] and v_account <> p_accounts[i] then
      raise exception using errcode = 'BW012', message = 'the account of the binding began anew';
    end if;
    v_base := v_base || case when v_then = v_account then v_ended else '{0,0,0,0,0}' end;
  end loop;
  if x_parts is not null then
    v_more := bellwire.flush_exceptions(p_lane, p_bindings, v_live, x_parts, x_seqs, x_passed, x_owes, x_settles, x_states,
      x_attempts, x_next, x_since, x_errors, x_reasons, x_replays, d_parts, d_places, d_seqs, d_died, d_first, d_attempts,
      d_errors, d_fingerprints, d_logs, d_sources, d_types, d_accepted, d_keys, d_ids, d_attributes, d_metas, d_data, x_keys);
  end if;
  perform bellwire.end_requests(p_lane, p_bindings, v_live, p_marks, p_dones, p_done_counts);
  for i in 1 .. c loop
    if v_live[i] then
      v_ended := '{}';
      for k in 5 * i - 4 .. 5 * i loop
        v_ended := v_ended || (v_base[k] + p_ended[k] + coalesce(v_more[k], 0));
      end loop;
      insert into bellwire.checkpoint_%1$s (gen, lane, binding, ver, at, mark, done, account, ended) values (%1$s, p_lane,
        p_bindings[i], p_vers[i], clock_timestamp(), p_marks[i], p_dones[z + 1 : z + p_done_counts[i]], p_accounts[i], v_ended);
    end if;
    z := z + p_done_counts[i];
  end loop;
  for i in 1 .. coalesce(cardinality(l_parts), 0) loop
    k := 10 * (i - 1);
    continue when not v_live[l_parts[i]];
    insert into bellwire.delivery_log_%1$s (gen, lane, binding, block, ver, at, offsets, outcomes, attempts, started, ms,
      revisions, errors, workers, versions, replays)
    values (%1$s, p_lane, p_bindings[l_parts[i]], l_blocks[i], p_vers[l_parts[i]], l_at[i],
      l_offsets[coalesce(l_ends[k - 9], 0) + 1 : l_ends[k + 1]],
      l_outcomes[coalesce(l_ends[k - 8], 0) + 1 : l_ends[k + 2]],
      l_attempts[coalesce(l_ends[k - 7], 0) + 1 : l_ends[k + 3]],
      l_started[coalesce(l_ends[k - 6], 0) + 1 : l_ends[k + 4]],
      l_ms[coalesce(l_ends[k - 5], 0) + 1 : l_ends[k + 5]],
      l_revisions[coalesce(l_ends[k - 4], 0) + 1 : l_ends[k + 6]],
      nullif(l_errors[coalesce(l_ends[k - 3], 0) + 1 : l_ends[k + 7]], '{}'),
      nullif(l_workers[coalesce(l_ends[k - 2], 0) + 1 : l_ends[k + 8]], '{}'),
      nullif(l_versions[coalesce(l_ends[k - 1], 0) + 1 : l_ends[k + 9]], '{}'),
      nullif(l_replays[coalesce(l_ends[k], 0) + 1 : l_ends[k + 10]], '{}'));
  end loop;
  return false <> all (v_live);
end $b$ $f$, g);
  execute format(
    'create index if not exists delivery_log_%1$s_by_place on bellwire.delivery_log_%1$s (lane, block, binding, ver)', g);
end $make$;

-- Dead letters back into the debts, and blocked debts to the head of their key's line; see 0008_operators.sql.
create or replace function bellwire.redrive(p_bindings int[], p_lanes smallint[], p_seqs bigint[], p_now timestamptz) returns bigint
language plpgsql volatile as $fn$
declare
  r record;
  d bellwire.dead;
  moved bigint := 0;
begin
  perform bellwire.operate_on(p_lanes);
  for r in select x.* from unnest(p_bindings, p_lanes, p_seqs) with ordinality x(binding, lane, seq, n) order by x.n loop
    delete from bellwire.dead t where t.binding = r.binding and t.lane = r.lane and t.seq = r.seq returning t.* into d;
    if not found then
      update bellwire.retry t set reason = 0, attempts = 0, next_at = p_now, since = p_now
        where t.binding = r.binding and t.lane = r.lane and t.seq = r.seq and t.reason = 4;
      moved := moved + found::int;
      continue;
    end if;
    if d.counted then
      perform bellwire.add_ended(d.binding, 4, -1);
    end if;
    perform 1 from bellwire.heads(d.lane, array[d.seq]);
    if not found then
      insert into bellwire.restored_event (lane, seq, accepted_at, source, type, id, key, attributes, meta, data)
      values (d.lane, d.seq, d.accepted_at, d.source, d.type, d.id, d.key, d.attributes, d.meta, d.data)
      on conflict (lane, seq) do nothing;
    end if;
    insert into bellwire.retry (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
    values (d.binding, d.lane, d.seq, d.accepted_at, 0, p_now, p_now, d.error, 1, null,
      d.key, d.counted)
    on conflict (binding, lane, seq) do update set attempts = 0, next_at = p_now, since = p_now, error = excluded.error,
      reason = 1, replay = null, key = excluded.key, counted = excluded.counted;
    moved := moved + 1;
  end loop;
  return moved;
end $fn$;

-- Ends a delivery whose debt or dead letter was taken away, logged while its event is kept. The line belongs to the newest
-- flush so far.
create function bellwire.give_up(
  p_binding int, p_lane smallint, p_seq bigint, p_counted boolean, p_replay text, p_now timestamptz, p_error text)
returns void language plpgsql volatile as $fn$
begin
  if p_counted then
    perform bellwire.add_ended(p_binding, 5, 1);
  end if;
  insert into bellwire.delivery_log (gen, lane, binding, block, ver, at, offsets, outcomes, attempts, started, ms,
    revisions, errors, replays)
  select (select max(gen) from bellwire.generation), p_lane, p_binding, p_seq / 4096, c.ver, p_now,
    array[(p_seq % 4096)::smallint], '{5}', '{0}', '{0}', '{0}', array[b.revision], array[p_error],
    case when p_replay is not null then array[p_replay] end
  from bellwire.binding b, bellwire.newest_checkpoint(p_lane, p_binding) c, bellwire.heads(p_lane, array[p_seq]) h
  where b.id = p_binding;
end $fn$;

-- Ends debts or dead letters as discarded; see 0008_operators.sql.
create or replace function bellwire.discard(p_bindings int[], p_lanes smallint[], p_seqs bigint[], p_now timestamptz, p_error text)
returns bigint language plpgsql volatile as $fn$
declare
  r record;
  v_counted boolean;
  v_replay text;
  ended bigint := 0;
begin
  perform bellwire.operate_on(p_lanes);
  for r in select x.* from unnest(p_bindings, p_lanes, p_seqs) with ordinality x(binding, lane, seq, n) order by x.n loop
    delete from bellwire.retry t where t.binding = r.binding and t.lane = r.lane and t.seq = r.seq
      and t.reason <> 7 returning t.counted, t.replay into v_counted, v_replay;
    if not found then
      v_replay := null;
      delete from bellwire.dead t where t.binding = r.binding and t.lane = r.lane and t.seq = r.seq
        returning t.counted into v_counted;
      continue when not found;
      if v_counted then
        perform bellwire.add_ended(r.binding, 4, -1);
      end if;
    end if;
    perform bellwire.give_up(r.binding, r.lane, r.seq, v_counted, v_replay, p_now, p_error);
    ended := ended + 1;
  end loop;
  return ended;
end $fn$;

-- Ends debts as discarded, and asks for it where the cursor has not passed the place yet and the event is there; answers
-- how many these were. `p_error`: the reason as JSON. One query finds the events, so that those of an append in several
-- lanes are all there, or none of them.
create function bellwire.cancel(p_bindings int[], p_lanes smallint[], p_seqs bigint[], p_now timestamptz, p_error text)
returns bigint language plpgsql volatile as $fn$
declare
  r record;
  s record;
  v_counted boolean;
  v_replay text;
  ended bigint := 0;
begin
  perform bellwire.operate_on(p_lanes);
  for r in
    select x.*, h.accepted_at, h.source, k.key
    from unnest(p_bindings, p_lanes, p_seqs) with ordinality x(binding, lane, seq, n)
    left join lateral bellwire.heads(x.lane, array[x.seq]) h on true
    left join lateral bellwire.keys_at(x.lane, array[x.seq]) k on true
    order by x.n
  loop
    delete from bellwire.retry t where t.binding = r.binding and t.lane = r.lane and t.seq = r.seq
      and t.reason <> 7 returning t.counted, t.replay into v_counted, v_replay;
    if found then
      perform bellwire.give_up(r.binding, r.lane, r.seq, v_counted, v_replay, p_now, p_error);
      ended := ended + 1;
      continue;
    end if;
    continue when r.accepted_at is null;
    select * into s from bellwire.stands(r.lane, array[r.binding]);
    continue when not found or r.seq <= s.mark or exists (
      select from generate_series(1, cardinality(s.done), 2) k where r.seq between s.done[k] and s.done[k + 1]);
    -- What a redrive set aside is met by no other binding.
    insert into bellwire.retry
      (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
    select r.binding, r.lane, r.seq, r.accepted_at, 0, p_now, p_now, p_error, 7, null, r.key, false
    from bellwire.binding b
    join bellwire.binding_revision v on v.binding = b.id and v.revision = b.revision and v.source = r.source
    where b.id = r.binding
      and not exists (select from bellwire.restored_event e where e.lane = r.lane and e.seq = r.seq)
    on conflict (binding, lane, seq) do nothing;
    ended := ended + found::int;
  end loop;
  return ended;
end $fn$;

-- Gives a binding another source; see 0005_cluster.sql.
create or replace function bellwire.move_binding(p_binding int, p_source int) returns void language plpgsql volatile as $fn$
declare
  c record;
begin
  update bellwire.binding set account = account + 1, uncounted = 0 where id = p_binding;
  for c in
    select l.lane, n.mark, n.done from bellwire.lane l
      cross join lateral bellwire.newest_checkpoint(l.lane, p_binding) n order by l.lane
  loop
    perform bellwire.open_account(p_binding, c.lane, p_source,
      greatest(c.mark, coalesce(c.done[cardinality(c.done)], 0)));
  end loop;
  delete from bellwire.retry where binding = p_binding and reason = 7;
  delete from bellwire.ended_change where binding = p_binding;
  update bellwire.retry set counted = false where binding = p_binding and counted;
  update bellwire.dead set counted = false where binding = p_binding and counted;
end $fn$;

-- Requests to cancel hold no event back, and go with it.
create or replace function bellwire.needed(p_lane smallint, p_first bigint, p_last bigint) returns boolean language plpgsql volatile as $fn$
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
  return exists (select from bellwire.retry t where t.lane = p_lane and t.seq between p_first and p_last
      and t.reason <> 7)
    or exists (
      select from bellwire.replay y
        -- The server's JSON functions refuse an escaped U+0000, which a selector may hold.
        cross join lateral (select replace(y.record, '\u0000', '\u0020')::json as record) j
        where y.state in ('running', 'paused')
          and coalesce((j.record -> 'cursor' ->> p_lane::text)::bigint, 0) < p_last
          and coalesce((j.record -> 'until' ->> p_lane::text)::bigint, 0) >= p_first);
end $fn$;

create or replace function bellwire.leave_uncounted(p_lane smallint, p_first bigint, p_last bigint) returns void
language plpgsql volatile as $fn$
declare
  r record;
  v bigint;
  i int;
begin
  delete from bellwire.retry t where t.lane = p_lane and t.seq between p_first and p_last and t.reason = 7;
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

-- Requests to cancel are no debts.
create or replace function bellwire.totals()
returns table (binding int, ended bigint[], waiting bigint, retrying bigint, dead_letters bigint,
  oldest_owed timestamptz, accepted bigint, outside bigint) language plpgsql stable
security definer set search_path = pg_catalog, pg_temp as $fn$
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
      from bellwire.retry r where r.binding = v_b.id and r.reason <> 7;
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

-- What became of an event; see 0007_views.sql.
create or replace function bellwire.explain(p_lane int, p_seq bigint)
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
      state := case when v_debt.reason in (3, 4) then 'parked' when v_debt.reason in (5, 6, 7) then 'waiting'
        else 'retrying' end;
      attempts := v_debt.attempts;
      last_error := bellwire.headline(v_debt.error);
      at := v_debt.next_at;
      reason := case v_debt.reason when 0 then 'an attempt failed' when 1 then 'an operator redrove it'
        when 2 then 'replay ' || v_debt.replay || ' asked for it'
        when 3 then 'it waits behind an earlier event of its key'
        when 4 then 'its attempts are used up, and its key waits with it'
        when 5 then 'it asked for a later time' when 6 then 'it is the last event of a burst so far'
        else 'an operator cancelled it, and its binding is about to end it' end;
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

-- The generations that are there.
do $do$
declare
  r record;
  v_gen int;
begin
  for r in select p.oid::regprocedure::text as name from pg_proc p
      where p.pronamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass)
        and p.proname ~ '^(flush|outbox)_[0-9]+$' loop
    execute 'drop function ' || r.name;
  end loop;
  for v_gen in select substr(c.relname, 13)::int from pg_class c
      where c.relkind = 'r' and c.relname ~ '^event_batch_[0-9]+$'
        and c.relnamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass) loop
    perform bellwire.create_flush(v_gen);
  end loop;
end $do$;
