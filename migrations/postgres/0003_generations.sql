-- Generations: made ahead, opened, counted, read. How they leave: 0009_retention.sql.
--
-- Locks of both files, in the order in which whoever needs several takes them: the upkeep (class: the oid of the table
-- `generation`, key 1), the declaration of bindings, the appends of lanes in their order, the fences of lanes in their
-- order, then tables. Whoever waits for the locks of lanes gives up soon, so that traffic never waits for upkeep.

-- The class of advisory locks that belongs to a table of this ledger; another ledger in the database has other ones.
create function bellwire.lock_class(p_table regclass) returns int language sql immutable as $fn$
  select (p_table::oid::bigint - 2147483648)::int
$fn$;

-- Takes the append locks (class: `lane`) or the fences (class: `checkpoint`) of all lanes, or fails with 55P03 when that
-- takes longer than until p_until.
create function bellwire.lock_lanes(p_class regclass, p_until timestamptz) returns void language plpgsql volatile as $fn$
declare
  v_lane smallint;
begin
  for v_lane in select l.lane from bellwire.lane l order by l.lane loop
    perform set_config('lock_timeout',
      greatest(1, ceil(extract(epoch from p_until - clock_timestamp()) * 1000))::bigint::text, true);
    perform pg_advisory_xact_lock(bellwire.lock_class(p_class), v_lane);
  end loop;
end $fn$;

-- One at a time keeps the ledger in order. Waits for the other one for a moment, while it holds no other lock, or fails
-- with 55P03; where p_wait is false it says false instead.
create function bellwire.begin_upkeep(p_wait boolean) returns boolean language plpgsql volatile as $fn$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'BW000', message = 'the ledger needs the isolation level read committed';
  end if;
  if p_wait then
    perform set_config('lock_timeout', '2000', true);
    perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.generation'), 1);
    return true;
  end if;
  return pg_try_advisory_xact_lock(bellwire.lock_class('bellwire.generation'), 1);
end $fn$;

-- The parents of a generation's tables.
create function bellwire.generation_tables() returns text[] language sql immutable as $fn$
  select array['event_batch', 'append_mark', 'source_position', 'duplicate', 'checkpoint', 'delivery_log']
$fn$;

-- Makes the tables and functions of a generation, unless they are there. It is not open yet.
create function bellwire.create_generation(g int) returns boolean language plpgsql volatile as $fn$
declare
  v_table text;
  v_lz4 boolean := exists (
    select from pg_settings where name = 'default_toast_compression' and 'lz4' = any (enumvals));
  v_changes text;
begin
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.generation'), 2);
  if to_regclass('bellwire.event_batch_' || g) is not null then
    return false;
  end if;
  execute format($f$
    create table bellwire.event_batch_%1$s (like bellwire.event_batch including all,
      check (count >= 1), primary key (lane, first_seq));
    create table bellwire.append_mark_%1$s (like bellwire.append_mark including all, primary key (append_id));
    create table bellwire.source_position_%1$s (like bellwire.source_position including all, primary key (shard, ver));
    create table bellwire.duplicate_%1$s (like bellwire.duplicate including all, primary key (append_id, ord));
    create index duplicate_%1$s_by_place on bellwire.duplicate_%1$s (lane, seq, at);
    create index duplicate_%1$s_by_id on bellwire.duplicate_%1$s using hash (id);
    create table bellwire.checkpoint_%1$s (like bellwire.checkpoint including all, primary key (lane, binding, ver));
    create table bellwire.delivery_log_%1$s (like bellwire.delivery_log including all);
    alter table bellwire.event_batch_%1$s alter sig set storage main;
  $f$, g);
  foreach v_table in array bellwire.generation_tables() loop
    -- Statistics of arrays cost much and serve nothing; pages are frozen when they are first visited, because the table
    -- is never changed and soon dropped.
    select string_agg(format('alter %I set statistics 0', a.attname), ', ')
        || case when v_lz4 then string_agg(format(', alter %I set compression lz4', a.attname), '') else '' end
      into v_changes from pg_attribute a
      where a.attrelid = ('bellwire.' || v_table)::regclass and a.attnum > 0 and not a.attisdropped
        and a.attlen = -1;
    execute format('alter table bellwire.%s_%s set (autovacuum_freeze_min_age = 0)%s', v_table, g, ', ' || v_changes);
    execute format('alter table bellwire.%1$s attach partition bellwire.%1$s_%2$s for values in (%2$s)', v_table, g);
  end loop;
  perform bellwire.create_append(g);
  perform bellwire.create_flush(g);
  return true;
