-- What operators do to single deliveries: redrive, discard, replay; and requests refused at the door.
--
-- Each verb is one call under the fences of its lanes, so that no flush is under way in them. It leaves checkpoints alone:
-- what it changes in the accounts is in `ended_change`. Refusal: BW020 unknown binding.

-- The fence locks of several lanes, ascending, and the lock of operators among each other: the row that counts changes.
create function bellwire.operate_on(p_lanes smallint[]) returns void language plpgsql volatile as $fn$
declare
  v smallint;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'BW000', message = 'the ledger needs READ COMMITTED transactions';
  end if;
  perform bellwire.commit_safely();
  for v in select distinct l from unnest(p_lanes) l order by l loop
    perform bellwire.fence(v);
  end loop;
  update bellwire.ledger set changes = changes + 1;
end $fn$;

-- Moves the account of a binding: so many more, or fewer, deliveries stand ended in this state.
create function bellwire.add_ended(p_binding int, p_state int, p_by bigint) returns void language sql volatile as $fn$
  insert into bellwire.ended_change as t (binding, state, count) select p_binding, p_state, p_by where p_by <> 0
  on conflict (binding, state) do update set count = t.count + excluded.count
$fn$;

-- Dead letters back into the debts; answers how many there were. An event that is gone comes back from its copy: it is
-- found by its address, and no other binding meets it.
create function bellwire.redrive(p_bindings int[], p_lanes smallint[], p_seqs bigint[], p_now timestamptz) returns bigint
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
    insert into bellwire.retry (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, counted)
    values (d.binding, d.lane, d.seq, d.accepted_at, 0, p_now, p_now, d.error, 1, null, d.counted)
    on conflict (binding, lane, seq) do update set attempts = 0, next_at = p_now, since = p_now, error = excluded.error,
      reason = 1, replay = null, counted = excluded.counted;
    moved := moved + 1;
  end loop;
  return moved;
end $fn$;

-- Ends debts or dead letters as discarded, logged while the event is kept; answers how many there were. `p_error`: the
-- reason as JSON. The lines belong to the newest flush so far.
create function bellwire.discard(p_bindings int[], p_lanes smallint[], p_seqs bigint[], p_now timestamptz, p_error text)
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
      returning t.counted, t.replay into v_counted, v_replay;
    if not found then
      v_replay := null;
      delete from bellwire.dead t where t.binding = r.binding and t.lane = r.lane and t.seq = r.seq
        returning t.counted into v_counted;
      continue when not found;
      if v_counted then
        perform bellwire.add_ended(r.binding, 4, -1);
      end if;
    end if;
    if v_counted then
      perform bellwire.add_ended(r.binding, 5, 1);
    end if;
    insert into bellwire.delivery_log (gen, lane, binding, block, ver, at, offsets, outcomes, attempts, started, ms,
      revisions, errors, replays)
    select (select max(gen) from bellwire.generation), r.lane, r.binding, r.seq / 4096, c.ver, p_now,
      array[(r.seq % 4096)::smallint], '{5}', '{0}', '{0}', '{0}', array[b.revision], array[p_error],
      case when v_replay is not null then array[v_replay] end
    from bellwire.binding b, bellwire.newest_checkpoint(r.lane, r.binding) c, bellwire.heads(r.lane, array[r.seq]) h
    where b.id = r.binding;
    ended := ended + 1;
  end loop;
  return ended;
end $fn$;

-- Stores a replay and the debts it enqueues; answers how many debts were new. A version that is not above the stored one
-- changes nothing.
create function bellwire.save_replay(
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
    insert into bellwire.retry (binding, lane, seq, accepted_at, attempts, next_at, since, error, reason, replay, counted)
    select distinct on (x.seq) p_binding, r.lane, x.seq, h.accepted_at, x.attempts, x.next_at, x.since, x.error, x.reason,
      x.replay, v_counted[q.n::int]
    from unnest(v_seqs) with ordinality q(seq, n)
    join unnest(o_lanes, o_seqs, o_attempts, o_next, o_since, o_errors, o_reasons, o_replays) with ordinality
      x(lane, seq, attempts, next_at, since, error, reason, replay, m) on x.lane = r.lane and x.seq = q.seq
    join bellwire.heads(r.lane, v_seqs) h on h.seq = q.seq
    order by x.seq, x.m;
    get diagnostics n = row_count;
    added := added + n;
  end loop;
  return added;
end $fn$;

-- Adds a refused request to its row of the hour. Beyond a thousand rows the rest is one sum, so that a stranger who tries
-- many paths fills no disk.
create function bellwire.note_refusal(p_hour bigint, p_source text, p_reason text, p_count bigint, p_at timestamptz, p_peer text)
returns void language plpgsql volatile as $fn$
declare
  v_source text := p_source;
begin
  perform 1 from bellwire.refusal r where r.hour = p_hour and r.source = p_source and r.reason = p_reason;
  if not found and (select count(*) from bellwire.refusal r where r.hour = p_hour) >= 1000 then
    v_source := '(others)';
  end if;
  insert into bellwire.refusal as t (hour, source, reason, count, last_at, last_peer)
  values (p_hour, v_source, p_reason, p_count, p_at, p_peer)
  on conflict (hour, source, reason) do update set count = t.count + excluded.count,
    last_peer = case when excluded.last_at >= t.last_at then excluded.last_peer else t.last_peer end,
    last_at = greatest(t.last_at, excluded.last_at);
end $fn$;
