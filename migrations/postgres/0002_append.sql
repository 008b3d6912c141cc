-- The write path: founding a ledger, names and their numbers, and the function that appends, one per generation.

-- Classes of advisory locks, with the lane as the key: whoever appends to a lane, and whoever decides about its
-- deliveries. Taken from the numbers of two tables, so that two ledgers in one database never meet.
create function bellwire.append_class() returns int language sql stable as
$fn$ select ('bellwire.lane'::regclass::oid::bigint - 2147483648)::int $fn$;
create function bellwire.fence_class() returns int language sql stable as
$fn$ select ('bellwire.checkpoint'::regclass::oid::bigint - 2147483648)::int $fn$;

-- Which history the server's data has: its timeline, which grows when a standby takes over or a backup is restored, and
-- stays over restarts (the server's manual, 26.3.5). What was committed last in the one before may be missing, and places,
-- numbers and epochs given there be given again. 0 where the server does not say.
create function bellwire.history() returns int language plpgsql stable as $fn$
begin
  return ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int;
exception when others then
  return 0;
end $fn$;

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
  insert into bellwire.lane (lane, history) select n, bellwire.history() from generate_series(1, p_lanes) n;
  insert into bellwire.generation (gen) values (1);
  insert into bellwire.lane_start (gen, lane, first_seq) select 1, n, 1 from generate_series(1, p_lanes) n;
  perform bellwire.create_generation(1);
  return p_lanes;
end $fn$;

-- The numbers of sources, and of shards, given where they have none yet.
create function bellwire.number_sources(p_names text[]) returns table (o_name text, o_id int)
language plpgsql volatile as $fn$
begin
  insert into bellwire.source (name)
    select distinct n from unnest(p_names) n where not exists (select from bellwire.source s where s.name = n) order by n
    on conflict do nothing;
  return query select s.name, s.id from bellwire.source s where s.name = any(p_names);
end $fn$;
create function bellwire.number_shards(p_names text[]) returns table (o_name text, o_id int)
language plpgsql volatile as $fn$
begin
  insert into bellwire.shard (name)
    select distinct n from unnest(p_names) n where not exists (select from bellwire.shard s where s.name = n) order by n
    on conflict do nothing;
  return query select s.name, s.id from bellwire.shard s where s.name = any(p_names);
end $fn$;

-- Makes `append_<g>`, which commits a group of appends to generation g, whole or not at all. A refusal raises; the answer
-- is one array, which costs less than a row:
--   0, the moment of acceptance (microseconds since 1970), the first place in each lane: stored
--   1, which appends of the group (from 1): those are there already, nothing was written
--   2, which hash (from 1), lane and place of the first, and so on: those are remembered, nothing was written
--
-- What few appends have comes last and may be left out: an argument costs the server a little, also one that is null.
--
-- `p_retry`     an append of the group was sent before: appends without events are looked for too
-- `p_history`   the history in which the numbers that follow were learned
-- `p_appends`   the appends, `p_marks` those of them that store no event
-- `p_lanes`     ascending; `p_counts`: events in each; `p_parts`: for each lane, how many of each append
-- `p_known`     for each lane, from which place on an append of the group can be
-- events        in the order of the lanes; `p_sigs`: one per lane
-- positions     ascending by shard; `p_movers`: which append, from 1
-- `p_buckets`   the live dedup buckets, the newest last
-- `p_hashes`    with `p_hash_lane` (which of the lanes, from 1), `p_hash_offset` (which event in it, from 0) and the end
--               of the window
-- duplicates    with `p_dup_part` (which append, from 1) and the address of the first; a place not above 0 is an offset
--               in this very call
-- quarantine    with `p_q_part`
--
-- Lanes are locked first, and what is read is read by later statements, each with a snapshot of its own: a tail read
-- together with the lock, or under another isolation level, could be stale.
create function bellwire.create_append(g int) returns void language plpgsql volatile as $create$
begin
  execute format($make$
create function bellwire.append_%1$s(
  p_now timestamptz, p_retry boolean, p_history int, p_appends uuid[], p_marks uuid[],
  p_lanes smallint[], p_counts int[], p_parts int[], p_known bigint[],
  p_sources int[], p_types text[], p_ids text[], p_keys text[], p_attributes text[], p_metas text[], p_data bytea[],
  p_sigs bytea[],
  p_shards int[] default null, p_vers bigint[] default null, p_positions text[] default null,
  p_movers int[] default null,
  p_buckets int[] default null, p_hashes uuid[] default null, p_hash_lane smallint[] default null,
  p_hash_offset int[] default null, p_hash_until timestamptz[] default null,
  p_dup_part int[] default null, p_dup_ord int[] default null, p_dup_source int[] default null,
  p_dup_id text[] default null, p_dup_lane smallint[] default null, p_dup_seq bigint[] default null,
  p_q_part int[] default null, p_q_source int[] default null, p_q_reason text[] default null,
  p_q_bytes bytea[] default null, p_q_meta text[] default null)
returns bigint[] language plpgsql volatile as $append$
declare
  lanes   int := coalesce(cardinality(p_lanes), 0);
  appends int := cardinality(p_appends);
  newest  int := p_buckets[cardinality(p_buckets)];
  stale   boolean := false;
  moment  timestamptz := p_now;
  firsts  bigint[] := '{}';
  answer  bigint[];
  place   bigint;
  before  timestamptz;
  locked  boolean;
  ids     uuid[];
  counts  int[];
  first   int := 1;
  last    int;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'BW000', message = 'the ledger needs the isolation level READ COMMITTED';
  end if;
  if p_history <> bellwire.history() then
    raise exception using errcode = 'BW008', message = 'another server took over', detail = bellwire.history()::text;
  end if;
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  if lanes = 0 then
    perform pg_advisory_xact_lock_shared(bellwire.append_class(), 1);
  end if;
  -- An expression costs a fraction of a statement, and the next statement has a snapshot of its own all the same.
  for i in 1 .. lanes loop
    locked := pg_advisory_xact_lock(bellwire.append_class(), p_lanes[i]) is not null;
  end loop;
  if not exists (select from bellwire.generation where gen = %1$s and closed_at is null) then
    raise exception using errcode = 'BW001', message = 'the generation is closed';
  end if;

  for i in 1 .. lanes loop
    place := null;
    select t.first_seq + t.count, t.appended_at into place, before
      from bellwire.event_batch_%1$s t where t.lane = p_lanes[i] order by t.first_seq desc limit 1;
    if place is null then
      select s.first_seq into strict place from bellwire.lane_start s where s.gen = %1$s and s.lane = p_lanes[i];
      select t.appended_at into before
        from bellwire.event_batch t where t.lane = p_lanes[i] order by t.first_seq desc limit 1;
    end if;
    if p_known[i] > place then
      raise exception using errcode = 'BW007', message = 'the database went back', detail = p_lanes[i] || ' ' || place;
    end if;
    if p_known[i] < place then
      -- Here and below: a plan made while a table was small must not survive into the time when it is large.
      perform set_config('enable_seqscan', 'off', true);
      answer := answer || (
        select array_agg(array_position(p_appends, a)::bigint)
          from bellwire.event_batch_%1$s t, unnest(coalesce(t.part_ids, array[t.append_id])) a
          where t.lane = p_lanes[i] and t.first_seq >= p_known[i]
            and (t.append_id = any(p_appends) or t.part_ids && p_appends) and a = any(p_appends));
    end if;
    firsts[i] := place;
    moment := greatest(moment, before);
  end loop;
  if p_retry then
    answer := answer || (
      select array_agg(array_position(p_appends, m.append_id)::bigint)
        from bellwire.append_mark_%1$s m where m.append_id = any(p_appends));
  end if;
  if answer is not null then
    return 1::bigint || answer;
  end if;

  if p_hashes is not null then
    if newest is distinct from (select max(b.bucket) from bellwire.dedup_bucket b) then
      raise exception using errcode = 'BW003', message = 'a new dedup bucket was opened';
    end if;
    perform set_config('enable_seqscan', 'off', true);
    select array_agg(v.v order by h.o, v.n) filter (where d.until > p_now), coalesce(bool_or(d.until <= p_now), false)
      into answer, stale
      from unnest(p_hashes) with ordinality h (h, o)
      cross join lateral (
        select d.lane, d.seq, d.until from bellwire.dedup d
        where d.bucket = any(p_buckets) and d.h = h.h and (d.until > p_now or d.bucket = newest)
        order by d.until desc limit 1) d
      cross join lateral (values (1, h.o), (2, d.lane::bigint), (3, d.seq)) v (n, v);
    if answer is not null then
      return 2::bigint || answer;
    end if;
  end if;

  for i in 1 .. coalesce(cardinality(p_shards), 0) loop
    place := null;
    select s.ver into place from bellwire.source_position_%1$s s where s.shard = p_shards[i] order by s.ver desc limit 1;
    if coalesce(place, 0) <> p_vers[i] then
      raise exception using errcode = 'BW002', message = 'another position', detail = i || ' ' || coalesce(place, 0);
    end if;
    insert into bellwire.source_position_%1$s (gen, shard, ver, position, append_id)
      values (%1$s, p_shards[i], p_vers[i] + 1, p_positions[i], p_appends[p_movers[i]]);
  end loop;

  if p_hashes is not null then
    if stale then
      update bellwire.dedup d
        set lane = p_lanes[u.lane], seq = firsts[u.lane] + u.n, until = u.until
        from unnest(p_hashes, p_hash_lane, p_hash_offset, p_hash_until) u (h, lane, n, until)
        where d.bucket = newest and d.h = u.h and d.until <= p_now and u.until > p_now;
    end if;
    insert into bellwire.dedup (bucket, h, lane, seq, until)
      select newest, u.h, p_lanes[u.lane], firsts[u.lane] + u.n, u.until
        from unnest(p_hashes, p_hash_lane, p_hash_offset, p_hash_until) u (h, lane, n, until)
        where u.until > p_now
          and (not stale or not exists (select from bellwire.dedup d where d.bucket = newest and d.h = u.h))
        order by u.h;
  end if;

  for i in 1 .. lanes loop
    last := first + p_counts[i] - 1;
    ids := p_appends;
    counts := null;
    if appends > 1 then
      select array_agg(p_appends[n] order by n), array_agg(p_parts[(i - 1) * appends + n] order by n) into ids, counts
        from generate_series(1, appends) n where p_parts[(i - 1) * appends + n] > 0;
    end if;
    insert into bellwire.event_batch_%1$s (gen, lane, first_seq, count, append_id, part_ids, part_counts, appended_at,
        sources, types, ids, keys, attributes, metas, data, sig)
      values (%1$s, p_lanes[i], firsts[i], p_counts[i], ids[1],
        case when cardinality(ids) > 1 then ids end, case when cardinality(ids) > 1 then counts end, moment,
        case when lanes = 1 or cardinality(p_sources) = 1 then p_sources else p_sources[first:last] end,
        case when lanes = 1 or cardinality(p_types) = 1 then p_types else p_types[first:last] end,
        case when lanes = 1 then p_ids else p_ids[first:last] end,
        case when lanes = 1 then p_keys else p_keys[first:last] end,
        case when lanes = 1 then p_attributes else p_attributes[first:last] end,
        case when lanes = 1 then p_metas else p_metas[first:last] end,
        case when lanes = 1 then p_data else p_data[first:last] end,
        p_sigs[i]);
    first := last + 1;
  end loop;

  if p_marks is not null then
    insert into bellwire.append_mark_%1$s (gen, append_id, appended_at) select %1$s, m, moment from unnest(p_marks) m order by m;
  end if;
  if p_dup_ord is not null then
    insert into bellwire.duplicate_%1$s (gen, append_id, ord, at, source, id, lane, seq)
      select %1$s, p_appends[u.part], u.ord, moment, u.source, u.id, u.lane,
          case when u.seq > 0 then u.seq else firsts[array_position(p_lanes, u.lane)] - u.seq end
        from unnest(p_dup_part, p_dup_ord, p_dup_source, p_dup_id, p_dup_lane, p_dup_seq) u (part, ord, source, id, lane, seq);
  end if;
  if p_q_part is not null then
    insert into bellwire.quarantine (append_id, at, source, reason, bytes, meta)
      select p_appends[u.part], moment, u.source, u.reason, u.bytes, u.meta
        from unnest(p_q_part, p_q_source, p_q_reason, p_q_bytes, p_q_meta) u (part, source, reason, bytes, meta);
  end if;
  return array[0, (extract(epoch from moment) * 1000000)::bigint] || firsts;
end $append$ $make$, g);
end $create$;