end $fn$;

-- Closes the open generation g and opens the next one, whose tables are there already. Appends wait for that moment.
-- False when g is not open. Fails with 55P03 when it would make appends wait for long.
create function bellwire.rotate(g int) returns boolean language plpgsql volatile as $fn$
begin
  perform bellwire.begin_upkeep(true);
  if not exists (select from bellwire.generation q where q.gen = g and q.closed_at is null) then
    return false;
  end if;
  perform bellwire.lock_lanes('bellwire.lane', clock_timestamp() + interval '80 milliseconds');
  update bellwire.generation set closed_at = clock_timestamp() where gen = g;
  insert into bellwire.generation (gen) values (g + 1);
  execute format($f$
    insert into bellwire.lane_start (gen, lane, first_seq)
      select %2$s, l.lane, coalesce(
        (select t.first_seq + t.count from bellwire.event_batch_%1$s t where t.lane = l.lane order by t.first_seq desc limit 1),
        (select s.first_seq from bellwire.lane_start s where s.gen = %1$s and s.lane = l.lane))
      from bellwire.lane l;
    insert into bellwire.source_position_%2$s (gen, shard, ver, position, append_id)
      select %2$s, p.shard, p.ver, p.position, p.append_id from bellwire.shard s cross join lateral (
        select t.* from bellwire.source_position_%1$s t where t.shard = s.id order by t.ver desc limit 1) p;
  $f$, g, g + 1);
  return true;
end $fn$;

-- Whether the open generation holds events, all of them accepted before a time.
create function bellwire.open_is_old(p_before timestamptz) returns boolean language plpgsql stable as $fn$
declare
  v boolean;
begin
  execute format('select max(x.at) < $1 from bellwire.lane l cross join lateral (select t.appended_at as at
      from bellwire.event_batch_%s t where t.lane = l.lane order by t.first_seq desc limit 1) x',
    (select max(q.gen) from bellwire.generation q)) into v using p_before;
  return coalesce(v, false);
end $fn$;

-- What upkeep looks at: bytes of the whole ledger and of the open generation, its number, its age in seconds, whether it
-- holds any event, and the same of the newest dedup bucket.
create function bellwire.sizes(
  out o_bytes bigint, out o_gen int, out o_gen_bytes bigint, out o_gen_age float8, out o_gen_used boolean,
  out o_bucket int, out o_bucket_bytes bigint, out o_bucket_age float8, out o_bucket_used boolean)
language plpgsql volatile as $fn$
begin
  select q.gen, extract(epoch from clock_timestamp() - q.opened_at) into o_gen, o_gen_age
    from bellwire.generation q order by q.gen desc limit 1;
  select b.bucket, extract(epoch from clock_timestamp() - b.opened_at) into o_bucket, o_bucket_age
    from bellwire.dedup_bucket b order by b.bucket desc limit 1;
  -- A table dropped meanwhile has no size.
  select coalesce(sum(z.bytes), 0), coalesce(sum(z.bytes) filter (where z.relname = any (
      select t || '_' || o_gen from unnest(bellwire.generation_tables()) t)), 0),
      coalesce(sum(z.bytes) filter (where z.relname = 'dedup_' || o_bucket), 0)
    into o_bytes, o_gen_bytes, o_bucket_bytes
    from (select c.relname, pg_total_relation_size(c.oid) as bytes from pg_class c
      where c.relkind = 'r' and c.relnamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass)) z;
  execute format('select exists (select from bellwire.event_batch_%s), exists (select from bellwire.dedup_%s)', o_gen, o_bucket)
    into o_gen_used, o_bucket_used;
end $fn$;

-- Tallies: how many events of a source a lane had accepted up to a place. A source without a row at a place that another
-- one has a row at had no event since its last row.
create index tally_by_place on bellwire.tally (lane, upto);

