-- Debts with the ordering key of their event, and more reasons to be owed: a binding in order parks what comes behind a
-- debt of its key, blocks on it, or waits for a later time.
--
-- `reason`: 0 retry, 1 redrive, 2 replay, 3 parked, 4 blocked, 5 delayed, 6 debounced, 7 cancelled. Parked and blocked
-- ones are never due by time. There may be very many of them, so the index by time leaves them out.

alter table bellwire.retry drop constraint retry_reason_check;
alter table bellwire.retry add constraint retry_reason_check check (reason between 0 and 7);
alter table bellwire.retry add column key text;
drop index bellwire.retry_by_time;
create index retry_by_time on bellwire.retry (binding, lane, next_at, seq) where reason not in (3, 4);

-- The ordering keys of events, null where an event has none; no row for those that are gone.
create function bellwire.keys_at(p_lane smallint, p_seqs bigint[]) returns table (seq bigint, key text)
language plpgsql stable as $fn$
declare
  r record;
  v bigint[];
begin
  for r in select s.gen, s.first_seq, lead(s.first_seq) over (order by s.gen) as after
           from bellwire.lane_start s join bellwire.generation using (gen) where s.lane = p_lane loop
    v := array(select x from unnest(p_seqs) x where x >= r.first_seq and (r.after is null or x < r.after));
    if cardinality(v) > 0 then
      return query execute format(
        'select x, b.keys[x - b.first_seq + 1]
         from unnest($1) x cross join lateral (select t.first_seq, t.count, t.keys
           from bellwire.event_batch_%s t where t.lane = $2 and t.first_seq <= x order by t.first_seq desc limit 1) b
         where x < b.first_seq + b.count', r.gen) using v, p_lane;
    end if;
  end loop;
  return query select e.seq, e.key from bellwire.restored_event e where e.lane = p_lane and e.seq = any (p_seqs);
end $fn$;

-- The debts that are there.
do $do$
declare
  r record;
begin
  for r in
    select x.lane, array_agg(x.seq) as seqs from (
      select d.lane, d.seq, row_number() over (partition by d.lane order by d.seq) / 500 as part
        from (select distinct t.lane, t.seq from bellwire.retry t) d) x group by x.lane, x.part
  loop
    update bellwire.retry t set key = k.key from bellwire.keys_at(r.lane, r.seqs) k
      where t.lane = r.lane and t.seq = k.seq and k.key is not null;
  end loop;
end $do$;

-- From here on the functions that write debts, as in 0004_delivery.sql, 0008_operators.sql and 0010_outbox.sql, with the
-- key. In a flush it is the last argument, so that a program of before may still call.

drop function bellwire.begin_debts;
create function bellwire.begin_debts(
  p_lane smallint, p_bindings int[], p_live boolean[], p_new boolean[], p_flags boolean[],
  x_parts int[], x_seqs bigint[], x_passed boolean[], x_owes boolean[], x_settles boolean[],
  x_attempts int[], x_next timestamptz[], x_since timestamptz[], x_errors text[], x_reasons smallint[], x_replays text[],
  x_keys text[])
returns void language plpgsql volatile set enable_hashjoin = on as $fn$
begin
  insert into bellwire.retry as t
    (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
  select p_bindings[x.part], p_lane, x.seq, h.accepted_at, x.attempts, x.next_at, x.since, x.error, x.reason, x.replay,
    x.key, case when x.passed then p_flags[x.n::int] else x.seq > l.counted_from end
  from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles, x_attempts, x_next, x_since, x_errors, x_reasons, x_replays,
    x_keys) with ordinality x(part, seq, passed, owes, settles, attempts, next_at, since, error, reason, replay, key, n)
  join bellwire.heads(p_lane, x_seqs) h on h.seq = x.seq
  left join bellwire.binding_lane l on l.binding = p_bindings[x.part] and l.lane = p_lane
  where x.owes and not x.settles and p_live[x.part] and (not x.passed or p_new[x.n::int])
  on conflict (binding, lane, seq) do update set attempts = excluded.attempts, next_at = excluded.next_at,
    since = excluded.since, error = excluded.error, reason = excluded.reason, replay = excluded.replay,
    key = excluded.key;
end $fn$;

drop function bellwire.flush_exceptions;
create function bellwire.flush_exceptions(
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
  v_new boolean[] := array_fill(false, array[cardinality(x_parts)]);
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
      update bellwire.retry t set attempts = x.attempts, next_at = x.next_at, since = x.since, error = x.error,
        reason = x.reason, replay = x.replay, key = x.key
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
  -- Places passed before that had no debt: they ended then, and are owed or end again. A debt that comes after its
  -- delivery ended and its event went is out of date.
  if v_left > 0 then
    for r in
      select x.part, x.seq, x.owes and not x.settles as owed, x.state, x.n::int as n
      from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles, x_states)
        with ordinality x(part, seq, passed, owes, settles, state, n)
      where p_live[x.part] and x.passed and v_flags[x.n::int] is null and (x.owes or x.state is not null) loop
      perform 1 from bellwire.heads(p_lane, array[r.seq]);
      continue when not found and r.state is null;
      v_new[r.n] := found and r.owed;
      select o.state, o.counted into e from bellwire.reopen(p_bindings[r.part], p_lane, array[r.seq]) o;
      v_flags[r.n] := e.counted;
      v_begin := v_begin + v_new[r.n]::int;
      if e.counted then
        k := 5 * (r.part - 1) + e.state;
        v_more[k] := v_more[k] - 1;
        if not v_new[r.n] then
          k := 5 * (r.part - 1) + coalesce(r.state, e.state);
          v_more[k] := v_more[k] + 1;
        end if;
      end if;
    end loop;
  end if;
  if v_begin > 0 then
    perform bellwire.begin_debts(p_lane, p_bindings, p_live, v_new, v_flags, x_parts, x_seqs, x_passed, x_owes, x_settles,
      x_attempts, x_next, x_since, x_errors, x_reasons, x_replays, x_keys);
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

create or replace function bellwire.create_outbox(g int) returns void language plpgsql volatile as $make$
begin
  execute format($f$
create function bellwire.outbox_%1$s(
  p_lane smallint, p_epoch bigint, p_strict boolean, p_reach bigint,
  p_bindings int[], p_vers bigint[], p_prevs bigint[], p_accounts int[], p_marks bigint[], p_dones bigint[],
  p_done_counts int[], p_ended bigint[],
  l_parts int[], l_blocks bigint[], l_at timestamptz[], l_ends int[],
  l_offsets smallint[], l_outcomes smallint[], l_attempts int[], l_started bigint[], l_ms int[], l_revisions int[],
  l_errors text[], l_workers text[], l_versions text[], l_replays text[],
  e_now timestamptz, e_history int, e_appends uuid[], e_lanes smallint[], e_counts int[],
  e_sources int[], e_types text[], e_ids text[], e_keys text[], e_attributes text[], e_metas text[], e_data bytea[],
  e_sigs bytea[],
  e_buckets int[], e_hashes uuid[], e_hash_lane smallint[], e_hash_offset int[], e_hash_until timestamptz[],
  e_dup_part int[], e_dup_ord int[], e_dup_source int[], e_dup_id text[], e_dup_lane smallint[], e_dup_seq bigint[],
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
returns bigint[] language plpgsql volatile as $b$
declare
  v_lanes int := coalesce(cardinality(e_lanes), 0);
  v_answer bigint[];
  v bigint;
begin
  if v_lanes = 0 then
    perform pg_advisory_xact_lock_shared(bellwire.append_class(), 1);
  end if;
  for i in 1 .. v_lanes loop
    perform pg_advisory_xact_lock(bellwire.append_class(), e_lanes[i]);
  end loop;
  perform bellwire.fence(p_lane);
  for i in 1 .. cardinality(p_bindings) loop
    v := null;
    select t.ver into v from bellwire.checkpoint_%1$s t where t.lane = p_lane and t.binding = p_bindings[i]
      order by t.ver desc limit 1;
    if v is null then
      select q.ver into v from bellwire.newest_checkpoint(p_lane, p_bindings[i]) q;
    end if;
    if v >= p_vers[i] then
      raise exception using errcode = 'BW011', message = 'this flush is there already',
        detail = format('%%s %%s %%s', p_bindings[i], v, p_prevs[i]);
    end if;
  end loop;
  perform bellwire.flush_%1$s(p_lane, p_epoch, p_strict, p_reach, p_bindings, p_vers, p_prevs, p_accounts, p_marks, p_dones,
    p_done_counts, p_ended, l_parts, l_blocks, l_at, l_ends, l_offsets, l_outcomes, l_attempts, l_started, l_ms, l_revisions,
    l_errors, l_workers, l_versions, l_replays, x_parts, x_seqs, x_passed, x_owes, x_settles, x_states, x_attempts, x_next,
    x_since, x_errors, x_reasons, x_replays, d_parts, d_places, d_seqs, d_died, d_first, d_attempts, d_errors,
    d_fingerprints, d_logs, d_sources, d_types, d_accepted, d_keys, d_ids, d_attributes, d_metas, d_data, x_keys);
  -- Where the append can be is not said: it is there exactly when the flush is.
  v_answer := bellwire.append_%1$s(e_now, false, e_history, e_appends, null, e_lanes, e_counts, null,
    array_fill(null::bigint, array[v_lanes]), e_sources, e_types, e_ids, e_keys, e_attributes, e_metas, e_data, e_sigs,
    p_buckets => e_buckets, p_hashes => e_hashes, p_hash_lane => e_hash_lane, p_hash_offset => e_hash_offset,
    p_hash_until => e_hash_until, p_dup_part => e_dup_part, p_dup_ord => e_dup_ord, p_dup_source => e_dup_source,
    p_dup_id => e_dup_id, p_dup_lane => e_dup_lane, p_dup_seq => e_dup_seq);
  if v_answer[1] <> 0 then
    raise exception using errcode = 'BW004', message = 'some of it is there already',
      detail = array_to_string(v_answer, ' ');
  end if;
  return v_answer;
end $b$ $f$, g);
end $make$;

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
    continue when not found;
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

-- The key is that of the event, whatever the caller knows of it.
create or replace function bellwire.save_replay(
  p_id text, p_version bigint, p_binding int, p_state text, p_created timestamptz, p_since timestamptz, p_until timestamptz,
  p_record text, o_lanes smallint[], o_seqs bigint[], o_attempts int[], o_next timestamptz[], o_since timestamptz[],
  o_errors text[], o_reasons smallint[], o_replays text[])
returns bigint language plpgsql volatile as $fn$
declare
  r record;
  s record;
  e record;
  v_seqs bigint[];
  v_counted boolean[];
  added bigint := 0;
  n bigint;
begin
  perform bellwire.operate_on(o_lanes);
  perform 1 from bellwire.binding b where b.id = p_binding;
  if not found then
    raise exception using errcode = 'BW020', message = 'binding number ' || p_binding || ' was never declared';
  end if;
  insert into bellwire.replay as t (id, version, binding, state, created_at, since, until, record)
  values (p_id, p_version, p_binding, p_state, p_created, p_since, p_until, p_record)
  on conflict (id) do update set version = excluded.version, binding = excluded.binding, state = excluded.state,
    created_at = excluded.created_at, since = excluded.since, until = excluded.until, record = excluded.record
  where t.version < excluded.version;
  if not found then
    return 0;
  end if;
  for r in select distinct l as lane from unnest(o_lanes) l order by l loop
    select * into s from bellwire.stands(r.lane, array[p_binding]);
    continue when not found;
    -- Passed, kept, and not owed already.
    v_seqs := array(
      select distinct x.seq from unnest(o_lanes, o_seqs) x(lane, seq)
      join bellwire.heads(r.lane, o_seqs) h on h.seq = x.seq
      where x.lane = r.lane
        and (x.seq <= s.mark or exists (select 1 from generate_series(1, cardinality(s.done) - 1, 2) i
          where x.seq between s.done[i] and s.done[i + 1]))
        and not exists (select 1 from bellwire.retry t where t.binding = p_binding and t.lane = r.lane and t.seq = x.seq));
    continue when cardinality(v_seqs) = 0;
    v_counted := '{}';
    for e in select q.n::int as n, o.state, o.counted from unnest(v_seqs) with ordinality q(seq, n)
             join bellwire.reopen(p_binding, r.lane, v_seqs) o on o.seq = q.seq loop
      v_counted[e.n] := e.counted;
      if e.counted then
        perform bellwire.add_ended(p_binding, e.state, -1);
      end if;
    end loop;
    insert into bellwire.retry (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, key, counted)
    select distinct on (x.seq) p_binding, r.lane, x.seq, h.accepted_at, x.attempts, x.next_at, x.since, x.error, x.reason,
      x.replay, k.key, v_counted[q.n::int]
    from unnest(v_seqs) with ordinality q(seq, n)
    join unnest(o_lanes, o_seqs, o_attempts, o_next, o_since, o_errors, o_reasons, o_replays) with ordinality
      x(lane, seq, attempts, next_at, since, error, reason, replay, m) on x.lane = r.lane and x.seq = q.seq
    join bellwire.heads(r.lane, v_seqs) h on h.seq = q.seq
    left join bellwire.keys_at(r.lane, v_seqs) k on k.seq = q.seq
    order by x.seq, x.m;
    get diagnostics n = row_count;
    added := added + n;
  end loop;
  return added;
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
