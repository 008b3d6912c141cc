-- Deliveries: flushes of a lane's owner. What operators do to single deliveries is in `0008_operators.sql`.
--
-- A flush is a call of `flush_<generation>` under the fence lock of its lane. An account moves with the checkpoint that
-- passes a place for the first time, without a look-up; only places that the cursor had passed before ("exceptions") are
-- asked for what they were. Refusals: BW001 another generation is open, BW010 fenced, BW011 an earlier flush is missing
-- or this one is not the next, BW012 the binding's account began anew, BW013 beyond the tail, BW020 unknown binding.

-- The lock that separates the flushes of a lane from its take-over and from operators.
create function bellwire.fence(p_lane smallint) returns void language plpgsql volatile as $fn$
begin
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.checkpoint'), p_lane);
end $fn$;

-- The newest checkpoint of a binding in a lane, in whichever generation it lies; no row when it was never declared.
create function bellwire.newest_checkpoint(p_lane smallint, p_binding int) returns setof bellwire.checkpoint
language plpgsql stable as $fn$
declare
  g int;
begin
  for g in select gen from bellwire.generation order by gen desc loop
    return query execute format(
      'select c.* from bellwire.checkpoint_%s c where c.lane = $1 and c.binding = $2 order by c.ver desc limit 1', g)
      using p_lane, p_binding;
    if found then
      return;
    end if;
  end loop;
end $fn$;

-- Where bindings stand in a lane, with what their accounts need.
create function bellwire.stands(p_lane smallint, p_bindings int[])
returns table (binding int, ver bigint, mark bigint, done bigint[], account int, counted_from bigint)
language sql stable as $fn$
  select b.id, c.ver, c.mark, c.done, b.account, coalesce(l.counted_from, c.mark)
  from unnest(p_bindings) x(id)
  join bellwire.binding b on b.id = x.id
  cross join lateral bellwire.newest_checkpoint(p_lane, b.id) c
  left join bellwire.binding_lane l on l.binding = b.id and l.lane = p_lane
$fn$;

-- Whether this epoch owns the lane, and the last place used in it.
create function bellwire.lane_now(p_lane smallint, p_epoch bigint, out owned boolean, out tail bigint)
language plpgsql stable as $fn$
declare
  g int;
begin
  select l.owner is not null and l.epoch = p_epoch and l.history = bellwire.history() into owned from bellwire.lane l where l.lane = p_lane;
  select max(q.gen) into g from bellwire.generation q;
  execute format(
    'select coalesce((select t.first_seq + t.count - 1 from bellwire.event_batch_%s t where t.lane = $1
       order by t.first_seq desc limit 1), (select s.first_seq - 1 from bellwire.lane_start s where s.gen = $2 and s.lane = $1))',
    g) into tail using p_lane, g;
end $fn$;

-- When events were accepted and of which source they are; no row for those that are gone.
create function bellwire.heads(p_lane smallint, p_seqs bigint[])
returns table (seq bigint, accepted_at timestamptz, source int) language plpgsql stable as $fn$
declare
  r record;
  v bigint[];