-- Writes the next tallies of a lane, over p_events events or p_rows rows; false when there are not as many beyond the last
-- ones, unless the rest of a closed generation is left.
create function bellwire.tally_lane(p_lane smallint, p_events bigint, p_rows int) returns boolean language plpgsql volatile as $fn$
declare
  v_after bigint := (select coalesce(max(t.upto), 0) from bellwire.tally t where t.lane = p_lane);
  r record;
  v_rows bigint;
  v_events bigint;
  v_upto bigint;
begin
  for r in select q.gen, q.closed_at from bellwire.lane_start s join bellwire.generation q using (gen)
      where s.lane = p_lane and s.gen >= coalesce((select max(b.gen) from bellwire.lane_start b
        join bellwire.generation using (gen) where b.lane = p_lane and b.first_seq <= v_after), 0) order by q.gen loop
    execute format('select count(*), coalesce(sum(count), 0), max(last) from (
        select t.count, t.first_seq + t.count - 1 as last,
          sum(t.count) over (order by t.first_seq) - t.count as before
        from bellwire.event_batch_%s t where t.lane = $1 and t.first_seq > $2 order by t.first_seq limit $3) x
      where x.before < $4', r.gen) into v_rows, v_events, v_upto using p_lane, v_after, p_rows, p_events;
    continue when v_rows = 0;
    if r.closed_at is null and v_events < p_events and v_rows < p_rows then
      return false;
    end if;
    execute format('insert into bellwire.tally (lane, source, upto, accepted, last_at)
      select $1, x.source, $3, sum(x.n) + coalesce((select t.accepted from bellwire.tally t
        where t.lane = $1 and t.source = x.source order by t.upto desc limit 1), 0), max(x.appended_at)
      from (
        select b.sources[1] as source, b.count as n, b.appended_at from bellwire.event_batch_%1$s b
          where b.lane = $1 and b.first_seq > $2 and b.first_seq <= $3 and cardinality(b.sources) = 1
        union all
        select u.source, 1, b.appended_at from bellwire.event_batch_%1$s b cross join unnest(b.sources) u(source)
          where b.lane = $1 and b.first_seq > $2 and b.first_seq <= $3 and cardinality(b.sources) > 1) x
      group by x.source', r.gen) using p_lane, v_after, v_upto;
    return true;
  end loop;
  return false;
end $fn$;

-- One step for every lane; how many lanes had one.
create function bellwire.tally_lanes(p_events bigint, p_rows int) returns int language plpgsql volatile as $fn$
begin
  if not bellwire.begin_upkeep(false) then
    return 0;
  end if;
  -- Losing the last of them costs nothing: they are written again.
  perform set_config('synchronous_commit', 'off', true);
  return (select count(*) from bellwire.lane l where bellwire.tally_lane(l.lane, p_events, p_rows));
end $fn$;

-- How many events of a source lie in one generation of a lane after a place, up to another one.
create function bellwire.count_in(p_gen int, p_lane smallint, p_source int, p_after bigint, p_upto bigint) returns bigint
language plpgsql stable as $fn$
declare
  v bigint;
begin
  execute format('select coalesce(sum(case
      when cardinality(b.sources) > 1 then (select count(*) from unnest(b.sources[
        greatest($3 - b.first_seq + 2, 1)::int : least($4 - b.first_seq + 1, b.count)::int]) u(source) where u.source = $2)
      when b.sources[1] = $2 then least(b.first_seq + b.count - 1, $4) - greatest(b.first_seq - 1, $3)
      else 0 end), 0)
    from bellwire.event_batch_%1$s b
    where b.lane = $1 and b.first_seq <= $4 and b.first_seq + b.count > $3 + 1
      and b.first_seq >= coalesce((select t.first_seq from bellwire.event_batch_%1$s t
        where t.lane = $1 and t.first_seq <= $3 + 1 order by t.first_seq desc limit 1), 0)', p_gen)
    into v using p_lane, p_source, p_after, p_upto;
  return v;
end $fn$;

