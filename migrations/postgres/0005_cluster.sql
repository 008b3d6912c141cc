-- Controllers and the lanes they own; bindings.
--
-- Locks of this file, in the order in which whoever needs several takes them: the declaration of bindings (class: the
-- table `binding`), then the fences of lanes in their order.

-- Refuses isolation levels under which a function does not see what was committed while it waited for a lock.
create function bellwire.check_isolation() returns void language plpgsql stable as $fn$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'BW000', message = 'the ledger needs the isolation level read committed';
  end if;
end $fn$;

-- Makes this transaction's commit wait for the disk, and with it for everything committed before, whatever the role's
-- defaults say.
create function bellwire.commit_safely() returns void language plpgsql volatile as $fn$
begin
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
end $fn$;

-- A sign of life. Answers the cluster of one moment; of the rows that the caller has read last in each of its lanes those
-- lanes where they are gone (a server took over that lacked them), and lanes that it took before another server took
-- over. Its own row is all that it waits for.
create function bellwire.heartbeat(
  p_id uuid, p_name text, p_version text, p_ttl_ms bigint, p_leaving boolean,
  p_seen_lanes smallint[], p_seen_gens int[], p_seen_firsts bigint[], p_seen_appends uuid[],
  out o_ids uuid[], out o_names text[], out o_versions text[], out o_since timestamptz[], out o_leaving boolean[],
  out o_epochs bigint[], out o_owners uuid[], out o_changes bigint, out o_rewound smallint[])
language plpgsql volatile as $fn$
begin
  perform bellwire.check_isolation();
  perform bellwire.commit_safely();
  insert into bellwire.controller as c (id, name, version, expires_at, leaving)
    values (p_id, p_name, p_version, clock_timestamp() + p_ttl_ms * interval '1 millisecond', p_leaving)
    on conflict (id) do update set name = excluded.name, version = excluded.version, leaving = excluded.leaving,
      since = case when c.expires_at > clock_timestamp() then c.since else clock_timestamp() end,
      expires_at = excluded.expires_at;
  delete from bellwire.controller where id in (
    select c.id from bellwire.controller c where c.expires_at < clock_timestamp() - interval '1 hour'
    for update skip locked);
  with alive as materialized (
    select c.* from bellwire.controller c where c.expires_at > clock_timestamp())
  select
    array(select a.id from alive a order by a.id), array(select a.name from alive a order by a.id),
    array(select a.version from alive a order by a.id), array(select a.since from alive a order by a.id),
    array(select a.leaving from alive a order by a.id),
    array(select l.epoch from bellwire.lane l order by l.lane),
    array(select a.id from bellwire.lane l left join alive a on a.id = l.owner order by l.lane),
    (select g.changes from bellwire.ledger g),
    array(select s.lane from unnest(p_seen_lanes, p_seen_gens, p_seen_firsts, p_seen_appends) s(lane, gen, first, append)
      where (s.gen > (select max(g.gen) from bellwire.generation g)
          or exists (select from bellwire.generation g where g.gen = s.gen))
        and not exists (select from bellwire.event_batch b
          where b.gen = s.gen and b.lane = s.lane and b.first_seq = s.first and b.append_id = s.append)
      union select l.lane from bellwire.lane l where l.owner = p_id and l.history <> bellwire.history()
      order by 1)
  into o_ids, o_names, o_versions, o_since, o_leaving, o_epochs, o_owners, o_changes, o_rewound;
end $fn$;

-- Takes a lane: the first of two calls, which fences its owner of before. Answers the new epoch, or null while another
-- controller that is alive has it. A controller that never gave a sign of life counts as alive for p_ttl_ms. Epochs given
-- before another server took over may be lost with the end of that history; none of them is given again.
create function bellwire.take_lane(p_controller uuid, p_lane smallint, p_ttl_ms bigint) returns bigint
language plpgsql volatile as $fn$
declare
  v_owner uuid;
  v_epoch bigint;
begin
  perform bellwire.check_isolation();
  -- Locked first, so that the next statement sees the controllers of whoever had it a moment ago.
  select l.owner into v_owner from bellwire.lane l where l.lane = p_lane for update;
  if v_owner <> p_controller
      and exists (select from bellwire.controller c where c.id = v_owner and c.expires_at > clock_timestamp()) then
    return null;
  end if;
  insert into bellwire.controller as c (id, name, version, expires_at)
    values (p_controller, p_controller::text, '', clock_timestamp() + p_ttl_ms * interval '1 millisecond')
    on conflict (id) do update set expires_at = excluded.expires_at, since = clock_timestamp()
    where c.expires_at <= clock_timestamp();
  update bellwire.lane l set owner = p_controller, taken_at = clock_timestamp(), history = bellwire.history(),
    epoch = l.epoch + case when l.history = bellwire.history() then 1 else 1000 end
    where l.lane = p_lane returning l.epoch into v_epoch;
  return v_epoch;
end $fn$;

