-- Of two appends at once with a dedup key whose window is over, one stores its event and the other one's is a duplicate: only
-- rows that this very append took over are left out of what it adds, so that a row that a neighbour took over, or added,
-- is met as one of a fresh key would be (23505), and the append is sent again.

-- Makes `append_<g>`; see 0002_append.sql.
create or replace function bellwire.create_append(g int) returns void language plpgsql volatile as $create$
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

  -- Before the hashes: who sees the position that a neighbour moved sees the neighbour's hashes too.
  for i in 1 .. coalesce(cardinality(p_shards), 0) loop
    if p_shards[i] = p_shards[i - 1] then
      place := p_vers[i - 1] + 1;
    else
      place := null;
      select s.ver into place from bellwire.source_position_%1$s s where s.shard = p_shards[i] order by s.ver desc limit 1;
    end if;
    if coalesce(place, 0) <> p_vers[i] then
      raise exception using errcode = 'BW002', message = 'another position', detail = i || ' ' || coalesce(place, 0);
    end if;
  end loop;
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
    insert into bellwire.source_position_%1$s (gen, shard, ver, position, append_id)
      values (%1$s, p_shards[i], p_vers[i] + 1, p_positions[i], p_appends[p_movers[i]]);
  end loop;

  if p_hashes is not null then
    if stale then
      -- In one order, so that two appends that share several such keys do not wait for each other.
      perform from bellwire.dedup d where d.bucket = newest and d.h = any (p_hashes) and d.until <= p_now
        order by d.h for update;
      update bellwire.dedup d
        set lane = p_lanes[u.lane], seq = firsts[u.lane] + u.n, until = u.until
        from unnest(p_hashes, p_hash_lane, p_hash_offset, p_hash_until) u (h, lane, n, until)
        where d.bucket = newest and d.h = u.h and d.until <= p_now and u.until > p_now;
    end if;
    insert into bellwire.dedup (bucket, h, lane, seq, until)
      select newest, u.h, p_lanes[u.lane], firsts[u.lane] + u.n, u.until
        from unnest(p_hashes, p_hash_lane, p_hash_offset, p_hash_until) u (h, lane, n, until)
        where u.until > p_now
          and (not stale or not exists (select from bellwire.dedup d where d.bucket = newest and d.h = u.h
            and d.lane = p_lanes[u.lane] and d.seq = firsts[u.lane] + u.n))
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

-- The generations that are there.
do $do$
declare
  r record;
begin
  for r in select p.oid::regprocedure::text as name, substr(p.proname, 8)::int as gen from pg_proc p
      where p.pronamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass)
        and p.proname ~ '^append_[0-9]+$' loop
    execute 'drop function ' || r.name;
    perform bellwire.create_append(r.gen);
  end loop;
end $do$;