-- How many events of a source a lane has accepted up to a place, ever. The place lies in a generation that is there, or
-- is the last one of any.
create function bellwire.accepted_upto(p_lane smallint, p_source int, p_seq bigint) returns bigint
language plpgsql stable as $fn$
declare
  v_after bigint := (select coalesce(max(t.upto), 0) from bellwire.tally t where t.lane = p_lane and t.upto <= p_seq);
  v_sum bigint := coalesce((select t.accepted from bellwire.tally t
    where t.lane = p_lane and t.source = p_source and t.upto <= p_seq order by t.upto desc limit 1), 0);
  r record;
begin
  if v_after >= p_seq then
    return v_sum;
  end if;
  for r in select s.gen, s.first_seq from bellwire.lane_start s join bellwire.generation using (gen)
      where s.lane = p_lane and s.first_seq <= p_seq order by s.gen desc loop
    v_sum := v_sum + bellwire.count_in(r.gen, p_lane, p_source, v_after, p_seq);
    exit when r.first_seq <= v_after + 1;
  end loop;
  return v_sum;
end $fn$;

-- When the last event of a source in a lane was accepted; null when there never was one.
create function bellwire.last_accepted(p_lane smallint, p_source int) returns timestamptz language plpgsql stable as $fn$
declare
  v_after bigint := (select coalesce(max(t.upto), 0) from bellwire.tally t where t.lane = p_lane);
  v_at timestamptz;
  r record;