begin
  for r in select s.gen, s.first_seq, lead(s.first_seq) over (order by s.gen) as after
           from bellwire.lane_start s join bellwire.generation using (gen) where s.lane = p_lane loop
    v := array(select x from unnest(p_seqs) x where x >= r.first_seq and (r.after is null or x < r.after));
    if cardinality(v) > 0 then
      return query execute format(
        'select x, b.appended_at, case when cardinality(b.sources) = 1 then b.sources[1] else b.sources[x - b.first_seq + 1] end
         from unnest($1) x cross join lateral (select t.first_seq, t.count, t.appended_at, t.sources
           from bellwire.event_batch_%s t where t.lane = $2 and t.first_seq <= x order by t.first_seq desc limit 1) b
         where x < b.first_seq + b.count', r.gen) using v, p_lane;
    end if;
  end loop;
  return query select e.seq, e.accepted_at, e.source from bellwire.restored_event e
    where e.lane = p_lane and e.seq = any(p_seqs);
end $fn$;

-- The last ending of deliveries by their logs: the one of the newest flush. Lines never lie in an older generation than
-- their event.
create function bellwire.last_endings(p_binding int, p_lane smallint, p_seqs bigint[])
returns table (seq bigint, state smallint) language plpgsql stable as $fn$
declare
  v_first bigint := (select min(x) from unnest(p_seqs) x);
  v_blocks bigint[] := array(select distinct x / 4096 from unnest(p_seqs) x);
  v_parts text[];
begin
  select array_agg(format('select l.block, l.ver, l.offsets, l.outcomes from bellwire.delivery_log_%s l
      where l.lane = $1 and l.binding = $2 and l.block = any ($3)', q.gen)) into v_parts
    from bellwire.generation q
    where q.gen >= coalesce((select max(s.gen) from bellwire.lane_start s where s.lane = p_lane and s.first_seq <= v_first), 0);
  return query execute format(
    'select distinct on (x.seq) x.seq, x.state from (
       select l.block * 4096 + o.at as seq, l.ver, l.outcomes = ''{5}'' as late, o.n,
         case when cardinality(l.outcomes) = 1 then l.outcomes[1] else l.outcomes[o.n] end as state
       from (%s) l cross join lateral unnest(l.offsets) with ordinality o(at, n)) x
     where x.state > 0 and x.seq = any ($4) order by x.seq, x.ver desc, x.late desc, x.n desc',
    array_to_string(v_parts, ' union all ')) using p_lane, p_binding, v_blocks, p_seqs;
end $fn$;

-- Keeps of the log of a generation that goes what belongs to events of older ones that stay.
create function bellwire.keep_log(g int, p_lane smallint) returns void language plpgsql volatile as $fn$
begin
  execute format(
    'insert into bellwire.delivery_log_%1$s (gen, lane, binding, block, ver, at, offsets, outcomes, attempts, started, ms,
       revisions, errors, workers, versions, replays)
     select %1$s, l.lane, l.binding, l.block, l.ver, l.at, l.offsets, l.outcomes, l.attempts, l.started, l.ms, l.revisions,
       l.errors, l.workers, l.versions, l.replays
     from bellwire.delivery_log_%2$s l where l.lane = $1 and l.block = any (array(
       select b from bellwire.ranges($1) r cross join lateral generate_series(r.first_seq / 4096, r.last_seq / 4096) b
       where r.gen < $2 and r.first_seq <= r.last_seq))',
    (select max(q.gen) from bellwire.generation q), g) using p_lane, g;
end $fn$;

-- Takes ended deliveries out of the dead letters, because they are owed or end again. Answers for each how it stood ended
-- (0: it did not) and whether the account counts it; the caller takes those that count out of the account. A delivery
-- counts when it lies above the account's beginning and its event is of the binding's source.
create function bellwire.reopen(p_binding int, p_lane smallint, p_seqs bigint[])
returns table (seq bigint, state smallint, counted boolean) language plpgsql volatile as $fn$
declare
  v_rest bigint[] := p_seqs;
begin
  for seq, state, counted in
    delete from bellwire.dead d where d.binding = p_binding and d.lane = p_lane and d.seq = any(p_seqs)
    returning d.seq, 4::smallint, d.counted loop
    return next;
    v_rest := array_remove(v_rest, seq);
  end loop;
  if cardinality(v_rest) > 0 then
    return query
      select x, coalesce(e.state, 0::smallint),
        e.state is not null and h.source is not null and x > l.counted_from and h.source = r.source
      from unnest(v_rest) x
      join bellwire.binding b on b.id = p_binding
      join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
      left join bellwire.binding_lane l on l.binding = b.id and l.lane = p_lane
      left join bellwire.last_endings(p_binding, p_lane, v_rest) e on e.seq = x
      left join bellwire.heads(p_lane, v_rest) h on h.seq = x;
  end if;
end $fn$;

-- Writes the debts of a flush that had no row: of places that it passes for the first time, and those in `p_new`.
create function bellwire.begin_debts(
  p_lane smallint, p_bindings int[], p_live boolean[], p_new boolean[], p_flags boolean[],
  x_parts int[], x_seqs bigint[], x_passed boolean[], x_owes boolean[], x_settles boolean[],
  x_attempts int[], x_next timestamptz[], x_since timestamptz[], x_errors text[], x_reasons smallint[], x_replays text[])
returns void language plpgsql volatile set enable_hashjoin = on as $fn$
begin
  insert into bellwire.retry as t
    (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, counted)
  select p_bindings[x.part], p_lane, x.seq, h.accepted_at, x.attempts, x.next_at, x.since, x.error, x.reason, x.replay,
    case when x.passed then p_flags[x.n::int] else x.seq > l.counted_from end
  from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles, x_attempts, x_next, x_since, x_errors, x_reasons, x_replays)
    with ordinality x(part, seq, passed, owes, settles, attempts, next_at, since, error, reason, replay, n)
  join bellwire.heads(p_lane, x_seqs) h on h.seq = x.seq
  left join bellwire.binding_lane l on l.binding = p_bindings[x.part] and l.lane = p_lane
  where x.owes and not x.settles and p_live[x.part] and (not x.passed or p_new[x.n::int])
  on conflict (binding, lane, seq) do update set attempts = excluded.attempts, next_at = excluded.next_at,
    since = excluded.since, error = excluded.error, reason = excluded.reason, replay = excluded.replay;
