-- The outbox: events that outcomes bring forth, appended by the call that writes the outcomes.
--
-- A flush that emits is a call of `outbox_<generation>`: the flush and the append of one generation in one transaction, so
-- that an outcome and what it sends stand or fall together. Locks, in the order of 0003_generations.sql: the appends of
-- the lanes that it emits into, ascending, then the fence of its own lane. Refusals: those of both, and
--   BW004  some events are there already by their dedup key; detail: the answer of `append_<generation>`
--   BW011  also when a part of it was flushed before: its events went out then

-- Makes the function that flushes and appends while generation `g` is open. Arguments: those of `flush_<g>` as far as it
-- needs them, `e_` those of `append_<g>` for one append without positions, then the exceptions of the flush. Answers as
-- `append_<g>` does.
create function bellwire.create_outbox(g int) returns void language plpgsql volatile as $make$
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
  d_ids text[] default null, d_attributes text[] default null, d_metas text[] default null, d_data bytea[] default null)
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
    d_fingerprints, d_logs, d_sources, d_types, d_accepted, d_keys, d_ids, d_attributes, d_metas, d_data);
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

-- Whoever makes or drops the functions of a generation does so with this one, too.
alter function bellwire.create_flush(int) rename to create_plain_flush;
create function bellwire.create_flush(g int) returns void language plpgsql volatile as $fn$
begin
  perform bellwire.create_plain_flush(g);
  perform bellwire.create_outbox(g);
end $fn$;

alter function bellwire.drop_generation(int, timestamptz) rename to drop_plain_generation;
create function bellwire.drop_generation(g int, p_before timestamptz, out o_state text, out o_events bigint)
language plpgsql volatile as $fn$
declare
  r record;
begin
  select * into o_state, o_events from bellwire.drop_plain_generation(g, p_before);
  if o_state = 'dropped' then
    for r in select p.oid::regprocedure::text as name from pg_proc p
        where p.pronamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass)
          and p.proname = 'outbox_' || g loop
      execute 'drop function ' || r.name;
    end loop;
  end if;
end $fn$;

-- The generations that are there have tables and the other functions already.
do $do$
declare
  v_gen int;
begin
  for v_gen in select substr(c.relname, 13)::int from pg_class c
      where c.relkind = 'r' and c.relname ~ '^event_batch_[0-9]+$'
        and c.relnamespace = (select relnamespace from pg_class where oid = 'bellwire.lane'::regclass) loop
    perform bellwire.create_outbox(v_gen);
  end loop;
end $do$;