begin
  for r in select s.gen, s.first_seq from bellwire.lane_start s join bellwire.generation using (gen)
      where s.lane = p_lane order by s.gen desc loop
    execute format('select b.appended_at from bellwire.event_batch_%s b
      where b.lane = $1 and b.first_seq > $2 and $3 = any (b.sources) order by b.first_seq desc limit 1', r.gen)
      into v_at using p_lane, v_after, p_source;
    if v_at is not null then
      return v_at;
    end if;
    exit when r.first_seq <= v_after + 1;
  end loop;
  return (select t.last_at from bellwire.tally t
    where t.lane = p_lane and t.source = p_source order by t.upto desc limit 1);
end $fn$;

-- Whether a batch may hold one of some words (ids or keys), by its signature: a Bloom filter whose bits
-- `(a + i * b) mod bits`, i from 0 to 3, are set for every word in it. The program computes a and b.
create function bellwire.may_hold(p_sig bytea, p_a bigint[], p_b bigint[]) returns boolean language plpgsql immutable as $fn$
declare
  v_bits bigint := length(p_sig) * 8;
  i int;
begin
  if p_sig is null then
    return true;
  end if;
  for i in 1 .. cardinality(p_a) loop
    if get_bit(p_sig, (p_a[i] % v_bits)::int) = 1 and get_bit(p_sig, ((p_a[i] + p_b[i]) % v_bits)::int) = 1
        and get_bit(p_sig, ((p_a[i] + 2 * p_b[i]) % v_bits)::int) = 1
        and get_bit(p_sig, ((p_a[i] + 3 * p_b[i]) % v_bits)::int) = 1 then
      return true;
    end if;
  end loop;
  return false;
end $fn$;

-- Events by place, a row each; no row for those that are gone. The texts are as they are stored.
create function bellwire.events_at(p_lane smallint, p_seqs bigint[])
returns table (seq bigint, accepted_at timestamptz, source int, type text, id text, key text, attributes text, meta text, data bytea)
language plpgsql stable as $fn$
declare
  r record;
  v_seqs bigint[];
begin
  for r in select q.gen, s.first_seq, lead(s.first_seq) over (order by q.gen) as after
      from bellwire.generation q join bellwire.lane_start s on s.gen = q.gen and s.lane = p_lane loop
    v_seqs := array(select distinct x from unnest(p_seqs) x where x >= r.first_seq and (r.after is null or x < r.after));
    continue when cardinality(v_seqs) = 0;
    return query execute format('
      select b.first_seq + e.o - 1, b.appended_at, coalesce(e.source, b.sources[1]), coalesce(e.type, b.types[1]), e.id, e.key,
          e.attributes, e.meta, e.data
        from (select distinct t.first_seq from unnest($2) x cross join lateral (
          select k.first_seq from bellwire.event_batch_%1$s k
            where k.lane = $1 and k.first_seq <= x order by k.first_seq desc limit 1) t) f
        join bellwire.event_batch_%1$s b on b.lane = $1 and b.first_seq = f.first_seq
        cross join lateral unnest(b.sources, b.types, b.ids, b.keys, b.attributes, b.metas, b.data)
          with ordinality e(source, type, id, key, attributes, meta, data, o)
        where b.first_seq + e.o - 1 = any ($2)', r.gen) using p_lane, v_seqs;
  end loop;
  return query select e.seq, e.accepted_at, e.source, e.type, e.id, e.key, e.attributes, e.meta, e.data
    from bellwire.restored_event e where e.lane = p_lane and e.seq = any (p_seqs);
end $fn$;

-- One event by its address.
create function bellwire.event_at(p_lane int, p_seq bigint)
returns table (lane smallint, seq bigint, accepted_at timestamptz, source text, type text, id text, key text, attributes text,
  meta text, data bytea) language sql stable as $fn$
  select p_lane::smallint, e.seq, e.accepted_at, s.name, e.type, e.id, e.key, e.attributes, e.meta, e.data
    from bellwire.events_at(p_lane::smallint, array[p_seq]) e join bellwire.source s on s.id = e.source
$fn$;

-- Places of a stretch of a lane whose events meet the conditions (null: any), in the order asked, at most p_limit. p_a and
-- p_b are the hashes of the ids, or else of the key, for `may_hold`.
create function bellwire.find(
  p_lane smallint, p_first bigint, p_last bigint, p_ascending boolean, p_limit int,
  p_source int, p_type text, p_ids text[], p_key text, p_a bigint[], p_b bigint[])
returns table (seq bigint, at timestamptz) language plpgsql stable as $fn$
declare
  v_gens int[] := array(select q.gen from bellwire.generation q order by case when p_ascending then q.gen else -q.gen end);
  v_gen int;
  v_order text := case when p_ascending then 'asc' else 'desc' end;
  v_left int := p_limit;
  v_from int;
  v_to int;
  v_plain boolean;
  b record;
begin
  foreach v_gen in array v_gens loop
    for b in execute format('select t.first_seq, t.count, t.appended_at, t.sources, t.types,
          case when $5 is not null then t.ids end as ids, case when $6 is not null then t.keys end as keys
        from bellwire.event_batch_%1$s t
        where t.lane = $1 and t.first_seq <= $3 and t.first_seq + t.count > $2
          and t.first_seq >= coalesce((select k.first_seq from bellwire.event_batch_%1$s k
            where k.lane = $1 and k.first_seq <= $2 order by k.first_seq desc limit 1), 0)
          and ($4 is null or $4 = any (t.sources)) and ($7 is null or $7 = any (t.types))
          and (t.sig is null or $8 is null or bellwire.may_hold(t.sig, $8, $9))
          and ($5 is null or $5 && t.ids) and ($6 is null or $6 = any (t.keys))
        order by t.first_seq %2$s', v_gen, v_order)
      using p_lane, p_first, p_last, p_source, p_ids, p_key, p_type, p_a, p_b loop
      v_from := greatest(p_first - b.first_seq + 1, 1);
      v_to := least(p_last - b.first_seq + 1, b.count);
      v_plain := p_ids is null and p_key is null and (p_source is null or cardinality(b.sources) = 1)
        and (p_type is null or cardinality(b.types) = 1);
      if v_plain and p_ascending then
        return query select b.first_seq + n - 1, b.appended_at
          from generate_series(v_from, least(v_to, v_from + v_left - 1)) n order by n;
      elsif v_plain then
        return query select b.first_seq + n - 1, b.appended_at
          from generate_series(greatest(v_from, v_to - v_left + 1), v_to) n order by n desc;
      else
        return query select b.first_seq + e.o - 1, b.appended_at
          from unnest(b.sources, b.types, b.ids, b.keys) with ordinality e(source, type, id, key, o)
          where e.o between v_from and v_to
            and (p_source is null or coalesce(e.source, b.sources[1]) = p_source)
            and (p_type is null or coalesce(e.type, b.types[1]) = p_type)
            and (p_ids is null or e.id = any (p_ids)) and (p_key is null or e.key = p_key)
          order by case when p_ascending then e.o else -e.o end limit v_left;
      end if;
      get diagnostics v_to = row_count;
      v_left := v_left - v_to;
      if v_left <= 0 then
        return;
      end if;
    end loop;
  end loop;
end $fn$;