-- The second call: waits for the last flush of the owner of before, and sees to it that it is on disk, since the new
-- owner builds on it. False when yet another controller has taken the lane meanwhile.
create function bellwire.hold_lane(p_lane smallint, p_epoch bigint) returns boolean language plpgsql volatile as $fn$
begin
  perform bellwire.check_isolation();
  perform bellwire.commit_safely();
  perform bellwire.fence(p_lane);
  update bellwire.lane set taken_at = clock_timestamp() where lane = p_lane and epoch = p_epoch and owner is not null
    and history = bellwire.history();
  return found;
end $fn$;

-- Gives a lane back; an epoch that is not the newest is ignored. No flush is under way under it afterwards.
create function bellwire.release_lane(p_lane smallint, p_epoch bigint) returns void language plpgsql volatile as $fn$
begin
  perform bellwire.check_isolation();
  perform bellwire.fence(p_lane);
  update bellwire.lane set owner = null, taken_at = null where lane = p_lane and epoch = p_epoch and owner is not null;
end $fn$;

-- Takes a controller out of the cluster and gives back what it owns.
create function bellwire.leave(p_controller uuid) returns void language plpgsql volatile as $fn$
declare
  v_lane smallint;
begin
  perform bellwire.check_isolation();
  for v_lane in select l.lane from bellwire.lane l where l.owner = p_controller order by l.lane loop
    perform bellwire.fence(v_lane);
    update bellwire.lane set owner = null, taken_at = null where lane = v_lane and owner = p_controller;
  end loop;
  delete from bellwire.controller where id = p_controller;
end $fn$;

-- The last place used in a lane. Its newest generation says where it begins, should it be empty.
create function bellwire.tail_of(p_lane smallint) returns bigint language plpgsql stable as $fn$
declare
  v_gen int;
  v bigint;
begin
  select max(g.gen) into v_gen from bellwire.generation g;
  select b.first_seq + b.count - 1 into v from bellwire.event_batch b
    where b.gen = v_gen and b.lane = p_lane order by b.first_seq desc limit 1;
  if not found then
    select s.first_seq - 1 into v from bellwire.lane_start s where s.gen = v_gen and s.lane = p_lane;
  end if;
  return v;
end $fn$;

-- The first place of a lane that holds a kept event accepted at a time or later, not beyond p_upto.
create function bellwire.first_since(p_lane smallint, p_since timestamptz, p_upto bigint) returns bigint
language plpgsql stable as $fn$
declare
  v_gen int;
  v_low bigint;
  v_high bigint;
  v_middle bigint;
  v_found bigint;
  v_row record;
begin
  for v_gen in select g.gen from bellwire.generation g order by g.gen loop
    select b.first_seq, b.appended_at into v_row from bellwire.event_batch b
      where b.gen = v_gen and b.lane = p_lane order by b.first_seq desc limit 1;
    continue when not found or v_row.appended_at < p_since;
    -- Time never goes back in a lane: rows up to v_low are too old, v_found and those above v_high are not.
    v_found := v_row.first_seq;
    v_high := v_found - 1;
    select b.first_seq - 1 into v_low from bellwire.event_batch b
      where b.gen = v_gen and b.lane = p_lane order by b.first_seq limit 1;
    while v_low < v_high loop
      v_middle := v_low + (v_high - v_low + 1) / 2;
      select b.first_seq, b.appended_at into v_row from bellwire.event_batch b
        where b.gen = v_gen and b.lane = p_lane and b.first_seq <= v_middle and b.first_seq > v_low
        order by b.first_seq desc limit 1;
      if found and v_row.appended_at >= p_since then
        v_found := v_row.first_seq;
        v_high := v_found - 1;
      else
        v_low := v_middle;
      end if;
    end loop;
    return case when v_found <= p_upto then v_found end;
  end loop;
  return null;
end $fn$;

-- Where a binding that is new begins in a lane. p_kind: 0 now, 1 earliest, 2 at a time, 3 at an address.
create function bellwire.start_mark(
  p_lane smallint, p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint) returns bigint
language plpgsql volatile as $fn$
declare
  -- Asked before the search, so that what arrives meanwhile lies behind it.
  v_tail bigint := bellwire.tail_of(p_lane);
begin
  return case
    when p_kind = 1 then 0
    when p_kind = 2 then coalesce(bellwire.first_since(p_lane, p_at, v_tail) - 1, v_tail)
    when p_kind = 3 and p_at_lane = p_lane then least(greatest(p_at_seq - 1, 0), v_tail)
    else v_tail
  end;
end $fn$;

-- The number of a source, given one if it is new.
create function bellwire.number_of_source(p_name text) returns int language plpgsql volatile as $fn$
declare
  v int;
begin
  select s.id into v from bellwire.source s where s.name = p_name;
  if not found then
    insert into bellwire.source (name) values (p_name) on conflict (name) do nothing;
    select s.id into strict v from bellwire.source s where s.name = p_name;
  end if;
  return v;
end $fn$;

create function bellwire.create_binding(
  p_name text, p_source int, p_function text, p_filter text, p_start text, p_now timestamptz,
  p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint) returns void
language plpgsql volatile as $fn$
declare
  v_id int;
  v_lane smallint;
  v_mark bigint;