end $fn$;

-- What a flush says of places that the cursor had passed before it, and the debts that it begins. `x_`: a row per place;
-- `x_owes` with the debt's columns, `x_settles` its debt ends, `x_states` how it ends (null: it does not). `d_`: dead
-- letters, `d_places` the number of their `x_` row or 0. Answers what to add to the endings, five numbers per part.
create function bellwire.flush_exceptions(
  p_lane smallint, p_bindings int[], p_live boolean[],
  x_parts int[], x_seqs bigint[], x_passed boolean[], x_owes boolean[], x_settles boolean[], x_states smallint[],
  x_attempts int[], x_next timestamptz[], x_since timestamptz[], x_errors text[], x_reasons smallint[], x_replays text[],
  d_parts int[], d_places int[], d_seqs bigint[], d_died timestamptz[], d_first timestamptz[], d_attempts int[],
  d_errors text[], d_fingerprints text[], d_logs text[], d_sources text[], d_types text[], d_accepted timestamptz[],
  d_keys text[], d_ids text[], d_attributes text[], d_metas text[], d_data bytea[])
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
        reason = x.reason, replay = x.replay
      from unnest(x_parts, x_seqs, x_passed, x_owes, x_settles, x_attempts, x_next, x_since, x_errors, x_reasons, x_replays)
        with ordinality x(part, seq, passed, owes, settles, attempts, next_at, since, error, reason, replay, n)
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
      x_attempts, x_next, x_since, x_errors, x_reasons, x_replays);
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

-- Makes the function that flushes while generation `g` is open, and the indexes that its logs are found by.
--
-- A row of every array per part of the flush; `p_dones` are pairs (first, last), `p_done_counts` how many numbers each
-- part has of them; `p_ended` five numbers per part: first endings by state. Log rows: `l_parts` the part, `l_ends` ten
-- numbers per row, where its share of each of the ten arrays that follow ends; an empty share is stored as null.
--
-- Answers whether all of it was new. A part whose version is there already changes nothing; what is there may be another
-- flush.
create function bellwire.create_flush(g int) returns void language plpgsql volatile as $make$
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
  d_ids text[] default null, d_attributes text[] default null, d_metas text[] default null, d_data bytea[] default null)
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
      d_errors, d_fingerprints, d_logs, d_sources, d_types, d_accepted, d_keys, d_ids, d_attributes, d_metas, d_data);
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

-- Which of these flushes are not there, of those that were answered. All that are, and everything committed before
-- them, are durable when this call has been answered.
create function bellwire.confirm(p_lanes smallint[], p_bindings int[], p_vers bigint[])
returns table (lane smallint, binding int, ver bigint) language plpgsql volatile as $fn$
declare
  g int;
begin
  perform bellwire.commit_safely();
  perform pg_logical_emit_message(true, 'bellwire', 'flushes confirmed');
  for g in select q.gen from bellwire.generation q order by q.gen desc loop
    execute format(
      'select coalesce(array_agg(x.lane), ''{}''), coalesce(array_agg(x.binding), ''{}''), coalesce(array_agg(x.ver), ''{}'')
       from unnest($1, $2, $3) x(lane, binding, ver) where not exists (select 1 from bellwire.checkpoint_%s c
         where c.lane = x.lane and c.binding = x.binding and c.ver >= x.ver)', g)
      into p_lanes, p_bindings, p_vers using p_lanes, p_bindings, p_vers;
    exit when cardinality(p_lanes) = 0;
  end loop;
  return query select * from unnest(p_lanes, p_bindings, p_vers);
end $fn$;