begin
  insert into bellwire.binding (name, revision, start, active) values (p_name, 1, p_start, true) returning id into v_id;
  insert into bellwire.binding_revision values (v_id, 1, p_source, p_function, p_filter, p_now);
  for v_lane in select l.lane from bellwire.lane l order by l.lane loop
    v_mark := bellwire.start_mark(v_lane, p_kind, p_at, p_at_lane, p_at_seq);
    perform bellwire.open_account(v_id, v_lane, p_source, v_mark);
    insert into bellwire.checkpoint (gen, lane, binding, ver, at, mark, done, account, ended)
      select max(g.gen), v_lane, v_id, 0, p_now, v_mark, '{}', 1, '{0,0,0,0,0}' from bellwire.generation g;
  end loop;
end $fn$;

-- Gives a binding another source: what its cursor has not passed counts, and nothing of before. Under every fence.
create function bellwire.move_binding(p_binding int, p_source int) returns void language plpgsql volatile as $fn$
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
  delete from bellwire.ended_change where binding = p_binding;
  update bellwire.retry set counted = false where binding = p_binding and counted;
  update bellwire.dead set counted = false where binding = p_binding and counted;
end $fn$;

-- Makes the named bindings the active ones; see `Ledger::declare_bindings`.
create function bellwire.declare_bindings(
  p_names text[], p_sources text[], p_functions text[], p_filters text[], p_starts text[],
  p_kinds smallint[], p_ats timestamptz[], p_at_lanes int[], p_at_seqs bigint[], p_now timestamptz) returns void
language plpgsql volatile as $fn$
declare
  v_lanes smallint;
  v_changed boolean;
  v_moves boolean;
  n record;
begin
  perform bellwire.check_isolation();
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.binding'), 0);
  select l.lanes into v_lanes from bellwire.ledger l;
  for n in
    select d.at_lane from unnest(p_names, p_kinds, p_at_lanes) d(name, kind, at_lane)
      where d.kind = 3 and not d.at_lane between 1 and v_lanes
        and not exists (select from bellwire.binding b where b.name = d.name)
  loop
    raise exception using errcode = 'BW020',
      message = format('lane %s does not exist: the ledger has %s', n.at_lane, v_lanes);
  end loop;
  select exists (
    select from unnest(p_names, p_sources) d(name, source)
      join bellwire.binding b on b.name = d.name
      join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
      join bellwire.source s on s.id = r.source where s.name <> d.source) into v_moves;
  if v_moves then
    -- A flush works with the account that it knows, so none may be under way.
    perform bellwire.fence(l.lane) from (select lane from bellwire.lane order by lane) l;
  end if;
  update bellwire.binding set active = false where active and name <> all (p_names);
  v_changed := found;
  for n in
    select d.*, b.id, b.active, b.revision, r.source as old_source, r.function as old_function, r.filter as old_filter
      from unnest(p_names, p_sources, p_functions, p_filters, p_starts, p_kinds, p_ats, p_at_lanes, p_at_seqs)
        with ordinality d(name, source, function, filter, start, kind, at, at_lane, at_seq, o)
      left join bellwire.binding b on b.name = d.name
      left join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
      order by d.o
  loop
    v_changed := bellwire.declare_binding(n.id, n.active, n.revision, n.old_source, n.old_function, n.old_filter, n.name,
      bellwire.number_of_source(n.source), n.function, n.filter, n.start, p_now, n.kind, n.at, n.at_lane, n.at_seq)
      or v_changed;
  end loop;
  if v_changed then
    update bellwire.ledger set changes = changes + 1;
  end if;
end $fn$;

-- One of them: new, revised, or only active again. Says whether that changed anything.
create function bellwire.declare_binding(
  p_id int, p_active boolean, p_revision int, p_old_source int, p_old_function text, p_old_filter text,
  p_name text, p_source int, p_function text, p_filter text, p_start text, p_now timestamptz,
  p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint) returns boolean
language plpgsql volatile as $fn$
begin
  if p_id is null then
    perform bellwire.create_binding(p_name, p_source, p_function, p_filter, p_start, p_now,
      p_kind, p_at, p_at_lane, p_at_seq);
    return true;
  end if;
  if (p_old_source, p_old_function, p_old_filter) = (p_source, p_function, p_filter) then
    update bellwire.binding set active = true where id = p_id and not active;
    return found;
  end if;
  insert into bellwire.binding_revision values (p_id, p_revision + 1, p_source, p_function, p_filter, p_now);
  update bellwire.binding set active = true, revision = p_revision + 1 where id = p_id;
  if p_old_source <> p_source then
    perform bellwire.move_binding(p_id, p_source);
  end if;
  return true;
end $fn$;

-- Pauses a binding, or resumes it when p_at is null. False when there is none of this number.
create function bellwire.set_paused(p_binding int, p_at timestamptz, p_by text, p_reason text) returns boolean
language plpgsql volatile as $fn$
begin
  update bellwire.binding set paused_at = p_at, paused_by = p_by, paused_reason = p_reason where id = p_binding;
  if found then
    update bellwire.ledger set changes = changes + 1;
    return true;
  end if;
  return false;
end $fn$;
